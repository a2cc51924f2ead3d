"""What a task says of itself is enough: a user's own class runs everywhere that fits what it can be asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam import InputError, Target, Task, check, explain, gradcam
from mmgradcam.datasets.records import ObjectAnnotation, Phrase, Question, Sample
from mmgradcam.datasets.sources import open_data
from mmgradcam.evaluation.queries import asked_of, check_askable
from mmgradcam.evaluation.run import audit
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
"""A model of questions of a user's own, in as few lines as it takes; it answers every question by the color there is most of.
"""


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
        metadata = {"question_id": 1000 * number, "image_id": number}
        questions.append({**metadata, "question": "What color is it?"})
        ten = [{"answer": answer}] * 10
        annotations.append({**metadata, "answers": ten, "multiple_choice_answer": answer, "answer_type": "other"})
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
    assert (made.labels, made.metadata.model) == (["Red"], "Colors")
    assert [str(f) for f in check(task, photo, question="what color is it?") if f.ok is False] == []

    assert run("check", model, photo, "--query", "question=what color is it?") == 0
    capsys.readouterr()
    for more, said in (
        ([], "Colors needs question=..., which was not given"),
        (["--query", "qestion=x"], "did you mean question=?"),
    ):
        assert run("check", model, *more) == 1
        captured = capsys.readouterr()
        assert said in captured.err
        assert "WRONG" not in captured.out
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
    assert json.loads(capsys.readouterr().out)["figures"]["gradcam"]["correct"]["rows"] > 1


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


def red() -> Image.Image:
    return Image.new("RGB", (40, 32), (250, 10, 20))


class Own(Task):
    """Asks nothing of its subclasses but what they are for: they say what they see in the mean color."""

    def __init__(self) -> None:
        self.net = nn.Conv2d(3, 3, 4, 4)
        self.net.weight.data = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4).clone() / 16

    def encode(self, images: Tensor) -> Tensor:
        made: Tensor = self.net(images)
        return made

    def score(self, features: Tensor, targets: Any) -> Tensor:
        return torch.stack([row[t.value].square().mean() for row, t in zip(features, targets, strict=True)])

    def targets(self, features: Tensor, **query: Any) -> list[Target]:
        return [Target(["red", "green", "blue"][k], k) for k in features.mean((0, 2, 3)).topk(2).indices.tolist()]


class Classifying(Own):
    def targets(self, features: Tensor, classes: Any = None) -> list[Target]:
        return [Target(name, ["red", "green"].index(name)) for name in classes or ["red"]]


class Saying(Own):
    def targets(self, features: Tensor, caption: str = "red square") -> list[Target]:
        return [Target(word, n) for n, word in enumerate(caption.split())]


def test_defaults_are_read_from_the_class_and_give_way_to_what_is_set() -> None:
    class Named(Own):
        name = "colors"
        query_types = frozenset({"question"})
        clip_length = 4

    one, other = Own(), Named()
    assert (one.name, one.query_types, one.clip_length, one.can_read("xyzzy"), one.target_layer("net")) == (
        "Own", frozenset(), None, True, "net",
    )  # fmt: skip
    assert (other.name, other.query_types, other.clip_length) == ("colors", {"question"}, 4)
    one.name, one.device = "mine", "cpu"  # type: ignore[assignment]  # as many write it
    assert explain(one, red()).metadata.model == "mine"
    assert Classifying().query_types == {"classes"}
    assert one.net.weight.device.type == "cpu"
    with pytest.raises(InputError, match="Classifying is asked with classes=; got clases="):
        explain(Classifying(), red(), clases=["red"])


def objects(*labels: str) -> Sample:
    return Sample("a", red(), objects=tuple(ObjectAnnotation(label, ((0.0, 0.0, 0.5, 1.0),)) for label in labels))


def told(task: Task, photo: Sample) -> list[tuple[str, Any, bool]]:
    """Of each target that a data set asks of a task: its label, whether it is right, and whether it is known where it is."""
    made = []
    for one in asked_of(task, photo):
        explanation = explain(task, photo.image, **one.query)
        truths = one.truths(explanation)
        made += [(label, t.right, t.placed is not None) for label, t in zip(explanation.labels, truths, strict=True)]
    return made


def test_a_data_set_asks_each_task_what_it_supports() -> None:
    named = Classifying()
    named.labels = ("red", "green, jade")
    assert [one.query for one in asked_of(named, objects("red", "chair"))] == [{"classes": ["red"]}], "it takes no top="
    assert asked_of(named, objects("chair")) == []
    with pytest.raises(InputError, match="Classifying has no `labels`"):
        check_askable(Classifying(), open_data("scenes"))
    assert told(Own(), objects("red", "chair")) == [("red", True, True), ("blue", False, False)], "what it predicts"
    phrase = Phrase(0, 0, 1, "red square", ("shape",), ((0.0, 0.0, 0.5, 1.0),))
    written = Sample("a", red(), captions=(("red", "square", "here"),), phrases=(phrase,))
    assert [one.query for one in asked_of(Saying(), written)] == [{"caption": "red square here"}]
    assert [one.query for one in asked_of(Saying(), objects("red"))] == [{}]
    asked = Sample("a", red(), questions=(Question("what?", "other", ("Red",)), Question("why?", "other", ("so",))))

    class Both(Saying):
        def targets(self, features: Tensor, caption: str = "red square", question: str | None = None) -> list[Target]:
            return [Target("RED", 0), Target("so", 1)] if question else super().targets(features, caption)

    assert told(Both(), asked) == [("RED", True, False), ("so", False, False), ("RED", False, False), ("so", True, False)]
    assert [one.query for one in asked_of(Both(), written)] == [{"caption": "red square here"}]
    clips, policy = load("clips-motion", "cpu"), load("babyai-goto", "cpu")
    for task, sees in ((clips, "clips"), (policy, "observations")):
        with pytest.raises(InputError, match=f"expected a model of images, as scenes:test holds; {task.name} sees {sees}"):
            audit(task, open_data("scenes"), [gradcam], ["pointing"])


MOVING = """
import torch
from mmgradcam.images.pictures import Preprocess
from mmgradcam.tasks import Video
from mmgradcam.tasks.nets.clips import ClipEncoder, SliceHead

