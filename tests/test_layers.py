"""The user's model leaves as it came, whatever happens; and whatever state it comes in, it can be explained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from conftest import Bent, Classes, Encoder
from torch import Tensor, nn

from mmgradcam import InputError, ModelError, TargetLayer, ablation_cam, explain, hirescam
from mmgradcam.checking.check import check
from mmgradcam.images.pictures import Preprocess
from mmgradcam.layers import embedded, find_target_layer, kept_bytes, outputs_of, record_calls, record_outputs, recording_layers
from mmgradcam.layouts import tokens
from mmgradcam.tasks import Layer


def state(task: Classes) -> dict[str, Any]:
    """All of a model that an explanation might disturb."""
    found: dict[str, Any] = {}
    for root in task.modules():
        for name, module in root.named_modules():
            hooks = [module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks]
            found[f"{id(root)}.{name}"] = (module.training, [list(h) for h in hooks])
        for name, p in root.named_parameters():
            found[f"{id(root)}.{name}:"] = (p.requires_grad, p.tolist(), None if p.grad is None else p.grad.tolist())
        for name, buffer in root.named_buffers():
            found[f"{id(root)}.{name}#"] = buffer.tolist()
    return found


def used(task: Classes) -> Classes:
    """A model in the middle of training: train mode, gradients on its parameters, a frozen layer, a hook of its own."""
    task.encoder.train(), task.head.train()
    task.head.inner.eval()
    task.head(task.encoder(torch.rand(2, 3, 8, 8).double())).sum().backward()
    task.encoder.second.weight.requires_grad_(False)
    task.encoder.bend.register_forward_hook(lambda *_: None)
    return task


def failing(error: type[BaseException]) -> Callable[..., Tensor]:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise error("stop")

    return fail


@pytest.mark.parametrize("target_layers", [(), ("first",)])
def test_the_model_is_left_as_found(classes: Classes, pixels: Tensor, target_layers: tuple[str, ...]) -> None:
    before = state(used(classes))
    explain(classes, [pixels, pixels], target_layers=target_layers)
    assert state(classes) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["score", "encode", "targets"])
def test_the_model_is_left_as_found_after_an_exception(
    classes: Classes, pixels: Tensor, error: type[BaseException], where: str
) -> None:
    before = state(used(classes))
    setattr(classes, where, failing(error))
    with pytest.raises(error, match="stop"):
        explain(classes, pixels, target_layers=["second"])
    assert state(classes) == before
    assert torch.is_grad_enabled()


def test_a_model_in_train_mode_is_explained_as_in_eval_mode(classes: Classes, pixels: Tensor) -> None:
    classes.head = nn.Sequential(classes.head, nn.Dropout(0.5)).eval()
    calm = explain(classes, pixels).maps
    classes.encoder.train(), classes.head.train()
    torch.testing.assert_close(explain(classes, pixels).maps, calm)


@pytest.mark.parametrize("around", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("target_layers", [(), ("first", "second")])
def test_a_frozen_model_under_no_grad_is_explained(
    classes: Classes, pixels: Tensor, around: Callable[[], Any], target_layers: tuple[str, ...]
) -> None:
    expected = explain(classes, pixels, target_layers=target_layers).maps
    for module in classes.modules():
        module.requires_grad_(False)
    with around():
        made = explain(classes, pixels.clone() if around is torch.inference_mode else pixels, target_layers=target_layers)
    torch.testing.assert_close(made.maps, expected)


def test_heads_that_work_in_place_do_not_spoil_the_features(classes: Classes, pixels: Tensor) -> None:
    expected = explain(classes, pixels, method=hirescam)

    class InPlace(nn.Module):
        def __init__(self, head: nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, features: Tensor) -> Tensor:
            return self.head(features.mul_(1.0).add_(0.0))

    classes.head = InPlace(classes.head)
    torch.testing.assert_close(explain(classes, pixels, method=hirescam).maps, expected.maps)


class Alias(nn.Module):
    """What the tapped layer puts out in place, the model also knows as `y`."""

    def __init__(self, then: str, viewed: bool = False) -> None:
        super().__init__()
        self.conv, self.relu, self.head, self.other = nn.Conv2d(3, 5, 2, 2), nn.ReLU(inplace=True), Bent(), Bent()
        self.last, self.then, self.viewed = nn.Identity(), then, viewed

    def rest(self, y: Tensor, z: Tensor) -> Tensor:
        if self.then == "scales":
            y.mul_(0.5)
        scores = self.head(y if self.then == "forgets" else z)
        if self.then == "input_tokens":
            scores = scores + self.other(y)
        if self.then == "overwrites what is saved":
            scores = scores + self.other(z * z)
        if self.then.startswith("overwrites"):
            y.zero_()
        return self.last(scores)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y.transpose(2, 3) if self.viewed else y
        return self.rest(y, self.relu(y))


@pytest.mark.parametrize("then", ["overwrites", "overwrites what is saved", "scales", "input_tokens", "forgets"])
def test_a_layer_in_place_is_explained_whatever_the_model_does_with_its_input(then: str, pixels: Tensor) -> None:
    model = Alias(then).double().eval()
    made = explain(Layer(model, "relu"), pixels, method=hirescam, classes=[0])
    leaf = torch.relu(model.conv(pixels[None])).detach().requires_grad_()
    assert made.score == pytest.approx(model(pixels[None])[0, 0].item())
    scores = model.head(leaf * 0.5 if then == "scales" else leaf)
    if then in ("input_tokens", "overwrites what is saved"):
        scores = scores + model.other(leaf if then == "input_tokens" else leaf * leaf)
    gradient = torch.autograd.grad(scores[0, 0], leaf)[0]
    assert bool(gradient.any())
    torch.testing.assert_close(made.map, (gradient * leaf).sum(1)[0].detach().float())


def test_a_view_overwritten_in_place_after_it_was_read_keeps_its_map(pixels: Tensor) -> None:
    """Autograd lets nobody write to a view made under `no_grad`; what was kept of it is safe all the same."""
    model = Alias("overwrites", viewed=True).double().eval()
    made = explain(Layer(model, "relu"), pixels, method=hirescam, classes=[0])
    model.then = "nothing"
    expected = explain(Layer(model, "relu"), pixels, method=hirescam, classes=[0])
    assert bool(expected.map.any())
    torch.testing.assert_close(made.map, expected.map)


def test_a_layer_that_hands_its_input_on_is_told_from_the_inputs_other_users(pixels: Tensor) -> None:
    """The gradient at it is by way of it alone, though its output and its input are one tensor; and what was kept stays."""

    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.through, self.head, self.other = nn.Conv2d(3, 5, 2, 2), nn.Identity(), Bent(), Bent()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            scores = self.head(self.through(y)) + self.other(y)
            y.zero_()
            return scores

    model = Through().double().eval()
    made = explain(Layer(model, "through"), pixels, method=hirescam, classes=[0])
    leaf = model.conv(pixels[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(leaf)[0, 0], leaf)
    torch.testing.assert_close(made.map, (gradient * leaf).sum(1)[0].detach().float())


def test_what_a_tap_kept_is_no_part_of_what_it_is() -> None:
    module = nn.Identity()
    target_layer = TargetLayer(module, name="here", outputs=[torch.zeros(3)], change=torch.relu)
    assert target_layer == TargetLayer(module, name="here")
    assert repr(target_layer) == repr(TargetLayer(module, name="here"))
    assert target_layer != TargetLayer(module, name="there")


@pytest.mark.parametrize("then", ["scales", "overwrites"])
def test_a_second_layer_overwritten_through_another_name_is_said(then: str, pixels: Tensor) -> None:
    with pytest.raises(ModelError, match=r"what layer relu puts out is overwritten in place"):
        explain(Layer(Alias(then).double().eval(), "relu"), pixels, target_layers=["conv", "relu"], classes=[0])


def test_features_changed_in_place_reach_every_name_of_theirs(pixels: Tensor) -> None:
    """Ablation-CAM puts other features in place of the layer's; the model's second name for them has them too."""
    model = Alias("input_tokens").double().eval()
    made = explain(Layer(model, "relu"), pixels, method=ablation_cam, classes=[0])
    a = torch.relu(model.conv(pixels[None])).detach()
    y, total = float(model(pixels[None])[0, 0].detach()), torch.zeros(4, 4, dtype=torch.float64)
    for k in range(5):
        without = a.clone()
        without[:, k] = 0
        total += (y - float(model.rest(without, without)[0, 0].detach())) / abs(y) * a[0, k]
    torch.testing.assert_close(made.map, total.clamp(min=0).float())


def inference_weights(where: str) -> Classes:
    with torch.inference_mode():
        made = Encoder().double().eval() if where == "encoder" else Bent().double().eval()
    return Classes(made, Bent().double()) if where == "encoder" else Classes(Encoder().double().eval(), made)


@pytest.mark.parametrize("where", ["encoder", "head"])
@pytest.mark.parametrize("graph", [False, True])
def test_weights_made_under_inference_mode_are_named_as_the_cause(where: str, graph: bool, pixels: Tensor) -> None:
    task = inference_weights(where)
    before = [p.requires_grad for module in task.modules() for p in module.parameters()]
    with pytest.raises(ModelError, match=r"made under torch\.inference_mode.*load the model outside of it"):
        explain(task, pixels, create_graph=graph)
    assert [p.requires_grad for module in task.modules() for p in module.parameters()] == before


@pytest.mark.parametrize("where", ["encode", "score"])
def test_a_forward_under_inference_mode_is_named_as_the_cause(where: str, classes: Classes, pixels: Tensor) -> None:
    setattr(classes, where, torch.inference_mode()(getattr(classes, where)))
    with pytest.raises(ModelError, match=r"inference_mode"):
        explain(classes, pixels, target_layers=["first"] if where == "encode" else ())


def test_an_encoder_under_inference_mode_is_explained_at_its_features(classes: Classes, pixels: Tensor) -> None:
    expected = explain(classes, pixels).maps
    classes.encode = torch.inference_mode()(classes.encode)  # type: ignore[method-assign]
    torch.testing.assert_close(explain(classes, pixels).maps, expected)


def test_hooks_of_the_users_own_still_run(classes: Classes, pixels: Tensor) -> None:
    runs: list[str] = []
    classes.encoder.second.register_forward_hook(lambda *_: runs.append("mine"))
    explain(classes, pixels, target_layers=["second"])
    assert runs == ["mine"]


class Recurrent(nn.Module):
    """An LSTM that notes whether cuDNN may be used while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm, self.head = nn.Conv2d(3, 4, 2, 2), Noting(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.lstm(cells)[0][:, -1])


