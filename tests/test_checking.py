"""`check` tells what is wrong with a task, and finds nothing wrong where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18

from mmgradcam import InputError, ModelError, Target, Task, explain
from mmgradcam.checking.check import Finding, check
from mmgradcam.images.pictures import PreparedImage
from mmgradcam.scenes.motion import make_motion, render_motion
from mmgradcam.tasks import Layer, Policy, load


class Good(Task):
    """A small encoder and a head that looks at places, two classes; the wrong ones below change one thing each."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 7, 4, 3), nn.ReLU(), nn.Conv2d(8, 6, 5, 4, 2), nn.BatchNorm2d(6), nn.ReLU()
        ).eval()
        self.head = nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()

    def encode(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images)
        return features

    def targets(self, features: Tensor, **query: Any) -> Sequence[Target]:
        return [Target("cat", 0), Target("dog", 1)]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        scores: Tensor = self.head(features).flatten(2).logsumexp(2)
        return scores[torch.arange(len(targets)), torch.tensor([t.value for t in targets])]


def wrong(task: Task, **query: Any) -> list[Finding]:
    return [finding for finding in check(task, **query) if finding.ok is False]


def test_a_good_task_is_found_so() -> None:
    findings = check(Good())
    assert [f.name for f in findings if f.ok is False] == []
    assert {f.name for f in findings if f.ok} == {
        "encode", "targets", "one encode", "rows apart", "gradient", "orientation", "left as it was",
    }  # fmt: skip
    assert "14 x 14" in str(findings[0])
    assert str(findings[0]).startswith("right  encode: ")


@pytest.mark.parametrize("name", ["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa", "photo-captioner-small"])
def test_the_bundled_models_are_found_good(name: str) -> None:
    query = {"question": "what color is the cube?"} if "vqa" in name else {"caption": "a red"} if "scenes" in name else {}
    findings = check(load(name, device="cpu"), **query)
    assert [str(f) for f in findings if f.ok is False] == []
    assert any(f.name == "scores" and f.ok for f in findings) == ("transformer" in name or "captioner" in name or "vqa" in name)


def test_tasks_of_clips_and_of_observations_are_tried_too() -> None:
    motion = render_motion(make_motion(3))
    findings = check(load("clips-motion", device="cpu"), motion.clip, classes=["grows", "shrinks"])
    assert [str(f) for f in findings if f.ok is False] == []
    assert findings[0].said == "3 x 16 x 64 x 64 pixels become 64 channels on a grid of 16 x 16 x 16"
    assert [str(f) for f in check(load("clips-motion", device="cpu")) if f.ok is False] == [], "a clip is made up"
    mind = load("babyai-goto", device="cpu")
    assert isinstance(mind, Policy)
    seen = {"image": np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "mission": "go to the red ball"}
    findings = check(mind.at(seen), mind.picture(seen), top=3)
    assert [str(f) for f in findings if f.ok is False] == []


def test_a_whole_model_is_tried_at_its_layer() -> None:
    model = resnet18()
    findings = check(Layer(model, "layer3"), classes=[1, 5])
    assert [str(f) for f in findings if f.ok is False] == []
    assert "256 channels on a grid of 14 x 14" in findings[0].said
    assert model.training, "left in the mode it was in"
    late = {f.name: f for f in check(Layer(resnet18(), "avgpool"), classes=[1])}
    assert "the grid is 1 x 1" in late["encode"].said


class Pooled(Good):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).mean((2, 3))


class OnePicture(Good):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images[:1])


class Raises(Good):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images.flatten(1))


class Random(Good):
    def encode(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().encode(images), 0.5)


class Together(Good):
    def encode(self, images: Tensor) -> Tensor:
        features = super().encode(images)
        return features - features.mean(0, keepdim=True) * 0.5


class Transposed(Good):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).transpose(2, 3)


class Flipped(Good):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).flip(-1)


class ChannelsLast(Good):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).permute(0, 2, 3, 1)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features.permute(0, 3, 1, 2), targets)


class EncodesAgain(Good):
    def encode(self, images: Tensor) -> Tensor:
        self.images = images
        return super().encode(images)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        again = super().encode(self.images[:1]).expand(len(targets), -1, -1, -1)
        return super().score(again + 0 * features, targets)


class Detached(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features.detach(), targets)


class Counted(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features.round().sign() + 0 * features, targets)


class Averaged(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features - features.mean(0, keepdim=True) * 0.3, targets)


class FirstTarget(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features, [targets[0]] * len(targets))


