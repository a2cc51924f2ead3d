"""Mutation testing: how many small faults, put into the code one at a time, do the tests notice?

    python scripts/mutants.py                  # a seeded sample of every module below
    python scripts/mutants.py engine --sample 0    # all mutants of the modules whose path holds "engine"

Faults come from cosmic-ray's operators; changes that only touch annotations or docstrings are no faults and are left out. A
mutant runs in a forked child that imports the changed module in place of the file, so nothing on disk changes, and the tests
that ran the changed line, those of the first test file that `TESTS` names for the module and then the fastest first, for
`--budget` seconds in all. What survives may be tried longer: `--again --budget 120`. Survivors that `tests/mutants.json` gives
a reason for are listed apart; they count as survivors.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import json
import math
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "runs" / "mutants"
REASONS = ROOT / "tests" / "mutants.json"
PYTEST = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
BUDGET = 20.0
"""Seconds of tests, as they took without a mutant."""
PAIRS = [
    *(
        [
            "Add_Sub",
            "Sub_Add",
            "Mul_Div",
            "Div_Mul",
            "FloorDiv_Div",
            "Mod_Mul",
            "Pow_Mul",
            "BitAnd_BitOr",
            "BitOr_BitAnd",
            "BitXor_BitAnd",
        ]
    ),
    *(["Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE", "Is_IsNot", "IsNot_Is"]),
    *(["USub_UAdd", "Delete_Not", "Delete_Invert"]),
]
KINDS = ["ReplaceBinaryOperator_", "ReplaceComparisonOperator_", "ReplaceUnaryOperator_"]
OTHERS = [
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
]
TESTS = {
    "mmgradcam/engine.py": "engine invariants graph probability arguments",
    "mmgradcam/explaining/explainer.py": "explainer engine explanation grounding method_perturbation",
    "mmgradcam/contract.py": "engine arguments",
    "mmgradcam/utils/rows.py": "engine",
    "mmgradcam/utils/precision.py": "probability",
    "mmgradcam/utils/probability.py": "probability",
    "mmgradcam/utils/memory.py": "engine",
    "mmgradcam/utils/locks.py": "threads",
    "mmgradcam/layers.py": "layers engine invariants threads",
    "mmgradcam/layouts.py": "layouts layers pictures classify",
    "mmgradcam/images/pictures.py": "pictures defaults",
    "mmgradcam/explaining/model_input.py": "pictures defaults",
    "mmgradcam/images/clips.py": "video",
    "mmgradcam/utils/files.py": "pictures video saved",
    "mmgradcam/utils/archives.py": "saved",
    "mmgradcam/storage/schema.py": "saved",
    "mmgradcam/images/regions.py": "localization explanation",
    "mmgradcam/render/heatmaps.py": "heatmaps pictures",
    "mmgradcam/methods/cam.py": "methods graph",
    "mmgradcam/methods/fusion.py": "methods engine",
    "mmgradcam/methods/multi_layer.py": "input_gradients methods",
    "mmgradcam/methods/input_gradients.py": "input_gradients methods",
    "mmgradcam/methods/perturbation.py": "method_perturbation",
    "mmgradcam/metrics/": "faithfulness localization deletion_insertion sensitivity sanity grounding hallucination robustness captions_metrics bias defaults",
}
"""Modules that are mutated, and the test files that are about them."""


class Served(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from given source, under whatever name it is installed."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = str(path), source

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        with contextlib.suppress(ValueError):
            for finder in (f for f in sys.meta_path if f is not self):
                found = finder.find_spec(name, path, target)
                if found is not None:
                    if found.origin and os.path.realpath(found.origin) == self.path:
                        found.loader = self
                        found.cached = None
                    return found
        return None

    def get_data(self, path: Any) -> bytes:
        return self.source.encode()

    def get_filename(self, name: str) -> str:
        return self.path


@dataclass(frozen=True)
class Mutant:
    """One fault: where, by which operator, and the whole module with it."""

    path: str
    operator: str
    line: int
    column: int
    text: str
    before: str
    source: str

    @property
    def key(self) -> str:
        return f"{self.path}: {self.operator}: {self.before} -> {self.text}"


def modules(wanted: list[str]) -> list[str]:
    found = [
        str(p.relative_to(ROOT)) for t in TESTS for p in ([ROOT / t] if t.endswith(".py") else sorted((ROOT / t).glob("*.py")))
    ]
    return [p for p in found if (ROOT / p).is_file() and any(w in p for w in wanted or [""])]


def bare(source: str) -> str:
    """The program without what does not run: annotations, docstrings, code for type checkers only."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            if any(ast.unparse(d) == "overload" for d in node.decorator_list):
                node.args, node.decorator_list = ast.arguments([], [], None, [], [], None, []), []
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            text = [
                s
                for s in body
                if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)
            ]
            node.body = [s for s in body if s not in text] or [ast.Pass()]  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "cast" and node.args:
            node.args[0] = ast.Constant(0)
        elif isinstance(node, ast.Assign) and "Callable[" in ast.unparse(node.value):
            node.value = ast.Constant(0)
    return ast.dump(tree)