class Noting(nn.LSTM):
    seen: list[bool]

    def forward(self, *args: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), torch.backends.cudnn.enabled]
        if getattr(self, "broken", False):
            raise RuntimeError("broken")
        return super().forward(*args)


def test_recurrent_layers_and_only_they_run_without_cudnn() -> None:
    model = Recurrent().eval()
    seen: list[bool] = []
    model.conv.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    explain(Layer(model, model.conv), torch.rand(3, 8, 8))
    assert (model.lstm.seen, seen) == ([False], [True])
    assert torch.backends.cudnn.enabled
    model.lstm.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        explain(Layer(model, model.conv), torch.rand(3, 8, 8))
    assert torch.backends.cudnn.enabled


@pytest.mark.gpu
def test_recurrent_heads_work_on_a_gpu_in_eval_mode() -> None:
    model = Recurrent().eval()
    pixels = torch.rand(3, 8, 8)
    expected = explain(Layer(model, model.conv), pixels, method=hirescam, classes=[1]).maps
    made = explain(Layer(model.cuda(), model.conv), pixels, method=hirescam, classes=[1]).maps
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_layers_that_put_out_more_than_a_tensor(kind: type, pixels: Tensor) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 2, 2)

        def forward(self, x: Tensor) -> Any:
            y = self.conv(x)
            return {"features": y, "rest": 1} if kind is dict else kind([y, "rest"])

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.several, self.head = Several(), Bent()

        def forward(self, x: Tensor) -> Tensor:
            found = self.several(x)
            assert type(found) is kind
            assert len(found) == 2
            return self.head(found["features"] if kind is dict else found[0])

    model = Whole().eval()
    made = explain(Layer(model, "several"), pixels.float(), method=hirescam, classes=[0])
    expected = explain(Layer(model, "several.conv"), pixels.float(), method=hirescam, classes=[0])
    torch.testing.assert_close(made.maps, expected.maps)
    assert bool(made.maps.any())


