"""Measures of explanations and captions, each a function."""

from mmgradcam.metrics.agreement import (
    agreement_with_attention,
    agreement_with_boxes,
    agreement_with_clicks,
    rank_correlation,
)
from mmgradcam.metrics.boxes import box_iou, box_of, loc_delta, localization_error, localized, pixel_box
from mmgradcam.metrics.captions import CiderD, bleu4, cider, meteor
from mmgradcam.metrics.corruption_robustness import corruption_sweep
from mmgradcam.metrics.corruptions import corrupted
from mmgradcam.metrics.deletion_insertion import confidence_vs_area, deletion, insertion, occlusion_correlation, road, shown
from mmgradcam.metrics.faithfulness import average_drop, increase, shown_only, win
from mmgradcam.metrics.grounding import Prior, grounding, language_prior, log_probs_of
from mmgradcam.metrics.hallucination import (
    annotate_hallucination,
    calibrated,
    calibrations,
    hallucination_probability,
    is_hallucinated,
)
from mmgradcam.metrics.localization import (
    centre_in,
    energy_inside,
    inside_outside,
    peak_in,
    pointing_with_reject,
    random_in,
    reject_threshold,
    widened,
)
from mmgradcam.metrics.perturbations import Variants
from mmgradcam.metrics.randomization import label_randomization, parameter_randomization
from mmgradcam.metrics.robustness import adversarial, fgsm, pgd
from mmgradcam.metrics.sanity import sanity_check, topk_occlusion_drop, topk_sufficiency
from mmgradcam.metrics.seeds import NOBODY, class_ious, mean_iou, save_seed, seed_mask
from mmgradcam.metrics.sensitivity import methods_agree, noise_sensitivity, seed_sensitivity, swapped_labels, swapped_pictures
from mmgradcam.metrics.significance import between, holm, within
from mmgradcam.metrics.similarity import spearman, ssim
from mmgradcam.metrics.thresholding import f1_iou, func_iou, obj_iou, otsu

__all__ = [
    "NOBODY",
    "CiderD",
    "Prior",
    "Variants",
    "adversarial",
    "agreement_with_attention",
    "agreement_with_boxes",
    "agreement_with_clicks",
    "annotate_hallucination",
    "average_drop",
    "between",
    "bleu4",
    "box_iou",
    "box_of",
    "calibrated",
    "calibrations",
    "centre_in",
    "cider",
    "class_ious",
    "confidence_vs_area",
    "corrupted",
    "corruption_sweep",
    "deletion",
    "energy_inside",
    "f1_iou",
    "fgsm",
    "func_iou",
    "grounding",
    "hallucination_probability",
    "holm",
    "increase",
    "insertion",
    "inside_outside",
    "is_hallucinated",
    "label_randomization",
    "language_prior",
    "loc_delta",
    "localization_error",
    "localized",
    "log_probs_of",
    "mean_iou",
    "meteor",
    "methods_agree",
    "noise_sensitivity",
    "obj_iou",
    "occlusion_correlation",
    "otsu",
    "parameter_randomization",
    "peak_in",
    "pgd",
    "pixel_box",
    "pointing_with_reject",
    "random_in",
    "rank_correlation",
    "reject_threshold",
    "road",
    "sanity_check",
    "save_seed",
    "seed_mask",
    "seed_sensitivity",
    "shown",
    "shown_only",
    "spearman",
    "ssim",
    "swapped_labels",
    "swapped_pictures",
    "topk_occlusion_drop",
    "topk_sufficiency",
    "widened",
    "win",
    "within",
]
