"""The rules of the house, held by machine: imports run downward, one backward, one public door, a wheel that clashes with
nobody.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mmgradcam
from mmgradcam import checkpoints, tasks

ROOT = Path(__file__).parents[1]

FLOORS: list[set[str]] = [
    {"errors"},
    {"utils"},
    {"images", "checkpoints"},
    {"task", "layers", "layouts", "relu_rules"},
    {"contract", "explanation"},
    {"engine", "render"},
    {"probe", "storage"},
    {"methods"},
    {"explaining"},
    {"checking", "metrics", "scenes"},
    {"datasets"},
    {"tasks"},
    {"evaluation", "studies"},
    {"cli"},
    {"__main__"},
]
"""Folders and loose files from the ground up; each may import what is on lower floors, and a folder its own files."""

WITHIN: set[tuple[str, str]] = set()

LATE = {
    ("mmgradcam.explanation.explanation", "mmgradcam.render.drawing"),
    ("mmgradcam.explanation.explanation", "mmgradcam.render.pages"),
    ("mmgradcam.explanation.explanation", "mmgradcam.storage.record"),
    ("mmgradcam.explanation.explanation", "mmgradcam.storage.saving"),
    ("mmgradcam.explaining.arguments", "mmgradcam.tasks.load"),
    ("mmgradcam.explaining.arguments", "mmgradcam.checkpoints"),
}
"""Upward imports that wait inside a function: for a task given by the name of a bundled model."""

PACKAGES = {"mmgradcam": ROOT / "mmgradcam", "mmgradcam.tasks": ROOT / "tasks", "mmgradcam.checkpoints": ROOT / "checkpoints"}


def files() -> list[tuple[str, Path]]:
    """(module, file) of the package, the mapped folders under the names they are installed by."""
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append((".".join([package, *(p for p in parts if p != "__init__")]), path))
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> list[str]:
    """Modules of the house that a file imports when it runs: not those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "mmgradcam"]


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room(module) for module, _ in files()} - {""}
    assert rooms == set().union(*FLOORS)


def test_imports_run_downward() -> None:
    level = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    wrong = []
    for module, path in files():
        here = room(module)
        if not here:
            continue
        for name in imports(path):
            there = room(name)
            if there == here or (here, there) in WITHIN or (module, name) in LATE:
                continue
            if there not in level or level[there] >= level[here]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


NO_TASKS = {"__init__", "classes", "fetching", "loading", "plugins", "preparing", "vocabulary"}
"""Files of `tasks` that tasks may import."""


def test_no_task_imports_another() -> None:
    adapters = {p.stem for p in (ROOT / "tasks").glob("*.py")} - NO_TASKS
    for module, path in files():
        if room(module) == "tasks" and path.stem in adapters:
            others = {name.split(".")[2] for name in imports(path) if name.startswith("mmgradcam.tasks.")} & adapters
            assert not others, f"{module} imports {others}"


@functools.cache
def adapters() -> set[str]:
    """The concrete tasks: classes in `tasks` whose base is `Task` or another of them."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGES["mmgradcam.tasks"].rglob("*.py")]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    found = {"Task"}
    while more := {c.name for c in classes if {ast.unparse(base) for base in c.bases} & found} - found:
        found |= more
    return found - {"Task"}


def asked_of_a_task(source: str) -> list[str]:
    """Where code asks whether something is a concrete task that it imports: by isinstance, issubclass or a comparison."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mmgradcam.tasks")
        for alias in node.names
        if alias.name in adapters()
    }

    def concrete(*asked: ast.expr) -> bool:
        within = [node for one in asked for node in ast.walk(one)]
        return any(
            (isinstance(node, ast.Name) and node.id in names)
            or (isinstance(node, ast.Attribute) and node.attr in adapters() and ast.unparse(node.value).endswith("tasks"))
            for node in within
        )

    calls = [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    asking = [n for n in calls if n.func.id in ("isinstance", "issubclass") and concrete(n.args[1])]  # type: ignore[attr-defined]
    compared = [n for n in nodes if isinstance(n, ast.Compare) and concrete(*n.comparators)]
    return [ast.unparse(node) for node in (*asking, *compared)]


def test_nobody_asks_which_task_a_task_is() -> None:
    """What a task can be asked is on the contract (`Task.query_types`), so that a user's own class can do what ours can."""
    assert adapters() >= {"VQA", "Captioning", "Layer", "Policy", "GenerativeVLM", "Video", "Vilt"}
    both = "from mmgradcam import tasks\nfrom mmgradcam.tasks import VQA as V, Layer\n"
    for wrong in ("isinstance(t, (int, V))", "isinstance(t, int | Layer)", "type(t) is Layer", "isinstance(t, tasks.Policy)"):
        assert asked_of_a_task(both + wrong) == [wrong]
    scripts = [(path.stem, path) for path in sorted((ROOT / "scripts").rglob("*.py"))]
    asking = {name: found for name, path in [*files(), *scripts] if (found := asked_of_a_task(path.read_text("utf-8")))}
    assert not asking


def test_the_engine_is_the_only_place_with_a_backward() -> None:
    for module, path in files():
        if module == "mmgradcam.engine":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute):
                backward = called.attr == "backward" or (
                    called.attr == "grad" and ast.unparse(called.value).endswith("autograd")
                )
                assert not backward, f"{module}: {ast.unparse(node)}"
                hooks = called.attr.startswith("register_") and called.attr.endswith("_hook")
                assert not hooks or module == "mmgradcam.layers", f"{module} keeps a hook"