@pytest.mark.parametrize("what", ["a layer", "a layer in place", "a check"])
def test_explanations_leak_nothing(what: str, classes: Classes, pixels: Tensor) -> None:
    import gc
    import weakref

    task: Any = Layer(Alias("input_tokens").double().eval(), "relu") if what == "a layer in place" else classes
    if what == "a check":
        task = Classes(Encoder().eval(), Bent().eval())
        task.prepare = Preprocess((8, 8))

    def made() -> Any:
        if what == "a check":
            return check(task, pixels.float())[0]
        return explain(task, pixels, target_layers=["relu" if what == "a layer in place" else "first"])

    first = made()
    record_outputs = weakref.ref(first)
    del first
    gc.collect()
    before = sum(type(o) is Tensor for o in gc.get_objects())
    for _ in range(10):
        made()
    gc.collect()
    assert record_outputs() is None
    assert sum(type(o) is Tensor for o in gc.get_objects()) <= before


def test_a_smaller_encoder_shows_the_promise_is_kept_on_shared_modules(pixels: Tensor) -> None:
    """The same module under two attributes: restored once, rightly."""
    encoder, head = Encoder().double().train(), Bent().double()
    task = Classes(encoder, head)
    task.again = encoder  # type: ignore[attr-defined]
    explain(task, pixels)
    assert encoder.training
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_tap_is_found_with_its_name_and_layout(classes: Classes) -> None:
    roots, layout = classes.modules(), tokens((2, 2))
    for given, name in [("second", "second"), (classes.encoder.second, "second"), (classes.encoder, "Encoder"), (TargetLayer(classes.head.outer), "outer")]:  # fmt: skip
        assert find_target_layer(given, roots).name == name
    found = find_target_layer(TargetLayer(classes.encoder.bend, layout, "mine"), roots)
    assert (found.module, found.layout, found.name, found.outputs) == (classes.encoder.bend, layout, "mine", [])
    many = nn.Sequential(*[nn.Identity() for _ in range(45)])
    with pytest.raises(InputError, match=r"no layer is called 'x'; the model has 0, 1, .*, 39$"):
        find_target_layer("x", [many])
    with pytest.raises(InputError, match="no layer is called 'x'; the model has none"):
        find_target_layer("x", [nn.Identity()])


