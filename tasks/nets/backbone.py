"""Encoders of others, by name, for the project's own heads: CNNs and transformers of the hub, timm and torchvision."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Preprocess
from mmgradcam.layers import record_outputs
from mmgradcam.layouts import of_picture

STEMS = ("features", "layer4", "trunk_output")
"""Where torchvision's classifiers end that have a grid."""


class Backbone(nn.Module):
    """An image encoder without its head: (B, 3, h, w) pictures -> (B, channels, *grid) features.

    `describe()` is what a config keeps of it, `Backbone(**describe())` the same net with untrained weights.

    Args:
        name: a hub id or a folder laid out so, "timm:NAME" or "torchvision:NAME".
        config: a hub model's config; by default it is read from where the name says.
            With `weights`, what it says that the saved one does not ("output_stride" of a MobileNet) goes before.
        weights: load the pretrained weights too.
        without: modules to leave out, by name, such as a last convolution that only a classifier wants.
        layers: modules whose outputs make the features, stacked, instead of what the model puts out: hypercolumns
            (Hariharan et al. 2015), that know both what a thing is and where it ends. All are brought to the grid of the last.

    Attributes:
        channels: of the features.
        grid: what puts the features out.

    Raises:
        InputError: there is no such model, it cannot be fetched, or it puts out no grid.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        weights: bool = False,
        without: Sequence[str] = (),
        layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name, self.without, self.layers = name, tuple(without), tuple(layers)
        self.model: Any
        self.config: Any
        library, _, rest = name.partition(":")
        if library == "timm":
            self.model, self.config = _of_timm(rest, weights), None
        elif library == "torchvision":
            self.model, self.config = _of_torchvision(rest, weights), None
        else:
            self.model, self.config = _of_hub(name, config, weights)
        self.grid = nn.Identity()  # names the features, so that they can be a target layer among others
        for left in self.without:
            self.model.set_submodule(left, nn.Identity())
        missing = [layer for layer in self.layers if layer not in dict(self.model.named_modules())]
        if missing:
            raise InputError(f"{name}: expected layers of the model, got {', '.join(missing)}")
        modes = [(module, module.training) for module in self.modules()]
        with torch.no_grad():
            self.channels: int = self.eval()(torch.zeros(1, 3, *self._size())).shape[1]
        for module, mode in modes:
            module.training = mode

    def describe(self) -> dict[str, Any]:
        """Arguments that make this net anew, plain enough for JSON."""
        return {"name": self.name, "config": self.config, "without": list(self.without), "layers": list(self.layers)}

    def fit(self, how: str = "pad", size: tuple[int, int] | None = None) -> Preprocess:
        """The resizing and normalising of the pretrained model, with the whole picture kept unless told otherwise.

        Args:
            how: as for `Preprocess`.
            size: height and width, if not those the model was trained with.
        """
        library, _, rest = self.name.partition(":")
        if library == "timm":
            from mmgradcam.tasks.fetching import timm

            known = timm().data.resolve_model_data_config(self.model)
            mean, std = known["mean"], known["std"]
        elif library == "torchvision":
            from torchvision import models

            known = models.get_model_weights(rest).DEFAULT.transforms()
            mean, std = known.mean, known.std
        else:
            from transformers import AutoImageProcessor

            from mmgradcam.tasks.fetching import Source

            known = Source(self.name).fetch(AutoImageProcessor)
            mean, std = known.image_mean, known.image_std
        return Preprocess(size or self._size(), tuple(mean), tuple(std), how)

    def _size(self) -> tuple[int, int]:
        found = (self.config or {}).get("image_size") or getattr(self.model, "image_size", None) or 224
        if self.name.startswith("timm:"):
            found = self.model.default_cfg["input_size"][1:]
        height, width = found if isinstance(found, (tuple, list)) else (found, found)
        return int(height), int(width)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.grid(self._features(images))
        return features

    def _features(self, images: Tensor) -> Tensor:
        if not self.layers:
            return self._last(images)
        with record_outputs({layer: self.model.get_submodule(layer) for layer in self.layers}) as put:
            self._last(images)
        grids = [_grid(put[layer], images.shape[-2], images.shape[-1], self.name) for layer in self.layers]
        side = grids[-1].shape[-2:]
        return torch.cat([_brought(grid, side) for grid in grids], 1)

    def _last(self, images: Tensor) -> Tensor:
        made = (self.model.forward_features if self.name.startswith("timm:") else self.model)(images)
        found = made["grid"] if isinstance(made, dict) and "grid" in made else getattr(made, "last_hidden_state", made)
        return _grid(found, images.shape[-2], images.shape[-1], self.name)


def _brought(grid: Tensor, side: torch.Size) -> Tensor:
    """(B, C, h, w) on a grid of another size: finer cells are averaged, coarser ones interpolated."""
    if grid.shape[-2:] == side:
        return grid
    if grid.shape[-2] >= side[0] and grid.shape[-1] >= side[1]:
        return F.adaptive_avg_pool2d(grid, (side[0], side[1]))
    return F.interpolate(grid, tuple(side), mode="bilinear", align_corners=False)


def _grid(made: Any, height: int, width: int, name: str) -> Tensor:
    """What an encoder puts out, as (B, C, rows, columns)."""
    if not isinstance(made, Tensor) or made.dim() not in (3, 4):
        got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"{name}: expected an encoder that puts out a grid or tokens, got {got}")
    layout = of_picture(made.shape, height, width)
    return made if layout is None else layout(made)


def _of_timm(name: str, weights: bool) -> Any:
    from mmgradcam.tasks.fetching import fetched, timm

    with fetched(f"timm:{name}"):
        return timm().create_model(name, pretrained=weights, num_classes=0)


def _of_torchvision(name: str, weights: bool) -> Any:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    from mmgradcam.tasks.fetching import fetched

    with fetched(f"torchvision:{name}"):
        model = models.get_model(name, weights=models.get_model_weights(name).DEFAULT if weights else None)
    stem = next((stem for stem in STEMS if hasattr(model, stem)), None)
    if stem is None:
        raise InputError(f"torchvision:{name}: no grid where its head begins; take the same net of the hub or timm")
    return create_feature_extractor(model.eval(), {stem: "grid"})


def _of_hub(name: str, config: Mapping[str, Any] | None, weights: bool) -> tuple[Any, dict[str, Any]]:
    from mmgradcam.tasks.fetching import Source, config_of, fetched, refuse_absent

    if weights:
        with fetched(name):
            refuse_absent(name)
    from transformers import AutoConfig, AutoModel

    untrained: Any = AutoModel
    with fetched(name):
        if config is None or weights:
            known = config_of(name)
            known.update({k: v for k, v in (config or {}).items() if k != "model_type"})
        else:
            known = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
    model = Source(name).model(AutoModel, config=known) if weights else untrained.from_config(known)
    described = known.to_diff_dict() | {"model_type": known.model_type}
    _pad_within(model)
    return model, described


def _pad_within(model: nn.Module) -> None:
    """Lets convolutions of stride 1 pad for themselves where the hub's MobileNets pad before them, as TensorFlow does.

    With stride 1 both are the same numbers; a dilated depthwise convolution of a picture padded before takes twice the time.
    """
    layers: Any = model.modules()
    for layer in layers:
        config, inner = getattr(layer, "config", None), getattr(layer, "convolution", None)
        if not getattr(config, "tf_padding", False) or not isinstance(inner, nn.Conv2d) or inner.stride != (1, 1):
            continue
        if all((side - 1) * wide % 2 == 0 for side, wide in zip(inner.kernel_size, inner.dilation, strict=True)):
            inner.padding = tuple((s - 1) * d // 2 for s, d in zip(inner.kernel_size, inner.dilation, strict=True))
            layer.config = copy.copy(config)
            layer.config.tf_padding = False
            if max(inner.dilation) > 1 and inner.groups == inner.in_channels == inner.out_channels:
                layer.convolution = _Depthwise(inner)


class _Depthwise(nn.Conv2d):
    """A depthwise convolution that keeps the grid, with the same weights, whose gradient is found as its values are.

    At the input it is a convolution of the gradient with the kernel turned round; the kernels that PyTorch has for the gradient
    of a dilated one are several times slower on a CPU.
    """

    def __init__(self, of: nn.Conv2d) -> None:
        shape = (of.in_channels, of.out_channels, of.kernel_size, of.stride, of.padding, of.dilation, of.groups)
        super().__init__(*shape, bias=of.bias is not None)  # type: ignore[arg-type]
        self.weight, self.bias = of.weight, of.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != self.weight.dtype:
            return super().forward(x)
        made: Tensor = _Turned.apply(x, self.weight, self.padding, self.dilation)
        return made if self.bias is None else made + self.bias[:, None, None]


class _Turned(torch.autograd.Function):
    """(B, C, h, w), (C, 1, *odd sides) -> (B, C, h, w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        weight_gradient: Any = conv2d_weight
        shape = {"stride": 1, "padding": ctx.padding, "dilation": ctx.dilation, "groups": len(weight)}
        at_input = F.conv2d(gradient, weight.flip(2, 3), None, **shape) if ctx.needs_input_grad[0] else None
        at_weight = weight_gradient(x, weight.shape, gradient, **shape) if ctx.needs_input_grad[1] else None
        return at_input, at_weight, None, None
