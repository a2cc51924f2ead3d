"""VQA: questions and what ten people answered, and where people looked to answer them (VQA-HAT)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.datasets.exif import Frame, open_upright
from mmgradcam.datasets.photos import read_json
from mmgradcam.datasets.records import Question, Sample
from mmgradcam.datasets.stream import InvalidRecord, Source, find_folder
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import open_picture

ENOUGH = 3
"""Of ten people, those who must agree that an answer is right, as VQA counts it."""
LOOKED = "[0-9]*_[0-9]*.png"
"""Names of the maps of VQA-HAT: the question's number, and the annotator's."""


def vqa(path: Path, images: Path | None = None, attention: Path | None = None, looked_at: bool = False) -> Source:
    """Pictures and the questions people asked of them, version 1 or 2.

    Args:
        path: the annotations, as v2_mscoco_val2014_annotations.json; the questions are in the file beside it that is called
            the same but for OpenEnded and questions. Naming that one does as well.
        images: the folder of the pictures, or the one that holds it; by default val2014, in the folder of the file or above.
        attention: the folder of VQA-HAT's maps, 1234001_1.png; by default vqahat_val or vqahat_train, beside the file or
            above. The maps of several annotators are averaged. They belong to questions of version 1, whose numbers are the
            picture's and one digit; version 2 has numbers of its own, and some are by chance those of another question there.
        looked_at: only questions that have such a map.

    Raises:
        InputError: a file is damaged or laid out otherwise, the pictures are nowhere, or no question has a map.
    """
    given, asked = _pair(path)
    annotations, questions = read_json(given), read_json(asked)
    strays: list[InvalidRecord] = []
    by_image: dict[int, list[dict[str, Any]]] = {}
    try:
        texts = [one for one in questions["questions"] if isinstance(one, dict) and isinstance(one.get("question_id"), int)]
        text_of = {one["question_id"]: one.get("question") for one in texts}
        subset = str(annotations.get("data_subtype") or questions.get("data_subtype") or "val2014")
        for number, one in enumerate(annotations["annotations"]):
            if isinstance(one, dict) and all(isinstance(one.get(key), int) for key in ("image_id", "question_id")):
                by_image.setdefault(one["image_id"], []).append(one)
            else:
                strays.append(InvalidRecord(f"annotation {number}", "expected the numbers image_id and question_id"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected VQA's annotations and questions; wrong: {error}") from None
    maps = _maps(attention or _beside(given, subset))
    if looked_at:
        by_image = {i: some for i, each in by_image.items() if (some := [one for one in each if _looked(one, maps)])}
        if not by_image:
            raise InputError(f"{attention}: expected maps of questions of {given.name}, of VQA's version 1; there is none")
    names = {i: f"COCO_{subset}_{i:012d}.jpg" for i in by_image}
    tried = (
        [images, images / subset]
        if images
        else [at / n for at in (given.parent, given.parent.parent) for n in (subset, f"images/{subset}", ".")]
    )
    folder = find_folder(tried, list(names.values()), "VQA's pictures")

    def read(number: int) -> Sample:
        image, frame = open_upright(folder / names[number])
        made = []
        for one in by_image[number]:
            text = text_of.get(one["question_id"])
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"question {one['question_id']} has no words in {asked.name}")
            looked = _attention(_looked(one, maps), frame)
            made.append(Question(text, str(one.get("answer_type", "other")), _answers(one), attention=looked))
        return Sample(str(number), image, questions=tuple(made))

    return Source(f"VQA {subset}", [*by_image, *strays], read, "image {}".format)


def _pair(path: Path) -> tuple[Path, Path]:
    """The files of the annotations and of the questions, given either."""
    name = path.name.replace("OpenEnded_", "").replace("questions", "annotations")
    return path.with_name(name), path.with_name(
        name.replace("mscoco_", "OpenEnded_mscoco_").replace("annotations", "questions")
    )


def hat(folder: Path, images: Path | None = None) -> Source:
    """The questions of VQA-HAT: those of VQA of which it is known where people looked.

    Args:
        folder: of the maps, vqahat_val; the annotations of VQA's version 1, mscoco_val2014_annotations.json, lie beside it.
        images: the folder of the pictures.

    Raises:
        InputError: the annotations are not there, or as for `vqa`.
    """
    split = "train" if "train" in folder.name else "val"
    for at in (folder.parent, folder, folder.parent.parent):
        path = at / f"mscoco_{split}2014_annotations.json"
        if path.is_file():
            return vqa(path, images, folder, looked_at=True)
    raise InputError(
        f"{folder}: expected VQA's annotations beside the maps, as mscoco_{split}2014_annotations.json; there are none"
    )


def is_hat(folder: Path) -> bool:
    """Whether a folder holds maps of VQA-HAT."""
    return folder.name.startswith("vqahat") and any(folder.glob(LOOKED))


def _beside(given: Path, subset: str) -> Path | None:
    name = f"vqahat_{'train' if 'train' in subset else 'val'}"
    return next((at / name for at in (given.parent, given.parent.parent) if (at / name).is_dir()), None)


def _maps(folder: Path | None) -> dict[str, list[Path]]:
    made: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(LOOKED)) if folder else ():
        made.setdefault(path.stem.split("_")[0], []).append(path)
    return made


def _looked(one: dict[str, Any], maps: dict[str, list[Path]]) -> list[Path]:
    """The maps of a question, if it is one of version 1."""
    number = one["question_id"]
    return maps.get(str(number), []) if number // 10 == one["image_id"] else []


def _attention(paths: Sequence[Path], frame: Frame) -> npt.NDArray[np.float32] | None:
    """The mean of the maps, 0..1, at the size of the first."""
    if not paths:
        return None
    maps = [open_picture(path).convert("L") for path in paths]
    same = [one if one.size == maps[0].size else one.resize(maps[0].size, Image.Resampling.BILINEAR) for one in maps]
    mean = np.stack([np.asarray(one, dtype=np.float32) / 255 for one in same]).mean(0)
    if not mean.any():
        raise InputError(f"{paths[0]}: a map of where people looked that is black all over")
    turned: npt.NDArray[np.float32] = frame.turn(mean)
    return turned


def _answers(one: dict[str, Any]) -> tuple[str, ...]:
    given = Counter(str(each["answer"]).lower() for each in one["answers"])
    return tuple(answer for answer, n in given.most_common() if n >= ENOUGH) or (str(one["multiple_choice_answer"]).lower(),)