def test_a_grid_has_four_dimensions_or_a_layout() -> None:
    target_layer = TargetLayer(nn.Identity(), name="here")
    for shape in ((1, 2, 3, 4), (1, 2, 3, 4, 5)):
        assert target_layer.grid(torch.zeros(shape)).shape == shape
    with pytest.raises(InputError, match=r"layer here puts out \(1, 2, 3\), expected \(B, C, H, W\)"):
        target_layer.grid(torch.zeros(1, 2, 3))
    with pytest.raises(InputError, match="layer Identity puts out"):
        TargetLayer(nn.Identity()).grid(torch.zeros(1, 2))
    assert TargetLayer(nn.Identity(), tokens((2, 2), skip=1)).grid(torch.zeros(1, 5, 3)).shape == (1, 3, 2, 2)


def test_what_a_layer_puts_out_is_changed_where_its_layout_looks() -> None:
    output = torch.arange(2 * 5 * 3, dtype=torch.float32).view(2, 5, 3)
    grids = -torch.arange(1, 2 * 3 * 4 + 1, dtype=torch.float64).view(2, 3, 2, 2)
    changed = TargetLayer(nn.Identity(), tokens((2, 2), skip=1)).changed_to(grids)
    assert changed.change is not None
    made = changed.change(output)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made[:, 0], output[:, 0])
    torch.testing.assert_close(tokens((2, 2), skip=1)(made), grids.float())
    plain = TargetLayer(nn.Identity()).changed_to(grids)
    assert plain.change is not None
    torch.testing.assert_close(plain.change(torch.zeros(2, 3, 2, 2)), grids.float())


