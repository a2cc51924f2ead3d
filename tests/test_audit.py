"""Whole data sets: figures worked by hand, one encode for all methods, stopped runs that go on, and the files they write."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import complaints
from PIL import Image
from torch import Tensor, nn

from mmgradcam import InputError, ModelError, explain, gradcam, hirescam
from mmgradcam.datasets.records import ObjectAnnotation, Phrase, Sample, mask_of
from mmgradcam.datasets.sources import Source, open_data
from mmgradcam.evaluation import doubts, faithfulness, localization, segmentation
from mmgradcam.evaluation import parts as parts_module
from mmgradcam.evaluation.batch import Batch, Column
from mmgradcam.evaluation.intervals import figures
from mmgradcam.evaluation.parts import identity_of
from mmgradcam.evaluation.protocols import pointing_with_reject_option, pointing_with_reject_option_15px
from mmgradcam.evaluation.queries import _aligned
from mmgradcam.evaluation.reports import page as findings_page
from mmgradcam.evaluation.reports import save, summary
from mmgradcam.evaluation.rows import FIELDS, SCHEMA, from_parquet, to_parquet
from mmgradcam.evaluation.run import audit
from mmgradcam.images.pictures import whole
from mmgradcam.methods import occlusion
from mmgradcam.metrics import obj_iou, otsu
from mmgradcam.tasks import Layer, load


class Colors(nn.Module):
    """Three classes: how much red, green and blue there is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        return self.conv(x).mean((2, 3)) * 40


def colored() -> Layer:
    model = Colors()
    return Layer(model, model.conv, ["red", "green", "blue"], prepare=whole)


def photo(n: int, color: tuple[int, int, int], label: str, box: tuple[float, float, float, float]) -> Sample:
    """A grey picture with one colored square."""
    pixels = np.full((16, 16, 3), 20, np.uint8)
    x0, y0, x1, y1 = (int(16 * v) for v in box)
    pixels[y0:y1, x0:x1] = color
    return Sample(f"photo {n}", Image.fromarray(pixels), objects=(ObjectAnnotation(label, (box,)),))


PHOTOS = [
    photo(0, (255, 0, 0), "red", (0, 0, 0.25, 0.25)),
    photo(1, (0, 255, 0), "green", (0.5, 0.5, 1, 1)),
    photo(2, (0, 0, 255), "red", (0.5, 0, 1, 0.5)),
    photo(3, (0, 0, 255), "blue", (0, 0.5, 0.5, 1)),
]


def source(photos: Sequence[Sample] = PHOTOS, broken: int = -1) -> Source:
    def read(n: int) -> Sample:
        if n == broken:
            raise InputError("its box is inverted")
        return photos[n]

    return Source("squares", range(len(photos)), read)


def scaled(features: Tensor, gradients: Tensor, by: float) -> Tensor:
    return hirescam(features, gradients) * by


def inverted(features: Tensor, gradients: Tensor) -> Tensor:
    return -hirescam(features, gradients)


def test_figures_are_those_worked_by_hand() -> None:
    made = audit(
        colored(),
        source(),
        [hirescam, inverted],
        [localization.pointing, localization.heat, localization.box, faithfulness.drop],
    )
    found = made.figures("hirescam", "true")
    # Photo 2's label is wrong: where the blue square lies there is no red, and so the peak of red is elsewhere.
    assert found["pointing"].mean == 0.75
    assert found["pointing"].rows == 4
    # The likeliest others are held against the thing: of all their maps, that of photo 2's blue alone peaks on it.
    assert found["pointing_swapped"].mean == (0 + 0 + 0.5 + 0) / 4
    assert found["specificity"].mean == 0.75 - 0.125
    assert found["baseline_center"].mean == 0.25, "the pixel below and right of the middle, in photo 1 alone"
    assert found["baseline_random"].mean == pytest.approx((1 / 16 + 1 / 4 + 1 / 4 + 1 / 4) / 4)
    assert found["box_found"].mean == 0.75
    # Grey is 20 of 255: of the maximum, the share of heat outside a square of 1/16 or 1/4 of the picture.
    other = 20 / 255
    shares = [(1 / 16) / (1 / 16 + other * 15 / 16), 0.25 / (0.25 + other * 0.75), 0.0, 0.25 / (0.25 + other * 0.75)]
    assert found["energy_pointing"].mean == pytest.approx(np.mean(shares), abs=1e-5)
    assert made.figures("inverted", "true")["pointing"].mean == 0.0
    assert found["correct"].mean == 1.0
    assert len(made.rows) == 4 * 3 * 2, "the true class and the other likeliest, by both methods"
    absent = [row for row in made.rows if row["kind"] == "absent"]
    assert all(row["pointing"] is None and row["correct"] is False for row in absent)


def test_figures_of_whole_pictures_are_those_worked_by_hand() -> None:
    made = audit(colored(), source(), [hirescam], [localization.pointing, localization.tops, localization.box])
    # Red, green and blue are the likeliest classes of photos 0, 1 and 3, and their boxes are right; photo 2 is called blue, and
    # the
    # box of what is told as red, its third guess at best, is the whole picture.
    whole = made.wholes("hirescam")
    assert (whole["localization_error_top_1"], whole["localization_error_top_5"]) == (0.25, 0.25)
    # A map of an absent color peaks at 20 of 255 and is rejected. Of photo 2's three maps two are wrong: that of its blue,
    # which is
    # said to be absent, is accepted, and that of red, which is said to be there, rejected.
    assert whole["pointing_with_reject"] == pytest.approx(10 / 12)


def spotted(n: int, left: int, top: int = 10) -> Sample:
    """Grey, 100 x 60, with one red pixel at x 10, y 10; what is said to be red is a box of 4 x 4 pixels elsewhere."""
    pixels = np.full((60, 100, 3), 20, np.uint8)
    pixels[10, 10, 0] = 255
    box = (left / 100, top / 60, (left + 4) / 100, (top + 4) / 60)
    return Sample(f"spot {n}", Image.fromarray(pixels), objects=(ObjectAnnotation("red", (box,)),))


