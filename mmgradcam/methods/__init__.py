"""Explanation methods: functions of (features, gradients), or of a `Probe` that asks the model again."""

from mmgradcam.methods.cam import (
    counterfactual,
    eigencam,
    eigengradcam,
    gradcam,
    gradcam_pp,
    gradcam_pp_code,
    hirescam,
    layercam,
    normgrad,
    xgradcam,
)
from mmgradcam.methods.fusion import mean, product
from mmgradcam.methods.input_gradients import (
    deconvnet,
    gradient_x_input,
    guided_backprop,
    guided_gradcam,
    guided_gradcam_pp,
    integrated_gradients,
)
from mmgradcam.methods.multi_layer import cam, fullgrad
from mmgradcam.methods.perturbation import ablation_cam, occlusion, rise, score_cam, smooth, smooth_gradcam_pp

__all__ = [
    "ablation_cam",
    "cam",
    "counterfactual",
    "deconvnet",
    "eigencam",
    "eigengradcam",
    "fullgrad",
    "gradcam",
    "gradcam_pp",
    "gradcam_pp_code",
    "gradient_x_input",
    "guided_backprop",
    "guided_gradcam",
    "guided_gradcam_pp",
    "hirescam",
    "integrated_gradients",
    "layercam",
    "mean",
    "normgrad",
    "occlusion",
    "product",
    "rise",
    "score_cam",
    "smooth",
    "smooth_gradcam_pp",
    "xgradcam",
]
