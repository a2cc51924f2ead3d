"""Published figures rest on the defaults of metrics and methods: none changes unnoticed, nor stands undocumented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import is_dataclass
from typing import Any

import pytest

import mmgradcam
from mmgradcam import methods, metrics
from mmgradcam.metrics import hallucination, imputation, sanity, seeds, significance
from mmgradcam.metrics.corruptions import CORRUPTIONS

TENTHS = tuple(n / 10 for n in range(11))
DEFAULTS: dict[str, dict[str, Any]] = {
    "Variants": {"batch": 16, "memory": None},
    "adversarial": {"attack": "pgd", "eps": 8 / 255, "steps": 40, "wrong": None, "masks": (), "method": None, "target_layers": None, "seed": 0},
    "agreement_with_attention": {"side": 14},
    "agreement_with_boxes": {"share": 0.15},
    "agreement_with_clicks": {"share": 0.15},
    "between": {"share": False, "resamples": 10_000, "seed": 0},
    "box_of": {"share": 0.15},
    "class_ious": {"ignore": 255},
    "corrupted": {"seed": 0},
    "corruption_sweep": {"kinds": CORRUPTIONS, "severities": (1, 2, 3, 4, 5), "method": None, "target_layers": None, "seed": 0},
    "deletion": {"change": "fill_mean", "shares": TENTHS},
    "annotate_hallucination": {"fitted": None},
    "sanity_check": {"seed": 0},
    "confidence_vs_area": {"quantiles": TENTHS, "change": "fill_black"},
    "is_hallucinated": {"fitted": None},
    "topk_occlusion_drop": {"area": 0.1, "count": 8, "seed": 0},
    "insertion": {"change": "fill_blur", "shares": TENTHS},
    "integrated_gradients": {"steps": 32, "baseline": 0.0},
    "language_prior": {"others": (), "top": 5},
    "log_probs_of": {"batch": 32},
    "loc_delta": {"picture": None},
    "localized": {"share": 0.15, "iou": 0.5},
    "hallucination_probability": {"fitted": None},
    "mean_iou": {"ignore": 255},
    "noise_sensitivity": {"sigma": 0.05, "samples": 8, "seed": 0},
    "occlusion": {"size": None, "stride": None, "value": 0.0},
    "occlusion_correlation": {"size": None},
    "peak_in": {"tolerance": 0.0},
    "parameter_randomization": {"seed": 0, "how": "cascading", "stages": 8},
    "rank_correlation": {"side": 14},
    "grounding": {"without": "grey", "batch": 32},
    "rise": {"count": 1000, "cells": 7, "share": 0.5, "seed": 0, "centred": True},
    "road": {"shares": (0.2, 0.4, 0.6, 0.8)},
    "seed_mask": {"share": 0.2},
    "seed_sensitivity": {"seeds": (1, 2, 3)},
    "topk_sufficiency": {"area": 0.25, "count": 8, "seed": 0},
    "shown": {"change": "fill_black"},
    "smooth": {"count": 25, "sigma": 0.15, "seed": 0},
    "smooth_gradcam_pp": {"count": 25, "sigma": 0.15, "seed": 0, "maps": None, "neurons": None},
    "label_randomization": {"seeds": (0, 1, 2)},
    "within": {"share": False, "resamples": 10_000, "seed": 0},
}  # fmt: skip


def settings_of(function: Any) -> dict[str, Any]:
    """Defaults by name; of functions, the name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    found = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {name: getattr(value, "__name__", value) for name, value in found.items()}


def test_defaults_of_metrics_and_methods_are_those_of_the_published_figures() -> None:
    named = {name: getattr(part, name) for part in (metrics, methods) for name in part.__all__}
    found = {name: settings for name, one in named.items() if (settings := settings_of(one))}
    assert {name for name in found if found[name] != DEFAULTS.get(name)} == set()
    assert found.keys() == DEFAULTS.keys()


@pytest.mark.parametrize(
    "name", sorted(DEFAULTS.keys() - {"annotate_hallucination", "is_hallucinated"})
)  # these take what `hallucination_probability` takes
def test_what_has_a_default_is_documented(name: str) -> None:
    one = getattr(metrics, name, None) or getattr(methods, name)
    text = (inspect.getdoc(one) or "") + (inspect.getdoc(getattr(one, "__init__", None)) or "")
    assert {setting for setting in DEFAULTS[name] if f"{setting}:" not in text} == set()


def test_every_argument_may_be_named() -> None:
    for part in (metrics, methods):
        for name in part.__all__:
            one = getattr(part, name)
            if inspect.isfunction(one):
                assert {p.name for p in inspect.signature(one).parameters.values() if p.kind is p.POSITIONAL_ONLY} == set(), (
                    name
                )


def test_settings_within_are_those_of_the_published_figures() -> None:
    assert settings_of(hallucination.evidence) == {"batch": 48}
    assert hallucination.MOVES == ((0.03, 0.0), (-0.025, 0.025), (0.0, -0.04), (0.03, 0.03))
    assert hallucination.LIMITS == ((-12.0, 0.0), (-8.0, 8.0), (-4.6, 1.6))
    assert seeds.NOBODY == 255
    assert hallucination.calibrations() is hallucination.calibrations(), "read once"
    assert sanity.sanity_check is metrics.sanity_check
    solver = imputation._COARSEST, imputation._SIDE, imputation._DAMPING, imputation._MOST, imputation.TOLERANCE
    assert solver == (500, 3, 0.8, 100, 1e-4), "the times in `impute` are of these"
    assert (significance.LEVEL, significance._AT_ONCE) == (0.05, 2_000_000)
    assert (sanity.ALIKE, sanity.HOLDS, sanity.NEEDED, sanity.SOMEWHAT, sanity.ENOUGH) == (0.8, 0.5, 0.3, 0.05, 1.0)
    assert (sanity.AREAS, sanity.RANDOM, sanity.MODELS) == ({"tenth": 0.1, "quarter": 0.25}, 8, 3)


CHANGING = {
    "mmgradcam.evaluation.run.Audit", "mmgradcam.studies.bias.Kept", "mmgradcam.scenes.captions.Judgement", "mmgradcam.engine.Encoded",
    "mmgradcam.engine.Run", "mmgradcam.engine.Gradients", "mmgradcam.metrics.perturbations.Seen", "mmgradcam.layers.TargetLayer",
}  # fmt: skip
"""Records that are filled as they go."""


MODULES = [
    importlib.import_module(part.name)
    for part in pkgutil.walk_packages(mmgradcam.__path__, "mmgradcam.")
    if not part.name.endswith("__main__")
]


def test_records_do_not_change() -> None:
    """Nobody may edit a figure, a picture or a setting that others hold, too."""
    every = {one for module in MODULES for one in vars(module).values() if isinstance(one, type) and is_dataclass(one)}
    named = {f"{one.__module__}.{one.__name__}": one for one in every}
    public = {name: one for name, one in named.items() if name.startswith("mmgradcam.") and "._" not in name}
    changing = {name for name, one in public.items() if not one.__dataclass_params__.frozen}  # type: ignore[attr-defined]
    assert len(public) > 55
    assert changing <= CHANGING