def test_the_pointing_game_of_zhang_et_al_has_a_tolerance_of_15_pixels() -> None:
    names = ["pointing", "pointing_15px", "baseline_center", "baseline_center_15px", "baseline_random", "baseline_random_15px"]
    photos = [spotted(0, 10), spotted(1, 25), spotted(2, 26), spotted(3, 40, 18)]
    made = audit(colored(), source(photos), [hirescam], [localization.pointing, localization.pointing_15px, localization.tops])
    rows = [[row[name] for name in names] for row in made.rows if row["kind"] == "true"]
    assert [row[:4] for row in rows] == [
        [True, True, False, False],
        [False, True, False, False],
        [False] * 4,
        [False] * 3 + [True],
    ]
    assert rows[0][4] == 16 / 6000
    # A square of 4 pixels widened by 15, 10 pixels from two of the edges: the pixels counted one by one.
    wide = sum(
        any(math.hypot(y - v, x - u) <= 15 for v in range(10, 14) for u in range(10, 14)) for y in range(60) for x in range(100)
    )
    assert rows[0][5] == pytest.approx(wide / 6000)
    told = made.wholes("hirescam")
    assert told["pointing_with_reject"] == pointing_with_reject_option(made.rows)
    assert told["pointing_with_reject_15px"] == pointing_with_reject_option_15px(made.rows) > told["pointing_with_reject"]
    found = made.figures("hirescam", "true")
    assert found["specificity_15px"].mean == pytest.approx(found["pointing_15px"].mean - found["pointing_swapped_15px"].mean)


def test_the_table_says_which_pointing_game_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from mmgradcam.cli.tables import show_audit

    show_audit(audit(colored(), source(), [hirescam], [localization.pointing, localization.pointing_15px]))
    said = capsys.readouterr().out
    assert (
        "pointing 15px: the map's maximum lies at most 15 pixels from the object (Zhang et al. 2016); higher is better" in said
    )
    assert "pointing: the map's maximum lies on the object, without tolerance" in said
    show_audit(audit(colored(), source(), [hirescam], [localization.heat]))
    assert "tolerance" not in capsys.readouterr().out


