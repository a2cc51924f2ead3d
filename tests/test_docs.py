"""What the documents say runs and is true: every example, every doctest, every figure of the README."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Classes

import mmgradcam
from mmgradcam import checkpoints, counterfactual, explain, gradcam, gradcam_pp, hirescam, layercam, xgradcam
from mmgradcam.evaluation.measures import MODULES as MEASURED
from mmgradcam.evaluation.measures import measures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)
MODULES = sorted(m.name for m in pkgutil.walk_packages(mmgradcam.__path__, "mmgradcam.") if "__main__" not in m.name)


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmgradcam").mkdir()
    (tmp_path / "mmgradcam" / "scenes").symlink_to(ROOT / "mmgradcam" / "scenes")
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 6
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert {p.name for p in (tmp_path / "explanation").iterdir()} == {"words.png", "index.html", "explanation.json", "maps.npz"}


def test_the_example_of_the_guide_to_measuring_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8"), flags=re.S)
    exec(compile(block, "docs/evaluate.md", "exec"), {})
    assert {p.name for p in (tmp_path / "findings").iterdir()} == {"rows.parquet", "summary.json", "plots.png", "index.html"}


def test_the_page_of_metrics_is_made_of_their_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from readme import metrics_page, with_rows

    guide = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    assert guide == with_rows(guide), "run scripts/readme.py"
    assert "| `sample` | int64 | number of the sample in its data set, from 0 |" in guide

    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert text == metrics_page(), "run scripts/readme.py"
    assert set(re.findall(r"^## `(\w+)`$", text, flags=re.M)) == {"correct"} | {
        name for name, one in measures().items() if one.__module__ in MEASURED
    }


def test_links_of_the_guides_lead_somewhere() -> None:
    for guide in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", guide.read_text(encoding="utf-8")):
            assert target.startswith("http") or (guide.parent / target).exists(), f"{guide.name}: {target}"


def test_the_head_of_ones_own_is_short_and_works_with_every_method() -> None:
    block = next(b for b in BLOCKS if "class Counting" in b)
    lines = [line for line in block.split("class Counting")[1].split("\n\n\n")[0].splitlines() if line.strip()]
    assert len(lines) <= 15
    names: dict[str, object] = {}
    exec(block.split("count = explain")[0], names)
    for method in (gradcam, counterfactual, gradcam_pp, xgradcam, hirescam, layercam):
        task = names["Counting"](names["backbone"], names["head"])  # type: ignore[operator]
        assert explain(task, torch.rand(3, 16, 24), method=method).map.shape == (4, 6)


@pytest.mark.parametrize("name", ["mmgradcam", *MODULES])
def test_the_doctests_of(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"np": sys.modules["numpy"], "torch": torch}).failed == 0


def test_the_figures_of_the_readme_are_those_of_the_cards() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        readme = importlib.import_module("readme")
    finally:
        sys.path.pop(0)
    assert readme.with_figures(README) == README


@pytest.mark.parametrize("name", [name for name in checkpoints.names() if name.startswith("scenes-")])
def test_a_card_tells_the_figures_of_its_config(name: str) -> None:
    folder = checkpoints.folder(name)
    config, text = json.loads((folder / "config.json").read_text()), (folder / "README.md").read_text()
    figures = config["figures"]
    assert f"**{figures['all']['correct']['mean']:.1%}**" in text
    captions = "caption_true" in figures["all"]
    for place in [figures["kinds"][role] for role in ("kind", "color")] if captions else [figures["all"]]:
        shares = [f"{place[key]['mean']:.1%}" for key in ("pointing", "pointing_unfilled", "pointing_swapped_pairs")]
        assert " | ".join(shares) in text
    assert f"**{config['method']}**" in text
    for said in ("seeds", "train_scenes.py", "Licence: Apache-2.0"):
        assert said.lower() in text.lower()
    assert (folder / "model.safetensors").stat().st_size < 10 * 2**20


@pytest.mark.parametrize("name", [name for name in checkpoints.names() if name.startswith("photo-")])
def test_a_card_of_a_photo_model_tells_the_figures_of_its_config(name: str) -> None:
    folder = checkpoints.folder(name)
    config, text = json.loads((folder / "config.json").read_text()), (folder / "README.md").read_text()
    figures = config["figures"]
    own = {key: 100 * found["mean"] for key, found in figures["all"].items()}
    if "blind_accuracy" in own:
        assert f"**{own['correct']:.1f}**" in text
        assert f"{own['blind_accuracy']:.1f}" in text
    else:
        assert f"BLEU-4 **{100 * figures['wholes']['bleu4']:.1f}**" in text
        assert f"**{own['pointing']:.1f}**" in text
        assert f"{own['pointing_swapped_pairs']:.1f}%" in text
    assert f"**{config['method']}** at **{' x '.join(config['target_layers']) or 'the features'}**" in text
    for said in ("train_photos.py", "Flickr8k", "non-commercial"):
        assert said in text


def test_the_readme_tells_the_figures_of_the_model_of_clips() -> None:
    figures = checkpoints.config(checkpoints.folder("clips-motion"))["figures"]
    for name in ("top1_accuracy", "pointing", "baseline_center"):
        assert f"{figures['all'][name]['mean']:.1%}" in README


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_methods_documented_in_the_readme_are_those_there_are() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", README, flags=re.M))
    assert named == set(mmgradcam.methods.__all__) - {"mean", "product"}


def test_the_contract_needs_three_methods() -> None:
    assert mmgradcam.Task.__abstractmethods__ == {"encode", "targets", "score"}
    assert issubclass(Classes, mmgradcam.Task)


def test_the_card_of_the_policy_tells_the_figures_of_its_config() -> None:
    folder = checkpoints.folder("babyai-goto")
    config, text = json.loads((folder / "config.json").read_text()), (folder / "README.md").read_text()
    figures = config["figures"]
    assert f"Episodes won: **{figures['success']:.1%}**" in text
    for name in ("own", "centre", "random", "agent", "swapped", "follows"):
        assert f"{figures['pointing'][name]:.1%}" in text
    assert f"**{config['method']}** at **{' x '.join(config['target_layers'])}**" in text


def test_the_card_of_the_model_of_clips_tells_the_figures_of_its_config() -> None:
    folder = checkpoints.folder("clips-motion")
    config, text = json.loads((folder / "config.json").read_text()), (folder / "README.md").read_text()
    figures = config["figures"]
    found = {name: figure["mean"] for name, figure in figures["all"].items()}
    assert f"Motions told right: **{found['top1_accuracy']:.1%}**" in text
    assert f"**{found['pointing']:.1%}** of {figures['counts']['photos'] * 16:,} frames" in text
    for name in ("baseline_center", "baseline_random", "pointing_swapped"):
        assert f"{found[name]:.1%}" in text
    for kind, share in figures["by_motion"].items():
        assert f"| {kind} | {share:.1%} |" in text
    for found in figures["faithfulness"].values():
        assert " | ".join(f"{100 * found[key]:.2f}" for key in ("average_drop", "increase_in_confidence", "win_rate")) in text
    assert f"**{config['method']}** at **{' x '.join(config['target_layers']) or 'the features'}**" in text


def test_the_papers_tables_hold_no_figure_that_does_not_compare() -> None:
    """Token Activation Map's figures are of another protocol; the pointing game says what tolerance its hits have."""
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert "39.10" not in text
    assert "Obj-IoU |" not in text
    for title in re.findall(r"^## (.*pointing.*)$", text, flags=re.M | re.I):
        part = text.split(f"## {title}\n")[1].split("\n## ")[0]
        assert "tolerance" in part, title


@pytest.mark.parametrize("guide", sorted((ROOT / "docs" / "contributing").glob("*.md")), ids=lambda path: path.stem)
def test_the_changes_that_guides_for_contributors_show_apply(guide: Path, tmp_path: Path) -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.S)
    touched = re.findall(r"^\+\+\+ b/(.+)$", diff, flags=re.M)
    assert [name.partition("/")[0] for name in touched] == ["mmgradcam", "tests"], "one source file and one test file"
    for name in touched:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    for name in touched:
        assert (tmp_path / name).read_bytes() != (ROOT / name).read_bytes(), name
