"""Average drop, increase and win by hand, and on a model whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam import InputError
from mmgradcam.evaluation.motion import evaluate_motion
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import Preprocess
from mmgradcam.metrics import average_drop, increase, shown_only, shown_only_of_clip, win
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
    clip = shown_only_of_clip(Clip((picture, picture), 5.0, "x"), np.stack([heat, 0 * heat]))
    assert not np.asarray(clip.frames[1]).any()
    assert (clip.rate, clip.name) == (5.0, "x")


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
    figures = evaluate_motion(task, 6, "validation")
    place = figures["localization"]["motion"]
    assert place["count"] == 6 * 16
    assert place["peak"] > 0.5 > 0.3 > place["centre"]  # a change is also where it was a frame before
    assert figures["accuracy"]["number"] == 6
    drops = figures["faithfulness"]
    assert drops["gradcam"]["win_rate"] + drops["gradcam_pp"]["win_rate"] <= 1
    with pytest.raises(InputError, match="a model of clips that knows rendered motions"):
        evaluate_motion(load("scenes-vqa", device="cpu"))