def test_what_grows_by_rounding_is_no_increase() -> None:
    class Even(Colors):
        """Its three scores hardly depend on the picture."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1e-7

    model = Even()
    task = Layer(model, model.conv, ["red", "green", "blue"], prepare=whole)
    made = audit(task, source(), [hirescam, inverted], [faithfulness.drop])
    assert all(row["increase_in_confidence"] == 0 and row["win_rate"] == 0 for row in made.rows)
    grown = audit(colored(), source(), [hirescam], [faithfulness.drop])
    assert any(row["increase_in_confidence"] for row in grown.rows if row["kind"] == "true")


def test_words_of_no_thing_and_of_things_are_judged_apart() -> None:
    boxes = ((0.25, 0.25, 0.75, 0.75),)
    one = Sample("p", Image.new("RGB", (64, 64)), (("a", "red", "cube"),), (Phrase(0, 2, 2, "cube", ("kind",), boxes),))
    task = load("scenes-captioner", device="cpu")
    measured = audit(task, source([one]), [hirescam], [segmentation.word_iou], target_layers=())
    found = {name: figure.mean for name, figure in measured.figures("hirescam").items()}
    made = explain(task, one.image, method=hirescam, target_layers=(), phrases=[(["a", "red", "cube"], i, i) for i in (2, 0)])
    # On the picture, where a map's maximum is lower than its highest cell by another share than another map's.
    cube, article = (
        torch.nn.functional.interpolate(part.map[None, None].clamp(min=0), (64, 64), mode="bilinear") for part in made
    )
    assert float(cube.max() / made[0].map.max()) != pytest.approx(float(article.max() / made[1].map.max()), abs=1e-4)
    top = max(cube.max(), article.max())
    noun, scaled = ((one / top)[0, 0].numpy() for one in (cube, article))
    assert found["noun_iou"] == pytest.approx(obj_iou(noun, mask_of(boxes, (64, 64))), abs=5e-4)
    assert found["function_word_iou"] == pytest.approx(float((scaled < otsu(noun)).mean()), abs=5e-4)
    both = found["noun_iou"], found["function_word_iou"]
    assert measured.wholes("hirescam")["word_f1_iou"] == pytest.approx(2 * both[0] * both[1] / sum(both))
    alone = Sample("q", one.image, (("cube",),), (Phrase(0, 0, 0, "cube", ("kind",), boxes),))
    silent = audit(task, source([alone]), [hirescam], [segmentation.word_iou], target_layers=())
    assert silent.rows[0]["noun_iou"] is None, "a caption without a function word tells nothing of them"


def test_seeds_are_masks_that_a_segmenter_can_train_on(tmp_path: Path) -> None:
    made = audit(colored(), source(), [hirescam], [segmentation.seeds], out=tmp_path)
    with Image.open(tmp_path / "seeds" / "hirescam" / "photo 1.png") as seed:
        assert (seed.mode, seed.size) == ("P", (16, 16))
        labels = np.asarray(seed)
    expected = np.zeros((16, 16), np.uint8)
    expected[8:, 8:] = 2
    assert np.array_equal(labels, expected)
    # Photos 0, 1 and 3 are found to the pixel; in photo 2 there is red everywhere but where it is said to be.
    assert made.figures("hirescam")["seed_iou"].mean == pytest.approx((16 + 64 + 0 + 64) / (16 + 64 + 256 + 64))
    # Of the classes: red (16 + 0) / (16 + 256), green and blue whole.
    assert made.wholes("hirescam")["seed_mean_iou"] == pytest.approx((16 / 272 + 1 + 1) / 3)


def test_seeds_are_drawn_where_nobody_drew_the_truth(tmp_path: Path) -> None:
    """They are wanted most where nobody did."""
    names = ["a/b", "a_b", "../" * 9 + "b", "x" * 400]  # each a file of its own, in the folder
    bare = [
        Sample(name, one.image, objects=(ObjectAnnotation(one.objects[0].label),))
        for name, one in zip(names, PHOTOS, strict=True)
    ]
    made = audit(colored(), source(bare), [hirescam], [segmentation.seeds], out=tmp_path)
    assert len(list((tmp_path / "seeds" / "hirescam").glob("*.png"))) == 4
    assert "seed_iou" not in made.figures("hirescam")


def test_seeds_say_what_they_cannot_be_drawn_of(tmp_path: Path) -> None:
    class Many(Colors):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x).flip(1), x.new_zeros(len(x), 300)], 1).flip(1)

    model = Many()
    task = Layer(model, model.conv, [*map(str, range(300)), "red", "green", "blue"], prepare=whole)
    with pytest.raises(InputError, match="room for 254 classes, got number 301"):
        audit(task, source(), [hirescam], [segmentation.seeds], out=tmp_path, limit=1)
    with pytest.raises(InputError, match="seeds: expected a classifier"):
        audit(load("scenes-captioner", device="cpu"), open_data("scenes"), [hirescam], [segmentation.seeds], limit=1)


def test_methods_that_coincide_win_nothing() -> None:
    def again(features: Tensor, gradients: Tensor) -> Tensor:
        return hirescam(features, gradients) * 1.000001 + 1e-9

    made = audit(colored(), source(), [hirescam, again], [faithfulness.drop])
    assert made.figures("hirescam")["win_rate"].mean == made.figures("again")["win_rate"].mean == 0.0
    apart = audit(colored(), source(), [hirescam, inverted], [faithfulness.drop])
    assert apart.figures("hirescam", "true")["win_rate"].mean > 0.5


def test_one_encode_for_all_methods() -> None:
    task = colored()
    audit(task, source(), [hirescam, gradcam, inverted], [localization.pointing], batch=2)
    assert task.model.forwards == 4  # type: ignore[union-attr]


def test_a_malformed_record_is_named_and_left_out() -> None:
    made = audit(colored(), source(broken=1), [hirescam], [localization.pointing], batch=2)
    assert made.bad == ["1: its box is inverted"]
    assert {row["image"] for row in made.rows} == {"photo 0", "photo 2", "photo 3"}
    strange = photo(4, (255, 0, 0), "a zebra", (0, 0, 1, 1))
    made = audit(colored(), source([*PHOTOS, strange]), [hirescam], [localization.pointing])
    assert (made.skipped, made.pictures) == (1, 4)


def test_a_picture_that_breaks_the_model_does_not_end_the_run() -> None:
    class Breaking(Colors):
        def forward(self, x: Tensor) -> Tensor:
            made = super().forward(x)
            return made + torch.where((x[:, :1] > 0.99).any((2, 3)), torch.nan, 0.0)  # photo 0 alone holds full red

    model = Breaking()
    task = Layer(model, model.conv, ["red", "green", "blue"], prepare=whole)
    made = audit(task, source(), [hirescam], [localization.pointing], batch=2)
    assert {row["image"] for row in made.rows} == {"photo 1", "photo 2", "photo 3"}
    (said,) = made.bad
    assert said.startswith("photo 0: ")
    assert "nan" in said
    with pytest.raises(ModelError, match="nan"):
        audit(task, source(PHOTOS[:1]), [hirescam], [localization.pointing])


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole = audit(colored(), source(), [hirescam], [localization.pointing, faithfulness.drop], batch=1)
    task = colored()
    audit(task, source(), [hirescam], [localization.pointing, faithfulness.drop], batch=1, limit=3, out=tmp_path)
    before = task.model.forwards  # type: ignore[union-attr]
    on = audit(task, source(), [hirescam], [localization.pointing, faithfulness.drop], batch=1, out=tmp_path)
    assert on.rows == whole.rows
    assert task.model.forwards - before == before // 3, "one picture of four was left"  # type: ignore[union-attr]
    again = audit(task, source(), [hirescam], [localization.pointing, faithfulness.drop], batch=1, out=tmp_path)
    assert again.rows == whole.rows
    with pytest.raises(InputError, match=r"holds a run of other records \(4 there, 3 now\)"):
        audit(task, source(PHOTOS[1:]), [hirescam], [localization.pointing, faithfulness.drop], batch=1, out=tmp_path)
    with pytest.raises(InputError, match=r"holds a run of other metrics \(.*choose another --out, or delete it"):
        audit(task, source(), [hirescam], [localization.pointing], batch=1, out=tmp_path)


def test_a_part_that_a_limit_cut_is_done_again(tmp_path: Path) -> None:
    audit(colored(), source(), [hirescam], [localization.pointing], batch=2, limit=3, out=tmp_path)
    on = audit(colored(), source(), [hirescam], [localization.pointing], batch=2, out=tmp_path)
    assert [row["sample"] for row in on.rows] == [n for n in range(4) for _ in range(3)]


def test_a_limit_that_cuts_a_part_of_a_longer_run_counts_no_more_records(tmp_path: Path) -> None:
    audit(colored(), source(), [hirescam], [localization.pointing], batch=2, out=tmp_path)
    cut = audit(colored(), source(), [hirescam], [localization.pointing], batch=2, limit=3, out=tmp_path)
    assert ({row["sample"] for row in cut.rows}, cut.pictures) == ({0, 1, 2}, 3)
    whole = audit(colored(), source(), [hirescam], [localization.pointing], batch=2, out=tmp_path)
    assert {row["sample"] for row in whole.rows} == {0, 1, 2, 3}


def test_a_part_that_is_gone_is_done_again(tmp_path: Path) -> None:
    audit(colored(), source(), [hirescam], [localization.pointing], batch=1, out=tmp_path)
    (tmp_path / "parts" / "000001.parquet").unlink()
    made = audit(colored(), source(), [hirescam], [localization.pointing], batch=1, out=tmp_path)
    assert [row["sample"] for row in made.rows] == [n for n in range(4) for _ in range(3)]
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json, which is gone"):
        audit(colored(), source(), [inverted], [localization.pointing], batch=1, out=tmp_path)


def kept_run(out: Path, photos: Sequence[Sample] = PHOTOS, task: Any = None, **more: Any) -> tuple[Any, int]:
    """A run of one record a part, and how many pictures went through the model for it."""
    task = task or colored()
    told = {
        "methods": [hirescam],
        "metrics": [localization.pointing],
        "batch": 1,
        "target_layers": None,
        "data": "squares",
        **more,
    }
    data = source(photos)
    data.name = told["data"]
    made = audit(
        task, data, told["methods"], told["metrics"], batch=told["batch"], target_layers=told["target_layers"], out=out
    )
    return made, task.model.forwards


def edited(change: Any) -> Any:
    """A part's file with other rows, or with something else said of them."""

    def edit(raw: bytes) -> bytes:
        rows, metadata = from_parquet(raw)
        rows, told = change(rows, json.loads(metadata))
        return to_parquet(rows, json.dumps(told))

    return edit


