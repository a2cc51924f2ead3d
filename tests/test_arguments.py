"""What Python callers give: names that are looked up, and mistakes that end in one clear line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Bent, Classes, Encoder, tiny_captioner, tiny_vqa
from torch import Tensor, nn

import mmgradcam
from mmgradcam import (
    Explanation,
    InputError,
    Target,
    TargetLayer,
    Task,
    check,
    compare,
    explain,
    gradcam,
    hirescam,
    layercam,
    mean,
    occlusion,
    rise,
    smooth,
    smooth_gradcam_pp,
)
from mmgradcam.explaining import arguments
from mmgradcam.tasks import Layer, Policy, load

PICTURE = torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
EXAMPLE = Path(mmgradcam.__file__).parent / "scenes" / "example.png"


def layered() -> Layer:
    return Layer(nn.Sequential(Encoder(), Bent()).double().eval(), "0.second", labels=["cat", "dog", "bird", "fish"])


class Asking(Task):
    """A task of a user's own, which names what it can be asked with."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def targets(self, features: Tensor, question: str, *, answer: str = "yes") -> list[Target]:
        return [Target(answer, question)]

    def score(self, features: Tensor, targets: Any) -> Tensor:
        return features.square().flatten(1).mean(1)


def test_a_bundled_model_is_named_and_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments._bundled.cache_clear()
    made = explain("scenes-captioner", EXAMPLE, caption="a red cube")
    again = compare("scenes-captioner", [EXAMPLE], ["gradcam"], caption="a red cube")[0][0]
    assert made.task is again.task
    assert torch.equal(made.maps, explain(load("scenes-captioner", made.maps.device), EXAMPLE, caption="a red cube").maps)
    assert made.metadata.model == "scenes-captioner"
    arguments._bundled.cache_clear()


def test_methods_layers_and_fusions_are_named(classes: Classes) -> None:
    for name, function in (("gradcam", gradcam), ("hirescam", hirescam), ("occlusion", mmgradcam.occlusion)):
        one, other = (explain(classes, PICTURE, method=m) for m in (name, function))
        assert torch.equal(one.maps, other.maps)
        assert one.metadata == other.metadata
        assert torch.equal(explain(classes, PICTURE).with_method(name).maps, other.maps)
    both = compare(classes, [PICTURE], ["gradcam", hirescam])[0]
    assert [one.metadata.method for one in both] == ["gradcam", "hirescam"]
    one, other = (explain(classes, PICTURE, target_layers=["first", "second"], fuse=f).maps for f in ("mean", mean))
    assert torch.equal(one, other)
    assert not torch.equal(one, explain(classes, PICTURE, target_layers=["first", "second"], fuse="product").maps)


def test_one_layer_need_not_stand_in_a_list() -> None:
    """A module that holds others can be gone through as a list of them; it is one layer all the same."""
    body = nn.Sequential(nn.Conv2d(3, 5, 2, 2), nn.ReLU())
    task = Classes(body.double(), Bent().double())
    expected = explain(task, PICTURE, target_layers=[body]).maps
    for target_layers in (body, TargetLayer(body), "1"):
        made = explain(task, PICTURE, target_layers=target_layers)
        torch.testing.assert_close(made.maps, expected)
        assert " x " not in made.metadata.feature_layer
    task.target_layers = "1"  # type: ignore[assignment]
    torch.testing.assert_close(explain(task, PICTURE).maps, expected)


class GPTLike(nn.Module):
    """A model of transformers, as far as it can be told from outside."""


