"""Where the gradient starts and stops: target layers inside a user's model, leaves for its words, and the promise to undo it
all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmgradcam.errors import InputError, ModelError
from mmgradcam.utils.locks import exclusive, modules_inside, parameters_inside

Layout = Callable[[Tensor], Tensor]
"""What a layer puts out -> (B, C, *grid); see `mmgradcam.layouts`."""


@dataclass
class TargetLayer:
    """A layer of the encoder at which maps are taken.

    Args:
        module: the layer.
        layout: turns its output into (B, C, *grid), for layers that put out tokens.
        name: what people read.
    """

    module: nn.Module
    layout: Layout | None = None
    name: str = ""
    outputs: list[Tensor] = field(default_factory=list, repr=False, compare=False)
    change: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)
    """What is done to the layer's output before it goes on."""

    def grid(self, tensor: Tensor) -> Tensor:
        """The layer's output, or a gradient of that shape, as (B, C, *grid)."""
        if self.layout is not None:
            return self.layout(tensor)
        if tensor.dim() < 4:
            raise InputError(
                f"layer {self.name or type(self.module).__name__} puts out {tuple(tensor.shape)}, expected (B, C, H, W); "
                "give a layout that makes a grid of it, such as mmgradcam.layouts.tokens((14, 14), skip=1)"
            )
        return tensor

    def changed_to(self, grids: Tensor) -> TargetLayer:
        """This layer, made to put out given grids (N, C, *grid); whatever its layout leaves out stays as it is."""

        def change(output: Tensor) -> Tensor:
            if self.layout is None:
                return grids.to(output)
            numbers = torch.arange(output[0].numel(), dtype=torch.float64, device=output.device)
            index = self.layout(numbers.view(1, *output.shape[1:])).long().flatten()
            flat = output.flatten(1).index_copy(1, index, grids.to(output).flatten(1))
            return flat.view_as(output)

        return replace(self, outputs=[], change=change)


def find_target_layer(target_layer: Any, modules: Sequence[nn.Module]) -> TargetLayer:
    """A `TargetLayer`, module or dotted module name -> a `TargetLayer` with its name."""
    made = target_layer if isinstance(target_layer, TargetLayer) else None
    module = made.module if made else target_layer
    for root in modules:
        for name, candidate in root.named_modules():
            if candidate is module or (isinstance(target_layer, str) and name == target_layer):
                return TargetLayer(
                    candidate, made.layout if made else None, (made and made.name) or name or type(candidate).__name__
                )
    if isinstance(target_layer, str):
        names = [name for root in modules for name, _ in root.named_modules() if name]
        raise InputError(f"no layer is called {target_layer!r}; the model has {', '.join(names[:40]) or 'none'}")
    raise InputError(f"expected a layer of the task's model, its dotted name or a Tap, got {type(module).__name__}")


