"""Measures of explanations and captions, each a function."""

from mmgradcam.metrics.captions import CiderD, bleu4, cider, meteor
from mmgradcam.metrics.faithfulness import average_drop, increase, shown_only, shown_only_of_clip, win
from mmgradcam.metrics.localization import Localization, centre_in, inside_outside, peak_in, random_in

__all__ = [
    "CiderD",
    "Localization",
    "average_drop",
    "bleu4",
    "centre_in",
    "cider",
    "increase",
    "inside_outside",
    "meteor",
    "peak_in",
    "random_in",
    "shown_only",
    "shown_only_of_clip",
    "win",
]