TASKS: dict[str, tuple[Any, str]] = {
    "none": (None, "expected a Task or the name of a bundled model first, got None"),
    "a model": (nn.Linear(2, 2), r"got Linear, a model alone: wrap it as Layer\(model, layer\) of mmgradcam.tasks for a classifier, load\('org/name'"),
    "a hub's": (GPTLike(), "got GPTLike, a model alone.*load"),
    "a class": (Asking, r"got the class Asking: make one, Asking\(\.\.\.\)"),
    "a path": (Path("scenes-captioner"), "expected a Task or the name of a bundled model first, got PosixPath"),
    "swapped": (PICTURE, "expected a Task or the name"),
    "a near name": ("scene-captioner", "no bundled model is called 'scene-captioner'; did you mean scenes-captioner"),
    "a hub id": ("org/name", r"mmgradcam.tasks.load\('org/name'\) takes folders, hub ids"),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_what_is_no_task_is_said(name: str) -> None:
    given, said = TASKS[name]
    for call in (lambda: explain(given, PICTURE), lambda: compare(given, [PICTURE], [gradcam]), lambda: check(given)):
        with pytest.raises(InputError, match=said) as refusal:
            call()
        assert "\n" not in str(refusal.value)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown method": ({"method": "grad_cam"}, "there is no method 'grad_cam'; did you mean gradcam"),
    "fusion as method": ({"method": "product"}, "there is no method 'product'"),
    "smooth alone": ({"method": smooth}, r"give smooth\(gradcam\)"),
    "smooth by name": ({"method": "smooth"}, r"give smooth\(gradcam\)"),
    "method": ({"method": 3}, "method: expected a function or a name, such as gradcam or 'gradcam', got 3"),
    "fuse": ({"fuse": "sum"}, "fuse: expected product, mean or a function of your own, got 'sum'"),
    "target_layers": (
        {"target_layers": 3},
        r"target layers: expected layers \(modules, their dotted names or TargetLayers\), got 3",
    ),
    "a target layer": ({"target_layers": [None]}, "expected a layer of the task's model"),
    "autocast": ({"autocast": "bf16"}, "autocast: expected a floating-point dtype such as torch.bfloat16, got 'bf16'"),
    "autocast to ints": ({"autocast": torch.int8}, "autocast: expected a floating-point dtype"),
    "batch": ({"batch": 0}, "batch: expected a whole number of 1 or more, got 0"),
    "batch of a word": ({"batch": "16"}, "batch: expected a whole number of 1 or more, got '16'"),
    "batch or not": ({"batch": True}, "batch: expected a whole number"),
    "no batch": ({"batch": None}, "batch: expected a whole number of 1 or more, got None"),
    "memory": ({"memory": 0}, "memory: expected bytes, a whole number of 1 or more, got 0"),
    "part of a byte": ({"memory": 1e9}, "memory: expected bytes"),
    "each": ({"each": [{}, {}]}, "each: expected a list of one query per picture, 1, got 2"),
    "each alone": ({"each": {"classes": [1]}}, "each: expected a list of one query per picture, 1, got dict"),
    "no queries": ({"each": ["cat"]}, r"each: expected queries such as \{'question': '...'\}, got 'cat'"),
    "a typo": ({"methd": "gradcam"}, "got methd=; did you mean method=?"),
    "a near one": ({"clases": [1]}, "got clases=; did you mean classes=?"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_cannot_be_used_are_said(classes: Classes, name: str) -> None:
    how, said = SETTINGS[name]
    with pytest.raises(InputError, match=said) as refusal:
        explain(classes, PICTURE, **how)
    assert "\n" not in str(refusal.value)
    assert not classes.encodes or name == "a target layer", "nothing has run"


def test_inputs_that_are_none_are_said(classes: Classes) -> None:
    with pytest.raises(InputError, match=r"expected a picture \(.*\), got NoneType"):
        explain(classes, None)
    for call in (
        lambda: explain(classes, []),
        lambda: explain(classes, torch.rand(0, 3, 8, 8)),
        lambda: compare(classes, [], [gradcam]),
    ):
        with pytest.raises(InputError, match="expected at least one picture, got an empty list"):
            call()
    for inputs, methods, said in [
        ("photo.jpg", [gradcam], "compare: expected a list of pictures, got 'photo.jpg'"),
        (EXAMPLE, [gradcam], "compare: expected a list of pictures, got PosixPath"),
        ([PICTURE], "gradcam", "compare: expected a list of methods, got 'gradcam'"),
        ([PICTURE], gradcam, "compare: expected a list of methods, got function"),
        ([PICTURE], [], "at least one method, got none"),
    ]:
        with pytest.raises(InputError, match=said):
            compare(classes, inputs, methods)  # type: ignore[arg-type]


def test_what_a_task_cannot_be_asked_is_said_with_the_nearest() -> None:
    made = explain(Asking(), PICTURE, question="what?", answer="no")
    assert (made.labels, made.targets[0].value) == (["no"], "what?")
    with pytest.raises(InputError, match=r"Asking is asked with question=, answer=; got questoin=; did you mean question=\?"):
        explain(Asking(), PICTURE, questoin="what?")
    with pytest.raises(InputError, match=r"Asking needs question=\.\.\., which was not given"):
        explain(Asking(), [PICTURE] * 2, each=[{"question": "what?"}, {}])
    policy = Policy(nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(64, 3)), "0")
    seen = np.zeros((8, 8, 3), np.uint8)
    for task, picture, query, said in [
        (layered(), PICTURE, {"clas": [1]}, "is asked with classes=, top=, contrast=; got clas=; did you mean classes="),
        (tiny_vqa(), torch.rand(3, 16, 16).double(), {"question": "what", "anser": "red"}, "got anser=; did you mean answer="),
        (tiny_vqa(), torch.rand(3, 16, 16).double(), {"questions": "what is"}, "questions: expected a list of questions, got 'what is'"),
        (tiny_vqa(), torch.rand(3, 16, 16).double(), {}, "tiny-lstm is asked with question=.*; got no question"),
        (tiny_captioner(), torch.rand(3, 16, 16).double(), {"capton": "a"}, "is asked with caption=, phrases=; got capton=; did you mean caption="),
        (policy.at(seen), policy.picture(seen), {"actoin": 1}, "got actoin=; did you mean action="),
        (policy.at(seen), policy.picture(seen), {"weather": 1}, "got weather=$"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=said):
            explain(task, picture, **query)  # type: ignore[arg-type]


CLASSES: dict[str, tuple[Any, str]] = {
    "a name": ("cat", r"classes: expected a list, such as classes=\['cat'\], got 'cat'"),
    "a number": (1, r"classes: expected a list, such as classes=\[1\], got 1"),
    "a part": ([1.5], "expected a class by index or name, got 1.5"),
    "nothing": ([None], "expected a class by index or name, got None"),
    "beyond": ([4], r"expected a class in 0\.\.3, got 4"),
    "unknown": (["cot"], "no class is called 'cot'; there are cat"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_that_cannot_be_meant_are_said(name: str) -> None:
    given, said = CLASSES[name]
    with pytest.raises(InputError, match=said):
        explain(layered(), PICTURE, classes=given)


def test_classes_are_numbers_of_any_kind() -> None:
    expected = explain(layered(), PICTURE, classes=[1, 3]).labels
    assert expected == ["dog", "fish"]
    for given in (np.array([1, 3]), torch.tensor([1, 3]), ("dog", -1), [np.int64(1), "3"]):
        assert explain(layered(), PICTURE, classes=given).labels == expected


KEYS: dict[str, tuple[Any, str]] = {
    "a part": (1.5, r"expected a position, a label, a label with its occurrence \(label, 1\), or a slice of positions, got 1.5; there are 3"),
    "nothing": (None, "got None; there are 3 targets, 'class 0', 'class 1', 'class 2'"),
    "a list": ([0, 1], r"got \[0, 1\]"),
    "three": (("class 0", 0, 1), "got"),
    "a word's part": (("class 0", "x"), "got 'x'"),
    "named slice": (slice("class 0", None), "or a slice of positions, got 'class 0'"),
    "unknown": ("nothing", "'nothing' is not among the targets; there are 'class 0', 'class 1', 'class 2'"),
    "empty": ("", "'' is not among the targets"),
    "beyond": (3, "no target 3: there are 3, 'class 0', 'class 1', 'class 2'"),
    "before": (-4, "no target -4"),
    "occurrence": (("class 0", 1), "'class 0' stands there 1 times, so no occurrence 1"),
    "no slice": (slice(2, 1), "the slice is empty; there are 3 targets"),
}  # fmt: skip
MISSING = {"unknown", "empty", "beyond", "before", "occurrence", "no slice"}


@pytest.mark.parametrize("name", KEYS)
def test_keys_that_mean_no_target_are_said(classes: Classes, name: str) -> None:
    made, (key, said) = explain(classes, PICTURE), KEYS[name]
    with pytest.raises(InputError, match=said) as refusal:
        made[key]
    assert isinstance(refusal.value, IndexError) == (name in MISSING)


def test_keys_are_numbers_of_any_kind(classes: Classes) -> None:
    made = explain(classes, PICTURE)
    for key in (
        1,
        -2,
        np.int64(1),
        torch.tensor(1),
        "class 1",
        "CLASS 1",
        ("class 1", 0),
        ("class 1", np.int64(-1)),
        slice(1, 2),
    ):
        assert made[key].label == "class 1"  # type: ignore[index]
    assert made[2:1:-1].label == "class 2"


def test_a_loaded_explanation_says_what_needs_the_model(classes: Classes, tmp_path: Path) -> None:
    explain(classes, PICTURE).save(tmp_path / "kept.npz")
    made = Explanation.load(tmp_path / "kept.npz")
    assert made["class 1"].label == "class 1"
    for call in (lambda: made.with_method("hirescam"), lambda: made[0:2], lambda: made.task, lambda: made.explainer):
        with pytest.raises(InputError, match="needs the model, and the explanation was loaded from a file; explain anew"):
            call()
    for place in (None, 3, tmp_path / "kept.npz" / "inside"):
        with pytest.raises(InputError) as refusal:
            made.save(place)  # type: ignore[arg-type]
        assert "\n" not in str(refusal.value)
    for place in (None, 3):
        with pytest.raises(InputError, match="expected a path"):
            Explanation.load(place)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, 3, nn.Linear(2, 2), Asking(), Asking])
def test_load_says_what_it_takes(given: Any) -> None:
    with pytest.raises(InputError, match="load: expected a name or a folder, got") as refusal:
        load(given)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="device 'None' cannot be used"):
        load("clips-motion", None)  # type: ignore[arg-type]


def rectified() -> Layer:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 4, 4), nn.Flatten())
    return Layer(net.double().eval(), "1")


