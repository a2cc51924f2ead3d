"""The command line as a user meets it: what it prints, what it writes, and how it takes mistakes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import complaints
from PIL import Image

from mmgradcam import InputError
from mmgradcam.evaluation.rows import from_parquet
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import make_scene


def run(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mmgradcam", *map(str, args)], capture_output=True, text=True, cwd=cwd, env=env, timeout=120
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "my scene.png"
    render(make_scene(7)).image.save(path)
    return path


FILES = ["explanation.json", "index.html", "maps.npz", "words.png"]


def test_caption_prints_and_writes(folders: dict[str, Path], scene: Path, tmp_path: Path) -> None:
    done = run("caption", scene, "--model", folders["captioner"], "--caption", "A large red cube.", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a large red cube\n")
    assert "log-probability" in done.stdout
    assert done.stderr.splitlines() == [f"loading {folders['captioner']}", f"explaining {scene}", f"writing into {tmp_path}"]
    assert sorted(os.listdir(tmp_path / "my scene")) == FILES
    assert all(str(tmp_path / "my scene" / name) in done.stdout for name in FILES)
    described = json.loads((tmp_path / "my scene" / "explanation.json").read_text())
    assert described["text"] == "a large red cube"
    assert described["image"]["name"] == "my scene.png"


def test_vqa_prints_and_writes(folders: dict[str, Path], scene: Path, tmp_path: Path) -> None:
    done = run("vqa", scene, "--model", folders["vqa"], "--question", "What color is the cube?", "--answer", "blue", "--contrast", "red", "--out", tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "without the picture: " in done.stdout
    assert done.stdout.startswith("What color is the cube? blue\n")
    assert "blue rather than red" in done.stdout
    assert "importance for blue" in done.stdout
    assert sorted(os.listdir(tmp_path / "my scene")) == FILES
    described = json.loads((tmp_path / "my scene" / "explanation.json").read_text())
    assert [r["text"] for r in described["targets"][0]["input_tokens"]] == ["what", "color", "is", "the", "cube"]
    assert all(isinstance(r["importance"], float) for r in described["targets"][1]["input_tokens"])


def test_a_bad_picture_among_good_ones_is_named_and_the_rest_go_on(
    folders: dict[str, Path], scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no")
    Image.open(scene).save(tmp_path / "bad.jpg")
    done = run("caption", tmp_path / "bad.png", scene, tmp_path / "bad.jpg", "--model", folders["captioner"], "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("mmgradcam:") == 1
    assert "bad.png: not a picture in a format Pillow reads" in done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["bad", "my scene"]


def called(*args: str | Path) -> int:
    """The exit status of the command line, in this process."""
    from mmgradcam import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmgradcam", *map(str, args)])
        try:
            cli.main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
    return 0


def test_each_picture_gets_a_folder_of_its_own(
    folders: dict[str, Path], scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is called: no ending is read as a format, nothing that is there is changed, nothing comes to lie elsewhere."""
    monkeypatch.chdir(tmp_path)
    names = ["photo.png.jpg", "x.html.png", "IMG_2024.01.31.jpg", "...jpg", ".jpg", "-rf.png", "a\nb.png", "con.png", "Same.png", "same.jpg", "sub/same.jpg"]  # fmt: skip
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene, tmp_path / "p" / name)
    shutil.copy(scene, tmp_path / "p" / "photo.png")
    before = {path: path.read_bytes() for path in (tmp_path / "p").rglob("*") if path.is_file()}
    told = ["caption", "--model", folders["captioner"], "--caption", "a red cube", "--no-grounding", "--out", "p", "--", *(f"p/{name}" for name in names)]  # fmt: skip
    made = ["photo.png-2", "x.html", "IMG_2024.01.31", "picture", "jpg", "_-rf", "a_b", "_con", "Same", "same-2", "same-3"]
    assert called(*told) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("wrote")] == [
        f"p/{name}/words.png" for name in made
    ]
    assert "p/photo.png was there already and stays as it is\n" in out
    assert {path: path.read_bytes() for path in before} == before
    first = {path: path.read_bytes() for name in made for path in (tmp_path / "p" / name).iterdir()}
    assert sorted({path.name for path in first}) == FILES
    assert len(first) == 4 * len(made)
    assert called(*told) == 0, "the same command once more: a second set beside the first"
    assert "p/x.html was there already and stays as it is\n" in capsys.readouterr().out
    now = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(now) == len(before) + 2 * len(first)
    assert now.items() >= {**before, **first}.items()
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("command", ["caption", "vqa", "classify", "video", "policy", "evaluate"])
def test_a_place_to_write_is_looked_at_before_any_model_runs(
    command: str, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("loading", f"commands.{command}"):
        monkeypatch.setattr(f"mmgradcam.cli.{module}.load_asked", lambda *_: pytest.fail("a model is loaded"))
    more = {"vqa": ["--question", "what"], "classify": ["--model", "x"], "video": ["--model", "x"]}.get(command, [])
    assert called(command, scene, *more, "--out", scene / "in") == 1
    assert f"{scene / 'in'}: cannot be written (Not a directory); choose another place" in capsys.readouterr().err


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no such model": (["caption", "{scene}", "--model", "scenes-captoner"], "there is no model 'scenes-captoner'; did you mean"),
    "no such method": (["caption", "{scene}", "--model", "{captioner}", "--method", "gradcan"], "there is no method 'gradcan'; did you mean gradcam"),
    "no such layer": (["caption", "{scene}", "--model", "{captioner}", "--layer", "stages.7"], "no layer is called 'stages.7'; the model has stem"),
    "no such file": (["caption", "none.png", "--model", "{captioner}"], "none.png: no such file"),
    "unknown words": (["caption", "{scene}", "--model", "{captioner}", "--caption", "a zebra on a frisbee"], "does not know 'zebra', 'on', 'frisbee'; it knows a, above"),
    "empty caption": (["caption", "{scene}", "--model", "{captioner}", "--caption", " ?! "], "caption: expected a sentence, got ' ?! '"),
    "long caption": (["caption", "{scene}", "--model", "{captioner}", "--caption", "red " * 500], "caption: expected at most 30 words, got 500"),
    "wrong kind": (["vqa", "{scene}", "--model", "{captioner}", "--question", "what"], "is a Captioning model, expected one asked with question="),
    "unknown question": (["vqa", "{scene}", "--model", "{vqa}", "--question", "who is it"], "does not know 'who', 'it'"),
    "empty question": (["vqa", "{scene}", "--model", "{vqa}", "--question", ""], "question: expected a sentence, got ''"),
    "unknown answer": (["vqa", "{scene}", "--model", "{vqa}", "--question", "what color is the cube", "--answer", "mauve"], "cannot answer 'mauve'; it can yes, no"),
    "against itself": (["vqa", "{scene}", "--model", "{vqa}", "--question", "what color is the cube", "--answer", "red", "--contrast", "red"], "'red' is the answer itself"),
    "too many answers": (["vqa", "{scene}", "--model", "{vqa}", "--question", "what color is the cube", "--top", "999"], "top: expected 1 to"),
    "no such device": (["caption", "{scene}", "--model", "{captioner}", "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
    "a device without values": (["caption", "{scene}", "--model", "{captioner}", "--device", "meta"], "device 'meta' cannot be used"),
    "too much noise": (["caption", "{scene}", "--model", "{captioner}", "--smoothgrad", "1000000000"], "noisy copies of a picture of this size, got 1,000,000,000"),
    "half a character": (["caption", "{scene}", "--model", "{captioner}", "--caption", "a \udcff cube"], "caption: expected Unicode text, got 'a \\udcff cube'"),
    "a book": (["vqa", "{scene}", "--model", "{vqa}", "--question", "what " * 20001], "question: expected a text of at most 100,000 characters, got 100,005"),
    "a long name": (["caption", "x" * 300, "--model", "{captioner}"], "cannot be opened (File name too long)"),
    "no name": (["caption", "", "--model", "{captioner}"], "expected a picture (PNG, JPEG, WebP, ...), got a folder"),
    "a device as picture": (["caption", "/dev/zero", "--model", "{captioner}"], "/dev/zero: expected a picture (PNG, JPEG, WebP, ...), got a device"),
    "out is a file": (["caption", "{scene}", "--model", "{captioner}", "--out", "{scene}"], "cannot be written (Not a directory)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    folders: dict[str, Path], scene: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmgradcam import cli

    args, message = MISTAKES[name]
    args = [a.format(scene=scene, **folders) for a in args]
    if "--out" not in args:
        args += ["--out", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["mmgradcam", *args])
        cli.main()
    said = capsys.readouterr()
    assert exit_.value.code == 1
    assert message in said.err
    lines = complaints(said.err)
    assert len(lines) == 1
    assert lines[0].startswith("mmgradcam: ")
    assert said.out == ""
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_terminal_can_show_what_is_said(
    folders: dict[str, Path], scene: Path, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has no character for is printed as its number: a name of another alphabet, one that is no UTF-8, an escape
    sequence.
    """
    from mmgradcam import cli

    names = ["кот.png", os.fsdecode(b"\xff.png"), "\x1b[31m.png"]
    for name in names:
        (tmp_path / name).write_bytes(scene.read_bytes())
    (tmp_path / "плохо.png").write_text("no")
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["mmgradcam", "caption", *(str(tmp_path / name) for name in [*names, "плохо.png"]), "--model", str(folders["captioner"]), "--caption", "a red cube", "--out", str(tmp_path / "out")])  # fmt: skip
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    for stream in streams.values():
        stream.flush()
    said, complained = (stream.buffer.getvalue().decode(encoding) for stream in streams.values())  # type: ignore[attr-defined]
    assert exit_.value.code == 1
    assert said.count("a red cube\n") == 3
    assert ("кот.png" if encoding == "utf-8" else "\\u043a\\u043e\\u0442.png") in said
    assert "\\x1b[31m.png" in said
    assert "\x1b[31m.png" not in said
    assert "\\udcff.png" in said
    assert complained.count("mmgradcam:") == 1
    assert "not a picture" in complained


def test_evaluate_prints_json(folders: dict[str, Path]) -> None:
    done = run("evaluate", folders["captioner"], "--limit", "4", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    own = figures["figures"]["gradcam"] if "gradcam" in figures["figures"] else next(iter(figures["figures"].values()))
    assert (figures["data"], figures["pictures"]) == ("scenes:test:generated", 4)
    assert {"correct", "caption_true", "pointing", "pointing_swapped_pairs", "inside_outside"} <= set(figures["metrics"])
    assert 0 <= own["correct"]["mean"] <= 1
    done = run("evaluate", folders["vqa"], "--limit", "4")
    assert done.returncode == 0, done.stderr
    assert "blind accuracy" in done.stdout
    assert "pointing swapped" in done.stdout


def test_json_is_json_whatever_the_figures_are(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"none": float("nan"), "most": [float("inf"), 1.0], "name": "caf\u00e9 \udcff"}
    monkeypatch.setattr("mmgradcam.evaluation.reports.summary", lambda made: told)
    assert called("evaluate", folders["captioner"], "--limit", "1", "--json") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out, parse_constant=pytest.fail) == {"none": None, "most": [None, 1.0], "name": "caf\u00e9 \ufffd"}


@pytest.mark.parametrize(
    "where",
    [
        "mmgradcam.explaining.explain.explain",
        "mmgradcam.storage.record.files",
        "os.fsync",
        "mmgradcam.cli.commands.caption.load_asked",
    ],
)
def test_an_interrupt_is_one_line_and_leaves_nothing_unfinished(
    where: str, folders: dict[str, Path], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stopped)
    out = tmp_path / "out"
    assert called("caption", scene, "--model", folders["captioner"], "--no-grounding", "--out", out) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "mmgradcam: interrupted; what was written is whole"
    assert not out.exists()


def test_a_real_interrupt_ends_a_run_that_can_go_on(folders: dict[str, Path], tmp_path: Path) -> None:
    told = ["evaluate", folders["captioner"], "--metrics", "pointing", "--limit", "400", "--out", tmp_path / "out", "--json"]
    child = subprocess.Popen(
        [sys.executable, "-m", "mmgradcam", *map(str, told)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts in the background ignores it
    )
    for _ in range(1200):
        if len(list((tmp_path / "out" / "parts").glob("*.parquet"))) >= 2 or child.poll() is not None:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, said = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert complaints(said) == ["mmgradcam: interrupted; what was written is whole"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", "parts"}
    for path in (tmp_path / "out" / "parts").iterdir():
        rows, metadata = from_parquet(path.read_bytes())
        assert json.loads(metadata)["part"]["pictures"] == len({row["sample"] for row in rows}) == 8


def test_models_are_listed_with_their_figures() -> None:
    done = run("models")
    assert done.returncode == 0, done.stderr
    for name in ("scenes-captioner", "scenes-captioner-transformer", "scenes-vqa", "scenes-vqa-transformer"):
        assert name in done.stdout
    assert "%" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    """What makes --help answer at once: no torch, numpy, transformers, datasets or matplotlib. The time is a loose guard."""
    code = "import sys; sys.argv=['mmgradcam','--help']\nfrom mmgradcam import cli\ntry: cli.main()\nexcept SystemExit: pass\nprint('HEAVY', [m for m in ('torch','numpy','transformers','datasets','matplotlib') if m in sys.modules])"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "caption" in done.stdout
    assert time.perf_counter() - start < 5


def test_a_caption_imports_only_what_it_needs(scene: Path, tmp_path: Path) -> None:
    """Torch's compiler, which new weights on the device `meta` would import, takes longer to import than torch itself.

    Nor does it take transformers to find that the encoder of photo-captioner is not here.
    """
    told = ["caption", str(scene), "--out", str(tmp_path)]
    nowhere = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k != "MMGRADCAM_ENCODER"}
    nowhere |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    heavy = ("torch._dynamo", "torch._inductor", "scipy", "transformers", "torchvision", "datasets", "pandas", "nltk", "matplotlib", "skimage")  # fmt: skip
    code = f"import sys; sys.argv=['mmgradcam', *{told!r}]\nfrom mmgradcam import cli\ncli.app(standalone_mode=False)\nprint('HEAVY', [m for m in {heavy!r} if m in sys.modules], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=nowhere, check=True)
    assert "HEAVY [] True" in done.stdout
    assert "photo-captioner-small, which needs no download, captions instead" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "command", [["caption"], ["vqa", "--question", "who is it?"], ["classify", "--model", "torchvision:resnet18"]]
)
def test_no_model_is_loaded_for_pictures_that_are_not_there(
    command: list[str], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from mmgradcam import cli

    def loaded(*_: Any) -> None:
        raise InputError("a model was loaded")

    fallback = {"caption": "captioner", "vqa": "answerer"}.get(command[0], "load_asked")
    for name in ("load_asked", fallback):
        monkeypatch.setattr(f"mmgradcam.cli.commands.{command[0]}.{name}", loaded)
    gone = [str(tmp_path / "gone.png"), str(tmp_path)]
    done = CliRunner().invoke(cli.app, [*command, *gone, "--out", str(tmp_path / "out")])
    told = " ".join(done.output.split())
    assert done.exit_code == 1
    assert "gone.png" in told
    assert told.count("expected a picture") == 1  # and of the other that there is no such file
    one = CliRunner().invoke(cli.app, [*command, *gone, str(scene), "--out", str(tmp_path / "out")])
    assert isinstance(one.exception, InputError)  # one can be read, so the model is wanted


@pytest.mark.parametrize("command", ["caption", "vqa", "models", "evaluate"])
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize("top", ["0", "-3"])
def test_vqa_refuses_no_answers(folders: dict[str, Path], scene: Path, top: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mmgradcam import cli

    asked = ["vqa", str(scene), "--model", str(folders["vqa"]), "--question", "what color is the cube", "--top", top]
    done = CliRunner().invoke(cli.app, [*asked, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "--top" in done.output
    assert not (tmp_path / "out").exists()