def test_the_public_names_are_these() -> None:
    assert mmgradcam.__all__ == [
        "Explanation", "Finding", "InputError", "ModelError", "Probe", "Target", "TargetLayer", "Task", "TextSpan", "__version__",
        "ablation_cam", "cam", "check", "compare", "counterfactual", "deconvnet", "eigencam", "eigengradcam", "explain", "fullgrad",
        "gradcam", "gradcam_pp", "gradcam_pp_code", "gradient_x_input", "guided_backprop", "guided_gradcam",
        "guided_gradcam_pp", "hirescam", "integrated_gradients", "layercam", "log_prob", "mean", "normgrad", "occlusion", "product", "rise",
        "score_cam", "smooth", "smooth_gradcam_pp", "xgradcam",
    ]  # fmt: skip
    for name in mmgradcam.__all__:
        assert getattr(mmgradcam, name) is not None
        assert name in dir(mmgradcam)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = mmgradcam.nonsense
    assert tasks.__all__ == ["VQA", "Captioning", "GenerativeVLM", "Layer", "Policy", "Video", "load"]


def test_public_names_are_documented() -> None:
    for name in set(mmgradcam.__all__) - {"__version__"}:
        assert (getattr(mmgradcam, name).__doc__ or "").strip(), name


def test_version_and_changelog_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {mmgradcam.__version__}" in changelog


def test_files_can_be_read_at_a_sitting() -> None:
    long = [f"{path.name}: {count}" for _, path in files() if (count := len(path.read_text().splitlines())) > 400]
    assert not long


TEMPLATES = ROOT / "mmgradcam" / "render" / "templates"


def closing_tags(path: Path) -> list[str]:
    """Closing tags of HTML in the strings of a file of Python, docstrings left out."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    told = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    strings = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in told]
    return [tag for text in strings for tag in re.findall(r"</[a-z]+[0-9]?>", text)]


def test_pages_are_made_of_templates_that_escape_every_value(tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text('"""A <b>docstring</b>."""\npage = f"<p>{__name__}</p>"\n')
    assert closing_tags(tmp_path / "page.py") == ["</p>"]
    assert not {module: found for module, path in files() if (found := closing_tags(path))}
    pages = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATES.iterdir()}
    assert {"base.html", "explanation.html", "player.html", "evaluation.html", "bias.html"} <= set(pages)
    for name, text in pages.items():
        assert not re.search(r"\|\s*safe|autoescape|Markup", text), f"{name}: values are escaped"
        assert name == "base.html" or not name.endswith(".html") or text.startswith('{% extends "base.html" %}'), name
        assert text.count("<head>") == (name == "base.html"), f"{name}: one head for all pages"


def test_templates_are_read_when_a_page_is_made_and_not_before() -> None:
    code = "import sys, mmgradcam.render.pages, mmgradcam.studies.bias_report as b; before = {'jinja2'} & set(sys.modules)\n"
    code += (
        "from mmgradcam.render.templating import environment; assert environment() is environment(); print(before or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "none"


def test_the_wheel_clashes_with_nobody(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="building the wheel offline needs setuptools 77 or newer here")
    source = tmp_path / "source"
    for folder in ("mmgradcam", "tasks", "checkpoints"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(source),
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"mmgradcam", wheel.name.split("-py3")[0] + ".dist-info"}
    for module, path in files():
        part = "/__init__" if path.stem == "__init__" else ""
        assert f"{module.replace('.', '/')}{part}.py" in names, f"{module}: name its folder in pyproject.toml's packages"
    for name in ("mmgradcam/py.typed", "mmgradcam/tasks/nets/encoder.py", "mmgradcam/checkpoints/__init__.py"):
        assert name in names
    templates = {f"mmgradcam/render/templates/{path.name}" for path in TEMPLATES.iterdir()}
    assert "mmgradcam/render/templates/base.html" in templates
    assert templates <= set(names)
    for model in checkpoints.names():
        for file in ("model.safetensors", "config.json", "README.md"):
            assert f"mmgradcam/checkpoints/{model}/{file}" in names


CLONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in f"{getattr(f, '__module__', '')}{f}".lower()]
assert "" in sys.path[:1], sys.path
from mmgradcam.tasks import load, Layer
from mmgradcam import checkpoints, explain
import mmgradcam.tasks.hub.generative
mine = {name: m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] in ("mmgradcam", "tasks", "checkpoints")}
assert len(set(mine.values())) == len(mine), mine
assert sys.path[0] == ""
print(load("clips-motion", "cpu").name, *sorted({f.rpartition("/")[0] for f in mine.values()}))
"""


def test_a_clone_beside_a_plain_install_finds_its_own_siblings(tmp_path: Path) -> None:
    """Python started at the root of a clone: the local `mmgradcam` hides the installed one, which has `tasks` inside."""
    installed = tmp_path / "site"
    for package, folder in PACKAGES.items():
        (installed / package.replace(".", "/")).mkdir(parents=True, exist_ok=True)
        (installed / package.replace(".", "/") / "__init__.py").write_text(f"raise ImportError('the installed {folder.name}')")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"} | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", CLONE], capture_output=True, text=True, cwd=ROOT, env=env, timeout=200)
    assert done.returncode == 0, done.stderr
    name, *places = done.stdout.split()
    assert name == "clips-motion"
    assert {Path(place).is_relative_to(ROOT) for place in places} == {True}


def test_importing_what_scripts_import_loads_little_beside_torch() -> None:
    """What keeps the import within a fifth of torch's own; the time itself is measured by scripts/benchmark.py."""
    code = (
        "import sys, torch, numpy, PIL.Image, safetensors\nbefore = set(sys.modules)\n"
        "from mmgradcam import explain, gradcam, rise\nfrom mmgradcam.tasks import load, Captioning, VQA, Layer\n"
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"torchvision", "transformers", "datasets", "nltk", "matplotlib", "pandas", "scipy", "typer", "rich"}
    assert "mmgradcam" in loaded
