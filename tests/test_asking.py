"""Questions made of captions and of the phrases in them, and captions and questions in the layouts of COCO and VQA v2."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import data
from PIL import Image

from mmgradcam import InputError
from mmgradcam.data.asking import askable, balanced, questions_about
from mmgradcam.data.photos import Photos, read_answers, read_captions
from mmgradcam.data.records import Phrase, Question

CAPTIONS = [
    "a man in a red shirt is riding a bike down the street".split(),  # noqa: SIM905
    "a man wearing a black helmet rides a bike".split(),  # noqa: SIM905
    "two dogs running in the grass".split(),  # noqa: SIM905
]
PHRASES = [
    Phrase(0, 0, 1, "a man", ("people",), ((0, 0, 1, 1),)),
    Phrase(0, 3, 5, "a red shirt", ("clothing",), ((0.1, 0.1, 0.2, 0.2),)),
    Phrase(0, 8, 9, "a bike", ("vehicles",), ((0.3, 0.3, 0.6, 0.6),)),
    Phrase(0, 11, 12, "the street", ("scene",), ((0, 0.5, 1, 1),)),
    Phrase(1, 0, 1, "a man", ("people",), ((0, 0, 1, 1),)),
    Phrase(1, 3, 5, "a black helmet", ("clothing",), ((0.1, 0, 0.2, 0.1),)),
    Phrase(1, 7, 8, "a bike", ("vehicles",), ((0.3, 0.3, 0.6, 0.6),)),
    Phrase(2, 0, 1, "two dogs", ("animals",), ((0.5, 0.5, 0.6, 0.6),)),
    Phrase(2, 4, 5, "the grass", ("scene",), ((0, 0, 1, 1),)),
]


def test_questions_of_captions() -> None:
    made = {(one.text, one.kind): one for one in questions_about(CAPTIONS, PHRASES, ["bike", "cat", "bicycle", "dog"])}
    assert made["what color is the shirt", "color"] == Question(
        "what color is the shirt", "color", ("red",), ((0.1, 0.1, 0.2, 0.2),)
    )
    assert made["what is the man wearing", "wearing"].answers == ("helmet", "shirt")
    assert made["what is the man riding", "riding"].boxes == ((0.3, 0.3, 0.6, 0.6),)
    assert made["how many dogs are there", "count"].answers == ("two",)
    assert made["what are the dogs doing", "doing"].answers == ("running",)
    assert made["where are the dogs", "where"].answers == ("grass",)
    assert made["is there a bike", "there"].answers == ("yes",)
    assert made["is there a cat", "there"].answers == ("no",)
    assert ("is there a bicycle", "there") not in made  # a bike may be called one
    assert ("is there a dog", "there") not in made  # named by one caption alone
    assert made["is the shirt red", "is_color"].answers == ("yes",)


def test_colors_are_asked_only_of_what_is_plain_and_large_enough() -> None:
    def asked(shirt: Phrase, *more: Phrase) -> bool:
        phrases = [shirt if p.text == "a red shirt" else p for p in PHRASES] + list(more)
        made = questions_about(CAPTIONS, phrases, [])
        kinds = {one.kind for one in made if "shirt" in one.text}
        return {"color", "is_color"} <= kinds

    shirt = PHRASES[1]
    assert asked(shirt)
    assert not asked(replace(shirt, boxes=((0.1, 0.1, 0.15, 0.15),)))  # too small to tell
    assert not asked(replace(shirt, boxes=(*shirt.boxes, (0.5, 0.1, 0.6, 0.2))))  # several
    words = CAPTIONS[0][3:6]
    CAPTIONS.append(words)
    try:
        again = replace(shirt, caption=len(CAPTIONS) - 1, first=0, last=2)
        assert asked(shirt, again)  # the same one, named twice
        assert not asked(shirt, replace(again, boxes=((0.6, 0.6, 0.8, 0.8),)))  # another one
    finally:
        CAPTIONS.pop()


def test_balanced_questions_are_as_often_yes_as_no_and_no_answer_prevails() -> None:
    asked = [[Question("is there a dog", "there", ("yes" if i < 300 else "no",))] for i in range(1000)]
    kept = [one.answers[0] for some in balanced(asked) for one in some]
    assert abs(kept.count("yes") - kept.count("no")) < 60
    colors = ["red"] * 800 + ["blue"] * 120 + ["green"] * 80
    kept = [o.answers[0] for some in balanced([[Question("what color is it", "color", (c,))] for c in colors]) for o in some]
    assert kept.count("red") / len(kept) < 0.4
    assert kept.count("green") == 80
    assert balanced(asked) == balanced(asked)


def test_what_may_be_asked_for_is_what_is_named_most() -> None:
    assert askable([(CAPTIONS, PHRASES)], 2) == ["man", "bike"]


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
    things = askable(texts)
    asked = balanced([questions_about(captions, phrases, things) for captions, phrases in texts])
    kinds = {one.kind for some in asked for one in some}
    assert len(kinds) >= 6
    assert sum(map(len, asked)) > 6000
    answers = [one.answers[0] for some in asked for one in some if one.kind == "there"]
    assert 0.42 < answers.count("yes") / len(answers) < 0.58
