"""Explanation methods: functions of (features, gradients), or of a `Probe` that asks the model again.

What a module here lists in its `__all__` is a method: it has a name in `explain`, on the command line and in docs.
"""

from mmgradcam.methods.cam import *
from mmgradcam.methods.cam import __all__ as _cam
from mmgradcam.methods.fusion import *
from mmgradcam.methods.fusion import __all__ as _fusion
from mmgradcam.methods.input_gradients import *
from mmgradcam.methods.input_gradients import __all__ as _input_gradients
from mmgradcam.methods.multi_layer import *
from mmgradcam.methods.multi_layer import __all__ as _multi_layer
from mmgradcam.methods.perturbation import *
from mmgradcam.methods.perturbation import __all__ as _perturbation

__all__ = sorted([*_cam, *_fusion, *_input_gradients, *_multi_layer, *_perturbation])
