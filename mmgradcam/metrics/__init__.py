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
from mmgradcam.metrics.deletion_insertion import deletion, extents, insertion, occlusion_correlation, road, shown
from mmgradcam.metrics.faithfulness import average_drop, increase, shown_only, shown_only_of_clip, win
from mmgradcam.metrics.grounding import Prior, language_prior, likelihoods, reliance
from mmgradcam.metrics.hallucination import calibrated, calibrations, doubt, flagged, made_up
from mmgradcam.metrics.localization import (
    Localization,
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
from mmgradcam.metrics.randomization import randomized, unlearned
from mmgradcam.metrics.robustness import adversarial, fgsm, pgd
from mmgradcam.metrics.sanity import examine, hiding, showing
from mmgradcam.metrics.seeds import NOBODY, class_ious, mean_iou, save_seed, seed_mask
from mmgradcam.metrics.sensitivity import methods_agree, noise_sensitivity, seed_sensitivity, swapped_labels, swapped_pictures
from mmgradcam.metrics.significance import between, holm, within
from mmgradcam.metrics.similarity import spearman, ssim
from mmgradcam.metrics.thresholding import f1_iou, func_iou, obj_iou, otsu

__all__ = [
    "NOBODY",
    "CiderD",
    "Localization",
    "Prior",
    "Variants",
    "adversarial",
    "agreement_with_attention",
    "agreement_with_boxes",
    "agreement_with_clicks",
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
    "corrupted",
    "corruption_sweep",
    "deletion",
    "doubt",
    "energy_inside",
    "examine",
    "extents",
    "f1_iou",
    "fgsm",
    "flagged",
    "func_iou",
    "hiding",
    "holm",
    "increase",
    "insertion",
    "inside_outside",
    "language_prior",
    "likelihoods",
    "loc_delta",
    "localization_error",
    "localized",
    "made_up",
    "mean_iou",
    "meteor",
    "methods_agree",
    "noise_sensitivity",
    "obj_iou",
    "occlusion_correlation",
    "otsu",
    "peak_in",
    "pgd",
    "pixel_box",
    "pointing_with_reject",
    "random_in",
    "randomized",
    "rank_correlation",
    "reject_threshold",
    "reliance",
    "road",
    "save_seed",
    "seed_mask",
    "seed_sensitivity",
    "showing",
    "shown",
    "shown_only",
    "shown_only_of_clip",
    "spearman",
    "ssim",
    "swapped_labels",
    "swapped_pictures",
    "unlearned",
    "widened",
    "win",
    "within",
]
