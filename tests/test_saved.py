"""Saved explanations: those of schema version 1 load for ever; edited, damaged and hostile ones are refused in one line."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from mmgradcam import Explanation, InputError, Target
from mmgradcam.explanation import Metadata, SanityResult
from mmgradcam.render import heatmaps
from mmgradcam.storage import schema
from mmgradcam.storage.version1 import upgraded
from mmgradcam.utils import files

SAVED = Path(__file__).parent / "saved"
VERSION1 = SAVED / "version1"
"""What version 0.1.0 wrote: answers with their reliance, results of the sanity check and importances; words with a spread; a clip;
tiles.
"""
NAN, INF = float("nan"), float("inf")


def test_answers_of_version_1_load(tmp_path: Path) -> None:
    for path in (VERSION1 / "answers", VERSION1 / "answers" / "explanation.json", VERSION1 / "answers" / "maps.npz"):
        made = Explanation.load(path)
        assert made.labels == ["red", "red rather than blue", "1"]
        assert (made.metadata.image_name, made.metadata.unit, made.metadata.method) == ("büll 1.png", "logit", "gradcam")
        assert made.maps.shape == (3, 4, 4)
        assert made.picture.size == (32, 24)
        assert made.box == (0.0, pytest.approx(-1 / 6), 1.0, pytest.approx(7 / 6))
        assert made.warnings == [None, None, "no positive evidence"]
        assert [t.hallucination_probability for t in made.targets] == [0.25] * 3
        assert [t.is_hallucinated for t in made.targets] == [False, True, False]
        assert made.targets[0].grounding == pytest.approx(0.00070214271)
        assert [word for word, _ in made[0].importances] == ["what", "color", "is", "the", "ball"]
        assert made[0].sanity_result is not None
        assert made[0].sanity_result.figures["weights"] == 0.18
        assert np.isnan(made[0].sanity_result.figures["noise"])
        assert made[0].peak == (0, 8)
        written = upgraded(json.loads((VERSION1 / "answers" / "explanation.json").read_text()))["targets"][1:]
        made.save(tmp_path / "again")
        assert np.isnan(Explanation.load(tmp_path / "again").sanity_results[0].figures["noise"])  # type: ignore[union-attr]
        kept = [{key: target[key] for key in written[0]} for target in made.describe()["targets"][1:]]
        assert kept == written


def test_words_a_clip_and_tiles_of_version_1_load() -> None:
    words = Explanation.load(VERSION1 / "words.npz")
    assert words.text == "a red ball"
    assert words.std is not None
    assert words.std.shape == words.maps.shape == (3, 4, 4)
    clip = Explanation.load(str(VERSION1 / "clip.npz"))
    assert clip.clip is not None
    assert (len(clip.clip), clip.clip.rate, clip.clip.name, clip.maps.shape) == (4, 8.0, "", (1, 2, 2, 2))
    assert clip.peak is not None
    assert clip.heat().shape == (4, 24, 32)
    with pytest.raises(InputError, match="boxes are of a picture, and this is of a clip"):
        clip.boxes()
    tiles = Explanation.load(VERSION1 / "tiles.npz")
    assert tiles.box == ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
    assert tiles.warnings == [None, "not finite"]
    assert tiles[0].heat().shape == (24, 32)
    assert tiles[0].heat().max() == 1


def contents(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(SAVED / name) as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("description"))), arrays


def put(made: Any, key: str, value: Any) -> None:
    """Sets a value in nested dictionaries and lists by a dotted key."""
    *steps, last = (int(step) if step.isdigit() else step for step in key.split("."))
    for step in steps:
        made = made[step]
    if value is ...:
        del made[last]
    else:
        made[last] = value


ANSWERS, CLIP, TILES, WORDS = "answers/maps.npz", "clip.npz", "tiles.npz", "words.npz"

DESCRIBED: list[tuple[str, str, Any, str]] = [
    # of which file, key, what it becomes (... is: nothing), and what the line names
    (ANSWERS, "schema", "other", "expected mmgradcam/explanation version 2 or 1, got other version 2"),
    (ANSWERS, "version", 3, "version 3; upgrade mmgradcam"),
    (ANSWERS, "version", True, "expected mmgradcam/explanation version 2 or 1, got .* version True"),
    (ANSWERS, "version", ..., "version None"),
    *[(ANSWERS, key, ..., f"{key}: field required") for key in ("mmgradcam", "model", "image", "query", "text", "unit", "method", "feature_layer", "targets")],
    *[(ANSWERS, key, 3, f"{key}: input should be a valid string, got '3'") for key in ("unit", "method", "text")],
    (ANSWERS, "model", [], "model: input should be"),
    (ANSWERS, "model.name", None, "model.name: input should be a valid string"),
    (ANSWERS, "model.sha256", ..., "model.sha256: field required"),
    (ANSWERS, "image.name", 5, "image.name"),
    (ANSWERS, "image.width", 31, "picture: expected .24, 31, 3. of uint8, got .24, 32, 3. of uint8"),
    (ANSWERS, "image.width", "32", "image.width: input should be a valid integer"),
    (ANSWERS, "image.height", -24, "image.height"),
    (ANSWERS, "image.height", 10**12, "image.height"),
    (ANSWERS, "image.sha256", "0" * 64, "image.sha256: expected the picture's"),
    (ANSWERS, "query", [], "query"),
    (ANSWERS, "feature_layer.name", ..., "feature_layer.name"),
    (ANSWERS, "feature_layer.grid", [4, 5], r"maps: expected \(3, 4, 5\) of floats, got \(3, 4, 4\)"),
    (ANSWERS, "feature_layer.grid", [], "feature_layer.grid"),
    (ANSWERS, "feature_layer.grid", "44", "feature_layer.grid"),
    (ANSWERS, "feature_layer.grid", [4, 4.5], r"feature_layer.grid\[1\]"),
    (ANSWERS, "feature_layer.grid", [0, 4], r"feature_layer.grid\[0\]"),
    (ANSWERS, "feature_layer.grid", [10**9, 10**9], "maps: expected"),
    (ANSWERS, "feature_layer.box", [0, 0, 1], "feature_layer.box"),
    (ANSWERS, "feature_layer.box", [0, 0, NAN, 1], r"feature_layer.box\[2\]: input should be a finite number"),
    (ANSWERS, "feature_layer.box", [0, 0, INF, 1], r"feature_layer.box\[2\]"),
    (ANSWERS, "feature_layer.box", [0, 0, 1e300, 1], r"feature_layer.box\[2\]"),
    (ANSWERS, "feature_layer.box", [0.5, 0, 0.5, 1], "feature_layer.box: expected a rectangle with an area"),
    (ANSWERS, "feature_layer.box", None, "feature_layer.box"),
    (ANSWERS, "feature_layer.box", [[0, 0, 1, 1]], "feature_layer.box: expected 4 boxes"),
    (TILES, "feature_layer.box.1", [0, 0, 1, NAN], r"feature_layer.box\[1\]\[3\]"),
    (TILES, "feature_layer.box.1", ..., "feature_layer.box: expected 2 boxes"),
    (ANSWERS, "targets", {}, "targets: input should be a valid array"),
    (ANSWERS, "targets", [], r"maps: expected \(0, 4, 4\)"),
    (ANSWERS, "targets.2", ..., r"maps: expected \(2, 4, 4\) of floats"),
    (ANSWERS, "targets.1", "blue", r"targets\[1\]"),
    (ANSWERS, "targets.1.label", ..., r"targets\[1\].label: field required"),
    (ANSWERS, "targets.1.label", None, r"targets\[1\].label"),
    (ANSWERS, "targets.1.label", "green", "text: expected the labels in a row"),
    (ANSWERS, "text", "green, red, 1", "text: expected the labels in a row"),
    (ANSWERS, "targets.0.score", "high", r"targets\[0\].score: input should be a valid number"),
    (ANSWERS, "targets.0.score", NAN, r"targets\[0\].score: input should be a finite number"),
    (ANSWERS, "targets.0.score", 0.25, r"targets\[0\].score: expected scores\[0\], 0.359"),
    (ANSWERS, "targets.0.probability", 1.5, r"targets\[0\].probability"),
    (ANSWERS, "targets.0.probability", NAN, r"targets\[0\].probability"),
    (ANSWERS, "targets.0.probability", "0.5", r"targets\[0\].probability"),
    (ANSWERS, "targets.0.probability", ..., r"targets\[0\].probability: field required"),
    (ANSWERS, "targets.0.grounding", NAN, r"targets\[0\].grounding"),
    (ANSWERS, "targets.0.grounding", [1], r"targets\[0\].grounding"),
    (ANSWERS, "targets.0.hallucination_probability", -0.1, r"targets\[0\].hallucination_probability"),
    (ANSWERS, "targets.0.is_hallucinated", "no", r"targets\[0\].is_hallucinated"),
    (ANSWERS, "targets.0.asserted", 1, r"targets\[0\].asserted"),
    (ANSWERS, "targets.0.value", ..., r"targets\[0\].value: field required"),
    (ANSWERS, "targets.0.warning", 3, r"targets\[0\].warning"),
    (ANSWERS, "targets.0.warning", "not finite", r"targets\[0\].warning: expected something else, as the map is finite, got 'not finite'"),
    (TILES, "targets.1.warning", None, r"targets\[1\].warning: expected 'not finite', as the map is, got None"),
    (ANSWERS, "targets.0.peak", [32, 0], r"targets\[0\].peak: expected a place within 32 x 24, got \[32, 0\]"),
    (ANSWERS, "targets.0.peak", [1], r"targets\[0\].peak"),
    (ANSWERS, "targets.0.peak", [1, -1], r"targets\[0\].peak\[1\]"),
    (CLIP, "targets.0.peak", [1, 1, 4], r"targets\[0\].peak: expected a place within 32 x 24 x 4"),
    (CLIP, "targets.0.peak", [1, 1], r"targets\[0\].peak"),
    (ANSWERS, "targets.0.input_tokens", "what", r"targets\[0\].input_tokens"),
    (ANSWERS, "targets.0.input_tokens.1.text", 1, r"targets\[0\].input_tokens\[1\].text"),
    (ANSWERS, "targets.0.input_tokens.1.first", ..., r"targets\[0\].input_tokens\[1\].first: field required"),
    (ANSWERS, "targets.0.input_tokens.1.first", 3, r"targets\[0\].input_tokens\[1\].last: expected at least first, 3, got 1"),
    (ANSWERS, "targets.0.peak", [0, 24], r"targets\[0\].peak: expected a place within 32 x 24, got \[0, 24\]"),
    (ANSWERS, "feature_layer.box", [0, 0.5, 1, 0.5], "feature_layer.box: expected a rectangle with an area, got .0.0, 0.5, 1.0, 0.5."),
    (TILES, "feature_layer.box.1", [0, 0, 0, 1], r"feature_layer.box\[1\]: expected a rectangle with an area"),
    (ANSWERS, "schema", ..., "expected mmgradcam/explanation version 2 or 1, got None version 2; upgrade mmgradcam"),
    (ANSWERS, "targets.0.input_tokens.4.last", 5, r"targets\[0\].input_tokens\[4\].last: expected a column of words, 0 to 4"),
    (ANSWERS, "targets.0.input_tokens.4.first", -1, r"targets\[0\].input_tokens\[4\].first"),
    (ANSWERS, "targets.0.input_tokens.1.importance", 7.0, r"targets\[0\].input_tokens\[1\].importance: expected the sum"),
    (ANSWERS, "targets.0.sanity_result", "trust it", r"targets\[0\].sanity_result"),
    (ANSWERS, "targets.0.sanity_result.status", "", r"targets\[0\].sanity_result.status"),
    (ANSWERS, "targets.0.sanity_result.figures", {"weights": "x"}, r"targets\[0\].sanity_result.figures.weights"),
    (CLIP, "clip.frames", 5, r"frames: expected \(5, 24, 32, 3\) of uint8, got \(4, 24, 32, 3\)"),
    (CLIP, "clip.rate", 0, "clip.rate: input should be greater than 0"),
    (CLIP, "clip.rate", NAN, "clip.rate"),
    (CLIP, "clip.rate", ..., "clip.rate"),
    (CLIP, "clip", ..., "clip: expected its frames and rate"),
    (ANSWERS, "clip", {"frames": 3, "rate": 8.0}, "frames: expected an array of that name, got none"),
]  # fmt: skip


def refused(path: Path, named: str, file: Path | None = None) -> None:
    with pytest.raises(InputError, match=named) as refusal:
        Explanation.load(path)
    said = str(refusal.value)
    assert said.startswith(f"{path if file is None else file}: ")
    assert "\n" not in said
    assert len(said) < 1000


@pytest.mark.parametrize(("name", "key", "value", "named"), DESCRIBED)
def test_an_edited_description_is_refused(tmp_path: Path, name: str, key: str, value: Any, named: str) -> None:
    made, arrays = contents(name)
    put(made, key, value)
    np.savez_compressed(tmp_path / "a.npz", description=np.array(json.dumps(made)), **arrays)
    refused(tmp_path / "a.npz", named)


def nan_at(array: Any, *at: int) -> Any:
    array = array.copy()
    array[at] = NAN
    return array


ARRAYS: list[tuple[str, str, Callable[[Any], Any], str]] = [
    *[(ANSWERS, name, lambda a: ..., f"{name}: expected an array of that name, got none") for name in ("maps", "scores", "picture")],
    *[(ANSWERS, name, lambda a: a[:2], rf"{name}: expected \(3") for name in ("maps", "scores", "words")],
    (ANSWERS, "maps", lambda a: a[:, None], "maps"),
    (ANSWERS, "maps", lambda a: a.astype(int), "maps: expected .* of floats, got .* of int64"),
    (ANSWERS, "maps", lambda a: a.astype(complex), "maps"),
    (ANSWERS, "maps", lambda a: a.astype(np.longdouble), "maps"),
    (ANSWERS, "maps", lambda a: np.array(["x"] * a.size).reshape(a.shape), "maps"),
    (ANSWERS, "maps", lambda a: a.astype(object), "holds pickled objects"),
    (ANSWERS, "maps", lambda a: nan_at(a, 1, 2, 2), r"targets\[1\].warning: expected 'not finite', as the map is, got None"),
    (ANSWERS, "maps", lambda a: a * NAN, r"targets\[0\].warning"),
    (ANSWERS, "scores", lambda a: a[::-1], r"targets\[0\].score"),
    (ANSWERS, "scores", lambda a: nan_at(a, 0), "scores: expected finite numbers"),
    (ANSWERS, "words", lambda a: a[:, :3], r"targets\[0\].input_tokens\[3\].last"),
    (ANSWERS, "words", lambda a: a[:, 0], "words"),
    (ANSWERS, "words", lambda a: a[0, 0], "words"),
    (ANSWERS, "words", lambda a: np.roll(a, 1, 1), r"targets\[0\].input_tokens\[0\].importance"),
    (ANSWERS, "words", lambda a: nan_at(a, 0, 0), "words: expected finite numbers"),
    (ANSWERS, "picture", lambda a: a[::-1], "image.sha256"),
    (ANSWERS, "picture", lambda a: a.astype(np.int16), "picture"),
    (ANSWERS, "picture", lambda a: a.astype(np.uint16), "picture: expected .24, 32, 3. of uint8, got .24, 32, 3. of uint16"),
    (ANSWERS, "picture", lambda a: a[..., 0], "picture"),
    (ANSWERS, "picture", lambda a: np.concatenate([a, a[..., :1]], -1), "picture"),
    (WORDS, "std", lambda a: a[:, :3], "std"),
    (WORDS, "std", lambda a: a - 1, "std: expected no standard deviation below 0"),
    (CLIP, "frames", lambda a: ..., "frames: expected an array of that name"),
    (CLIP, "frames", lambda a: a[:3], "frames"),
    (CLIP, "frames", lambda a: a[::-1], "frames: expected the picture as their middle one"),
    (CLIP, "maps", lambda a: a[:, 0], "maps"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "change", "named"), ARRAYS)
def test_edited_arrays_are_refused(tmp_path: Path, name: str, key: str, change: Callable[[Any], Any], named: str) -> None:
    made, arrays = contents(name)
    arrays[key] = change(arrays[key])
    given = {k: v for k, v in arrays.items() if v is not ...}
    np.savez(tmp_path / "a.npz", description=np.array(json.dumps(made)), **given)
    refused(tmp_path / "a.npz", named)


def test_what_later_versions_may_add_is_passed_over(tmp_path: Path) -> None:
    made, arrays = contents(ANSWERS)
    made["new"] = made["targets"][0]["new"] = made["image"]["new"] = {"a": [1]}
    given = {**arrays, "maps": arrays["maps"].astype(">f4"), "more": np.zeros(3), "none": np.zeros((0, 2))}
    np.savez(tmp_path / "a.npz", description=np.array(json.dumps(made)), **given)
    assert torch.equal(Explanation.load(tmp_path / "a.npz").maps, Explanation.load(SAVED / "answers").maps)


@pytest.mark.parametrize(
    "key", ["targets.1.label", "targets.0.score", "text", "feature_layer.box.0", "targets.0.input_tokens.0.text"]
)
def test_a_description_that_is_not_that_of_the_arrays_beside_it_is_refused(tmp_path: Path, key: str) -> None:
    shutil.copytree(SAVED / "answers", tmp_path / "a")
    file = tmp_path / "a" / "explanation.json"
    made = json.loads(file.read_text())
    put(made, key, "other")
    file.write_text(json.dumps(made))
    named = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in key.split(".")).removeprefix(".")
    for path in (tmp_path / "a", file):
        refused(path, named.replace("[", r"\[") + ": differs from the description in maps.npz", file)
    for text in ("[]", "{", "\xff", '{"a":' * 10**5):
        file.write_bytes(text.encode("latin-1"))
        refused(tmp_path / "a", "description: differs|cannot be read|mmgradcam: differs|schema: differs", file)
    file.unlink()
    assert len(Explanation.load(tmp_path / "a")) == 3


def changed(path: Path, name: str, keys: dict[str, Any], arrays: dict[str, Callable[[Any], Any]]) -> Path:
    """A saved explanation with parts of its description and its arrays put otherwise."""
    made, kept = contents(name)
    for key, value in keys.items():
        put(made, key, value)
    kept |= {key: change(kept[key]) for key, change in arrays.items()}
    np.savez(path, description=np.array(json.dumps(made)), **kept)
    return path


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_of_every_size_and_a_spread_of_0_load(kind: str, tmp_path: Path) -> None:
    file = changed(tmp_path / "a.npz", WORDS, {}, {"maps": lambda a: a.astype(kind), "std": lambda a: (a * 0).astype(kind)})
    made = Explanation.load(file)
    torch.testing.assert_close(made.maps.double(), Explanation.load(SAVED / WORDS).maps.double(), rtol=1e-2, atol=1e-3)
    assert made.std is not None
    assert not made.std.any()


def test_a_word_s_importance_is_the_sum_of_its_tokens_within_rounding(tmp_path: Path) -> None:
    """By a thousandth of itself, or by 1e-5 of the largest in the row where it cancels."""
    row = np.array([[2.0, -2.0, 0.5, 300.0, 0.25]])
    input_tokens = [
        {"text": "a", "first": 0, "last": 1, "importance": 0.0},
        {"text": "b", "first": 2, "last": 4, "importance": 300.75},
        {"text": "c", "first": 2, "last": 2},
    ]
    keys = {"targets.0.input_tokens": input_tokens, "targets.1.input_tokens": input_tokens, "targets.2.input_tokens": []}
    for place, importance, right in (
        (0, 0.0, True), (0, 0.0029, True), (0, -0.0029, True), (0, 0.0031, False), (0, -0.0031, False), (0, 2.0, False),
        (1, 300.75 * 1.0009, True), (1, 300.75 / 1.0009, True), (1, 300.75 * 1.0012, False), (1, 300.5, True), (1, 300.0, False),
    ):  # fmt: skip
        kept = {**keys, f"targets.0.input_tokens.{place}.importance": importance}
        file = changed(tmp_path / "a.npz", ANSWERS, copy.deepcopy(kept), {"words": lambda a: np.repeat(row, 3, 0)})
        if right:
            assert len(Explanation.load(file)) == 3
        else:
            refused(file, rf"targets\[0\].input_tokens\[{place}\].importance: expected the sum of its columns of words\[0\]")
    wide = {**keys, "targets.0.input_tokens.1.last": 5}
    refused(
        changed(tmp_path / "a.npz", ANSWERS, copy.deepcopy(wide), {"words": lambda a: np.repeat(row, 3, 0)}),
        r"targets\[0\].input_tokens\[1\].last: expected a column of words, 0 to 4, got 5",
    )


def test_tiles_are_as_many_as_the_first_side_of_the_grid(tmp_path: Path) -> None:
    maps = {"maps": lambda a: np.repeat(np.where(np.isfinite(a), a, 0)[:, :1, :1, :1], 2, 1).repeat(3, 2).repeat(4, 3)}
    keys = {"feature_layer.grid": [2, 3, 4], "targets.1.warning": None}
    assert Explanation.load(changed(tmp_path / "a.npz", TILES, dict(keys), maps)).maps.shape == (2, 2, 3, 4)
    refused(
        changed(tmp_path / "b.npz", TILES, {**keys, "feature_layer.box": [[0, 0, 1, 1]] * 3}, maps),
        "feature_layer.box: expected 2 boxes.*, got 3",
    )


def test_pictures_and_arrays_at_the_limit_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmgradcam.utils import archives

    size = 24 * 32
    for most, loads in ((size, True), (size - 1, False)):
        monkeypatch.setattr(schema, "MOST_PIXELS", most)
        if loads:
            Explanation.load(SAVED / "answers")
        else:
            refused(SAVED / "answers", "image: 32 x 24 is over 767 pixels", SAVED / ANSWERS)
    with archives.opened(SAVED / ANSWERS) as archive:
        names = ["maps", "scores"]
        total = sum(archive._file.getinfo(f"{name}.npy").file_size for name in names)
        monkeypatch.setattr(archives, "MOST_BYTES", total)
        assert set(archive.read(names)) == set(names)
        monkeypatch.setattr(archives, "MOST_BYTES", total - 1)
        with pytest.raises(InputError, match=rf"come to {total:,} bytes; expected at most {total - 1:,}$"):
            archive.read(names)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (schema.Count, [1, 2**31], [0, 2**31 + 1, 1.5]),
        (schema.Index, [0, 2**31], [-1, 2**31 + 1]),
        (schema.Share, [0, 0.5, 1.00001], [-1e-9, 1.00002]),
        (schema.Edge, [-1e6, 0, 1e6], [-1000000.5, 1000000.5]),
    ],
)
def test_numbers_of_a_description_have_limits(kind: Any, right: list[float], wrong: list[float]) -> None:
    adapter = TypeAdapter(kind)
    for value in right:
        assert adapter.validate_python(value) == value
    for value in wrong:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": [1, {"b": NAN}]}, {"a": [1, {"b": NAN}]}, None),
        ({"a": 1, "c": 2}, {"a": 1, "c": 3}, "c"),
        ({"a": 1}, {}, "a"),
        ({}, {"a": None}, "a"),
        ({"a": {"b": [0, {"c": 1}]}}, {"a": {"b": [0, {"c": 2}]}}, "a.b[1].c"),
        ([1, 2], [1, 3], "[1]"),
        ([1], [1, 2], ""),
        ([], {}, ""),
        ({"a": {}}, {"a": []}, "a"),
        ("ab", ["a", "b"], ""),
        (1, 1.0, ""),
        (True, 1, ""),
        (NAN, 1.0, ""),
        ("x", "x", None),
        (None, None, None),
        ({"a": [[1], [2]]}, {"a": [[1], [3]]}, "a[1][0]"),
    ],
)
def test_two_descriptions_differ_where_they_do(one: Any, other: Any, where: str | None) -> None:
    assert schema._difference(one, other) == where
    assert (schema._difference(other, one) is None) == (where is None)


def test_a_description_beside_the_arrays_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "explanation.json"
    file.write_text('{"a": 1}')
    monkeypatch.setattr(schema, "LONGEST_DESCRIPTION", 8)
    schema._same('{"a":1}', file)
    with pytest.raises(InputError, match=r"explanation\.json: description: differs from"):
        schema._same("[]", file)
    monkeypatch.setattr(schema, "LONGEST_DESCRIPTION", 7)
    with pytest.raises(InputError, match=r"explanation\.json: cannot be read \(it is over 7 bytes long\)"):
        schema._same('{"a":1}', file)
    monkeypatch.undo()

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(InputError, match=r"cannot be read \(.*Permission denied"):
        schema._same("{}", file)


def test_paths_that_are_no_regular_files_are_said_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    whole = {
        tmp_path / "none": "no such file; give the path of it",
        tmp_path / "file" / "in": "no such file; give the path of it",
        tmp_path / ("x" * 256): "cannot be opened (File name too long); give the path of it",
        Path("a\0"): "cannot be opened (embedded null byte); give the path of it",
        tmp_path: f"expected it, got a folder; name the files in it, as in {tmp_path}/*",
        tmp_path / "pipe": "expected it, got a pipe; save what it holds to a file first",
        Path("/dev/null"): "expected it, got a device; save what it holds to a file first",
    }
    for path, said in whole.items():
        with pytest.raises(InputError) as refusal:
            files.regular(path, "it")
        assert str(refusal.value) == f"{path}: {said}".replace("\0", "\\x00")
    assert files.regular(tmp_path / "file", "it") == tmp_path / "file"
    found = {path: (files.exists(path), files.is_folder(path)) for path in whole}
    assert list(found.values()) == [(False, False)] * 4 + [(True, True), (True, False), (True, False)]
    with pytest.raises(InputError, match="expected a path, as a str or a Path, got 3"):
        files.path_of(3)  # type: ignore[arg-type]
    assert files.path_of("a") == files.path_of(Path("a")) == Path("a")


def entry(path: Path, name: str, data: bytes, *, append: bool = True) -> None:
    with zipfile.ZipFile(path, "a" if append else "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)


def npy(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """The header of an array, and nothing of it."""
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def claiming(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Adds an entry whose header and directory promise an array of bytes, however large; only its header is there."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.npy", npy(shape))
        file.filelist[-1].file_size += math.prod(shape)


@pytest.mark.parametrize(
    ("name", "array", "keys", "shape", "named"),
    [
        (ANSWERS, "picture", {}, (2**15, 2**15, 3), "picture: expected"),
        (ANSWERS, "picture", {"width": 2**15, "height": 2**15}, (2**15, 2**15, 3), "is over 100,000,000 pixels"),
        (ANSWERS, "more", {}, (2**40,), ""),
        (CLIP, "frames", {"frames": 500_000}, (500_000, 24, 32, 3), "arrays come to .* bytes; expected at most 1,073,741,824"),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, array: str, keys: dict[str, int], shape: Any, named: str
) -> None:
    """Sizes come from the headers: gigabytes are named, and no array is read; what nobody asks for stays packed."""
    from mmgradcam.utils import archives

    read: list[str] = []
    given: list[dict[str, Any]] = []
    real = archives.npy.read_array

    def record_outputs(file: Any, **settings: Any) -> Any:
        read.append(file.name)
        given.append(settings)
        return real(file, **settings)

    monkeypatch.setattr(archives.npy, "read_array", record_outputs)
    made, arrays = contents(name)
    made["clip" if "frames" in keys else "image"].update(keys)
    arrays.pop(array, None)
    np.savez(tmp_path / "a.npz", description=np.array(json.dumps(made)), **arrays)
    claiming(tmp_path / "a.npz", array, shape)
    read.clear(), given.clear()
    if not named:
        assert len(Explanation.load(tmp_path / "a.npz")) == 3
        assert "more.npy" not in read
        return
    refused(tmp_path / "a.npz", named)
    assert read == ["description.npy"]
    assert given == [{"allow_pickle": False}]


def huge_description(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("description.npy", npy((), f"<U{2**25}"))
        file.filelist[-1].file_size += 2**27


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "not an explanation"),
    "text": (lambda p: p.write_text("maps"), "not an explanation"),
    "an empty zip": (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "not an explanation"),
    "cut": (lambda p: p.write_bytes((SAVED / "words.npz").read_bytes()[:900]), "not an explanation"),
    "a flipped byte": (lambda p: p.write_bytes(flipped((SAVED / "words.npz").read_bytes(), 130)), "not an explanation"),
    "an npy": (lambda p: p.write_bytes(npy((0,))), "not an explanation"),
    "no npy inside": (lambda p: entry(p, "maps.npy", b"hello", append=False), "not an explanation"),
    "a header that lies": (lambda p: entry(p, "maps.npy", npy((10**9,)), append=False), "maps.npy is not as long as its header says"),
    "a header below 0": (lambda p: entry(p, "maps.npy", npy((-1, -1)) + b"x", append=False), "not as long as its header says"),
    "a header of a product that wraps": (lambda p: entry(p, "maps.npy", npy((2**32, 2**32)), append=False), "not as long as its header says"),
    "a header with code": (lambda p: entry(p, "maps.npy", npy((1,)).replace(b"(1,)", b"exit"), append=False), "not an explanation"),
    "no description": (lambda p: np.savez(p, maps=np.zeros(3)), "not an explanation"),
    "a description of numbers": (lambda p: np.savez(p, description=np.zeros(3)), "its description is an array"),
    "a description of texts": (lambda p: np.savez(p, description=np.array(["{}", "{}"])), "its description is an array"),
    "a huge description": (huge_description, "its description is an array"),
    "not JSON": (lambda p: np.savez(p, description=np.array("{")), "description: invalid JSON"),
    "a list": (lambda p: np.savez(p, description=np.array("[]")), "description: input should be an object"),
    "deep": (lambda p: np.savez(p, description=np.array('{"a":' * 10**5)), "description: invalid JSON"),
    "surrogates": (lambda p: np.savez(p, description=np.array('{"schema": "\\ud800"}')), "description: invalid JSON"),
    "encrypted": (lambda p: p.write_bytes(encrypted((SAVED / "words.npz").read_bytes())), "not an explanation"),
    "a pipe": (lambda p: os.mkfifo(p), "got a pipe; save what it holds to a file first"),
    "a link to itself": (lambda p: p.symlink_to(p), "cannot be opened"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), "got a device"),
}  # fmt: skip


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


def encrypted(data: bytes) -> bytes:
    """The flag of encryption set in every header."""
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = data.split(mark)
        data = mark.join([parts[0], *(part[: at - 4] + bytes([part[at - 4] | 1]) + part[at - 3 :] for part in parts[1:])])
    return data


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_files_are_refused(tmp_path: Path, kind: str) -> None:
    make, named = HOSTILE[kind]
    make(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", named)


def test_an_array_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    shutil.copy(SAVED / "words.npz", tmp_path / "a.npz")
    with pytest.warns(UserWarning, match="Duplicate name"):
        entry(tmp_path / "a.npz", "maps.npy", npy((0,)))
    refused(tmp_path / "a.npz", "maps is there twice")


@pytest.mark.parametrize("name", ["x" * 300, "none.npz", "a\0b", "none/none", "\udcff\udcfe", "\ud800"])
def test_names_that_lead_nowhere_are_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"no such file|cannot be opened") as refusal:
        Explanation.load(tmp_path / name)
    str(refusal.value).encode()


def test_numbers_of_numpy_and_torch_are_saved_as_numbers(tmp_path: Path) -> None:
    likely: Any = torch.tensor(0.25)
    target = Target("it", {"at": np.int64(3)}, probability=likely, is_hallucinated=np.bool_(True))  # type: ignore[arg-type]
    made = Explanation(
        Image.new("RGB", (9, 9)), (0, 0, 1, 1), [target], torch.ones(1, 2, 2), torch.tensor([1.0]), None, [None],
        Metadata("m", "score", "gradcam", "features"),
    )  # fmt: skip
    made.save(tmp_path / "a.npz")
    back = Explanation.load(tmp_path / "a.npz").targets[0]
    assert (back.probability, back.is_hallucinated, back.value) == (0.25, True, {"at": 3})


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgradcam.storage.record.MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"maps, picture and frames come to .* bytes; expected at most 1,000"):
        Explanation.load(SAVED / "answers").save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


BROKEN = [
    "a\nb",
    "\ud800",
    "\udcff x",
    "\x1b[31mred",
    "\0",
    "\u202eevil",
    "\u2028",
    " ",
    "",
    "👩‍👩‍👧",
    "مرحبا بالعالم",
    "x" * 100_000,
    "e\u0301" * 500,
]


@pytest.mark.parametrize("text", BROKEN)
def test_labels_of_any_text_are_drawn_saved_and_loaded(tmp_path: Path, text: str) -> None:
    """A reply's line break, half a character, colors of a terminal: each is one line on a sheet and comes back from the files."""
    made = Explanation(
        Image.new("RGB", (40, 30)), (0, 0, 1, 1), [Target(text), Target("it")], torch.ones(2, 2, 2), torch.ones(2), None,
        [None, text or None], Metadata(text, "score", text, text, {"question": text}, image_name=text),
        sanity_results=[SanityResult("weak", text), None],
    )  # fmt: skip
    assert made.panels().height < 2000
    assert made[0].overlay().size == (40, 30)
    made.save(tmp_path / "a")
    back = Explanation.load(tmp_path / "a")
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert back.labels == [clean, "it"]
    assert back.metadata.query == {"question": clean}
    assert back.describe() == made.describe()