@contextmanager
def preserve_state(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within: eval mode, no parameter asks for a gradient, autograd on even under `no_grad` or `inference_mode`.

    The modules are this thread's alone meanwhile (`exclusive`). After, also after an exception: every module's mode and every
    parameter's `requires_grad` are as they were.

    Raises:
        ModelError: as `check_weights`.
    """
    check_weights(modules)
    with ExitStack() as stack:
        stack.enter_context(exclusive(modules))
        every = modules_inside(modules)
        modes = [(m, m.training) for m in every]
        wants = [(p, p.requires_grad) for p in parameters_inside(every)]
        stack.callback(_restore, modes, wants)
        for m, training in modes:
            if training:
                m.training = False
        for p, wanted in wants:
            if wanted:
                p.requires_grad_(False)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_recurrent(every))
        yield


def check_weights(modules: Sequence[nn.Module]) -> None:
    """Refuses weights and buffers that autograd would refuse later, in words that do not name the cause.

    Raises:
        ModelError: a parameter or a buffer is an inference tensor.
    """
    held = (t for m in modules_inside(modules) for t in (*m._parameters.values(), *m._buffers.values()))
    if not any(tensor is not None and tensor.is_inference() for tensor in held):
        return
    for root in modules:
        for name, tensor in (*root.named_parameters(), *root.named_buffers()):
            if tensor.is_inference():
                raise ModelError(
                    f"{type(root).__name__}: {name} was made under torch.inference_mode(), whose tensors autograd refuses; "
                    "build or load the model outside of it (torch.no_grad() is fine)"
                )


def _restore(modes: Sequence[tuple[nn.Module, bool]], wants: Sequence[tuple[nn.Parameter, bool]]) -> None:
    for module, mode in modes:
        if module.training != mode:
            module.training = mode
    for parameter, wanted in wants:
        if parameter.requires_grad != wanted:
            parameter.requires_grad_(wanted)


class _CuDNN:
    """cuDNN's switch, which is the process's: off for as long as any thread wants it off, then as it was."""

    def __init__(self) -> None:
        self._lock, self._wanted_off = threading.Lock(), 0
        self._was = torch.backends.cudnn.enabled

    def off(self) -> None:
        with self._lock:
            if self._wanted_off == 0:
                self._was = torch.backends.cudnn.enabled
                torch.backends.cudnn.enabled = False
            self._wanted_off += 1

    def as_it_was(self) -> None:
        with self._lock:
            self._wanted_off -= 1
            if self._wanted_off == 0:
                torch.backends.cudnn.enabled = self._was


_cudnn = _CuDNN()


@contextmanager
def _recurrent(modules: Sequence[nn.Module]) -> Iterator[None]:
    """CuDNN refuses the backward of a recurrent layer in eval mode; within, such layers run without it, and only they."""
    inside: list[nn.Module] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        _cudnn.off()
        inside.append(module)

    def leave(*_: Any) -> None:
        if inside:
            inside.pop()
            _cudnn.as_it_was()

    with ExitStack() as stack:
        for module in modules:
            if isinstance(module, nn.RNNBase):
                stack.callback(module.register_forward_pre_hook(_here(enter)).remove)
                stack.callback(module.register_forward_hook(_here(leave), always_call=True).remove)
        yield


def _here(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook for this thread alone: others may run the model for purposes of their own meanwhile."""
    mine = threading.get_ident()

    def only_here(*given: Any) -> Any:
        return hook(*given) if threading.get_ident() == mine else None

    return only_here


@contextmanager
def recording_layers(target_layers: Sequence[TargetLayer], recorded: bool = False) -> Iterator[None]:
    """Within, autograd records from the first target layer on; what each target layer put out is kept in its `outputs`.

    Before any target layer runs nothing is recorded, so that one forward serves prediction and gradient, unless all of it shall
    be `recorded`. A layer's output goes on as a copy: an in-place operation after it cannot overwrite what was kept.

    Raises:
        ModelError: a layer did not run exactly once, ran under `inference_mode`, or its output was overwritten.
    """
    with ExitStack() as stack, torch.set_grad_enabled(recorded):
        keepers = [_Keeper(target_layer, stack) for target_layer in target_layers]
        for keeper in keepers:
            keeper.target_layer.outputs.clear()
            stack.callback(keeper.target_layer.module.register_forward_pre_hook(_here(keeper.enter), with_kwargs=True).remove)
            # First of all hooks: others, such as those that collect hidden states, shall see what has the graph.
            stack.callback(keeper.target_layer.module.register_forward_hook(_here(keeper.leave), prepend=True).remove)
        yield
    for keeper in keepers:
        keeper.check()


@dataclass
class _Keeper:
    """The hooks that keep what one target layer puts out.

    Attributes:
        target_layer: the layer.
        stack: closed when the forward is over.
        given: the tensors it was given, each with its version and where it lies.
        version: of what was kept.
    """

    target_layer: TargetLayer
    stack: ExitStack
    given: list[tuple[Tensor, int, int]] = field(default_factory=list)
    version: int = field(init=False)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and not x.is_inference()]
        self.given[:] = [(x, x._version, _place(x)) for x in tensors]

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        own = _first_tensor(output, self.target_layer)
        if own.is_inference():
            raise ModelError(
                f"layer {self.target_layer.name} ran under torch.inference_mode(), where autograd records nothing; take it off "
                "the model's forward, or use torch.no_grad() there, which is lifted from this layer on"
            )
        in_place = any(own is x and own._version != version for x, version, _ in self.given)
        shared = any(place == _place(own) for *_, place in self.given)
        self.given.clear()
        kept = own if self.target_layer.change is None else self.target_layer.change(own)
        torch.set_grad_enabled(True)
        if not kept.requires_grad:
            kept = (kept.detach().clone() if shared else kept.detach()).requires_grad_()
        self.target_layer.outputs.append(kept)
        self.version = kept._version
        if in_place and not own.requires_grad and not own._is_view():
            # The model may know this tensor by another name: with the graph in the tensor itself, every name has it. What the
            # model later writes to it must not spoil what autograd saves of it for the backward.
            own.copy_(kept)
            self.stack.enter_context(_saved_apart(own))
            return output
        return _with_first(output, kept.clone())

    def check(self) -> None:
        name, outputs = self.target_layer.name, self.target_layer.outputs
        if len(outputs) != 1:
            raise ModelError(
                f"layer {name} ran {len(outputs)} times in one forward, expected once; name a layer that runs once"
            )
        (output,) = outputs
        if output._version != self.version:
            raise ModelError(
                f"what layer {name} puts out is overwritten in place, by another name, later in the forward; name the layer "
                "after it, or do that operation out of place"
            )


