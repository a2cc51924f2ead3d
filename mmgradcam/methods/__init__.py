"""Explanation methods: functions of features and gradients."""

from mmgradcam.methods.cam import counterfactual, gradcam, gradcam_pp, hirescam, layercam, xgradcam
from mmgradcam.methods.fusion import mean, product

__all__ = ["counterfactual", "gradcam", "gradcam_pp", "hirescam", "layercam", "mean", "product", "xgradcam"]
