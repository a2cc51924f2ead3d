"""The guide to heads of one's own does what it says, and models of files and plugins are found."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import complaints

from mmgradcam import InputError, explain
from mmgradcam.checking.check import check
from mmgradcam.explaining.explain import Explanation
from mmgradcam.tasks import load

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "custom-heads.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the guide's snippets define, run one after another where only their picture lies."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "mmgradcam").symlink_to(ROOT / "mmgradcam")
    made: dict[str, Any] = {"__name__": "guide"}
    here = Path.cwd()
    torch.manual_seed(0)
    try:
        os.chdir(folder)
        for block in BLOCKS:
            exec(compile(block, "custom-heads.md", "exec"), made)
    finally:
        os.chdir(here)
    made["folder"] = folder
    return made


def test_every_snippet_runs_and_writes_what_it_says(names: dict[str, Any]) -> None:
    assert len(BLOCKS) == 14
    assert {"class.png", "classes.html", "changed.png"} <= {path.name for path in names["folder"].iterdir()}
    assert isinstance(names["classes"], Explanation)


@pytest.mark.parametrize(
    ("task", "query"),
    [
        (lambda n: n["task"], {"top": 3}),
        (lambda n: n["Pyramid"](), {}),
        (lambda n: n["Price"](["old", "red", "chair"]), {"age": 30, "text": "red chair", "box": (0.2, 0.2, 0.8, 0.8)}),
        (lambda n: n["Sure"](n["resnet18"](), n["task"].labels), {"top": 2}),
        (lambda n: n["Detection"](), {}),
        (lambda n: n["Segmented"](n["lraspp_mobilenet_v3_large"](weights=None, weights_backbone=None)), {}),
        (lambda n: n["clip"], {"text": "a red cube", "rather_than": "a blue ball"}),
        (lambda n: n["Age"](), {}),
        (lambda n: n["Colors"](), {"question": "what color is it?"}),
        (lambda n: n["load"]("classifier"), {"classes": [3, 5]}),
    ],
    ids=[
        "split",
        "pyramid",
        "price",
        "log-probability",
        "detection",
        "segmentation",
        "similarity",
        "regression",
        "questions",
        "plugin",
    ],
)
def test_what_the_guide_shows_is_right(names: dict[str, Any], task: Any, query: dict[str, Any]) -> None:
    torch.manual_seed(0)
    findings = check(task(names), ROOT / "mmgradcam" / "scenes" / "example.png", **query)
    assert [str(f) for f in findings if f.ok is False] == []


def test_two_pictures_of_one_case_get_their_own_heat(names: dict[str, Any]) -> None:
    made = explain(names["Changed"](), names["pair"], method=names["hirescam"])
    assert made.map.shape == (2, 4, 4)
    assert made.heat().shape == (names["pair"].height, names["pair"].width)


MINE = """
from mmgradcam.tasks import load

def captioner():
    task = load("scenes-captioner", "cpu")
    task.name = "mine"
    return task

number = 3

def broken():
    raise ValueError("no weights\\nhere")
"""


def test_a_task_of_a_file_is_explained_by_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert load(f"{tmp_path}/mine.py:captioner").name == "mine"
    for name, said in [
        ("mine.py:number", "expected a Task, or what makes one"),
        ("mine.py:nothing", "expected a Task"),
        ("mine.py:broken", "failed: ValueError: no weights here"),
        ("other.py:x", "no such file"),
    ]:
        with pytest.raises(InputError, match=said):
            load(f"{tmp_path}/{name}")
    done = run(
        "caption", ROOT / "mmgradcam/scenes/example.png", "--model", f"{tmp_path}/mine.py:captioner", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "example" / "index.html").exists()


NEIGHBOURED = """
import json, random
import helpers
from helpers import NAME
from parts.deep import DEEP
from lib.more import MORE
from torch import nn
from mmgradcam import Target, Task

assert random.randint and json.dumps and "{folder}" in helpers.__file__

class Mine(Task):
    name = f"{{NAME}} {{DEEP}} {{MORE}}"
    def __init__(self):
        import late
        self.late = late.LATE
    def encode(self, images):
        return images
    def targets(self, features):
        return [Target("bright")]
    def score(self, features, targets):
        return features.flatten(1).mean(1)
