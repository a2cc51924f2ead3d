"""Results: found by position, label and phrase; joint maps; boxes and masks; files that come back as they went."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Classes, tiny_captioner, tiny_vqa
from PIL import Image

from mmgradcam import Explanation, InputError, Target, explain, hirescam, layercam
from mmgradcam.explanation import Metadata
from mmgradcam.images.regions import fill_holes, mask_box, segment_boxes

CAPTION = "a red ball and a blue ball"


@pytest.fixture
def said(picture: Image.Image) -> Explanation:
    return explain(tiny_captioner(), picture_double(picture), method=hirescam, target_layers=(), caption=CAPTION)


def picture_double(picture: Image.Image) -> torch.Tensor:
    return tiny_captioner().prepare(picture).pixels.double()


def drawn(rows: list[list[float]], size: tuple[int, int] = (4, 4), box: Any = (0.0, 0.0, 1.0, 1.0)) -> Explanation:
    """An explanation of one target with a map worked by hand."""
    return Explanation(
        Image.new("RGB", size), box, [Target("it")], torch.tensor([rows]), torch.tensor([1.0]), None, [None],
        Metadata("model", "score", "method", "feature_layer"),
    )  # fmt: skip


def test_targets_come_in_the_order_of_the_words(said: Explanation) -> None:
    assert [one.label for one in said] == CAPTION.split() == said.labels
    assert said.text == CAPTION
    assert len(said) == 7
    assert said[1].label == "red"
    assert said[-2].label == "blue"
    assert said["red"].map.dtype == torch.float32
    assert said["RED"].map.shape == said.maps.shape[1:]


@pytest.mark.parametrize(
    ("only", "labels", "same"),
    [
        ("red", ["red"], [1]),
        (("ball", 1), ["ball"], [6]),
        (-2, ["blue"], [-2]),
        ("red ball", ["red ball"], ["red ball"]),
        (slice(0, 2), ["a red"], [slice(0, 2)]),
        ([2, "blue"], ["ball", "blue"], [2, 5]),
    ],
)
def test_only_some_targets_are_explained_and_as_among_all(
    said: Explanation, picture: Image.Image, only: Any, labels: list[str], same: list[Any]
) -> None:
    made = explain(tiny_captioner(), picture_double(picture), method=hirescam, target_layers=(), caption=CAPTION, only=only)
    assert made.labels == labels
    for one, key in zip(made, same, strict=True):
        torch.testing.assert_close(one.map, said[key].map)
        assert one.score == pytest.approx(said[key].score)


def test_nothing_is_computed_of_targets_that_only_leaves_out(classes: Classes, pixels: torch.Tensor) -> None:
    explain(classes, pixels, only="class 1")
    assert (classes.encodes, classes.scored) == ([1], [1])
    with pytest.raises(InputError, match="'class 7' is not among the targets; there are 'class 0', 'class 1'"):
        explain(classes, pixels, only=["class 1", "class 7"])


def test_repeated_words_are_told_apart_by_position(said: Explanation) -> None:
    with pytest.raises(InputError, match=r"'ball' stands at positions 2, 6; say which, as in \[2\] or \['ball', 0\]"):
        said["ball"]
    torch.testing.assert_close(said["ball", 1].map, said[6].map)
    assert not torch.equal(said[2].map, said[6].map)
    with pytest.raises(InputError, match="stands there 2 times, so no occurrence 2"):
        said["ball", 2]


def test_words_that_are_not_there_are_answered_with_those_that_are(said: Explanation) -> None:
    with pytest.raises(InputError, match="'frisbee' is not among the targets; there are 'a', 'red', 'ball', 'and'"):
        said["frisbee"]
    with pytest.raises(InputError, match="'red cube' is not among the targets"):
        said["red cube"]
    with pytest.raises(IndexError, match="no target 7: there are 7"):
        said[7]
    with pytest.raises(InputError, match="the slice is empty"):
        said[3:3]


def test_a_phrase_is_one_map_of_the_summed_log_probability(said: Explanation) -> None:
    """The gradient of a sum is the sum of gradients, which an elementwise linear method carries over to maps exactly."""
    for phrase, rows in ((said[1:3], slice(1, 3)), (said["blue ball"], slice(5, 7)), (said[::3], slice(None, None, 3))):
        assert len(phrase) == 1
        assert phrase.label == " ".join(CAPTION.split()[rows])
        assert phrase.score == pytest.approx(float(said.scores[rows].sum()), rel=1e-5)
        torch.testing.assert_close(phrase.map, said.maps[rows].sum(0), rtol=1e-4, atol=1e-6)


def test_a_phrase_is_not_a_merge_of_maps(picture: Image.Image) -> None:
    said = explain(tiny_captioner(), picture_double(picture), method=layercam, target_layers=(), caption=CAPTION)
    joint = said["red ball"].map
    for merged in (said.maps[1:3].sum(0), said.maps[1:3].amax(0), said.maps[1:3].mean(0)):
        assert float((joint / joint.max() - merged / merged.max()).abs().max()) > 0.01


def test_targets_of_a_task_that_cannot_join_say_so(classes: Classes, pixels: torch.Tensor) -> None:
    with pytest.raises(InputError, match="targets of this task cannot be joined"):
        explain(classes, pixels)[0:2]


def test_several_targets_ask_which_is_meant(said: Explanation) -> None:
    for ask in (lambda: said.map, lambda: said.score, lambda: said.label, said.heat, said.boxes, said.overlay):
        with pytest.raises(InputError, match="speaks of one target, and there are 7; pick one of 'a', 'red'"):
            ask()


def test_boxes_and_masks_worked_by_hand() -> None:
    one = drawn([[0, 0, 0, 0], [0, 10, 0, 0], [0, 8, 0, -9], [0, 0, 0, 2]])
    assert one.mask().astype(int).tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert one.boxes() == [(1, 1, 2, 3), (3, 3, 4, 4)]
    assert one.boxes(threshold=0.5) == [(1, 1, 2, 3)]
    assert one.mask(0.9).sum() == 1
    assert one.peak == (1, 1)
    with pytest.raises(InputError, match=r"expected a threshold in 0\.\.1, got 15"):
        one.boxes(15)
    flat = drawn([[0.0, 0.0], [0.0, -1.0]])
    assert (flat.boxes(), flat.peak, flat.mask(0).any()) == ([], None, False)


def test_boxes_speak_in_pixels_of_the_users_picture() -> None:
    wide = drawn([[0, 0], [0, 1.0]], size=(200, 100))
    assert wide.peak is not None
    assert wide.boxes(0.99)[0] == (149, 74, 200, 100)
    half = drawn([[0, 0], [0, 1.0]], size=(200, 100), box=(0.0, 0.0, 0.5, 1.0))
    assert half.boxes(0.99)[0] == (74, 74, 100, 100)


def test_segments_are_told_apart_and_joined_at_corners() -> None:
    mask = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=bool)
    assert segment_boxes(mask) == [(0, 0, 4, 2), (0, 3, 2, 4), (3, 3, 4, 4)]
    snake = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1]], dtype=bool)
    assert segment_boxes(snake) == [(0, 0, 3, 3)]
    assert segment_boxes(np.zeros((3, 3), dtype=bool)) == []


def test_holes_are_filled_and_bays_are_not() -> None:
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    bay = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1]], dtype=bool)
    assert fill_holes(ring).all()
    assert (fill_holes(bay) == bay).all()
    assert mask_box(np.pad(ring, ((1, 0), (2, 1)))) == (2, 1, 5, 4)
    assert mask_box(np.zeros((2, 2), dtype=bool)) == (0, 0, 0, 0)


def test_files_come_back_as_they_went(picture: Image.Image, tmp_path: Path) -> None:
    task = tiny_vqa()
    for module in task.modules():
        module.float()
    made = explain(task, picture, question="what color is the ball?", top=2, contrast="blue")
    files = made.save(tmp_path / "deep" / "er")
    assert [f.name for f in files] == ["words.png", "index.html", "explanation.json", "maps.npz"]
    assert sorted(os.listdir(tmp_path / "deep" / "er")) == sorted(f.name for f in files)
    for path in (tmp_path / "deep" / "er", files[2], files[3], *made.save(tmp_path / "one.npz")):
        back = Explanation.load(path)
        assert back.labels == made.labels
        assert back.metadata.query == {"question": "what color is the ball?", "top": 2, "contrast": "blue"}
        assert torch.equal(back.maps, made.maps)
        assert torch.equal(back.scores, made.scores)
        assert back.box == made.box
        assert back.picture.tobytes() == made.picture.tobytes()
        assert back.model_hash() == made.model_hash()
        assert [o.importances for o in back] == [o.importances for o in made]
        assert [o.targets[0].probability for o in back] == [o.targets[0].probability for o in made]
        assert back[0].overlay().tobytes() == made[0].overlay().tobytes()
        assert back.describe() == made.describe()
        with pytest.raises(InputError, match="needs the model"):
            back[0:2]


def test_the_description_says_how_it_was_made(said: Explanation) -> None:
    described = json.loads(json.dumps(said.describe()))
    assert (described["schema"], described["version"]) == ("mmgradcam/explanation", 2)
    assert described["method"] == "hirescam"
    assert described["feature_layer"]["grid"] == [4, 4]
    assert described["model"]["name"] == "tiny-lstm"
    assert len(described["model"]["sha256"]) == len(described["image"]["sha256"]) == 64
    assert described["targets"][1]["value"] == {"tokens": [1, 4, 7, 5, 9, 4, 8, 5, 2], "positions": [2]}


def test_the_fingerprint_is_that_of_the_weights() -> None:
    one, same, other = tiny_captioner(), tiny_captioner(), tiny_captioner()
    with torch.no_grad():
        next(other.encoder.parameters())[0] += 1e-3
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_pictures_and_pages_alone(said: Explanation, tmp_path: Path) -> None:
    for name, size in (("all.png", None), ("all.jpg", None), ("page.html", None), ("one.webp", said.picture.size)):
        saved = (said if size is None else said[1]).save(tmp_path / name)
        assert saved == [tmp_path / name]
        if size:
            with Image.open(tmp_path / name) as opened:
                assert opened.size == size
    with pytest.raises(InputError, match=r"expected a folder \(folder=True\), or a name that ends in \.html"):
        said.save(tmp_path / "film.mp4")


def test_a_full_disk_or_a_forbidden_place_leaves_nothing(said: Explanation, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        said.save(tmp_path / "file" / "in")

    writes = 0

    def full(*args: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"full: cannot be written \(No space left on device\); choose another place"):
        said.save(tmp_path / "full")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_may_have_any_name(said: Explanation, tmp_path: Path) -> None:
    """An ending says which format is meant only of what is to be a file."""
    files = ["words.png", "index.html", "explanation.json", "maps.npz"]
    (tmp_path / "page.html").mkdir()
    for folder, more in (("IMG_2024.01.31", {"folder": True}), ("x.png", {"folder": True}), ("page.html", {})):
        assert said.save(tmp_path / folder, **more) == [tmp_path / folder / name for name in files]
        assert Explanation.load(tmp_path / folder).labels == said.labels
    with pytest.raises(InputError, match=r"expected a folder \(folder=True\)"):
        said.save(tmp_path / "IMG_2024.02.01")
    assert sorted(os.listdir(tmp_path)) == ["IMG_2024.01.31", "page.html", "x.png"]


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "foreign", "newer"])
def test_what_is_no_explanation_is_said(said: Explanation, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "maps.npz"
    said.save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("maps")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "foreign":
        np.savez(path, maps=np.zeros(3))
    else:
        np.savez(path, description=np.array(json.dumps({"schema": "mmgradcam/explanation", "version": 99})))
    message = {"missing": "no such file", "newer": "expected mmgradcam/explanation version 2 or 1, got .* 99"}
    with pytest.raises(InputError, match=message.get(damage, "not an explanation")):
        Explanation.load(tmp_path)


def test_figures_that_are_not_numbers_are_null_in_the_files(said: Explanation, tmp_path: Path) -> None:
    from mmgradcam.explanation import SanityResult

    made = said[0]
    made.sanity_results = [SanityResult("weak", "why", {"noise": float("nan"), "weights": 0.5})]
    made.save(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "explanation.json").read_text(), parse_constant=pytest.fail)
    assert told["targets"][0]["sanity_result"]["figures"] == {"noise": None, "weights": 0.5}
    (back,) = Explanation.load(tmp_path / "out").sanity_results
    assert back is not None
    assert np.isnan(back.figures["noise"])
    assert back.figures["weights"] == 0.5


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "maps.npz", description=np.array([print], dtype=object))
    with pytest.raises(InputError, match="not an explanation"):
        Explanation.load(tmp_path)


def test_it_shows_itself_in_a_notebook(said: Explanation) -> None:
    for shown in (said, said[0]):
        assert shown._repr_html_().startswith('<img alt="" src="data:image/webp;base64,')
    assert repr(said) == "Explanation('a red ball and a blue ball', 7 x (4, 4) hirescam of tiny-lstm)"


def test_maps_that_are_not_finite_are_never_drawn() -> None:
    one = drawn([[float("nan"), 1.0], [0.0, 0.0]])
    assert not one.heat().any()
    assert np.array_equal(np.asarray(one.overlay()), np.asarray(drawn([[0.0, 0.0], [0.0, 0.0]]).overlay()))