torch.manual_seed(0)
def of(*labels, length=8):
    return Video(ClipEncoder((4, 6)), SliceHead(6, len(labels)), labels, Preprocess((32, 32)), length)
ways, other = of("Grows", "shrinks", "walks"), of("dog", "cat")
"""


def test_a_model_of_clips_of_ones_own_is_measured_on_the_motions_that_it_has_labels_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ways.py").write_text(MOVING)
    told = ["--methods", "gradcam,layercam", "--metrics", "pointing,accuracy,drop", "--limit", "12", "--json"]
    assert run("evaluate", f"{tmp_path / 'ways.py'}:ways", *told) == 0
    made = json.loads(capsys.readouterr().out)
    kinds = [next(iter(open_data("motions").since(n))).group for n in range(12)]
    known = sum(kind in ("grows", "shrinks") for kind in kinds)
    assert (made["data"], made["pictures"], made["skipped"]) == ("motions:test", known, 12 - known)
    assert 0 < known < 12
    assert list(made["figures"]) == ["gradcam", "layercam"]
    for found in made["figures"].values():
        assert {"pointing", "pointing_swapped", "baseline_center", "baseline_random", "average_drop", "correct"} <= set(found)
        assert found["pointing"]["rows"] == found["top1_accuracy"]["rows"] == known
        assert all(0 <= found[name]["mean"] <= 1 for name in ("pointing", "baseline_center", "average_drop", "win_rate"))
    assert run("evaluate", f"{tmp_path / 'ways.py'}:ways", "--limit", "12", "--out", tmp_path / "out") == 0
    assert "top1 accuracy" in capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").exists()
    assert run("evaluate", f"{tmp_path / 'ways.py'}:other", "--limit", "2") == 1
    assert "motions:test says nothing that Video could be asked" in capsys.readouterr().err


def test_vilt_is_evaluated_on_a_data_set_of_questions(
    vqa_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hub_models import saved

    folder = saved("vilt", tmp_path / "hub")
    assert run("evaluate", "--model", folder, "--data", vqa_data, "--metrics", "heat", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["pictures"], figures["rows"], figures["malformed"]) == (2, 2, [])
    assert figures["figures"]["hirescam"]["correct"]["mean"] == 0


def test_a_captioner_of_ones_own_is_measured_on_scenes_and_a_classifier_where_scenes_hold_its_classes() -> None:
    made = audit(Saying(), open_data("scenes:test:generated"), [gradcam], ["statements"], limit=2)
    assert made.figures("gradcam")["correct"].rows == 4
    assert made.figures("gradcam")["caption_true"].rows == 2


def test_a_task_that_is_asked_nothing_is_explained_and_what_does_not_fit_says_what_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red().save(tmp_path / "red.png")
    plain = "    def targets(self, features, top=1):\n        return [Target('red', 0), Target('green', 1)][:top]\n"
    (tmp_path / "plain.py").write_text(
        COLORS.partition("    def targets")[0] + plain + "    def score" + COLORS.partition("    def score")[2]
    )
    model = f"{tmp_path / 'plain.py'}:Colors"
    assert run("classify", tmp_path / "red.png", "--model", model, "--top", "2", "--out", tmp_path / "out") == 0
    assert "green" in capsys.readouterr().out
    for told, said in (
        (["caption", tmp_path / "red.png"], "its `targets` would need a parameter caption"),
        (["video", tmp_path / "red.png"], "expected one asked with clips; it would need a `clip_length`"),
        (["policy", "World-v0"], "expected one asked with observations; write it as a `Policy` of mmgradcam.tasks"),
        (["classify", tmp_path / "red.png", "--class", "red"], "Colors is asked with top=; got classes="),
    ):
        assert run(*told, "--model", model, "--out", tmp_path / "no") == 1
        assert said in capsys.readouterr().err


def test_clips_and_policies_are_tried_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmgradcam.scenes.motion import make_motion, render_motion

    frames = render_motion(make_motion(3)).clip.frames
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    made = explain(load("clips-motion", "cpu"), tmp_path / "film.gif")
    assert (len(made.map), made.metadata.image_name) == (16, "film.gif")
    for more in ([], [tmp_path / "film.gif"]):
        assert run("check", "clips-motion", *more) == 0
        assert "3 x 16 x 64 x 64 pixels" in " ".join(capsys.readouterr().out.split())
    assert run("check", "babyai-goto") == 1
    assert "name an environment after it" in capsys.readouterr().err

    class World:
        def reset(self, seed: int) -> Any:
            pixels = torch.randint(0, 255, (64, 64, 3), generator=torch.Generator().manual_seed(seed)).byte().numpy()
            return {"image": pixels, "mission": "go to the red ball"}, {}

    monkeypatch.setattr("mmgradcam.evaluation.episode.open_world", lambda name: World() if name == "Here-v0" else None)
    assert run("check", "babyai-goto", "Here-v0", "--query", "action=left") == 0
    assert "left" in capsys.readouterr().out


TOKENS = """
import torch
from torch import nn
from mmgradcam.images.pictures import Preprocess
from mmgradcam.tasks import Layer

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.block = nn.Conv2d(3, 8, 8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.last, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
    def forward(self, images):
        tokens = self.block(self.patches(images).flatten(2).transpose(1, 2))
        return self.head(self.last(tokens).tanh().mean(1))

def make():
    return Layer(Net(), "patches", ["red", "blue"], Preprocess((32, 32)))
"""


def test_a_layer_of_tokens_can_be_named_wherever_layers_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The task finds the layout that makes a grid of what the layer puts out."""
    (tmp_path / "tokens.py").write_text(TOKENS)
    red().save(tmp_path / "red.png")
    (tmp_path / "data" / "red").mkdir(parents=True)
    red().save(tmp_path / "data" / "red" / "a.png")
    model, out = f"{tmp_path / 'tokens.py'}:make", tmp_path / "out"
    assert run("classify", tmp_path / "red.png", "--model", model, "--layer", "block", "--out", out) == 0
    assert json.loads((out / "red" / "explanation.json").read_text())["feature_layer"]["grid"] == [4, 4]
    told = ["evaluate", model, "--data", tmp_path / "data", "--metrics", "heat", "--layer", "block", "--out", tmp_path / "rows", "--json"]  # fmt: skip
    for _ in range(2):  # and a run goes on where another stopped: layers are known by their names
        assert run(*told) == 0
        assert json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))["pictures"] == 1
