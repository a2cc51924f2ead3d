"""Average drop, increase and win by hand, and on a model whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam import InputError, explain
from mmgradcam.datasets.sources import open_data
from mmgradcam.evaluation.batch import Batch
from mmgradcam.evaluation.measures import measures
from mmgradcam.evaluation.run import audit
from mmgradcam.images.pictures import Preprocess
from mmgradcam.metrics import average_drop, increase, shown_only, win
from mmgradcam.scenes.motion import MOTIONS
from mmgradcam.tasks import Video, load
from mmgradcam.tasks.nets.clips import SliceHead


def test_the_figures_are_those_worked_out_by_hand() -> None:
    whole, shown = [0.9, 0.5, 0.2, 0.4], [0.45, 0.6, 0.2, 0.1]
    assert average_drop(whole, shown) == pytest.approx((0.5 + 0 + 0 + 0.75) / 4)
    assert increase(whole, shown) == 0.25
    assert win(shown, [0.5, 0.5, 0.2, 0.05]) == 0.5
    almost = [value * (1 + 5e-5) for value in whole]  # rounding, of batches of other sizes
    assert increase(whole, almost) == win(almost, whole) == 0.0
    assert increase(whole, [value * (1 + 2e-4) for value in whole]) == 1.0
    for wrong in (([0.1], [0.1, 0.2]), ([], []), ([[0.1]], [[0.1]])):
        with pytest.raises(InputError, match="as many confidences"):
            win(*wrong)
    with pytest.raises(InputError, match="above 0"):
        average_drop([0.0], [0.1])


def test_what_a_map_shows_is_the_picture_times_its_heat() -> None:
    picture = Image.new("RGB", (2, 1), (200, 100, 50))
    heat = np.array([[1.0, 0.5]], np.float32)
    assert np.asarray(shown_only(picture, heat)).tolist() == [[[200, 100, 50], [100, 50, 25]]]
    near = np.array([[0.503, 0.128]], np.float32)  # 100.6, 50.3 and 25.15; 25.6, 12.8 and 6.4: rounded, not cut
    assert np.asarray(shown_only(picture, near)).tolist() == [[[101, 50, 25], [26, 13, 6]]]


class Moves(nn.Module):
    """Where neighbouring frames differ: what moves, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, clips: Tensor) -> Tensor:
        change = (clips[:, :, 1:] - clips[:, :, :-1]).abs().sum(1, keepdim=True)
        return self.scale * nn.functional.avg_pool3d(nn.functional.pad(change, (0, 0, 0, 0, 1, 0)), (1, 4, 4))


def test_a_map_of_what_changes_peaks_on_what_moves() -> None:
    torch.manual_seed(0)
    head = SliceHead(1, len(MOTIONS))
    head.out.weight.data.fill_(1.0)
    task = Video(Moves(), head, MOTIONS, Preprocess((64, 64)), length=16)
    made = audit(task, open_data("motions:validation"), ["gradcam", "gradcam_pp"], ["pointing", "accuracy", "drop"], limit=6)
    own, other = (made.figures(method) for method in made.methods)
    assert own["pointing"].rows == own["top1_accuracy"].rows == 6
    assert own["pointing"].mean > 0.5 > 0.3 > own["baseline_center"].mean  # a change is also where it was a frame before
    assert own["win_rate"].mean + other["win_rate"].mean <= 1
    assert {row["group"] for row in made.rows} <= set(MOTIONS)
    with pytest.raises(InputError, match="expected a model of clips, as motions:test holds; scenes-vqa sees images"):
        audit(load("scenes-vqa", device="cpu"), open_data("motions"), ["gradcam"], ["pointing"])
    with pytest.raises(InputError, match='expected "motions" or "motions:test", or "motions:validation", got "motions:train"'):
        open_data("motions:train")


def test_a_clip_is_measured_frame_by_frame_and_by_the_keys_of_pictures() -> None:
    """Every figure of a clip is the mean of those of its frames, each taken for a picture of its own."""
    torch.manual_seed(0)
    task = Video(Moves(), SliceHead(1, len(MOTIONS)), MOTIONS, Preprocess((64, 64)), length=16)
    source, seen = open_data("motions:validation"), []
    audit(task, source, ["gradcam"], [lambda batch: seen.append(batch) or {"none": [None] * len(batch.rows)}], limit=2)
    names = ("pointing", "pointing_15px", "heat", "iou", "loc")
    for e, explanation in enumerate(seen[0].explanations):
        sample = list(itertools.islice(source, 2))[e]
        row = explanation.labels.index(sample.group)
        heats, masks = explanation[row].heat(), sample.objects[0].pixels
        assert heats.shape == masks.shape == (16, 64, 64)
        whole = Batch([explanation], [seen[0].truths[e]], ["gradcam"], [sample])
        frames = [Batch([explanation[row]], [[seen[0].truths[e][row]]], ["gradcam"], [sample]) for _ in heats]
        for frame, heat, mask in zip(frames, heats, masks, strict=True):
            frame.__dict__.update(heats=[heat], masks=[mask])
        for name in names:
            compute = measures()[name]
            for column, values in compute(whole).items():
                if "swapped" not in column:
                    slow = np.mean([compute(frame)[column][0] for frame in frames])
                    assert values[row] == pytest.approx(slow), column
                    assert all(v is None for k, v in enumerate(values) if k != row), "classes that are absent are nowhere"
                elif column.startswith("pointing_swapped"):
                    assert values[row] is not None


def test_a_likeliest_class_counts_once_for_each_sample_and_method() -> None:
    torch.manual_seed(0)
    task = Video(Moves(), SliceHead(1, len(MOTIONS)), MOTIONS, Preprocess((64, 64)), length=16)
    made = audit(task, open_data("motions:validation"), ["gradcam", "hirescam"], ["accuracy"], limit=4)
    told = [
        explain(task, sample.clip, top=1).labels[0] == sample.group
        for sample in itertools.islice(open_data("motions:validation"), 4)
    ]
    for method in made.methods:
        assert [row["top1_accuracy"] for row in made.rows.of(method) if row["top1_accuracy"] is not None] == told
