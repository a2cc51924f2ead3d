"""One call's way from pictures to explanations: batches, what each picture is told, what methods are given, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from conftest import Classes
from PIL import Image
from torch import Tensor, nn

from mmgradcam import Explanation, InputError, ModelError, Target, Task, compare, explain, gradcam, hirescam, rise
from mmgradcam.probe import Probe
from mmgradcam.task import PreparedImage


class Shares(Task):
    """Three targets a picture, its mean red, green and blue; a target's probability is its share, and grey knows nothing."""

    unit = "mean"

    def __init__(self) -> None:
        self.body = nn.Identity()
        self.told: list[Any] = []
        self.encodes: list[int] = []
        self.likely: list[tuple[int, int]] = []
        self.sized = False
        self.blind = True

    def prepare(self, picture: Image.Image) -> PreparedImage:
        made = super().prepare(picture)
        return PreparedImage(made.pixels, made.box, size=picture.size) if self.sized else made

    def encode(self, images: Tensor) -> Tensor:
        self.encodes.append(len(images))
        return self.body(images)

    def targets(self, features: Tensor, colors: Sequence[int] = (0, 1, 2), size: Any = None) -> list[Target]:
        self.told.append(size)
        return [Target(("red", "green", "blue")[c], c) for c in colors]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return features.mean((2, 3))[range(len(targets)), [t.value for t in targets]]

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor | None:
        self.likely.append((len(features), len(targets)))
        means = features.mean((2, 3))
        if not self.blind and bool((means == means[:, :1]).all()):
            return None
        return (
            (means / means.sum(1, keepdim=True)).log().expand(len(targets), -1)[range(len(targets)), [t.value for t in targets]]
        )


def plain(*color: int, size: tuple[int, int] = (12, 8)) -> Image.Image:
    return Image.new("RGB", size, color)


PICTURES = [plain(200, 40, 60), plain(30, 90, 180), plain(10, 70, 20)]
ASKED: list[dict[str, Any]] = [{"colors": [1]}, {"colors": []}, {"colors": [2, 0, 1]}]


@pytest.mark.parametrize("method", [hirescam, lambda probe: probe.pixels.sum(1).expand(len(probe.targets), -1, -1)])
def test_a_picture_without_targets_leaves_the_others_of_its_batch_as_they_are(method: Any) -> None:
    task = Shares()
    made = explain(task, PICTURES, each=ASKED, method=method, grounding=True)
    assert task.encodes == [3, 1], "one batch, and one grey"
    assert task.likely == [(1, 1), (1, 1), (1, 3), (1, 3)]
    assert [e.labels for e in made] == [["green"], [], ["blue", "red", "green"]]
    for one, picture, asked in zip(made, PICTURES, ASKED, strict=True):
        if asked["colors"]:
            alone = explain(Shares(), picture, method=method, grounding=True, **asked)
            assert torch.equal(one.maps, alone.maps)
            assert torch.equal(one.scores, alone.scores)
            assert [t.grounding for t in one.targets] == [t.grounding for t in alone.targets]
            share = torch.tensor([[*picture.getpixel((0, 0))]]).double()  # type: ignore[misc]
            expected = (share / share.sum()).log()[0, asked["colors"]] - torch.tensor(1 / 3).log()
            assert [t.grounding for t in one.targets] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_grey_picture_that_has_no_probabilities_gives_no_grounding() -> None:
    task = Shares()
    task.blind = False
    assert [t.grounding for t in explain(task, PICTURES[0], grounding=True).targets] == [None] * 3
    task.log_prob = lambda features, targets: None  # type: ignore[method-assign]
    task.encodes.clear()
    assert [t.grounding for t in explain(task, PICTURES[0], grounding=True).targets] == [None] * 3
    assert task.encodes == [1], "no grey is encoded for nothing"


def test_a_likelihood_that_is_not_one_for_each_target_is_said() -> None:
    task = Shares()
    task.log_prob = lambda features, targets: torch.zeros(2)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"expected \(3,\) scores, one per target, got \(2,\)"):
        explain(task, PICTURES[0], grounding=True)


def test_a_method_that_asks_is_given_one_picture_and_its_targets() -> None:
    given: list[Probe] = []

    def method(probe: Probe) -> tuple[Tensor, Tensor]:
        given.append(probe)
        maps = torch.arange(1.0, 1 + len(probe.targets))[:, None].expand(-1, 4)
        return maps, maps / 10

    made = explain(Shares(), PICTURES, each=ASKED, method=method)
    assert [tuple(p.pixels.shape) for p in given] == [tuple(p.features.shape) for p in given] == [(1, 3, 8, 12)] * 2
    assert [[t.label for t in p.targets] for p in given] == [["green"], ["blue", "red", "green"]]
    for probe, one in zip(given, (made[0], made[2]), strict=True):
        pixels = torch.tensor([*one.picture.getpixel((0, 0))]).view(1, 3, 1, 1) / 255  # type: ignore[misc]
        for x in (probe.pixels, probe.features, *probe.activations):
            torch.testing.assert_close(x, pixels.expand(1, 3, 8, 12))
        assert one.std is not None
        assert one.maps.tolist() == [[k + 1.0] * 4 for k in range(len(one))]
        torch.testing.assert_close(one.std, one.maps / 10)
    assert compare(Shares(), PICTURES[:1], [hirescam, method])[0][0].std is None


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ([1.0], "got list"),
        (torch.zeros(3), r"got \(3,\)"),
        (torch.tensor(1.0), r"got \(\)"),
        (torch.zeros(2, 4, 4), r"got \(2, 4, 4\)"),
        ((torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)), r"got \(1, 4, 4\)"),
        ((torch.zeros(3, 4, 4), None), "got NoneType"),
    ],
)
def test_what_a_method_that_asks_must_not_draw_is_said(drawn: Any, said: str) -> None:
    with pytest.raises(ModelError, match=rf"method <lambda>: expected maps \(3, \*grid\), {said}"):
        explain(Shares(), PICTURES[0], method=lambda probe: drawn)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [(lambda a: [1.0], "list"), (lambda a: a.sum((1, 2)), r"\(3, 12\)"), (lambda a: a[:1, 0], r"\(1, 8, 12\)")],
)
def test_what_a_gradient_method_must_not_draw_is_said(drawn: Any, said: str) -> None:
    with pytest.raises(ModelError, match=rf"method <lambda>: expected maps \(3, 8, 12\), got {said}"):
        explain(Shares(), PICTURES[0], method=lambda a, g: drawn(a))


