"""ReLUs whose backward follows another rule, while the user's model stays as it is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmgradcam.errors import ModelError

_Rule = Callable[[Tensor, Tensor], Tensor]

RULES: dict[str, _Rule] = {
    "guided": lambda gradient, passed: gradient.clamp(min=0) * passed,
    "deconvnet": lambda gradient, passed: gradient.clamp(min=0),
}
"""What a ReLU's backward makes of the gradient and of where the ReLU let its input pass."""


@contextmanager
def relus(rule: str) -> Iterator[None]:
    """Within, the backward of every ReLU follows a rule of `RULES`, however the ReLU is written; the model is not touched.

    Modules, functions and tensor methods are caught, in place or not, ReLU6 and clamping at 0 included.

    Raises:
        ModelError: there was no ReLU to catch.
    """
    mode = _Relus(RULES[rule])
    with mode:
        yield
    if mode.smooth:
        warnings.warn(
            f"{rule} is defined for ReLUs; {', '.join(sorted(mode.smooth))} of this model went by its own gradient",
            stacklevel=2,
        )
    if not mode.caught:
        raise ModelError(f"{rule}: the model ran no ReLU, for which alone it is defined; use gradient_x_input or smooth maps")


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float, rule: _Rule) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < top))
        ctx.rule = rule
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rule(gradient, ctx.saved_tensors[0]), None, None


_PLAIN = {torch.relu, F.relu, Tensor.relu}
_IN_PLACE = {torch.relu_, Tensor.relu_, F.relu_}
_SMOOTH = {F.gelu: "GELU", F.silu: "SiLU", F.mish: "Mish", F.hardswish: "Hardswish", F.elu: "ELU", F.leaky_relu: "LeakyReLU"}
_CLAMPS = {torch.clamp, Tensor.clamp, torch.clamp_min, Tensor.clamp_min, Tensor.clamp_, torch.clamp_, Tensor.clamp_min_}


class _Relus(TorchFunctionMode):
    """Sees every call of torch's Python functions, and puts the rule in place of a ReLU's own backward."""

    def __init__(self, rule: _Rule) -> None:
        super().__init__()
        self.rule, self.caught, self.smooth = rule, 0, set[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SMOOTH:
            self.smooth.add(_SMOOTH[func])
        top = _rectifies(func, args, kwargs)
        if top is None or not args[0].requires_grad:
            return func(*args, **kwargs)
        self.caught += 1
        x = args[0]
        told = kwargs.get("inplace") or (func is F.relu and len(args) > 1 and args[1])
        if told or func in _IN_PLACE or func.__name__.endswith("_"):
            return x.copy_(_Rectified.apply(x.clone(), top, self.rule))
        return _Rectified.apply(x, top, self.rule)


def _rectifies(func: Any, args: Any, kwargs: Any) -> float | None:
    """The upper end of a call that clips at 0 from below; None for any other call."""
    if not args or not isinstance(args[0], Tensor):
        return None
    if func in _PLAIN or func in _IN_PLACE:
        return math.inf
    if func is F.relu6:
        return 6.0
    if func is F.hardtanh or func in _CLAMPS:
        names = ("min_val", "max_val") if func is F.hardtanh else ("min", "max")
        low, high = (args[i + 1] if len(args) > i + 1 else kwargs.get(name) for i, name in enumerate(names))
        if isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float))):
            return math.inf if high is None else float(high)
    return None