def _saved_apart(tensor: Tensor) -> AbstractContextManager[Any]:
    """Within, what autograd saves of this tensor is a copy."""
    place = _place(tensor)

    def pack(saved: Tensor) -> Tensor:
        return saved.detach().clone() if _place(saved) == place else saved.detach()

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _first_tensor(output: Any, target_layer: TargetLayer) -> Tensor:
    several = list(output.values()) if isinstance(output, dict) else output
    value = output if isinstance(output, Tensor) else several[0] if isinstance(several, (list, tuple)) and several else None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ModelError(
            f"layer {target_layer.name} puts out {type(output).__name__}, expected a tensor of numbers; name another"
        )
    return value


def _with_first(output: Any, tensor: Tensor) -> Any:
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, tuple) and not hasattr(output, "_fields"):
        return (tensor, *output[1:])
    if isinstance(output, dict):
        changed = type(output)(output)
        changed[next(iter(changed))] = tensor
        return changed
    parts = [tensor, *output[1:]]
    return parts if isinstance(output, list) else type(output)(*parts)


@contextmanager
def embedded(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """Within, what an embedding layer puts out is a leaf of the graph; the list holds the leaves."""
    leaves: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()

    handle = module.register_forward_hook(_here(keep)) if module is not None else None
    try:
        yield leaves
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def record_calls(modules: Sequence[nn.Module]) -> Iterator[list[nn.Module]]:
    """Within, the list fills with the modules that run, in order."""
    order: list[nn.Module] = []
    with ExitStack() as stack:
        for module in {id(m): m for root in modules for m in root.modules()}.values():
            stack.callback(module.register_forward_hook(_here(lambda m, *_: order.append(m))).remove)
        yield order


@contextmanager
def record_outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """Within, the dict fills with what each of the named modules puts out when it runs."""
    put: dict[str, Any] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            put[name] = output

        return keep

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(_here(keeper(name))).remove)
        yield put


@contextmanager
def kept_bytes() -> Iterator[dict[int, int]]:
    """Within, the dict fills with the bytes of what autograd keeps for a backward, by where they lie."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


class LayerOutput(NamedTuple):
    """What a layer put out: its dotted name, and the shape of its tensor."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def outputs_of(model: nn.Module, pixels: Tensor) -> list[LayerOutput]:
    """What the layers of a model put out, in the order in which they finished; those that ran twice are left out."""
    names = {module: name for name, module in model.named_modules() if name}
    found: list[LayerOutput] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        several = list(output.values()) if isinstance(output, dict) else output
        first = several[0] if isinstance(several, (list, tuple)) and several else several
        if isinstance(first, Tensor) and first.is_floating_point():
            found.append(LayerOutput(names[module], module, tuple(first.shape)))

    with exclusive([model]), ExitStack() as stack, torch.no_grad():
        for module in names:
            stack.callback(module.register_forward_hook(_here(keep)).remove)
        model(pixels)
    return [put for put in found if sum(other.module is put.module for other in found) == 1]