WRONG_SETTINGS = {
    "unknown setting": ("rise(masks=500)", "rise has no setting 'masks'; did you mean count or cells or share or seed or centred?"),
    "misspelled setting": ("smooth_gradcam_pp(cuont=2)", "smooth_gradcam_pp has no setting 'cuont'; did you mean count?"),
    "no settings": ("gradcam(count=2)", "gradcam has no setting 'count': it has none"),
    "several at once": ("rise(**{'count': 5})", r"rise has no setting '\*\*'"),
    "a text": ("rise(count='many')", "rise: count: expected int, got 'many'"),
    "a truth": ("rise(count=True)", "rise: count: expected int, got True"),
    "a fraction": ("occlusion(size=2.5)", r"occlusion: size: expected int \| None, got 2.5"),
    "code": ("rise(count=__import__('os').getpid())", r"rise: count: expected int, got __import__\('os'\).getpid\(\)"),
    "without a name": ("rise(500)", r"rise: expected settings by name, such as rise\(count=1000\), got 500"),
    "unknown method": ("ries(count=5)", r"there is no method 'ries\(count=5\)'; did you mean rise"),
    "not closed": ("rise(count=5", r"there is no method 'rise\(count=5'; did you mean rise"),
    "out of range": ("rise(count=1)", "rise: expected count in 2.."),
    "too many": ("integrated_gradients(steps=1000000000)", "expected 1 step or more, and at most"),
    "seed beyond 64 bits": (f"smooth(gradcam, seed={10**30})", "seed: expected a whole number in 0.."),
    "no mask": ("smooth_gradcam_pp(neurons=['a'])", "neurons: expected a mask of shape"),
    "other maps": ("smooth_gradcam_pp(maps=['a'])", r"maps: expected Sequence\[int\] \| None, got \['a'\]"),
    "no such map": ("smooth_gradcam_pp(maps=[99])", "maps: expected feature maps in 0..7"),
    "smooth of nothing": ("smooth(nothing)", "there is no method 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "said"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS.keys())
def test_a_wrong_setting_is_one_line(given: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        explain(rectified(), PICTURE, method=given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("rise(count=9, cells=3, share=0.25, seed=4, centred=False)", partial(rise, count=9, cells=3, share=0.25, seed=4, centred=False)),
        (" occlusion(size=4,stride=2 , value=-1)", partial(occlusion, size=4, stride=2, value=-1)),
        ("smooth_gradcam_pp(count=3, maps=[0, 2])", partial(smooth_gradcam_pp, count=3, maps=[0, 2])),
        ("smooth(layercam, count=3, seed=2)", smooth(layercam, count=3, seed=2)),
        ("smooth(occlusion(size=6), count=2)", smooth(partial(occlusion, size=6), count=2)),
        ("gradcam()", gradcam),
    ],
)  # fmt: skip
def test_a_method_by_name_takes_its_settings(given: str, same: Any) -> None:
    """And the name that people read is one that can be given again."""
    task = rectified()
    by_name, slow = explain(task, PICTURE, method=given), explain(task, PICTURE, method=same)
    torch.testing.assert_close(by_name.maps, slow.maps, rtol=0, atol=0)
    assert by_name.maps.abs().max() > 0
    assert by_name.metadata.method == slow.metadata.method
    again = by_name.with_method(by_name.metadata.method)
    torch.testing.assert_close(again.maps, by_name.maps, rtol=0, atol=0)


def test_methods_of_one_name_and_other_settings_are_compared() -> None:
    ((one, other),) = compare(rectified(), [PICTURE], ["smooth(gradcam, count=2)", "smooth(gradcam, count=3)"])
    assert [made.metadata.method for made in (one, other)] == ["smooth(gradcam, count=2)", "smooth(gradcam, count=3)"]
    assert not torch.equal(one.maps, other.maps)
