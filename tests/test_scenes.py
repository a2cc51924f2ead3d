"""Scenes tell the truth: the same bytes from the same seed, exact masks, captions and questions checked the slow way."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from mmgradcam.datasets.scene_source import SceneJudge, scenes
from mmgradcam.datasets.sources import open_data
from mmgradcam.errors import InputError
from mmgradcam.images.regions import mask_box
from mmgradcam.scenes.captions import caption_words, captions_of, judge, make_caption
from mmgradcam.scenes.dataset import scene_dataset, scene_rows
from mmgradcam.scenes.questions import ANSWERS, QUESTION_KINDS, make_question, question_words, questions_of
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import COLORS, MATERIALS, MAX_THINGS, SIZES, TEXTURES, ObjectAnnotation, Scene, make_scene
from mmgradcam.scenes.shapes import KINDS
from mmgradcam.scenes.splits import SPLITS, seeds
from mmgradcam.scenes.words import SINGULAR

MANY = [make_scene(seed) for seed in range(7000, 7400)]


def thing(kind: str, color: str, x: float, y: float, size: str = "medium", material: str = "rubber") -> ObjectAnnotation:
    return ObjectAnnotation(kind, color, size, material, x, y, SIZES[size], 0.0)


PAIR = Scene(1, (thing("cube", "red", 0.25, 0.3, "large"), thing("ring", "green", 0.75, 0.35), thing("ring", "green", 0.7, 0.8)), "plain", (0.3, -0.3, 0.9))  # fmt: skip


def test_the_same_seed_gives_the_same_bytes() -> None:
    digest = hashlib.sha256()
    for seed in (0, 1, 2):
        picture = render(make_scene(seed))
        digest.update(picture.image.tobytes() + picture.masks.tobytes())
    assert digest.hexdigest() == PINNED


PINNED = "a6c9f1368176d8b6d27d3f8284a5875b088dc5a7e3225f62cab669aac2f44d00"


def test_scenes_are_as_varied_as_promised() -> None:
    objects = [t for scene in MANY for t in scene.objects]
    assert {len(s.objects) for s in MANY} == set(range(1, MAX_THINGS + 1)) == set(range(1, 7))
    for name, values in (("kind", KINDS), ("color", COLORS), ("size", SIZES), ("material", MATERIALS)):
        assert {getattr(t, name) for t in objects} == set(values)
    assert len(KINDS) >= 8
    assert len(COLORS) >= 8
    assert (len(SIZES), len(MATERIALS)) == (3, 2)
    assert {s.texture for s in MANY} == set(TEXTURES)
    assert len({s.light for s in MANY}) == len(MANY)


def test_masks_are_exact_disjoint_and_boxed() -> None:
    covered = 0
    for scene in MANY[:60]:
        picture = render(scene)
        assert picture.masks.shape == (len(scene.objects), 128, 128)
        assert (picture.masks.sum(0) <= 1).all()
        for i, (item, mask, box) in enumerate(zip(scene.objects, picture.masks, picture.boxes, strict=True)):
            alone = render(Scene(scene.seed, (item,), scene.texture, scene.light)).masks[0]
            assert not (mask & ~alone).any()
            assert mask.sum() >= 0.35 * alone.sum()
            covered += int(mask.sum() < alone.sum())
            later = picture.masks[i + 1 :].any(0)
            assert not ((alone & ~mask) & ~later & ~picture.masks[:i].any(0)).any() or later.any()
            assert tuple(box) == mask_box(mask)
    assert covered > 10


def test_pictures_show_what_the_masks_say() -> None:
    """Inside a mask the picture has the object's colour: nearer to it in hue than to any other of the colours."""
    right = total = 0
    for scene in MANY[:80]:
        picture = render(scene)
        pixels = np.asarray(picture.image, dtype=float) / 255
        for item, mask in zip(scene.objects, picture.masks, strict=True):
            seen = np.median(pixels[mask], 0)
            tint = {name: np.array(c) / np.linalg.norm(c) for name, c in COLORS.items()}
            nearest = max(tint, key=lambda name: float(tint[name] @ seen / np.linalg.norm(seen)))
            right += nearest == item.color
            total += 1
    assert right / total > 0.93


def test_small_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a side of 64 pixels or more, got 32"):
        render(MANY[0], 32)