def mutants_of(path: str, count: int, seed: int) -> list[Mutant]:
    """So many mutants of a module, drawn at random (all of them for 0), in the order of its lines."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / path).read_text(encoding="utf-8")
    lines, seen, nodes = source.splitlines(), {bare(source)}, list(ast_nodes(get_ast(source)))
    names = set(operator_names()) & {f"core/{n}" for n in [*OTHERS, *(kind + pair for kind in KINDS for pair in PAIRS)]}
    operators = {name: get_operator(name)() for name in sorted(names)}
    places = [
        (name, occurrence, start)
        for name, operator in operators.items()
        for occurrence, (start, _) in enumerate(place for node in nodes for place in operator.mutation_positions(node))
    ]
    random.Random(f"{seed}{path}").shuffle(places)
    found: list[Mutant] = []
    for name, occurrence, (line, column) in places:
        if count and len(found) == count:
            break
        try:
            changed = mutate_code(source, operators[name], occurrence) or source
            plain = bare(changed)
        except (SyntaxError, AttributeError):  # cosmic-ray's ExceptionReplacer cannot replace a dotted name
            continue
        if plain in seen:
            continue
        seen.add(plain)
        after = [*changed.splitlines(), ""]
        at = next(i for i, (a, b) in enumerate(zip(lines, after, strict=False)) if a != b)
        found.append(Mutant(path, name.removeprefix("core/"), line, column, after[at].strip(), lines[at].strip(), changed))
    return sorted(found, key=lambda m: (m.line, m.column))


class Recorder:
    """Which test ran which line, and how long each test took."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.times = coverage, dict[str, float]()
        self.idle: list[str] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        start = time.perf_counter()
        yield
        self.times[item.nodeid] = time.perf_counter() - start
        self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.idle.append(report.nodeid)


def own_tests(path: str) -> list[str]:
    names = next(v for k, v in TESTS.items() if path.startswith(k)).split()
    return [f"tests/test_{name}.py" for name in names if (ROOT / "tests" / f"test_{name}.py").is_file()]


def traced(paths: list[str]) -> tuple[dict[tuple[str, int], set[str]], dict[str, float]]:
    """(file, line) -> tests that ran it, and the seconds of each test; kept until a test file, or code that its tests run,
    changes.
    """
    record_calls, times = defaultdict[tuple[str, int], set[str]](set), dict[str, float]()
    CACHE.mkdir(parents=True, exist_ok=True)
    for file in sorted({t for p in paths for t in own_tests(p)}):
        kept = CACHE / f"{Path(file).stem}.pickle"
        found = read_trace(kept)
        if found is None:
            print(f"tracing {file}", flush=True)
            child(lambda f=file, k=kept: trace(f, k), 3600)
            found = read_trace(kept)
        if found is None:
            sys.exit(f"{file}: its tests could not be traced")
        for place, tests in found[1].items():
            record_calls[place] |= tests
        times |= found[2]
    return record_calls, times


