"""Questions made of captions and of the phrases in them, and captions and questions in the layouts of COCO and VQA v2."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from conftest import data
from PIL import Image

from mmgradcam import InputError
from mmgradcam.datasets.answer_words import given, table
from mmgradcam.datasets.photos import Photos, read_answers, read_captions
from mmgradcam.datasets.question_generation import askable, balanced, questions_about
from mmgradcam.datasets.records import Phrase, Question

CAPTIONS = [
    "a man in a red shirt is riding a bike down the street".split(),  # noqa: SIM905
    "a guy wearing a maroon shirt rides a bicycle".split(),  # noqa: SIM905
    "a man on a bike jumps".split(),  # noqa: SIM905
    "a cyclist on the road".split(),  # noqa: SIM905
    "two dogs running in the grass".split(),  # noqa: SIM905
]
SHIRT, BIKE = (0.1, 0.1, 0.2, 0.25), (0.3, 0.3, 0.6, 0.6)
PHRASES = [
    Phrase(0, 0, 1, "a man", ("people",), ((0, 0, 1, 1),)),
    Phrase(0, 3, 5, "a red shirt", ("clothing",), (SHIRT,)),
    Phrase(0, 8, 9, "a bike", ("vehicles",), (BIKE,)),
    Phrase(0, 11, 12, "the street", ("scene",), ((0, 0.5, 1, 1),)),
    Phrase(1, 0, 1, "a guy", ("people",), ((0, 0, 1, 1),)),
    Phrase(1, 3, 5, "a maroon shirt", ("clothing",), (SHIRT,)),
    Phrase(1, 7, 8, "a bicycle", ("vehicles",), (BIKE,)),
    Phrase(2, 0, 1, "a man", ("people",), ((0, 0, 1, 1),)),
    Phrase(2, 3, 4, "a bike", ("vehicles",), (BIKE,)),
    Phrase(3, 0, 1, "a cyclist", ("people",), ((0, 0, 1, 1),)),
    Phrase(4, 0, 1, "two dogs", ("animals",), ((0.5, 0.5, 0.6, 0.6),)),
    Phrase(4, 4, 5, "the grass", ("scene",), ((0, 0, 1, 1),)),
]


def asked(captions: Sequence[str], named: dict[str, str] | None = None) -> dict[str, tuple[str, ...]]:
    """Answers by question, of captions of which the first words are a phrase; other phrases by their types."""
    words = [caption.split() for caption in captions]
    phrases = []
    for k, caption in enumerate(words):
        for text, kind in (named or {}).items():
            own = text.split()
            for at in range(len(caption) - len(own) + 1):
                if caption[at : at + len(own)] == own:
                    phrases += [Phrase(k, at, at + len(own) - 1, text, (kind,), ((0.2, 0.2, 0.8, 0.8),))]
    return {one.text: one.answers for one in questions_about(words, phrases, [])}


def test_questions_of_captions() -> None:
    made = {(one.text, one.kind): one for one in questions_about(CAPTIONS, PHRASES, ["bike", "cat", "bicycle", "dog"])}
    assert made["what color is the shirt", "color"] == Question("what color is the shirt", "color", ("red",), (SHIRT,))
    assert made["what is the man riding", "riding"] == Question("what is the man riding", "riding", ("bike",), (BIKE,))
    assert made["what is the man doing", "doing"].answers == ("riding",), "one caption that says jumping is not enough"
    assert made["where is the man", "where"].answers == ("street",), "a street is a road; grass, only one says"
    assert made["who is in the picture", "who"].answers == ("man",)
    assert made["what sport is it", "sport"].answers == ("cycling",)
    assert made["is there a man or a woman", "gender"].answers == ("man",)
    assert made["is there a child or an adult", "age"].answers == ("adult",)
    assert made["is it indoors or outdoors", "indoors"].answers == ("outdoors",)
    assert made["how many people are there", "count"].answers == ("one",)
    assert made["is there a bike", "there"].answers == ("yes",)
    assert made["is there a cat", "there"].answers == ("no",)
    assert ("is there a bicycle", "there") not in made  # a bike may be called one
    assert ("is there a dog", "there") not in made  # named by one caption alone
    assert not any("dog" in text for text, _ in made), "what one caption of five says is not asked for"
    assert [one for (text, kind), one in made.items() if kind == "color_choice" and "red" in text.split()]


def test_an_answer_is_right_that_two_captions_of_five_give() -> None:
    dogs = {"a dog": "animals", "the puppy": "animals"}
    said = ["a dog runs", "the puppy is running", "a dog leaps", "a dog in mid-air", "a dog"]
    assert asked(said, dogs)["what is the dog doing"] == ("jumping", "running"), "both are, of which two captions speak"
    assert "what is the dog doing" not in asked(["a dog runs", "a dog leaps", "a dog", "a dog", "a dog"], dogs)
    assert asked(["a dog runs", "a dog"], dogs)["what is the dog doing"] == ("running",), "of two, one is enough"


def test_words_side_by_side_go_before_one_of_them() -> None:
    known = table({"bike": "bike bicycle", "motorcycle": "dirt_bike", "": "exercise_bike"})
    assert given("a dirt bike by a bike".split(), known) == {"motorcycle": [2], "bike": [5]}  # noqa: SIM905
    assert given("an exercise bike".split(), known) == {}  # noqa: SIM905


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (["two dogs run", "a dog runs with another dog", "two dogs"], "two"),
        (["a dog runs", "a brown dog", "a dog jumps", "a dog"], "one"),
        (["a dog runs", "a dog jumps"], None),  # captions tell of one more readily than of all
        (["two dogs run", "two dogs", "three dogs run"], None),
        (["several dogs run", "a group of dogs", "two dogs"], "many"),
        (["dogs run", "the dogs run"], None),
    ],
)
def test_dogs_are_counted_where_no_caption_speaks_of_more(said: list[str], answer: str | None) -> None:
    said = [*said, *["in the grass"] * (5 - len(said))]
    phrases = [f"{many} dogs" for many in ("two", "three", "several", "the")]
    phrases += ["a dog", "a brown dog", "another dog", "a group of dogs"]
    phrases += ["dogs"] if any(one.startswith("dogs") for one in said) else []
    found = asked(said, dict.fromkeys(phrases, "animals"))
    assert found.get("how many dogs are there") == (answer and (answer,))


def test_choices_are_offered_only_where_nobody_speaks_of_both() -> None:
    people = {"a man": "people", "a woman": "people", "a boy": "people", "a child": "people"}
    assert asked(["a man", "a man"], people)["is there a man or a woman"] == ("man",)
    assert "is there a man or a woman" not in asked(["a man", "a man and a woman", "a man"], people)
    assert asked(["a boy", "a child", "a boy"], people)["is there a boy or a girl"] == ("boy",)
    assert asked(["a boy", "a child"], people)["is there a child or an adult"] == ("child",)
    assert "is there a child or an adult" not in asked(["a boy", "a man", "a boy"], people)
    assert asked(["a man on the couch", "a man in a room"], people)["is it indoors or outdoors"] == ("indoors",)
    assert "is it indoors or outdoors" not in asked(["a man on the couch", "a man in a room by the street"], people)


def test_colors_are_asked_only_of_what_is_plain_and_large_enough() -> None:
    def kinds(shirt: Phrase, *more: Phrase) -> set[str]:
        phrases = [shirt if p.text == "a red shirt" else p for p in PHRASES] + list(more)
        return {one.kind for one in questions_about(CAPTIONS, phrases, []) if "shirt" in one.text}

    shirt = PHRASES[1]
    assert kinds(shirt) == {"color", "color_choice"}
    assert not kinds(replace(shirt, boxes=((0.1, 0.1, 0.15, 0.15),)))  # too small to tell
    assert not kinds(replace(shirt, boxes=(*shirt.boxes, (0.5, 0.1, 0.6, 0.2))))  # several
    assert not kinds(replace(shirt, boxes=((0.6, 0.6, 0.8, 0.8),)))  # another one
    said = {"a red shirt": "clothing", "a blue shirt": "clothing"}
    assert asked(["a red shirt", "he", "he", "he", "he"], said)["what color is the shirt"] == ("red",)
    assert "what color is the shirt" not in asked(["a red shirt", "a blue shirt", "he", "he", "he"], said)
    both = asked(["a red shirt", "a red shirt", "a blue shirt", "he", "he"], said)
    assert both["what color is the shirt"] == ("red",)
    assert not any("or" in text.split() for text in both)


def test_balanced_questions_are_as_often_yes_as_no_and_no_answer_prevails() -> None:
    made = [[Question("is there a dog", "there", ("yes" if i < 300 else "no",))] for i in range(1000)]
    kept = [one.answers[0] for some in balanced(made) for one in some]
    assert kept.count("yes") == kept.count("no") == 300
    colors = ["red"] * 800 + ["blue"] * 120 + ["green"] * 80
    kept = [o.answers[0] for some in balanced([[Question("what color is it", "color", (c,))] for c in colors]) for o in some]
    assert kept.count("red") / len(kept) <= 0.4
    assert kept.count("green") == 80
    assert balanced(made) == balanced(made)
    several = [[Question("who", "who", ("man", "child") if i % 2 else ("man",) if i % 4 else ("dog",))] for i in range(400)]
    kept = [answer for some in balanced(several) for one in some for answer in one.answers]
    assert 0 < kept.count("man") == 0.5 * sum(map(len, balanced(several)))
    assert not any(balanced([[Question("what is it", "animal", ("dog",))]] * 50)), "a question with one answer asks for nothing"


def test_what_may_be_asked_for_is_what_is_named_most() -> None:
    assert askable([(CAPTIONS, PHRASES)], 2) == ["man", "shirt"]


def coco(folder: Path) -> Path:
    for number in (9, 25):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(folder / f"COCO_train2014_{number:012d}.jpg")
    images = [{"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg"} for number in (9, 25, 30)]
    said = [
        {"id": k, "image_id": n, "caption": t} for k, (n, t) in enumerate([(9, "A plate."), (9, "Food"), (25, "A giraffe")])
    ]
    path = folder / "captions_train2014.json"
    path.write_text(json.dumps({"images": images, "annotations": said}))
    return path


def test_captions_in_the_layout_of_coco(tmp_path: Path) -> None:
    read = read_captions(coco(tmp_path))
    assert read.captions == [[["a", "plate."], ["food"]], [["a", "giraffe"]]]
    assert len(read.images) == 2
    assert read.images[0].size == (30, 20)
    assert [image.getpixel((0, 0))[0] > 15 for image in read.images[0:2]] == [False, True]
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(InputError, match="expected COCO's captions"):
        read_captions(tmp_path / "wrong.json")


def test_answers_in_the_layout_of_vqa_v2(tmp_path: Path) -> None:
    coco(tmp_path)
    asked = [
        {"image_id": 9, "question": "What color is it?", "question_id": 1},
        {"image_id": 25, "question": "Is it a giraffe?", "question_id": 2},
    ]
    given = [
        {"question_id": 1, "image_id": 9, "answer_type": "other", "multiple_choice_answer": "red", "answers": [{"answer": a} for a in ["red"] * 6 + ["Pink"] * 3 + ["blue"]]},
        {"question_id": 2, "image_id": 25, "answer_type": "yes/no", "multiple_choice_answer": "yes", "answers": [{"answer": "yes"}] * 10},
    ]  # fmt: skip
    (tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(
        json.dumps({"data_subtype": "train2014", "questions": asked})
    )
    path = tmp_path / "v2_mscoco_train2014_annotations.json"
    path.write_text(json.dumps({"data_subtype": "train2014", "annotations": given}))
    read = read_answers(path)
    assert [one.answers for some in read.asked for one in some] == [("red", "pink"), ("yes",)]
    assert [one.kind for some in read.asked for one in some] == ["other", "yes/no"]
    assert read.images[1].size == (30, 20)
    path.write_text(json.dumps({"annotations": [{}]}))
    with pytest.raises(InputError, match="expected the annotations of VQA v2"):
        read_answers(path)


@pytest.mark.data
def test_questions_of_real_photos_are_many_and_balanced() -> None:
    texts = Photos(data() / "flickr8k" / "val.parquet").texts()
    objects = askable(texts)
    asked = balanced([questions_about(captions, phrases, objects) for captions, phrases in texts])
    kinds = {one.kind for some in asked for one in some}
    assert len(kinds) == 14
    assert sum(map(len, asked)) > 6000
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in chain(*asked):
        counts[one.text].update([*one.answers, "asked"])
    for text, count in counts.items():
        many = count.pop("asked")
        assert max(count.values()) <= 0.5 * many + 1e-9, text
