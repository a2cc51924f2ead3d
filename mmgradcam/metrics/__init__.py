"""Measures of explanations, each a function."""

from mmgradcam.metrics.localization import Localization, centre_in, inside_outside, peak_in, random_in

__all__ = ["Localization", "centre_in", "inside_outside", "peak_in", "random_in"]
