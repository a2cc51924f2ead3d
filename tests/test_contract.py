"""What a task says of itself is enough: a user's own class runs everywhere that fits what it can be asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmgradcam import check, explain
from mmgradcam.tasks import load

COLORS = """
import torch
from mmgradcam import Target, Task

class Colors(Task):
    def __init__(self):
        self.net = torch.nn.Conv2d(3, 3, 4, 4)
        self.net.weight.data = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4).clone() / 16
    def encode(self, images):
        return self.net(images)
    def targets(self, features, question):
        color = int(features.mean((2, 3)).argmax())
        return [Target(["Red", "Green", "Blue"][color], color)]
    def score(self, features, targets):
        return torch.stack([row[t.value].square().mean() for row, t in zip(features, targets)])
"""
"""A model of questions of a user's own, in as few lines as it takes; it answers every question by the color there is most of."""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(COLORS)
    return f"{tmp_path / 'mine.py'}:Colors"


@pytest.fixture
def vqa_data(tmp_path: Path) -> Path:
    """Two photos with a question each, laid out as VQA v2: the right answers are red and blue; the model says red, and green."""
    questions, annotations = [], []
    for number, color, answer in ((1, (250, 10, 20), "red"), (2, (10, 250, 20), "blue")):
        file = tmp_path / "val2014" / f"COCO_val2014_{number:012d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 32), color).save(file.with_suffix(".jpg"))
        about = {"question_id": 1000 * number, "image_id": number}
        questions.append({**about, "question": "What color is it?"})
        ten = [{"answer": answer}] * 10
        annotations.append({**about, "answers": ten, "multiple_choice_answer": answer, "answer_type": "other"})
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": questions}))
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    path.write_text(json.dumps({"annotations": annotations, "data_subtype": "val2014"}))
    return path


def run(*told: str | Path) -> int:
    """The exit status of the command line, in this process."""
    from mmgradcam import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmgradcam", *map(str, told)])
        try:
            cli.main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
    return 0


def test_a_users_own_model_of_questions_runs_everywhere(
    model: str, vqa_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(COLORS.strip().splitlines()) <= 15
    photo = tmp_path / "val2014" / f"COCO_val2014_{1:012d}.jpg"
    task = load(model, "cpu")
    assert (task.name, task.query_types, task.device, tuple(task.labels), task.clip_length) == (
        "Colors", {"question"}, torch.device("cpu"), (), None,
    )  # fmt: skip
    made = explain(task, photo, question="what color is it?")
    assert (made.labels, made.about.model) == (["Red"], "Colors")
    assert [str(f) for f in check(task, photo, question="what color is it?") if f.ok is False] == []

    assert run("check", model, photo, "--ask", "question=what color is it?") == 0
    assert run("vqa", photo, "--model", model, "--question", "What color is it?", "--out", tmp_path / "out") == 0
    assert "What color is it? Red" in capsys.readouterr().out
    described = json.loads((tmp_path / "out" / photo.stem / "explanation.json").read_text())
    assert described["model"]["name"] == "Colors"
    assert run("vqa", photo, "--model", model, "--question", "What?", "--top", "2", "--out", tmp_path / "no") == 1
    assert "Colors is asked with question=; got top=" in capsys.readouterr().err

    assert run("evaluate", model, "--data", vqa_data, "--metrics", "heat", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["model"] == "Colors"
    assert figures["figures"]["gradcam"]["correct"]["mean"] == 0.5, "the answer red is right whatever its case, green is not"
    assert run("evaluate", model, "--limit", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["number"] > 1


def test_settings_of_a_method_on_the_command_line(
    model: str, vqa_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "val2014" / f"COCO_val2014_{1:012d}.jpg"
    told = ["vqa", photo, "--model", model, "--question", "What?", "--out", tmp_path / "out", "--method"]
    assert run(*told, "rise(count=4, cells=2)") == 0
    described = json.loads((tmp_path / "out" / photo.stem / "explanation.json").read_text())
    assert described["method"] == "rise(count=4, cells=2)"
    several = "occlusion(size=8), smooth(rise(count=2, cells=3), count=2),gradcam"
    assert run("evaluate", model, "--data", vqa_data, "--metrics", "heat", "--methods", several, "--json") == 0
    found = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))["figures"]
    assert list(found) == ["occlusion(size=8)", "smooth(rise(count=2, cells=3), count=2)", "gradcam"]
    assert run(*told, "rise(masks=4)") == 1
    assert "mmgradcam: rise has no setting 'masks'; did you mean count or" in capsys.readouterr().err
    monkeypatch.setenv("COLUMNS", "200")
    assert run("methods") == 0
    listed = capsys.readouterr().out
    assert "count=1000, cells=7, share=0.5, seed=0, centred=True" in listed
    assert "smooth(METHOD)" in listed