"""


def test_files_import_their_own_neighbours_and_only_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "other"):
        for name, text in {
            "mine.py": NEIGHBOURED.format(folder=folder),
            "helpers.py": f"NAME = {folder!r}",
            "late.py": f"LATE = {folder!r}",
            "parts/__init__.py": "from parts.deep import DEEP",
            "parts/deep.py": f"import helpers\nDEEP = helpers.NAME.upper() + {folder!r}",
            "lib/more.py": f"MORE = len({folder!r})",
            "random.py": "raise ImportError('hides a module of Python')",
            "torch.py": "raise ImportError('hides a package')",
            "broken.py": "import nowhere",
        }.items():
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(text)
    (tmp_path / "helpers.py").write_text("NAME = 'of the caller'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    callers = importlib.import_module("helpers")
    before = (list(sys.path), list(sys.meta_path), {n for n in sys.modules if not n.startswith("mmgradcam")})
    made = [load(f"{folder}/mine.py:Mine") for folder in ("one", "other", "one")]
    assert [task.name for task in made] == ["one ONEone 3", "other OTHERother 5", "one ONEone 3"]
    assert [task.late for task in made] == ["one", "other", "one"]  # type: ignore[attr-defined]
    assert explain(made[1], torch.rand(3, 8, 8)).labels == ["bright"]
    with pytest.raises(InputError, match=r"broken\.py:x failed: ModuleNotFoundError: No module named 'nowhere'"):
        load("one/broken.py:x")
    assert (sys.path, sys.meta_path, {n for n in sys.modules if not n.startswith("mmgradcam")}) == before
    assert sys.modules["helpers"] is callers
    assert callers.NAME == "of the caller"
    monkeypatch.delitem(sys.modules, "helpers")


def run(*told: Any, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    more = {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(
        [sys.executable, "-m", "mmgradcam", *map(str, told)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **more},
    )


def test_a_packaged_task_is_found_once_it_is_installed(tmp_path: Path) -> None:
    """As the guide packages it, really built and installed, into a folder of its own."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    (source / "pyproject.toml").write_text(re.findall(r"```toml\n(.*?)```", GUIDE, flags=re.S)[0])
    shown = [next(block for block in BLOCKS if what in block) for what in ("class Classifier", "class Resized", "class Listed")]
    (source / "theirs.py").write_text("\n".join(b.split("\n\n\ntask = ")[0].split("\n\n\nexplain(")[0] for b in shown))
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(installed)]
    subprocess.run([sys.executable, "-m", "pip", "install", *flags, str(source)], check=True, timeout=300)
    photo = ROOT / "mmgradcam" / "scenes" / "example.png"
    done = run("classify", photo, "--model", "theirs:classifier", "--class", "7", "--out", tmp_path / "out", path=installed)
    assert done.returncode == 0, done.stderr
    assert "class 7" in done.stdout
    assert (tmp_path / "out" / "example" / "words.png").exists()
    for name, said in [("theirs:other", "there is no model 'other'"), ("nobody:other", "theirs:NAME")]:
        done = run("classify", photo, "--model", name, path=installed)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(complaints(done.stderr)) == 1
    done = run("caption", photo, "--model", "theirs:classifier", path=installed)
    assert "expected one asked with caption=" in done.stderr


WRONG = """
from torch import nn
from mmgradcam import Target, Task

class Mine(Task):
    def __init__(self):
        self.net = nn.Conv2d(3, 4, 8, 8)
    def encode(self, images):
        return self.net(images)
    def targets(self, features, what="thing"):
        return [Target(what)]
    def score(self, features, targets):
        return features.detach().mean((1, 2, 3))
"""


def test_check_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WRONG)
    (tmp_path / "good.py").write_text(WRONG.replace(".detach()", ".square()"))
    done = run("check", f"{tmp_path}/mine.py:Mine")
    assert done.returncode == 1
    assert "look for .item()" in " ".join(done.stdout.split())
    done = run("check", f"{tmp_path}/good.py:Mine", ROOT / "mmgradcam/scenes/example.png", "--query", "what=a=b")
    assert done.returncode == 0, done.stdout
    assert "'a=b'" in done.stdout
    done = run("caption", ROOT / "mmgradcam/scenes/example.png", "--model", f"{tmp_path}/good.py:Mine")
    assert "its `targets` would need a parameter caption" in done.stderr
    done = run("check", f"{tmp_path}/good.py:Mine", "--query", "what")
    assert done.returncode == 1
    assert "expected KEY=VALUE" in done.stderr
