"""Measures of explanations and captions, each a function."""

from mmgradcam.metrics.captions import CiderD, bleu4, cider, meteor
from mmgradcam.metrics.localization import Localization, centre_in, inside_outside, peak_in, random_in

__all__ = [
    "CiderD",
    "Localization",
    "bleu4",
    "centre_in",
    "cider",
    "inside_outside",
    "meteor",
    "peak_in",
    "random_in",
]