class RandomHead(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(nn.functional.dropout(features), targets)


class AllClasses(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        scores: Tensor = self.head(features).flatten(2).logsumexp(2)
        return scores


class Infinite(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features, targets) + torch.log(torch.zeros(len(targets)))


class Strings(Good):
    def targets(self, features: Tensor, **query: Any) -> Any:
        return ["cat", "dog"]


class Nameless(Good):
    def targets(self, features: Tensor, **query: Any) -> Sequence[Target]:
        return [Target(0, 0)]  # type: ignore[arg-type]


class Disagreeing(Good):
    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor]:
        return [torch.stack([self.score(features, [some[t] for some in targets]) for t in (1, 0)])]


class Trains(Good):
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        with torch.no_grad():
            next(self.head.parameters()).mul_(1.0)
        return super().score(features, targets)


class Hooks(Good):
    def encode(self, images: Tensor) -> Tensor:
        self.body[0].register_forward_hook(lambda *_: None)
        return super().encode(images)


class Hides(Good):
    def __init__(self) -> None:
        super().__init__()
        self.words = ["cat", "dog"]  # type: ignore[assignment]


class Bytes(Good):
    def prepare(self, image: Image.Image) -> PreparedImage:
        return PreparedImage(torch.zeros(3, 32, 32, dtype=torch.uint8), (0.0, 0.0, 1.0, 1.0))


class PixelsLast(Good):
    def prepare(self, image: Image.Image) -> PreparedImage:
        return PreparedImage(torch.zeros(32, 32, 3), (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        (Pooled, "encode", "return the features before they are pooled"),
        (OnePicture, "encode", "features of 2 images, got (1, 6, 14, 14)"),
        (Raises, "encode", "raised RuntimeError"),
        (Random, "encode twice", "switch dropout and noise off"),
        (Together, "pictures apart", "look for a mean over the batch"),
        (Transposed, "orientation", "look for a transpose"),
        (Flipped, "orientation", "left and right are swapped"),
        (ChannelsLast, "orientation", "features.permute(0, 3, 1, 2)"),
        (EncodesAgain, "one encode", "runs layers that encode ran already (Conv2d, BatchNorm2d)"),
        (Detached, "gradient", "look for .item(), .detach()"),
        (Counted, "gradient", "0 everywhere"),
        (Averaged, "rows apart", "look for a mean over the batch"),
        (FirstTarget, "rows apart", "let a Target's value hold all that its score needs"),
        (RandomHead, "score twice", "switch dropout off"),
        (AllClasses, "score", "return one score per target, (2,)"),
        (Infinite, "score", "look for the log of 0"),
        (Strings, "targets", "return a list of at least one Target"),
        (Nameless, "targets", "give each a name that people read"),
        (Disagreeing, "scores", "in the order of the targets"),
        (Trains, "left as it was", "head.0.weight changed while the task ran"),
        (Hooks, "left as it was", "the hooks of body.0 changed"),
        (Hides, "names", "'words' hides Task.words"),
        (Bytes, "prepare", "pixels of floats"),
        (PixelsLast, "prepare", "pixels.permute(2, 0, 1)"),
    ],
)
def test_what_is_wrong_is_found_and_what_to_change_is_said(task: type[Task], name: str, said: str) -> None:
    found = {finding.name: finding.said for finding in wrong(task())}
    assert said in found.get(name, ""), found


@pytest.mark.parametrize("task", [Transposed, Flipped, Detached, Averaged, FirstTarget, Disagreeing, Strings, Bytes, Infinite])
def test_nothing_else_is_said_to_be_wrong(task: type[Task]) -> None:
    assert len(wrong(task())) == 1


def test_batch_norm_in_train_mode_is_no_finding_since_explain_sets_it_aside() -> None:
    task = Good()
    task.body.train()
    assert wrong(task) == []
    explain(task, torch.rand(3, 64, 64))
    assert task.body.training


def test_explain_says_too_that_an_attribute_hides_a_method() -> None:
    with pytest.raises(ModelError, match=r"its attribute 'words' hides Task\.words"):
        explain(Hides(), torch.rand(3, 64, 64))


def test_a_wrong_query_is_no_finding() -> None:
    with pytest.raises(InputError, match="does not know"):
        check(load("scenes-vqa", device="cpu"), question="who let the dogs out")


def test_memory_of_a_row_is_what_autograd_keeps() -> None:
    said = next(f.said for f in check(Good()) if f.name == "memory")
    assert said.startswith("a row takes 0.0")