def test_nothing_is_recorded_before_the_first_tap(classes: Classes, pixels: Tensor) -> None:
    recorded: list[tuple[str, bool]] = []
    for name in ("first", "bend", "second"):
        layer = classes.encoder.get_submodule(name)
        layer.register_forward_hook(lambda m, i, o, name=name: recorded.append((name, o.requires_grad)))
    with torch.no_grad(), recording_layers([find_target_layer("bend", classes.modules())]):
        classes.encoder(pixels[None])
        assert torch.is_grad_enabled()
    assert recorded == [("first", False), ("bend", True), ("second", True)]
    assert torch.is_grad_enabled()
    with (
        pytest.raises(ModelError, match="layer outer ran 0 times in one forward"),
        recording_layers([find_target_layer("outer", classes.modules())]),
    ):
        classes.encoder(pixels[None])


class Pair(NamedTuple):
    grid: Tensor
    rest: int


@pytest.mark.parametrize(
    "output", [torch.zeros(1, 3, 2, 2).long(), (), None, "text", {"a": 1}, [None, torch.zeros(1, 3, 2, 2)]]
)
def test_a_layer_that_puts_out_no_numbers_is_said(output: Any) -> None:
    layer = nn.Identity()
    with pytest.raises(ModelError, match=f"layer here puts out {type(output).__name__}, expected a tensor of numbers"), recording_layers([TargetLayer(layer, name="here")]):  # fmt: skip
        layer(output)


def test_named_parts_of_an_output_keep_their_names() -> None:
    layer, target_layer = nn.Identity(), TargetLayer(nn.Identity())
    target_layer.module = layer
    with recording_layers([target_layer]):
        made = layer(Pair(torch.ones(1, 3, 2, 2), 7))
    assert type(made) is Pair
    assert made.rest == 7
    assert made.grid is not target_layer.outputs[0]
    torch.testing.assert_close(made.grid, target_layer.outputs[0])


def test_what_ran_and_what_it_put_out() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.twice, self.ids, self.pair = nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.twice(self.twice(self.a(x)))
            self.ids(torch.zeros(1).long())
            self.pair((y, 1))
            return self.pair.forward(y)

    model, x = Model(), torch.rand(1, 3, 4, 5)
    assert [(put.name, put.shape) for put in outputs_of(model, x)] == [("a", (1, 2, 4, 5)), ("pair", (1, 2, 4, 5))]
    with record_calls([model, model.a]) as order, record_outputs({"mine": model.a}) as put:
        model(x)
    assert order == [model.a, model.twice, model.twice, model.ids, model.pair, model]
    assert put["mine"].shape == (1, 2, 4, 5)
    assert not any(module._forward_hooks for module in model.modules())


def test_bytes_kept_for_a_backward_are_counted_once_for_each_storage() -> None:
    x = torch.rand(10, 10, requires_grad=True)
    with kept_bytes() as kept:
        y = (x * x).exp()
        y.sum()
    assert sum(kept.values()) == 2 * 400


def test_embedded_words_are_leaves(classes: Classes) -> None:
    layer = nn.Embedding(5, 3)
    with embedded(layer) as leaves:
        made = layer(torch.tensor([[1, 2]]))
    assert (len(leaves), leaves[0].is_leaf, leaves[0].requires_grad) == (1, True, True)
    assert made is not leaves[0]
    (gradient,) = torch.autograd.grad(made.square().sum(), leaves[0])
    torch.testing.assert_close(gradient, 2 * leaves[0].detach())
    assert not layer._forward_hooks
    with embedded(None) as leaves:
        layer(torch.tensor([1]))
    assert leaves == []
