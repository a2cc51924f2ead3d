"""Photos with captions, and phrases of them with boxes, from Parquet files or any data set of `datasets` in these columns.

- `image`; `width` and `height`, the photo's own where it was squeezed; `image_id`
- `captions`: sentences with single spaces between tokens
- `phrases`: each with `caption` (index), `first_word`, `last_word` (inclusive), `text`, `types` and `boxes` (x0, y0, x1, y1 as
  fractions of the photo)
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mmgradcam.datasets.records import Phrase, Question, Sample
from mmgradcam.datasets.stream import MALFORMED, Texts
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import DAMAGED, MOST_PIXELS, formats, open_picture
from mmgradcam.utils.files import regular

COLUMNS = {"image", "captions", "phrases"}


class Photos:
    """Photos in a file or data set, decoded when they are asked for.

    Args:
        rows: a data set of `datasets`, or the path of a Parquet file.
        folder: the only one whose files the table may name as its pictures; of a Parquet file, that which it lies in.

    Raises:
        InputError: no such file, not Parquet, or a column is missing.
    """

    def __init__(self, rows: Any, folder: Path | None = None) -> None:
        path = Path(rows) if isinstance(rows, (str, Path)) else None
        self.rows = rows if path is None else read_parquet(path)
        missing = COLUMNS - set(self.rows.column_names)
        if missing:
            raise InputError(f"photos: expected columns {', '.join(sorted(COLUMNS))}; missing {', '.join(sorted(missing))}")
        self._folder = folder if path is None else path if path.is_dir() else path.parent
        self._table = Table(self.rows, self._folder)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        row, image = self._table[index], self.image(index)
        if row.get("width") and row.get("height"):
            image = image.resize(_shape(image.size, (row["width"], row["height"])), Image.Resampling.BICUBIC)
        return Sample(str(row.get("image_id", index)), image, _captions(row), _phrases(row))

    def image(self, index: int) -> Image.Image:
        """The picture of a photo as the table holds it, RGB."""
        try:
            return self._table.picture(index).convert("RGB")
        except (*DAMAGED, AttributeError) as error:
            raise InputError(f"photos: photo {index}: expected a picture ({' '.join(str(error).split())[:120]})") from None

    def texts(self, malformed: bool = False) -> list[Texts]:
        """Captions and phrases of every photo, without decoding a picture.

        Args:
            malformed: of a photo whose texts are malformed there are none; else it raises what is wrong.
        """
        wanted = ["captions", "phrases", *(["image_id"] if "image_id" in self.rows.column_names else [])]
        table = Table(self.rows.select_columns(wanted))
        return [_texts(table, index, malformed) for index in range(len(table))]


def _texts(table: Table, index: int, malformed: bool) -> Texts:
    try:
        row = table[index]
        return _captions(row), _phrases(row)
    except MALFORMED:
        if not malformed:
            raise
        return (), ()


class Table:
    """Rows of a data set as they lie there. Nothing is decoded by `datasets`, which would follow any address in them.

    Args:
        rows: a data set of `datasets`.
        folder: the only one whose files it may name as pictures; None: those of any, since the data set was made here.
    """

    def __init__(self, rows: Any, folder: Path | None = None) -> None:
        self._rows, self._folder = rows.with_format("arrow"), folder

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index].to_pylist()[0]
        return row

    def picture(self, index: int) -> Image.Image:
        """The picture in column `image`, upright, in its own mode.

        Raises:
            InputError: there is none, or an address or a file elsewhere in its place; Pillow's errors, if it is damaged.
        """
        held = self[index]["image"]
        held = held if isinstance(held, Mapping) else {"path": held} if isinstance(held, str) else {"bytes": held}
        data, path = held.get("bytes"), held.get("path")
        if data is None and isinstance(path, str):
            file: Any = self._file(path)
        elif isinstance(data, bytes):
            file = io.BytesIO(data)
        else:
            raise InputError(f"expected a picture, got {'none' if data is None else type(data).__name__}")
        with Image.open(file, formats=formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(f"{image.width} x {image.height} is over {MOST_PIXELS:,} pixels; make it smaller first")
            return ImageOps.exif_transpose(image)

    def _file(self, path: str) -> Path:
        if "://" in path or "::" in path:
            raise InputError(f"expected a picture in the table, got the address {path!r:.80}, which is not followed")
        file = Path(path) if self._folder is None else self._folder / path
        if self._folder is not None and not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(self._folder)):
            raise InputError(f"expected a picture in the table or in {self._folder}, got the path {path!r:.80}")
        return regular(file, "a picture")


def read_parquet(path: Path) -> Any:
    """The rows of a Parquet file, or of all those in a folder, in the order of their names.

    Raises:
        InputError: no such file, or it is not Parquet.
    """
    import datasets

    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise InputError(f"{path}: no such file; expected a Parquet file of photos")
    quiet = datasets.utils.are_progress_bars_disabled()
    datasets.utils.disable_progress_bars()
    told = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs is said in the one line below
    try:
        return datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except Exception as error:  # the library fails in many ways
        raise InputError(f"{path}: expected a Parquet file of photos ({' '.join(str(error).split())[:160]})") from None
    finally:
        datasets.logging.set_verbosity(told)
        if not quiet:
            datasets.utils.enable_progress_bars()


def _shape(squeezed: tuple[int, int], own: tuple[int, int]) -> tuple[int, int]:
    """The photo's own aspect with no side shorter than it was squeezed to, so that nothing is lost."""
    scale = min(squeezed) / min(own)
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))


def _captions(row: Any) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(word.lower() for word in caption.split()) for caption in row["captions"])