def test_captions_are_true_and_their_words_know_what_they_speak_of() -> None:
    """The generator and the judge were written apart; they must agree on every word of every caption."""
    roles: Counter[str] = Counter()
    known = set(caption_words())
    for scene in MANY:
        rng = np.random.default_rng(scene.seed)
        for _ in range(4):
            caption = make_caption(scene, rng)
            judged = judge(caption.words, scene)
            assert all(claim.true for claim in judged.claims), caption.text
            assert tuple(judged.refers) == caption.refers, caption.text
            assert tuple(judged.roles) == caption.roles, caption.text
            assert set(caption.words) <= known
            roles.update(claim.role for claim in judged.claims)
    assert set(roles) == {"kind", "color", "size", "material", "count", "relation"}
    assert min(roles.values()) > 50


@pytest.mark.parametrize(
    ("caption", "false"),
    [
        ("a large red cube left of two green rings", []),
        ("a red cube left of two green rings", []),
        ("a big red block and two rings", []),
        ("two green rings to the right of a matte cube", []),
        ("a small red cube", ["size"]),
        ("a blue cube", ["color"]),
        ("a red metal cube", ["material"]),
        ("a red ball", ["color", "kind"]),
        ("three green rings", ["count"]),
        ("two green rings left of a red cube", ["relation"]),
        ("a red cube below two green rings", ["relation"]),
        ("a red cube above two green rings", ["relation"]),
        ("a ball left of a ring", ["kind", "relation"]),
        ("a red cube and below a green ring", ["relation"]),
        ("a green ring below a red cube and right of a red cube", []),
        ("frisbee", ["unread"]),
        ("a red", ["unread"]),
        ("a red cube left of", ["relation"]),
    ],
)
def test_the_judge_on_sentences_worked_by_hand(caption: str, false: list[str]) -> None:
    assert sorted(claim.role for claim in judge(caption, PAIR).claims if not claim.true) == false


def test_words_whose_claim_is_false_speak_of_nothing() -> None:
    judged = judge("a small red cube left of two green rings", PAIR)
    words = dict(zip(["a", "small", "red", "cube", "left", "of", "two", "green", "rings"], judged.refers, strict=True))
    assert words == {"a": (), "small": (), "red": (0,), "cube": (0,), "left": (0, 1, 2), "of": (0, 1, 2), "two": (1, 2), "green": (1, 2), "rings": (1, 2)}  # fmt: skip


def slow_answer(kind: str, words: list[str], scene: Scene) -> str | None:
    """Answers simple questions by reading their words, without the generator's own phrases."""
    attributes = {**dict.fromkeys(COLORS, "color"), **dict.fromkeys(SIZES, "size"), **dict.fromkeys(MATERIALS, "material")}
    canonical = {"big": "large", "little": "small", "shiny": "metal", "matte": "rubber", "sphere": "ball", "block": "cube"}
    words = [canonical.get(w, canonical.get(w.removesuffix("s"), w)) for w in words]
    skip = {"exists": 2, "count": 2, "color": 3, "shape": 2, "material": 3, "size": 3}[kind]
    named = {attributes.get(w) or ("kind" if SINGULAR.get(w, w) in KINDS else ""): SINGULAR.get(w, w) for w in words[skip:]}
    found = [t for t in scene.objects if all(getattr(t, a) == v for a, v in named.items() if a)]
    if kind in ("exists", "count"):
        return str(len(found)) if kind == "count" else "yes" if found else "no"
    return getattr(found[0], {"shape": "kind"}.get(kind, kind)) if len(found) == 1 else None


def test_answers_are_those_of_a_slow_reader() -> None:
    checked: Counter[str] = Counter()
    for scene in MANY:
        for question in questions_of(scene):
            assert set(question.words) <= set(question_words())
            assert question.answer in ANSWERS
            if question.kind in ("exists", "count", "color", "shape", "material", "size"):
                assert slow_answer(question.kind, list(question.words), scene) == question.answer, question.text
                checked[question.kind] += 1
    assert min(checked.values()) > 100


def test_questions_cover_seven_kinds_and_their_answers_are_balanced() -> None:
    answers: dict[str, Counter[str]] = {kind: Counter() for kind in QUESTION_KINDS}
    for scene in MANY:
        rng = np.random.default_rng(scene.seed)
        for kind in QUESTION_KINDS:
            question = make_question(scene, rng, kind)
            answers[question.kind][question.answer] += 1
    assert set(QUESTION_KINDS) >= {"exists", "count", "color", "shape", "material", "relation", "comparison"}
    for kind, found in answers.items():
        most = found.most_common(1)[0][1] / found.total()
        assert most < (0.62 if kind in ("exists", "relation", "comparison", "material", "size") else 0.4), (kind, found)