def read_trace(kept: Path) -> tuple[dict[str, str], dict[tuple[str, int], set[str]], dict[str, float]] | None:
    """Hashes of the files it rests on, lines and times; None where it is missing or a file has changed since."""
    if not kept.exists():
        return None
    found: tuple[dict[str, str], dict[tuple[str, int], set[str]], dict[str, float]] = pickle.loads(kept.read_bytes())
    return found if all(hash_of(path) == known for path, known in found[0].items()) else None


def hash_of(path: str) -> str:
    file = ROOT / path
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def trace(file: str, kept: Path) -> int:
    import coverage

    cover = coverage.Coverage(data_file=None, source=[str(ROOT / "mmgradcam")], config_file=False)
    cover.start()
    for path in modules([]):  # now, so that what runs at import is not put down to the test that happens to import it
        importlib.import_module(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    recorder = Recorder(cover)
    code = pytest.main([file, *PYTEST, "-m", "not browser and not data and not slow"], plugins=[recorder])
    cover.stop()
    data, record_calls = cover.get_data(), dict[tuple[str, int], set[str]]()
    for path in data.measured_files():
        name = str(Path(path).relative_to(ROOT))
        for line, tests in data.contexts_by_lineno(path).items():
            record_calls[name, line] = {t for t in tests if t and t not in recorder.idle}
    for test in recorder.idle:  # failed or skipped
        recorder.times.pop(test, None)
    used = {file, "tests/conftest.py", *(name for (name, _), tests in record_calls.items() if tests)}
    temporary = kept.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(pickle.dumps(({path: hash_of(path) for path in used}, record_calls, recorder.times)))
    temporary.replace(kept)
    return int(code)


def tests_for(
    mutant: Mutant, record_calls: dict[tuple[str, int], set[str]], times: dict[str, float], budget: float
) -> list[str]:
    """Tests of the changed line; where none ran it, as with defaults and constants, of its function, its file, or all that are
    about it.
    """
    tests = record_calls.get((mutant.path, mutant.line), set())
    if not tests:
        own = {t for t in times if t.partition("::")[0] in own_tests(mutant.path)}
        for first, last in spans(mutant.path, mutant.line):
            tests = tests or {t for line in range(first, last + 1) for t in record_calls.get((mutant.path, line), ())}
        tests = (tests or own) | own.difference(*record_calls.values())  # those that run nothing look at what is there
    chosen, spent = [], 0.0
    first = own_tests(mutant.path)[0]
    for test in sorted(tests, key=lambda t: (not t.startswith(first), times.get(t, 1.0), t)):
        spent += times.get(test, 1.0)
        if chosen and spent > budget:
            break
        chosen.append(test)
    return chosen


def spans(path: str, line: int) -> list[tuple[int, int]]:
    """First and last lines of the functions and classes around a line, innermost first, then of the file."""
    source = (ROOT / path).read_text(encoding="utf-8")
    around = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    found = [(n.lineno - len(n.decorator_list), n.end_lineno or n.lineno) for n in around]
    inner = sorted((s for s in found if s[0] <= line <= s[1]), key=lambda s: s[1] - s[0])
    return [*inner, (1, source.count("\n") + 1)]


def child(work: Callable[[], int], timeout: float, quiet: bool = True) -> int:
    """The exit code of work done in a forked child; 124 where it took too long."""
    process = spawn(work, quiet)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 124


def spawn(work: Callable[[], int], quiet: bool) -> int:
    process = os.fork()
    if process:
        return process
    os.setpgid(0, 0)
    code = 99
    try:
        if quiet:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (1, 2):
                os.dup2(null, stream)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def tested(mutant: Mutant, tests: list[str]) -> int:
    sys.meta_path.insert(0, Served(ROOT / mutant.path, mutant.source))
    return int(pytest.main([*tests, "-x", *PYTEST]))


def wilson(dead: int, total: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    p, z = dead / total, 1.96
    middle, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation testing of the parts that must be right.")
    parser.add_argument("modules", nargs="*", help="parts of paths, such as engine or metrics/; by default all")
    parser.add_argument("--sample", type=int, default=25, help="mutants per module, drawn by --seed; 0 is all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="of these, only mutants that survived when last tried")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests that a mutant must get past to survive")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    import torch

    torch.set_num_threads(1)
    for name in ("scipy.ndimage", "scipy.stats", "skimage.metrics", "transformers", "torchvision", "datasets"):
        with contextlib.suppress(ImportError):
            __import__(name)
    paths = modules(given.modules)
    record_calls, times = traced(paths)
    reasons = json.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    waiting = [m for path in paths for m in mutants_of(path, given.sample, given.seed)]
    if given.again:
        last = {r["key"]: r["code"] for r in map(json.loads, (CACHE / "results.jsonl").read_text().splitlines())}
        waiting = [m for m in waiting if last.get(m.key) == 0]
    for path in [p for p in paths if any(m.path == p for m in waiting)]:
        unchanged = (ROOT / path).read_text(encoding="utf-8")
        control = Mutant(path, "none", 0, 0, "", "", unchanged)
        if code := child(lambda m=control: tested(m, tests_for(m, record_calls, times, 2.0)), 300):
            sys.exit(f"{path}: its tests fail without a mutant (exit code {code})")
    print(f"{len(waiting)} mutants of {len(paths)} modules", flush=True)
    dead, alive, results = defaultdict(int), defaultdict(list), CACHE / "results.jsonl"
    running: dict[int, tuple[Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < given.jobs:
            mutant = waiting.pop(0)
            tests = tests_for(mutant, record_calls, times, given.budget)
            limit = 60 + 5 * sum(times.get(t, 1.0) for t in tests)
            process = spawn(lambda m=mutant, t=tests: tested(m, t), quiet=True)
            running[process] = mutant, time.monotonic() + limit
        for process, (mutant, end) in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if not done and time.monotonic() < end:
                continue
            if not done:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            del running[process]
            code = os.waitstatus_to_exitcode(status) if done else 124
            if code:
                dead[mutant.path] += 1
            else:
                alive[mutant.path].append(mutant)
                print(
                    f"survives  {mutant.path}:{mutant.line}  {mutant.operator}\n    {mutant.before}\n    {mutant.text}",
                    flush=True,
                )
            with results.open("a") as file:
                file.write(json.dumps({"key": mutant.key, "line": mutant.line, "code": code}) + "\n")
        time.sleep(0.02)
    report(paths, dead, alive, reasons)


def report(paths: list[str], dead: dict[str, int], alive: dict[str, list[Mutant]], reasons: dict[str, str]) -> None:
    print(f"\n{'module':44} {'mutants':>8} {'killed':>8} {'share':>7}")
    for path in paths:
        total = dead[path] + len(alive[path])
        print(f"{path:44} {total:8} {dead[path]:8} {dead[path] / max(total, 1):7.1%}")
    killed, survivors = sum(dead.values()), [m for some in alive.values() for m in some]
    total = killed + len(survivors)
    low, high = wilson(killed, total)
    print(f"{'all':44} {total:8} {killed:8} {killed / max(total, 1):7.1%}  (95% interval {low:.1%} to {high:.1%})")
    known = [m for m in survivors if m.key in reasons]
    if known:
        print(f"\n{len(known)} survivors change nothing that can be seen, for the reason given:")
        for mutant in known:
            print(f"  {mutant.path}:{mutant.line}  {mutant.before} -> {mutant.text}\n      {reasons[mutant.key]}")
    sys.exit(np.sign(total) and killed < 0.9 * total)


if __name__ == "__main__":
    main()