def test_text_on_a_sheet_is_cut_where_it_fits() -> None:
    for size, bold, width in ((18, True, 300), (14, False, 48), (26, True, 560)):
        face = heatmaps.font(size, bold)
        for text in ("a red ball " * 30, "W" * 400, "." * 2000, "é" * 99):
            cut = heatmaps.clip_text(text, face, width)
            assert face.getlength(cut) <= width < face.getlength(text[: len(cut)] + "…")
            assert text.startswith(cut[:-1])
            assert cut[-1] == "…"
        assert heatmaps.clip_text("ok", face, width) == "ok"
        assert heatmaps.clip_text("a\nb", face, width) == "a\\nb"


def test_a_title_goes_on_for_twelve_lines_at_most() -> None:
    picture = Image.new("RGB", (40, 30))
    heights = [heatmaps.sheet(picture, [], " ".join(["word"] * count)).height for count in (1, 10_000, 100_000)]
    assert heights[1] == heights[2] == heights[0] + 11 * 34
    assert heatmaps.sheet(picture, [], "two\nlines").height == heights[0]


def test_a_description_is_16_million_characters_long_at_most() -> None:
    class Claiming:
        def __init__(self, kind: str, shape: tuple[int, ...] = ()) -> None:
            self.claims = {"description": (shape, np.dtype(kind))}

        def read(self, names: list[str]) -> dict[str, Any]:
            return {name: np.array("{}") for name in names}

    assert schema._text(Claiming(f"U{2**24}")) == "{}"  # type: ignore[arg-type]
    for wrong in (Claiming(f"U{2**24 + 1}"), Claiming("S8"), Claiming("U8", (1,))):
        with pytest.raises(ValueError, match="expected one text of at most 16 million characters"):
            schema._text(wrong)  # type: ignore[arg-type]


def test_what_an_older_description_leaves_out_is_as_documented(tmp_path: Path) -> None:
    made, arrays = contents(ANSWERS)
    for target in made["targets"]:
        for key in ("grounding", "hallucination_probability", "is_hallucinated", "asserted", "sanity_result"):
            target.pop(key, None)
    made.pop("remarks", None)
    np.savez(tmp_path / "a.npz", description=np.array(json.dumps(made)), **arrays)
    loaded = Explanation.load(tmp_path / "a.npz")
    assert loaded.sanity_results == [None] * 3
    for one in loaded.targets:
        assert (one.grounding, one.hallucination_probability, one.is_hallucinated, one.asserted) == (None, None, False, True)


def test_edits_are_counted() -> None:
    """The table is of edits that each change something: none is there twice, and none leaves the file as it was."""
    for name, key, value, _ in DESCRIBED:
        made, _ = contents(name)
        before = copy.deepcopy(made)
        put(made, key, value)
        assert json.dumps(made) != json.dumps(before)
    assert len(DESCRIBED) + len(ARRAYS) + len(HOSTILE) > 110
