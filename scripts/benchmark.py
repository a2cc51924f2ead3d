"""What explaining costs, as multiples of the plain forward, beside the libraries people know; one run, the same work.

    pip install -e ".[bench]"
    python scripts/benchmark.py                 # table and chart into docs/, CPU or GPU as there is one
    python scripts/benchmark.py --growth        # how cost grows with images, words and grid, too
    python scripts/benchmark.py --bundled --photos val.parquet    # the bundled models, into docs/bundled-cost.md
    python scripts/benchmark.py --pipeline      # GPU: 1,000 images x 12 words against the encoder's plain compiled forward

Every cell is measured in a process of its own: operations counted by torch, time as the median ratio of work and plain forward
run in turn, memory as the process's peak above that of a process that runs the plain forward alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "benchmark"))
ENOUGH = 20.0
"""Seconds of one piece of work after which it is not repeated."""


def clock(work: Callable[[], Any], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_cell(given: argparse.Namespace) -> dict[str, Any]:
    """Ratios of one library on one case to the plain forward, and the agreement of its maps with ours."""
    import torch
    from bench_work import agreement, case, explained, plain
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(given.threads)
    work = case(given.case, given.device)
    run, forward = explained(given.package, work), lambda: plain(work)
    with FlopCounterMode(display=False) as plainly:
        forward()
    with FlopCounterMode(display=False) as counter:
        maps = run()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < given.repeat and sum(b for _, b in pairs) < ENOUGH:
        pairs.append((clock(forward, given.device), clock(run, given.device)))
    found = {
        "title": work.title,
        "flops": counter.get_total_flops() / plainly.get_total_flops(),
        "time": statistics.median(b / a for a, b in pairs),
        "plain_seconds": statistics.median(a for a, _ in pairs),
    }
    if given.package != "mmgradcam":
        found["agreement"] = agreement(work.ours(), maps)
    return found


def measure_wall(given: argparse.Namespace) -> dict[str, Any]:
    """The time ratio alone, with all threads."""
    import torch
    from bench_work import case, explained, plain

    torch.set_num_threads(given.threads)
    work = case(given.case, given.device)
    run, forward = explained(given.package, work), lambda: plain(work)
    forward()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < given.repeat + 1 and sum(b for _, b in pairs) < ENOUGH:
        pairs.append((clock(forward, given.device), clock(run, given.device)))
    return {"time": statistics.median(b / a for a, b in pairs[1:] or pairs)}


def measure_memory(given: argparse.Namespace) -> dict[str, Any]:
    """Peak bytes of a process that does the work once, or the plain forward alone (package "plain")."""
    import torch
    from bench_work import case, explained, plain

    torch.set_num_threads(given.threads)
    work = case(given.case, given.device)
    run = (lambda: plain(work)) if given.package == "plain" else explained(given.package, work)
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return {"bytes": torch.cuda.max_memory_allocated()}
    import resource

    run()
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def measure_trap(given: argparse.Namespace) -> dict[str, Any]:
    """How each library's maps agree with the true ones where an in-place ReLU overwrites the layer."""
    from bench_work import LIBRARIES, agreement, explained, trap

    found = {}
    for library in LIBRARIES:
        work, true = trap()
        try:
            found[library] = agreement(true, explained(library, work)())
        except Exception as error:
            found[library] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    return found