def _phrases(row: Any) -> tuple[Phrase, ...]:
    lengths = [len(caption.split()) for caption in row["captions"]]
    made = []
    for p in row["phrases"]:
        caption, first, last = p["caption"], p["first_word"], p["last_word"]
        inside = 0 <= caption < len(lengths) and 0 <= first <= last < lengths[caption]
        if not inside or any(len(box) != 4 for box in p["boxes"]):
            raise InputError(
                f"photos: {row.get('image_id', 'a photo')}: expected phrase {p['text']!r} to name words of one caption, "
                f"all counted from 0, and boxes of 4 numbers; got caption {caption}, words {first}-{last}, boxes {p['boxes']}"
            )
        boxes = tuple((b[0], b[1], b[2], b[3]) for b in p["boxes"])
        made.append(Phrase(caption, first, last, p["text"], tuple(p["types"]), boxes))
    return tuple(made)


@dataclass(frozen=True)
class Captioned:
    """Pictures, opened when they are asked for, by index or slice, and the captions of each, as lists of words."""

    images: Any
    captions: list[list[list[str]]]


def read_captions(data: Path, images: Path | None = None) -> Captioned:
    """Photos to train a captioner on.

    Args:
        data: a Parquet file of `Photos`, or a JSON file in the layout of COCO's captions ("images" with `id` and `file_name`,
            "annotations" with `image_id` and `caption`).
        images: the folder of COCO's pictures.

    Raises:
        InputError: a file is missing or laid out otherwise.
    """
    if data.suffix != ".json":
        photos = Photos(data)
        texts = photos.texts()
        return Captioned(_Column(photos), [[list(caption) for caption in captions] for captions, _ in texts])
    read = read_json(data)
    said: dict[Any, list[list[str]]] = {}
    try:
        for one in read["annotations"]:
            said.setdefault(one["image_id"], []).append(str(one["caption"]).lower().split())
        files = [(images or data.parent) / one["file_name"] for one in read["images"] if one["id"] in said]
        captions = [said[one["id"]] for one in read["images"] if one["id"] in said]
    except (KeyError, TypeError) as error:
        raise InputError(f"{data}: expected COCO's captions, with images and annotations; {error} is missing") from None
    return Captioned(_Files(files), captions)


def read_answers(data: Path, images: Path | None = None) -> AnswerTarget:
    """Pictures and the questions people asked of them, in the layout of VQA v2.

    Args:
        data: the annotations, `v2_mscoco_train2014_annotations.json`; the questions are read from the file beside it that is
            called the same but for OpenEnded and questions, `v2_OpenEnded_mscoco_train2014_questions.json`.
        images: the folder of the pictures, `COCO_train2014_000000000009.jpg` and so on; by default where `data` is.

    Raises:
        InputError: a file is missing or laid out otherwise.
    """
    name = data.name.replace("v2_mscoco", "v2_OpenEnded_mscoco").replace("annotations", "questions")
    annotations, questions = read_json(data), read_json(data.with_name(name))
    try:
        text_of = {one["question_id"]: str(one["question"]) for one in questions["questions"]}
        subset = str(annotations.get("data_subtype") or questions.get("data_subtype") or "train2014")
        asked: dict[int, list[Question]] = {}
        for one in annotations["annotations"]:
            given = Counter(str(each["answer"]).lower() for each in one["answers"])
            answers = tuple(answer for answer, n in given.most_common() if n >= 3) or (str(one["multiple_choice_answer"]),)
            found = Question(text_of[one["question_id"]], str(one.get("answer_type", "other")), answers)
            asked.setdefault(int(one["image_id"]), []).append(found)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{data}: expected the annotations of VQA v2; {error} is missing or wrong") from None
    folder = images or data.parent
    files = [folder / f"COCO_{subset}_{number:012d}.jpg" for number in asked]
    words = [[answer.split() for one in some for answer in one.answers] for some in asked.values()]
    return AnswerTarget(_Files(files), words, list(asked.values()))


@dataclass(frozen=True)
class AnswerTarget:
    """Pictures as of `Captioned`, what was said of each in words, and what was asked of each."""

    images: Any
    captions: list[list[list[str]]]
    asked: list[list[Question]]


DEEPEST = 100
"""Lists and objects within each other that an index may have; COCO's have six."""


def read_json(path: Path) -> Any:
    """A JSON file; what lies deeper in it than `DEEPEST` is None, so that one such record does not spoil the others.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        try:
            return json.loads(text)
        except RecursionError:
            return json.loads(_shallow(text))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a JSON file ({error})") from None


def _shallow(text: str) -> str:
    """JSON with null in the place of each list or object that lies deeper than `DEEPEST`.

    >>> deep = "[" * DEEPEST
    >>> _shallow(f'["[", {deep}1{"]" * DEEPEST}]') == f'["[", {deep[1:]}null{"]" * (DEEPEST - 1)}]'
    True
    """
    kept, depth, end = [], 0, 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if found[0] in "[{":
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[end : found.start()])
        elif found[0] in "]}":
            if depth == DEEPEST + 1:
                kept.append("null")
                end = found.end()
            depth -= 1
    return "".join([*kept, text[end:]])


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8.

    Raises:
        InputError: it is none.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a text in UTF-8 ({error})") from None


@dataclass(frozen=True)
class _Column:
    """The pictures of a data set."""

    photos: Photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self.photos.image(i) for i in range(*at.indices(len(self)))]
        return self.photos.image(int(at))


@dataclass(frozen=True)
class _Files:
    """Pictures in files."""

    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: Any) -> Any:
        return [open_picture(path) for path in self.paths[at]] if isinstance(at, slice) else open_picture(self.paths[at])