def test_gradients_below_rounding_leave_no_map_and_those_that_stand_beside_them_stay() -> None:
    task = Shares()
    score, below = task.score, torch.tensor([1.0, 1e-42, 1.0])
    task.score = lambda features, targets: score(features * below.view(3, 1, 1), targets)  # type: ignore[method-assign]
    made = explain(task, PICTURES, method=lambda a, g: g.sum(1) + 1.0)
    for one in made:
        assert one.warnings == [None, "below rounding", None]
        assert [bool(m.any()) for m in one.maps] == [True, False, True]
    once = explain(
        task, PICTURES[0], method=lambda probe: next(1 + g.sum(1) for s in probe.gradients_of() for _, g in s.activations)
    )
    assert [bool(m.any()) for m in once.maps] == [True, False, True]
    assert once.warnings == [None, "below rounding", None]


def test_targets_are_told_the_size_of_a_picture_where_the_task_wants_it() -> None:
    task = Shares()
    explain(task, PICTURES[0])
    task.sized = True
    explain(task, [PICTURES[0], plain(1, 2, 3, size=(9, 8))])
    assert task.told == [None, (12, 8), (9, 8)]


def test_pictures_go_in_batches_of_one_shape_each() -> None:
    task = Shares()
    wide = plain(1, 2, 3, size=(16, 8))
    made = explain(task, [*PICTURES, wide, wide, PICTURES[0]], batch=2)
    assert task.encodes == [2, 1, 2, 1]
    assert [tuple(e.maps.shape[1:]) for e in made] == [(8, 12)] * 3 + [(8, 16)] * 2 + [(8, 12)]
    task.encodes.clear()
    same = explain(task, [PICTURES[0], PICTURES[0]])
    assert (task.encodes, len(same)) == ([2], 2)


def test_a_single_map_is_not_fused_and_several_are(classes: Classes, pixels: Tensor) -> None:
    fused: list[int] = []

    def fuse(maps: Sequence[Tensor]) -> Tensor:
        fused.append(len(maps))
        return maps[0]

    for method in (hirescam, lambda probe: next(iter(probe.draw(hirescam)))[1]):
        for target_layers, expected in ((("first",), []), (("first", "bend"), [2])):
            fused.clear()
            explain(classes, pixels, method=method, target_layers=target_layers, fuse=fuse)
            assert fused == expected


def test_a_task_is_called_by_its_name_or_else_by_its_class() -> None:
    task = Shares()
    for name in ("Shares", "mine"):
        with pytest.raises(InputError, match=f"^{name}: there is nothing to explain$"):
            explain(task, PICTURES[0], colors=[])
        assert explain(task, PICTURES[0]).metadata.model == name
        task.name = "mine"


def test_the_first_attribute_that_hides_a_method_is_named(classes: Classes, pixels: Tensor) -> None:
    classes.words, classes.join = ["a"], "b"  # type: ignore[assignment, method-assign]
    with pytest.raises(ModelError, match=r"^Classes: its attribute 'words' hides Task\.words; call it something else$"):
        explain(classes, pixels)


def test_methods_that_ask_are_named_where_a_graph_is_wanted(pixels: Tensor, classes: Classes) -> None:
    with pytest.raises(InputError, match=r"create_graph: rise asks the model again and has no graph"):
        explain(classes, pixels, method=rise, create_graph=True)
    assert classes.encodes == []


def test_explanations_like_another_have_neither_its_graph_nor_its_grounding(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, create_graph=True)
    assert made.maps.requires_grad
    for again in (made.with_method("hirescam"), made.explainer.of([made.targets], [pixels / 2])[0]):
        assert isinstance(again, Explanation)
        assert not again.maps.requires_grad
        assert again.labels == made.labels
    assert made.explainer.of([made.targets], [pixels], {"target_layers": ("first",)})[0].metadata.feature_layer == "first"
    task = Shares()
    told = explain(task, PICTURES[0], grounding=True, method=gradcam)
    task.encodes.clear()
    assert [one.labels for one in told.explainer.of([told.targets, told.targets[1:]], [told.explainer.view.pixels] * 2)] == [
        ["red", "green", "blue"],
        ["green", "blue"],
    ]
    assert task.encodes == [2], "no grey, though the first was asked how much it relies on the picture"
    assert told.explainer(told.targets[2]).labels == ["blue"]


def test_how_an_explanation_was_made_cannot_be_changed_after(classes: Classes, pixels: Tensor) -> None:
    """Explanations of one call share it."""
    again = explain(classes, pixels).explainer
    for settings, name in ((again, "query"), (again.how, "batch")):
        with pytest.raises(FrozenInstanceError):
            setattr(settings, name, None)