def test_relations_and_comparisons_worked_by_hand() -> None:
    """The red cube is large, left of both rings, and above only one of them clearly."""
    asked = {}
    for seed in range(4000):
        question = make_question(PAIR, np.random.default_rng(seed), ("relation", "comparison")[seed % 2])
        asked[question.text] = question.answer
    expected = {
        "are there more cubes than rings?": "no",
        "are there fewer cubes than rings?": "yes",
        "are there more green things than red things?": "yes",
        "are there more metal things than rubber things?": "no",
        "what color is the thing left of the cube?": None,
        "what shape is the thing right of the cube?": None,
    }
    for text, answer in expected.items():
        assert asked.get(text) == answer, text


def test_an_unknown_kind_of_question_is_said() -> None:
    with pytest.raises(ValueError, match="expected a kind among exists, count"):
        make_question(PAIR, np.random.default_rng(0), "why")


def test_splits_never_meet() -> None:
    spans = sorted((start, start + (10_000 if name != "train" else 10**9)) for name, start in SPLITS.items())
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    with pytest.raises(ValueError, match="expected at most 10,000 scenes"):
        seeds("test", 10_000, start=1)
    with pytest.raises(ValueError, match="expected a split among train, validation, test, got 'val'"):
        seeds("val", 1)


def test_the_dataset_holds_the_truth() -> None:
    made = scene_dataset("validation", 6)
    assert made.num_rows == 6
    again = list(scene_rows("validation", 6))
    for row, same in zip(made, again, strict=True):
        scene = make_scene(row["seed"])
        picture = render(scene)
        assert row["image"].tobytes() == picture.image.tobytes() == same["image"].tobytes()
        segments = np.asarray(row["segments"])
        for i, mask in enumerate(picture.masks):
            assert np.array_equal(segments == i + 1, mask)
            assert row["things"][i]["box"] == list(mask_box(mask))
        assert [c["words"] for c in row["captions"]] == [list(c.words) for c in captions_of(scene, 3)]
        assert [[list(r) for r in c["refers"]] for c in same["captions"]] == [c["refers"] for c in row["captions"]]
        assert [q["answer"] for q in row["questions"]] == [q.answer for q in questions_of(scene)]


def test_claims_know_the_word_that_makes_them() -> None:
    words = ["a", "small", "red", "cube", "left", "of", "two", "green", "rings"]
    claims = [(claim.role, claim.true, words[claim.word]) for claim in judge(words, PAIR).claims]
    assert claims == [
        ("size", False, "small"), ("color", True, "red"), ("kind", True, "cube"), ("color", True, "green"), ("kind", True, "rings"),
        ("count", True, "two"), ("relation", True, "left"),
    ]  # fmt: skip
    assert [(claim.role, claim.word) for claim in judge("a cube sings", PAIR).claims if not claim.true] == [("unread", 2)]


def test_a_generated_caption_is_judged_word_by_word() -> None:
    """Statements as of the judge, each counted once, and the pixels of what a word speaks of."""
    judged = SceneJudge(PAIR)(["a", "small", "red", "cube", "left", "of", "two", "green", "rings"])
    assert [one.true for one in judged] == [None, False, True, True, True, None, True, True, True]
    assert [one.role for one in judged] == ["", "size", "color", "kind", "relation", "relation", "count", "color", "kind"]
    masks = render(PAIR).masks
    assert judged[1].pixels is None, "what is false speaks of nothing"
    assert np.array_equal(judged[3].pixels, masks[0])  # type: ignore[arg-type]
    assert np.array_equal(judged[8].pixels, masks[1] | masks[2])  # type: ignore[arg-type]
    assert (judged[3].objects, judged[8].objects) == ((0,), (1, 2))
    photo = next(iter(scenes("validation", generated=True)))
    assert (photo.captions, photo.phrases) == ((), ())
    assert photo.judge is not None
    assert len(photo.questions) > 3
    with pytest.raises(InputError, match='expected "scenes:test" or "scenes:test:generated", got \'scenes:test:x\''):
        open_data("scenes:test:x")