DAMAGE: dict[str, Any] = {
    "empty": b"", "zeros": bytes(400), "cut": lambda raw: raw[: len(raw) // 2], "text": b"figures", "binary": b"\xff\xfe\x00PAR1",
    "an older version's": b'{"rows": [], "bad": []}', "magic alone": b"PAR1" + bytes(40) + b"PAR1",
    "no part": edited(lambda rows, told: (rows, {})),
    "part of nothing": edited(lambda rows, told: (rows, {"part": None, "content": "", "sha256": ""})),
    "nan": edited(lambda rows, told: ([{**rows[0], "score": math.nan}, *rows[1:]], told)),
    "another figure": edited(lambda rows, told: ([{**rows[0], "score": 0.5}, *rows[1:]], told)),
    "rows lost": edited(lambda rows, told: ([], told)),
    "rows twice": edited(lambda rows, told: (2 * rows, told)),
    "stale rows": edited(lambda rows, told: ([{**row, "pointing": 0.125} for row in rows], told)),
    "content renamed": edited(lambda rows, told: (rows, {**told, "content": "1 0"})),
    "bad records added": edited(lambda rows, told: (rows, {**told, "part": {**told["part"], "bad": ["x: y"]}})),
    "another table": lambda raw: other_table(),
}  # fmt: skip


def other_table() -> bytes:
    import io

    import pyarrow
    from pyarrow import parquet

    made = io.BytesIO()
    parquet.write_table(pyarrow.table({"a": [1, 2]}), made)
    return made.getvalue()


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_part_is_never_believed(how: str, tmp_path: Path) -> None:
    whole, _ = kept_run(tmp_path)
    path = tmp_path / "parts" / "000001.parquet"
    raw = path.read_bytes()
    harm = DAMAGE[how]
    path.write_bytes(harm(raw) if callable(harm) else harm)
    assert path.read_bytes() != raw
    with pytest.warns(UserWarning, match=r"000001\.parquet: damaged \(.+\); its records are measured anew"):
        again, forwards = kept_run(tmp_path)
    assert again.rows == whole.rows
    assert forwards == kept_run(tmp_path / "one", PHOTOS[:1])[1], "the one part, and no other"
    assert from_parquet(path.read_bytes())[0] == from_parquet(raw)[0], "it is whole again"


def test_parts_that_changed_places_or_came_from_another_run_are_not_believed(tmp_path: Path) -> None:
    whole, _ = kept_run(tmp_path / "a")
    parts = tmp_path / "a" / "parts"
    (parts / "000000.parquet").rename(parts / "x")
    (parts / "000001.parquet").rename(parts / "000000.parquet")
    (parts / "x").rename(parts / "000001.parquet")
    with pytest.warns(UserWarning, match="the data set has changed; its records are measured anew") as told:
        again, _ = kept_run(tmp_path / "a")
    assert (again.rows, len(told)) == (whole.rows, 2)
    kept_run(tmp_path / "b", methods=[inverted])
    (tmp_path / "b" / "parts" / "000002.parquet").replace(parts / "000002.parquet")
    with pytest.warns(UserWarning, match=r"000002\.parquet: damaged"):
        again, _ = kept_run(tmp_path / "a")
    assert again.rows == whole.rows


@pytest.mark.parametrize("place", ["parts/000000.parquet", "parts", "run.json"])
def test_a_folder_or_file_in_the_place_of_another_is_named(place: str, tmp_path: Path) -> None:
    kept_run(tmp_path, PHOTOS[:1])
    path = tmp_path / place
    if place == "parts":
        (path / "000000.parquet").unlink()
        path.rmdir()
        path.touch()
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    with warnings.catch_warnings(), pytest.raises(InputError, match=re.escape(str(path))):
        warnings.simplefilter("ignore")
        kept_run(tmp_path, PHOTOS[:1])


@pytest.mark.parametrize("held", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_key_is_one_line(held: bytes, tmp_path: Path) -> None:
    kept_run(tmp_path)
    (tmp_path / "run.json").write_bytes(held)
    with pytest.raises(InputError, match=r"run\.json: damaged \(.+\); choose another --out, or delete"):
        kept_run(tmp_path)


def changed(one: Sample, **more: Any) -> Sample:
    return dataclasses.replace(one, **more)


CHANGES: dict[str, Any] = {
    "pixels": lambda one: changed(one, image=photo(1, (0, 254, 0), "green", (0.5, 0.5, 1, 1)).image),
    "box": lambda one: changed(one, objects=(ObjectAnnotation("green", ((0.5, 0.5, 1, 0.99),)),)),
    "label": lambda one: changed(one, objects=(ObjectAnnotation("red", one.objects[0].boxes),)),
    "mask": lambda one: changed(one, objects=(ObjectAnnotation("green", one.objects[0].boxes, np.eye(16, dtype=bool)),)),
    "caption": lambda one: changed(one, captions=(("a", "dog"),)),
    "group": lambda one: changed(one, group="g"),
    "name": lambda one: changed(one, name="another"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_records_that_changed_are_measured_anew_and_no_others(what: str, tmp_path: Path) -> None:
    kept_run(tmp_path)
    now = [PHOTOS[0], CHANGES[what](PHOTOS[1]), *PHOTOS[2:]]
    with pytest.warns(UserWarning, match=r"000001\.parquet: the data set has changed") as told:
        again, forwards = kept_run(tmp_path, now)
    assert len(told) == 1
    assert again.rows == kept_run(tmp_path / "fresh", now)[0].rows
    assert forwards == kept_run(tmp_path / "one", PHOTOS[:1])[1]


def test_all_pictures_replaced_give_other_figures(tmp_path: Path) -> None:
    """In a folder of files of the same names and sizes, and of the same times."""
    for n, place in enumerate(("red", "green", "blue")):
        (tmp_path / "photos" / place).mkdir(parents=True)
        PHOTOS[n].image.save(tmp_path / "photos" / place / "a.bmp")
    first = list(audit(colored(), open_data(tmp_path / "photos"), [hirescam], [localization.tops], out=tmp_path / "out").rows)
    for path in (tmp_path / "photos").rglob("*.bmp"):
        before = path.stat()
        with Image.open(path) as opened:
            pixels = np.asarray(opened)[..., ::-1].copy()
        Image.fromarray(pixels).save(path)
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.warns(UserWarning, match="the data set has changed"):
        second = audit(colored(), open_data(tmp_path / "photos"), [hirescam], [localization.tops], out=tmp_path / "out")
    fresh = audit(colored(), open_data(tmp_path / "photos"), [hirescam], [localization.tops])
    assert second.rows == fresh.rows != first


def test_a_record_that_was_mended_is_measured(tmp_path: Path) -> None:
    audit(colored(), source(broken=1), [hirescam], [localization.pointing], batch=1, out=tmp_path)
    with pytest.warns(UserWarning, match=r"000001\.parquet: the data set has changed"):
        mended, _ = kept_run(tmp_path)
    assert mended.bad == []
    assert mended.rows == kept_run(tmp_path / "fresh")[0].rows


def otherwise(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is different in a second run."""
    task = colored()
    if name == "weights":
        with torch.no_grad():
            task.model.conv.weight[0, 1, 0, 0] += 1e-6  # type: ignore[union-attr, operator, index]
        return {"task": task}
    if name == "words":
        task.labels = ["red", "green", "indigo"]
        return {"task": task}
    if name == "preprocessing":
        task.preparing = lambda image: whole(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        return {"task": task}
    if name == "mmgradcam":
        monkeypatch.setattr("mmgradcam.evaluation.parts.__version__", "0.0.9")
        return {}
    if name == "model":
        task.name = "another"
        return {"task": task}
    if name in ("batch", "target_layers", "data"):
        return {name: {"batch": 2, "target_layers": ["conv"], "data": "circles"}[name]}
    return {"methods": [partial(scaled, by=2.0)]} if name == "methods" else {"metrics": [partial(least, share=0.25)]}


def least(batch: Batch, share: float) -> dict[str, Column]:
    return {"least": [float(heat.min()) * share for heat in batch.heats]}


@pytest.mark.parametrize(
    "name", ["weights", "words", "preprocessing", "mmgradcam", "methods", "metrics", "model", "data", "batch", "target_layers"]
)
def test_a_run_of_another_model_version_or_setting_is_another_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"methods": [partial(scaled, by=1.0)], "metrics": [partial(least, share=0.5)]}
    kept_run(tmp_path, **same)
    assert kept_run(tmp_path, **same)[1] == 0, "nothing is done twice"
    with pytest.raises(InputError, match=rf"holds a run of other {name} \("):  # one of them alone
        kept_run(tmp_path, **{**same, **otherwise(name, monkeypatch)})


def test_methods_are_told_apart_by_what_they_do() -> None:
    from mmgradcam import smooth

    def made(by: float) -> Any:
        return lambda features, gradients: hirescam(features, gradients) * by

    assert identity_of(hirescam) == "hirescam"
    assert identity_of(partial(occlusion, size=3)) == "occlusion(size=3)"
    assert identity_of(smooth(hirescam, 4)) == identity_of(smooth(hirescam, 4)) != identity_of(smooth(hirescam, 5))
    assert identity_of(smooth(hirescam, 4)) != identity_of(smooth(inverted, 4))
    assert identity_of(made(1.0)) == identity_of(made(1.0)) != identity_of(made(2.0))
    assert identity_of(scaled).startswith("scaled #")
    assert identity_of(lambda a, b: a) != identity_of(lambda a, b: b)
    large = np.zeros(5000)
    assert identity_of(partial(scaled, by=large)) != identity_of(
        partial(scaled, by=np.where(np.arange(5000) == 2500, 1, large))
    )


def test_methods_of_one_name_and_columns_of_another_length_are_refused() -> None:
    ways = [partial(occlusion, size=3), partial(occlusion, size=9)]
    made = audit(colored(), source(), ways, [localization.pointing])
    assert made.methods == ["occlusion(size=3)", "occlusion(size=9)"]
    assert made.figures("occlusion(size=9)")["pointing"].rows == 4
    with pytest.raises(InputError, match="methods of different names, got hirescam, hirescam"):
        audit(colored(), source(), [hirescam, hirescam], [localization.pointing])

    def long(batch: Batch) -> dict[str, Column]:
        return {"x": [1.0] * (len(batch.rows) + 1)}

    with pytest.raises(InputError, match=r"metric long: expected a column of 12 values.*got 'x' of 13"):
        audit(colored(), source(), [hirescam], [long])
    with pytest.raises(InputError, match="a limit of 1 or more, got 0"):
        audit(colored(), source(), [hirescam], [localization.pointing], limit=0)


def test_a_picture_that_no_model_takes_is_malformed() -> None:
    tiny = Sample("tiny", Image.new("RGB", (4, 4)), objects=(ObjectAnnotation("red", ((0, 0, 1, 1),)),))
    made = audit(colored(), source([tiny, *PHOTOS]), [hirescam], [localization.pointing])
    assert (made.bad, made.pictures) == (["tiny: the picture: expected at least 8 x 8 pixels, got 4 x 4"], 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": 7}, {"image": None}, {"image": "nowhere.png"}, {"objects": (3,)}, {"objects": 5}, {"name": "x" * 400, "objects": None},
        {"objects": (ObjectAnnotation(5, ((0, 0, 1, 1),)),)},  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_record_of_anything_is_named_and_the_run_goes_on(wrong: dict[str, Any], tmp_path: Path) -> None:
    photos = [*PHOTOS[:1], dataclasses.replace(PHOTOS[1], **wrong), *PHOTOS[2:]]
    for _ in range(2):  # kept, and read again
        made = audit(colored(), source(photos), [hirescam], [localization.pointing, segmentation.seeds], batch=2, out=tmp_path)
        assert {row["image"] for row in made.rows} == {"photo 0", "photo 2", "photo 3"}
        (said,) = made.bad
        assert said.startswith("x" * 80 + "..." if "name" in wrong else "photo 1: ")
        assert len(said) < 400
    save(made, tmp_path)


def test_a_synonym_of_two_classes_is_that_which_it_names() -> None:
    model = Colors()
    task = Layer(model, model.conv, ["missile", "projectile, missile", "Missile"], prepare=whole)
    for name in task.labels:
        one = Sample("p", PHOTOS[0].image, objects=(ObjectAnnotation(name, ((0, 0, 0.25, 0.25),)),))
        made = audit(task, source([one]), [hirescam], [localization.pointing])
        assert {row["target"] for row in made.rows if row["kind"] == "true"} == {name}
    one = Sample("p", PHOTOS[0].image, objects=(ObjectAnnotation("Projectile", ((0, 0, 0.25, 0.25),)),))
    made = audit(task, source([one]), [hirescam], [localization.pointing])
    assert {row["target"] for row in made.rows if row["kind"] == "true"} == {"projectile, missile"}


def test_intervals_draw_pictures_and_not_rows() -> None:
    """Ten pictures of a hundred equal rows each say as much as ten rows."""
    values = [float(n % 2) for n in range(10)]
    few = figures(range(10), {"pointing": values})["pointing"]
    many = figures([n for n in range(10) for _ in range(100)], {"pointing": [v for v in values for _ in range(100)]})[
        "pointing"
    ]
    assert (few.low, few.mean, few.high) == (many.low, many.mean, many.high)
    # 95% of the draws of 10 halves: from 2 to 8 of 10, as the binomial distribution has it.
    assert (few.low, few.high) == (pytest.approx(0.2, abs=0.05), pytest.approx(0.8, abs=0.05))
    derived = figures(
        range(4),
        {"inside": [4, 2, 3, 3], "outside": [1, 1, 1, 1], "pointing": [1, 1, 1, 0], "pointing_swapped": [0, 0, 1, None]},
    )
    assert derived["inside_outside"].mean == 3.0
    # The last has no swapped map, and so its peak does not count beside theirs.
    assert derived["specificity"].mean == pytest.approx(3 / 3 - 1 / 3)
    assert (derived["pointing"].mean, derived["specificity"].rows) == (0.75, 3)
    assert derived["inside_outside"].low < 3.0 < derived["inside_outside"].high


def test_intervals_take_no_more_memory_the_more_pictures_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {
        "pointing": [float(n % 3 == 0) for n in range(300)],
        "pointing_swapped": [None if n % 7 else 1.0 for n in range(300)],
    }
    at_once = figures(range(300), columns)
    monkeypatch.setattr("mmgradcam.evaluation.intervals.CELLS", 300 * 7)
    assert figures(range(300), columns) == at_once, "drawn seven at a time, the same"


def test_pictures_of_which_nobody_said_where_are_not_wrong() -> None:
    bare = [Sample(one.name, one.image, objects=(ObjectAnnotation(one.objects[0].label),)) for one in PHOTOS]
    every = [localization.pointing, localization.tops, localization.box]
    assert audit(colored(), source(bare), [hirescam], every).wholes("hirescam") == {}
    half = audit(colored(), source([*PHOTOS, *bare]), [hirescam], every)
    whole = half.wholes("hirescam")
    assert (whole["localization_error_top_1"], whole["localization_error_top_5"]) == (0.25, 0.25)
    # Of 3 + 2 maps a photo and its bare twin, the even photos have one hit and two bright maps of a blue that is said to be
    # absent, so
    # that rejecting all is best: of the odd ones' 10, that is right of 8. Their threshold is right of 1 + 6 of the even ones'
    # 10.
    assert whole["pointing_with_reject"] == pytest.approx(15 / 20)


def test_a_summary_is_json_that_any_tool_reads() -> None:
    made = audit(colored(), source(PHOTOS[:1]), [hirescam], [localization.pointing, localization.tops, localization.heat])
    assert np.isnan(made.wholes("hirescam")["pointing_with_reject"]), "of one picture there are no two halves"
    told = json.loads(json.dumps(summary(made), allow_nan=False))
    assert told["wholes"]["hirescam"]["pointing_with_reject"] is None


def test_figures_of_nothing_are_none() -> None:
    assert figures([], {"pointing": []}) == {}
    assert audit(colored(), source(), [hirescam], [localization.pointing]).figures("nobody") == {}


def test_swapped_maps_are_those_of_other_places_of_the_same_text() -> None:
    first, second = ((0.0, 0.0, 0.25, 0.25),), ((0.5, 0.5, 1.0, 1.0),)
    phrases = (
        Phrase(0, 1, 1, "cube", ("kind",), first),
        Phrase(0, 4, 4, "ball", ("kind",), second),
        Phrase(0, 0, 0, "red", ("color",), first),
        Phrase(1, 0, 0, "ball", ("kind",), second),
    )
    photos = [Sample("p", Image.new("RGB", (64, 64)), (("red", "cube", "and", "blue", "ball"), ("ball",)), phrases)]
    made = audit(load("scenes-captioner", device="cpu"), source(photos), [gradcam], [localization.pointing])
    told = {(row["target"], n): row["pointing_swapped"] for n, row in enumerate(made.rows)}
    assert told["cube", 0] is not None, "against the ball of the same caption"
    assert told["ball", 3] is None, "alone in its caption"


def test_files_say_what_was_measured(tmp_path: Path) -> None:
    from datasets import load_dataset

    strange = photo(4, (255, 0, 0), "red", (0, 0, 1, 1))
    made = audit(
        colored(), source([*PHOTOS, strange], broken=2), [hirescam, inverted], [localization.pointing, localization.loc]
    )
    made.bad.append("<b>9</b>: torn")
    written = save(made, tmp_path / "out")
    assert [path.name for path in written] == ["rows.parquet", "summary.json", "plots.png", "index.html"]
    rows = load_dataset("parquet", data_files=str(written[0]), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == len(made.rows)
    assert rows[0]["image"] == "photo 0"
    assert rows[0]["pointing"] == 1.0
    told = json.loads(written[1].read_text())
    assert told["figures"]["hirescam"]["pointing"]["mean"] == made.figures("hirescam")["pointing"].mean
    assert told["malformed"] == ["2: its box is inverted", "<b>9</b>: torn"]
    assert told == json.loads(json.dumps(summary(made)))
    with Image.open(written[2]) as plots:
        assert plots.width > 800
    page = written[3].read_text()
    assert "&lt;b&gt;9&lt;/b&gt;: torn" in page
    assert "<b>9</b>" not in page
    assert "<b>1</b>" in page, "the best peak"
    alike = audit(colored(), source(), [hirescam, functools.partial(scaled, by=1.000001)], [faithfulness.deletion])
    assert "<b>" not in findings_page(alike, b""), "what differs by rounding alone is not best"


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmgradcam", "evaluate", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """A real kill, in the middle of real work."""
    out = tmp_path / "out"
    told = [
        "scenes-captioner",
        "--data",
        "scenes",
        "--methods",
        "hirescam",
        "--metrics",
        "pointing",
        "--limit",
        24,
        "--out",
        out,
        "--json",
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "mmgradcam", "evaluate", *map(str, told)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(1200):
        if len(list((out / "parts").glob("*.parquet"))) >= 1:
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = sorted((out / "parts").glob("*.parquet"))
    assert 1 <= len(kept) < 3
    stamps = [path.stat().st_mtime_ns for path in kept]
    done = run(*told)
    assert done.returncode == 0, done.stderr
    assert [path.stat().st_mtime_ns for path in kept] == stamps, "what was done is not done again"
    made = audit(load("scenes-captioner", device="cpu"), open_data("scenes"), [hirescam], [localization.pointing], limit=24)
    assert json.loads(done.stdout)["figures"]["hirescam"]["pointing"]["mean"] == pytest.approx(
        made.figures("hirescam")["pointing"].mean
    )


def test_what_is_asked_to_be_kept_is_kept_without_naming_metrics(tmp_path: Path) -> None:
    for n, place in enumerate(("red", "green")):
        (tmp_path / "photos" / place).mkdir(parents=True)
        PHOTOS[n].image.save(tmp_path / "photos" / place / "a.png")
    done = run("scenes-captioner", "--data", tmp_path / "photos", "--limit", 2, "--out", tmp_path / "kept", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept" / "rows.parquet").exists()
    assert json.loads(done.stdout)["pictures"] == 2


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["scenes-captioner", "--metrics", "pointin"], "there is no metric 'pointin'; did you mean pointing"),
        (["scenes-captioner", "--methods", "gradcan"], "there is no method 'gradcan'; did you mean gradcam"),
        (["--metrics", "pointing"], "expected one model"),
        (["scenes-captioner", "--metrics", "pointing", "--data", "nowhere.json"], "nowhere.json: no such file"),
        (
            ["clips-motion", "--metrics", "pointing", "--data", "scenes", "--limit", "1"],
            "expected a model of images, as scenes:test holds; clips-motion sees clips",
        ),
    ],
)
def test_a_mistake_is_one_line(told: list[str], said: str) -> None:
    done = run(*told)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(complaints(done.stderr)) == 1


def test_models_of_the_hub_are_asked_with_whole_captions(tmp_path: Path) -> None:
    from hub_models import saved

    task = load(saved("blip", tmp_path / "blip"), device="cpu")
    boxes = ((0.0, 0.0, 0.5, 0.5),)
    phrases = (Phrase(0, 0, 1, "a dog", ("animals",), boxes), Phrase(0, 3, 3, "grass", ("scene",), ((0.5, 0.5, 1, 1),)))
    one = Sample("p", Image.new("RGB", (64, 48), (90, 120, 30)), (("a", "dog", "on", "grass"),), phrases)
    made = audit(
        task, source([one]), [hirescam], [localization.pointing, faithfulness.deletion, segmentation.word_iou], limit=1
    )
    assert [row["noun_iou"] is None for row in made.rows] == [True, False, True, False]
    assert [row["function_word_iou"] is None for row in made.rows] == [True, False, True, True]
    assert {row["target"]: row["kind"] for row in made.rows} == {"a": "", "dog": "animals", "on": "", "grass": "scene"}
    assert all(row["deletion_auc"] is not None for row in made.rows)
    assert [row["pointing"] is None for row in made.rows] == [True, False, True, False]


def test_another_caption_of_a_picture_is_no_other_picture(tmp_path: Path) -> None:
    from hub_models import saved

    task = load(saved("blip", tmp_path / "blip"), device="cpu")
    draw = np.random.default_rng(0)
    phrases = tuple(Phrase(c, 0, 1, "a dog", ("animals",), ((0.0, 0.0, 0.5, 0.5),)) for c in range(2))
    photos = [
        Sample(
            name, Image.fromarray(draw.integers(0, 255, (48, 64, 3)).astype(np.uint8)), (("a", "dog"), ("the", "dog")), phrases
        )
        for name in ("p", "q")
    ]
    alone = audit(task, source(photos[:1]), [hirescam], [doubts.pictures])
    assert {row["picture_shuffle"] for row in alone.rows} == {None}, "there is no other picture"
    both = audit(task, source(photos), [hirescam], [doubts.pictures])
    tall = Sample("r", Image.new("RGB", (48, 80)), photos[0].captions, phrases)
    apart = audit(
        load(saved("qwen3-vl", tmp_path / "qwen"), device="cpu"), source([photos[0], tall]), [hirescam], [doubts.pictures]
    )
    assert {row["picture_shuffle"] for row in apart.rows} == {None}, "the prompt of a wide picture is none of a tall one"
    assert len(both.rows) == 8
    assert all(row["picture_shuffle"] < 1 for row in both.rows)


def test_words_are_found_though_a_model_parts_them_otherwise() -> None:
    boxes = ((0.0, 0.0, 0.5, 0.5),)
    first, second = Phrase(0, 1, 1, "dog", ("animals",), boxes), Phrase(0, 4, 4, "dog", ("animals",), boxes)
    known = [("a", None), ("dog", first), ("'s", None), ("big", None), ("dog", second)]
    assert _aligned(known, ["A", "dog", "big", "dog."]) == [None, first, None, second]
    assert _aligned(known, ["zebra", "dog"]) == [None, first]


@pytest.mark.parametrize("before", [[], ["background"]])
def test_a_dog_is_one_of_the_breeds_where_a_model_has_them(before: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of the papers' tables: Google's MobileNets have a class before ImageNet's own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts" / "papers"))
    from reproduce_papers import dogs

    class First(Colors):
        def forward(self, x: Tensor) -> Tensor:
            count = len(before) + 5
            return torch.arange(count, 0.0, -1.0).expand(len(x), count).index_fill(1, torch.tensor([count - 1]), 99.0)

    model = First()
    task = Layer(
        model, model.conv, [*before, "sea lion", "Chihuahua", "kelpie", "Mexican hairless", "timber wolf"], prepare=whole
    )
    boxes = ((0.0, 0.0, 0.5, 0.5),)
    with_dog = Sample("p", PHOTOS[0].image, (("a", "dog"),), (Phrase(0, 0, 1, "a dog", ("animals",), boxes),))
    found = dogs(source([PHOTOS[1], with_dog, PHOTOS[2], with_dog, with_dog]), task, 2)
    assert [(one.name, one.objects[0].label, one.objects[0].boxes) for one in found] == [("p", "Chihuahua", boxes)] * 2
    task.labels = ["red"]
    with pytest.raises(InputError, match="ImageNet's classes, which have a Chihuahua"):
        dogs(source([with_dog]), task, 2)


def test_answers_are_right_or_wrong_by_what_people_say() -> None:
    made = audit(load("scenes-vqa", device="cpu"), open_data("scenes"), [hirescam], [localization.pointing], limit=2)
    kinds = {row["kind"] for row in made.rows}
    assert {"color", "count"} <= kinds
    assert np.mean([row["correct"] for row in made.rows]) > 0.8
    assert any(row["pointing"] is not None for row in made.rows)
    assert any(row["pointing"] is None for row in made.rows), "a count rests on several things"


def test_doubts_are_measured_too() -> None:
    task = load("scenes-captioner", device="cpu")
    every = [doubts.noise, doubts.labels, doubts.pictures, doubts.agree, doubts.grounding, doubts.hallucination_probability]
    made = audit(task, open_data("scenes"), [hirescam, gradcam], every, limit=2)
    found = made.figures("hirescam")
    assert set(found) >= {
        "noise_rank",
        "label_shuffle",
        "picture_shuffle",
        "methods_agree",
        "grounding_gray",
        "grounding_blur",
        "hallucination_probability",
    }
    assert -1 <= found["picture_shuffle"].mean < 0.5
    assert found["grounding_gray"].mean > 1
    assert found["hallucination_probability"].mean < 0.5
    assert found["methods_agree"].mean == made.figures("gradcam")["methods_agree"].mean


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"")
    done = run("scenes-captioner", "--metrics", "pointing", "--data", tmp_path / "torn.parquet")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "torn.parquet: expected a Parquet file of photos" in line


def test_rows_have_one_documented_schema(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    made = audit(colored(), source(), [hirescam, gradcam], ["pointing"], batch=3, out=tmp_path)
    (written, *_) = save(made, tmp_path)
    told = parquet.read_schema(written)
    assert told.names[: len(FIELDS)] == list(FIELDS) == SCHEMA.names
    for field in SCHEMA:
        assert told.field(field.name).type == field.type
        assert field.metadata[b"description"]
        assert told.field(field.name).metadata == field.metadata, "the file says what its columns are"
    assert {told.field(name).type for name in told.names[len(FIELDS) :]} == {pyarrow.float64()}
    rows = parquet.read_table(written).to_pylist()
    assert rows == list(made.rows)
    assert (made.rows[0], made.rows[-1], made.rows[1:3]) == (rows[0], rows[-1], rows[1:3])
    with pytest.raises(IndexError):
        made.rows[len(rows)]


class Watched(dict[str, Any]):
    """A row that can be seen to be forgotten."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@pytest.mark.parametrize("kept", [False, True])
def test_memory_holds_the_rows_of_one_part(kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    most, plain = 0, parts_module.plain

    def record_outputs(row: Any) -> Watched:
        nonlocal most
        made = Watched(plain(row))
        alive.add(made)
        most = max(most, len(alive))
        return made

    monkeypatch.setattr(parts_module, "plain", record_outputs)
    made = audit(colored(), source(PHOTOS * 3), [hirescam], ["pointing"], batch=1, out=tmp_path if kept else None)
    assert len(made.rows) == 12 * 3
    assert 3 <= most <= 6, "those of a part and of the one before"
    assert len(alive) <= 3
    assert made.figures("hirescam", "true")["pointing"].mean == 0.75
    place = made.rows._files[0][0].parent
    del made
    assert place.exists() == kept, "without a folder nothing stays"