def measure_growth(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak bytes of one amount of work: images, words or grid."""
    import resource

    import torch
    from bench_work import WORDS, Trunk, Vocabulary

    from mmgradcam import explain, gradcam
    from mmgradcam.images.pictures import Preprocess
    from mmgradcam.tasks import Captioning
    from mmgradcam.tasks.nets.captioners import LSTMCaptioner

    torch.set_num_threads(given.threads)
    what, _, amount = given.case.partition("=")
    amounts = {"images": 1, "words": 12, "grid": 7, what: int(amount)}
    torch.manual_seed(0)
    encoder = Trunk().eval() if what != "grid" else torch.nn.Conv2d(3, 512, 16, 16)
    side = 224 if what != "grid" else 16 * amounts["grid"]
    vocabulary = Vocabulary(WORDS)
    task = Captioning(
        encoder, LSTMCaptioner(len(vocabulary), 512, width=512).eval(), vocabulary, Preprocess((side, side)), longest=70
    )
    images = torch.randn(amounts["images"], 3, side, side)
    caption = " ".join(WORDS[: amounts["words"]])
    explain(task, images[:1], method=gradcam, caption=" ".join(WORDS[:2]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < ENOUGH:
        seconds.append(clock(lambda: explain(task, images, method=gradcam, caption=caption), "cpu"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": statistics.median(seconds), "bytes": peak - before}


def measure_pipeline(given: argparse.Namespace) -> dict[str, Any]:
    """Images per second of explaining 12 words of each of many images, and of the encoder's compiled forward alone."""
    import torch
    from bench_work import CAPTION, WORDS, Trunk, Vocabulary
    from torch.profiler import ProfilerActivity, profile

    from mmgradcam import explain, gradcam
    from mmgradcam.images.pictures import Preprocess
    from mmgradcam.tasks import Captioning
    from mmgradcam.tasks.nets.captioners import LSTMCaptioner

    torch.manual_seed(0)
    encoder = Trunk().eval().to("cuda", memory_format=torch.channels_last)
    compiled = torch.compile(encoder, mode="max-autotune")
    vocabulary = Vocabulary(WORDS)
    head = LSTMCaptioner(len(vocabulary), 512, width=512).eval().cuda()
    task = Captioning(compiled, head, vocabulary, Preprocess((224, 224)))
    images = torch.randn(given.images, 3, 224, 224).pin_memory()
    caption = " ".join(CAPTION)

    def batches() -> Any:
        for at in range(0, len(images), given.batch):
            yield images[at : at + given.batch].to("cuda", non_blocking=True, memory_format=torch.channels_last)

    def forward() -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            for batch in batches():
                compiled(batch)

    def explaining() -> None:
        for batch in batches():
            explain(task, batch, method=gradcam, caption=caption, autocast=torch.bfloat16, batch=given.batch)

    forward(), explaining()
    torch.cuda.reset_peak_memory_stats()
    rates = [(given.images / clock(forward, "cuda"), given.images / clock(explaining, "cuda")) for _ in range(given.repeat)]
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        explaining()
    print(profiled.key_averages().table(sort_by="cuda_time_total", row_limit=5), file=sys.stderr)
    plain_rate, rate = (statistics.median(r) for r in zip(*rates, strict=True))
    return {
        "plain_images_per_s": plain_rate, "images_per_s": rate, "share": rate / plain_rate, "maps_per_s": rate * len(CAPTION),
        "bytes": torch.cuda.max_memory_allocated(),
    }  # fmt: skip


def measure_bundled(given: argparse.Namespace) -> dict[str, Any]:
    """Cost of explaining with one bundled model."""
    from bundled_cost import cost

    return cost(given.case, given.photos, given.encoder, given.threads, given.repeat)


MEASURES = {
    "bundled": measure_bundled,
    "cell": measure_cell, "wall": measure_wall, "memory": measure_memory, "trap": measure_trap, "growth": measure_growth, "pipeline": measure_pipeline,
}  # fmt: skip


def apart(measure: str, given: argparse.Namespace, **changed: Any) -> Any:
    """Measures in a process of its own."""
    settings = {**vars(given), **changed, "measure": measure}
    names = ("measure", "case", "package", "device", "threads", "repeat", "images", "batch", "photos", "encoder")
    command = [sys.executable, __file__, *(f"--{k}={settings[k]}" for k in names if settings.get(k) is not None)]
    env = {**os.environ, "OMP_NUM_THREADS": str(settings["threads"])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode:
        return {"failed": done.returncode}
    return json.loads(done.stdout.splitlines()[-1])


def compare(given: argparse.Namespace) -> dict[str, Any]:
    from bench_work import CASES, LIBRARIES

    found: dict[str, Any] = {}
    for name in CASES if given.only is None else given.only:
        base: dict[str, Any] = {}
        for library in LIBRARIES:
            if name == "answer" and library in ("pytorch-grad-cam", "torchcam"):
                continue  # neither gives importances of words
            if f"{name}/{library}" in given.skip:
                continue
            kept = given.keep / given.device / f"{name}-{library}.json"
            if kept.exists():
                found.setdefault(name, {})[library] = json.loads(kept.read_text())
                continue
            base = base or apart("memory", given, case=name, package="plain")
            one = apart("cell", given, case=name, package=library, threads=1)
            one["wall"] = apart("wall", given, case=name, package=library).get("time")
            used = apart("memory", given, case=name, package=library)
            if "bytes" in used and "bytes" in base:
                one["memory"] = (used["bytes"] - base["bytes"]) / 2**20
            if "failed" not in one:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(one))
            found.setdefault(name, {})[library] = one
            print(name, library, json.dumps(one), file=sys.stderr, flush=True)
    return found


def import_cost(repeat: int) -> float:
    """Time of importing what every script imports, as a multiple of importing torch alone."""
    codes = ("import torch", "from mmgradcam import explain, gradcam; from mmgradcam.tasks import load")

    def seconds(code: str) -> float:
        return clock(lambda: subprocess.run([sys.executable, "-c", code], check=True), "cpu")

    for code in codes:
        seconds(code)
    return statistics.median(seconds(codes[1]) / seconds(codes[0]) for _ in range(repeat))


def machine(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def table(found: dict[str, Any], trapped: dict[str, Any], given: argparse.Namespace) -> str:
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    lines = [
        f"Multiples of the plain forward on the same pictures; {machine(given.device)}, {datetime.date.today()}, torch {of('torch')}, "
        f"pytorch-grad-cam {of('grad-cam')}, captum {of('captum')}, torchcam {of('torchcam')}.",
        "",
        "| work | library | operations | time, one thread | wall time | memory above it, MiB | maps agree with ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for by in found.values():
        for i, (library, one) in enumerate(by.items()):
            if "failed" in one:
                wall, memory = (f"{one[k]:.{d}f}" if one.get(k) is not None else "" for k, d in (("wall", 2), ("memory", 0)))
                lines.append(f"|  | {library} | not counted: out of memory under the counter | | {wall} | {memory} | |")
                continue
            agrees = f"{one['agreement']:.4f}" if "agreement" in one else ""
            memory = f"{one['memory']:.0f}" if "memory" in one else ""
            lines.append(
                f"| {one['title'] if i == 0 else ''} | {library} | {one['flops']:.2f} | {one['time']:.2f} | {one['wall']:.2f} | {memory} | {agrees} |"
            )
    if given.skip:
        lines += ["", f"Left out, for the time it takes: {', '.join(given.skip)}."]
    lines += [
        "",
        "Where an in-place ReLU overwrites the layer, maps agree with the true ones by:",
        "",
        "| library | correlation |",
        "| --- | --- |",
    ]
    lines += [f"| {library} | {value if isinstance(value, str) else f'{value:.4f}'} |" for library, value in trapped.items()]
    lines += [
        "",
        f"Importing `explain`, a method and `load` takes {import_cost(given.repeat):.2f} times as long as importing torch alone.",
    ]
    return "\n".join(lines) + "\n"


COLORS = {"mmgradcam": "#c2185b", "pytorch-grad-cam": "#7986cb", "captum": "#4db6ac", "torchcam": "#ffb74d"}


def chart(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 0.34 * sum(map(len, found.values())) + 1.4), layout="constrained")
    at, ticks = 0.0, []
    for by in found.values():
        ticks.append((at - 0.4 * (len(by) - 1) / 1, next(iter(by.values())).get("title", "")))
        for library, one in by.items():
            if "time" in one:
                axes.barh(at, one["time"], height=0.72, color=COLORS[library], label=library)
                axes.text(one["time"] * 1.04, at, f"{one['time']:.2f}", va="center", fontsize=11)
            at -= 0.8
        at -= 0.6
    axes.axvline(1, color="#444", lw=1)
    axes.set_xscale("log")
    axes.set_yticks([t for t, _ in ticks], [name for _, name in ticks], fontsize=11)
    axes.set_xlabel("one-thread time, multiples of the plain forward (log scale)", fontsize=12)
    names = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(names.values(), names.keys(), fontsize=11, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12, y=0.01)
    figure.savefig(path, dpi=110)


GROWTH = {"images": [1, 2, 4, 8, 16, 32, 64, 128, 256], "words": [1, 2, 4, 8, 16, 32, 64], "grid": [7, 14, 28, 42, 64]}


def growth(given: argparse.Namespace, path: Path) -> dict[str, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {what: {n: apart("growth", given, case=f"{what}={n}") for n in amounts} for what, amounts in GROWTH.items()}
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    names = {"images": "images, 12 words each", "words": "words of one caption", "grid": "cells along a side of the grid"}
    for column, (what, by) in enumerate(found.items()):
        for row, (key, unit, scale) in enumerate((("seconds", "seconds", 1.0), ("bytes", "MiB above one image", 2**-20))):
            axes[row, column].plot(list(by), [one[key] * scale for one in by.values()], "o-", color=COLORS["mmgradcam"])
            axes[row, column].set_xlabel(names[what], fontsize=11)
            axes[row, column].set_ylabel(unit, fontsize=11)
            axes[row, column].set_ylim(bottom=0)
            axes[row, column].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    return found


def bundled(given: argparse.Namespace) -> str:
    """Tables of the bundled models, with one thread and with two."""
    from bundled_cost import NAMES, table

    parts = [f"{machine(given.device)}, {datetime.date.today()}; medians of {given.repeat} runs in turn."]
    for threads, title in ((1, "one thread"), (2, "two threads")):
        found = [(name, apart("bundled", given, case=name, threads=threads)) for name in given.only or NAMES]
        parts.append(f"## With {title}\n\n{table([(name, one) for name, one in found if 'failed' not in one])}")
    return "\n\n".join(parts)


ABOUT_BUNDLED = """# What explaining with the bundled models costs

`python scripts/benchmark.py --bundled --photos val.parquet`. Explaining all words of a generated caption, or the answer to a question,
as multiples of encoding the picture and answering (captions by the model's own beam search), picture by picture, in
time and in FLOPs (multiplications of matrices and convolutions; LSTM steps and elementwise work are not among them). The last two columns:
time per picture in a batch of 16, as multiples of that one by one. The default's maps are taken at layers of the encoder, so that each of K targets runs back through what lies between: K times about half of
the encoder for the photo models. That is the price of the map's sharpness and not of the order of work; `--layer none` (`target_layers=()`) leaves it out.
"""


def main(given: argparse.Namespace) -> None:
    if given.bundled:
        text = bundled(given)
        if given.only is None:
            (ROOT / "docs" / "bundled-cost.md").write_text(f"{ABOUT_BUNDLED}\n{text}")
        print(text)
        return
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    if given.pipeline:
        print(json.dumps(apart("pipeline", given), indent=2))
        return
    if given.growth:
        print(json.dumps(growth(given, images / "growth.png"), indent=2))
        return
    found = compare(given)
    text = table(found, apart("trap", given), given)
    if given.only is None:
        (ROOT / "docs" / "benchmark.md").write_text(f"# What explaining costs\n\n`python scripts/benchmark.py`. {text}")
        chart(found, images / "benchmark.png")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="cases, instead of all; nothing is written then")
    parser.add_argument("--skip", nargs="+", default=[], help="case/library pairs to leave out, as words-lstm-32/captum")
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "benchmark", help="where a run cut short is resumed from")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--pipeline", action="store_true")
    parser.add_argument("--bundled", action="store_true")
    parser.add_argument("--photos", type=Path, help="Parquet that the photo models are timed on")
    parser.add_argument("--encoder", type=Path, help="a folder with the hub's encoder, for the models that stand on it")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--package", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device is None:
        import torch

        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.measure:
        print(json.dumps(MEASURES[given.measure](given)))
    else:
        main(given)
