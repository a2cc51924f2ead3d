"""See why a vision-language model said what it said: Grad-CAM for captions, answers and heads of your own.

>>> import torch
>>> from mmgradcam import Target, Task, explain
>>> class Brightness(Task):
...     def encode(self, image):
...         return image
...     def targets(self, features):
...         return [Target("brightness")]
...     def score(self, features, targets):
...         return features.flatten(1).mean(1)
>>> explain(Brightness(), torch.rand(3, 16, 16)).map.shape
torch.Size([16, 16])
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgradcam.utils.version import __version__

if TYPE_CHECKING:
    from mmgradcam.checking.check import Finding, check
    from mmgradcam.errors import InputError, ModelError
    from mmgradcam.explaining.explain import compare, explain
    from mmgradcam.explanation import Explanation
    from mmgradcam.layers import TargetLayer
    from mmgradcam.methods import (
        ablation_cam,
        cam,
        counterfactual,
        deconvnet,
        eigencam,
        eigengradcam,
        fullgrad,
        gradcam,
        gradcam_pp,
        gradcam_pp_code,
        gradient_x_input,
        guided_backprop,
        guided_gradcam,
        guided_gradcam_pp,
        hirescam,
        integrated_gradients,
        layercam,
        mean,
        normgrad,
        occlusion,
        product,
        rise,
        score_cam,
        smooth,
        smooth_gradcam_pp,
        xgradcam,
    )
    from mmgradcam.probe import Probe
    from mmgradcam.task import Target, Task, TextSpan
    from mmgradcam.utils.probability import log_prob

__all__ = [
    "Explanation",
    "Finding",
    "InputError",
    "ModelError",
    "Probe",
    "Target",
    "TargetLayer",
    "Task",
    "TextSpan",
    "__version__",
    "ablation_cam",
    "cam",
    "check",
    "compare",
    "counterfactual",
    "deconvnet",
    "eigencam",
    "eigengradcam",
    "explain",
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
    "log_prob",
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


class _Checkout:
    """Finds `mmgradcam.tasks` and `mmgradcam.checkpoints` where they lie in a checkout: beside this package, not inside it.

    An installed package has them inside, an editable one has a finder of its own; this one, last in line, serves a checkout
    that hides the installed package because Python was started at its root.
    """

    beside = Path(__file__).resolve().parents[1]

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, part = name.partition(".")
        file = cls.beside / part / "__init__.py"
        if package != __name__ or part not in ("tasks", "checkpoints") or not file.is_file():
            return None
        return spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])


sys.meta_path.append(_Checkout)

_MODULES = (
    "errors",
    "task",
    "layers",
    "utils.probability",
    "probe",
    "explanation",
    "methods",
    "explaining.explain",
    "checking.check",
)


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for, so that `mmgradcam --help` need not wait for torch."""
    if name in __all__:
        for room in _MODULES:
            module = import_module(f"mmgradcam.{room}")
            if name in vars(module):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module 'mmgradcam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
