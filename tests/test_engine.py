"""The engine against unsplit models with plain hooks, and against itself: batches, chunks, target layers, precision, memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Bent, Classes, Encoder, tiny_captioner, tiny_vqa
from torch import Tensor, nn

from mmgradcam import InputError, ModelError, Target, TargetLayer, Task, compare, explain, gradcam, hirescam, layercam, rise
from mmgradcam.contract import check_finite
from mmgradcam.engine import _importance, _products, encode, gradients_of, paired, scores
from mmgradcam.layers import find_target_layer, preserve_state
from mmgradcam.layouts import channels_last, tokens
from mmgradcam.tasks import Layer
from mmgradcam.utils.memory import budget, fitting, halving
from mmgradcam.utils.rows import joined, of_rows, stacked, turns_of


def pictures(count: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(3, 8, 8, dtype=torch.float64, generator=draw) for _ in range(count)]


def unsplit(task: Classes, pixels: Tensor, index: int, layer: nn.Module | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Score, features and gradient from one whole forward with a plain autograd graph, the slow and obvious way."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = (layer or task.encoder).register_forward_hook(keep)
    score = task.head(task.encoder(pixels[None].clone().requires_grad_()))[0, index]
    handle.remove()
    score.backward()
    assert kept[0].grad is not None
    grad, value = kept[0].grad.clone(), kept[0].detach().clone()
    for module in task.modules():
        module.zero_grad(set_to_none=True)
    return score.detach(), value, grad


def test_maps_and_scores_are_those_of_an_unsplit_forward_and_backward(classes: Classes) -> None:
    for pixels in pictures(3):
        made = explain(classes, pixels, method=hirescam, classes=[2, 0, 3])
        for one, index in zip(made, [2, 0, 3], strict=True):
            score, features, gradient = unsplit(classes, pixels, index)
            assert one.score == pytest.approx(float(score), rel=1e-6)
            torch.testing.assert_close(one.map, (features * gradient).sum(1)[0].float())


def test_the_encoder_runs_once_per_picture(classes: Classes) -> None:
    explain(classes, pictures(5), batch=2)
    assert classes.encodes == [2, 2, 1]


def test_all_methods_share_one_encode_and_draw_what_they_draw_alone(classes: Classes) -> None:
    methods = [gradcam, functools.partial(rise, count=8), layercam]
    made = compare(classes, pictures(3), methods[::2], classes=[2, 0])
    assert classes.encodes == [3], "one batch, once"
    with_rise = compare(classes, pictures(1), methods, classes=[2, 0])
    for b, several in enumerate(made):
        for method, one in zip(methods[::2], several, strict=True):
            alone = explain(classes, pictures(3)[b], method=method, classes=[2, 0])
            assert torch.equal(one.maps, alone.maps)
            assert torch.equal(one.scores, alone.scores)
            assert one.metadata == alone.metadata
    assert [one.metadata.method for one in with_rise[0]] == ["gradcam", "rise(count=8)", "layercam"]
    assert torch.equal(with_rise[0][1].maps, explain(classes, pictures(1)[0], method=methods[1], classes=[2, 0]).maps)
    with pytest.raises(InputError, match="at least one method, got none"):
        compare(classes, pictures(1), [])


def test_a_batch_is_a_loop(classes: Classes) -> None:
    several = pictures(4)
    together = explain(classes, several, each=[{"classes": c} for c in ([0], [1, 2], [3, 3, 0], [2])])
    for pixels, made, asked in zip(several, together, ([0], [1, 2], [3, 3, 0], [2]), strict=True):
        alone = explain(classes, pixels, classes=asked)
        assert made.labels == alone.labels
        torch.testing.assert_close(made.maps, alone.maps)
        torch.testing.assert_close(made.scores, alone.scores)


def test_chunks_are_the_whole(classes: Classes) -> None:
    several = pictures(3)
    whole = explain(classes, several)
    rows_at_once = max(classes.scored)
    row = 5 * 4 * 4 * 8 * 8
    assert rows_at_once == 9
    for memory, most in ((2 * row, 2), (2 * row - 1, 1)):
        classes.scored.clear()
        chunked = explain(classes, several, memory=memory)
        assert max(classes.scored) == most
        for a, b in zip(whole, chunked, strict=True):
            torch.testing.assert_close(a.maps, b.maps)


def test_out_of_memory_halves_the_chunk(classes: Classes) -> None:
    several = pictures(3)
    whole = explain(classes, several)
    classes.scored.clear()
    score = classes.score

    def hungry(features: Tensor, targets: Sequence[Target]) -> Tensor:
        scores = score(features, targets)
        if len(targets) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scores

    classes.score = hungry  # type: ignore[method-assign]
    for a, b in zip(whole, explain(classes, several), strict=True):
        torch.testing.assert_close(a.maps, b.maps)
    assert classes.scored[:3] == [9, 4, 2]


def test_out_of_memory_on_one_row_is_said(classes: Classes) -> None:
    def starving(features: Tensor, targets: Sequence[Target]) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    classes.score = starving  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="out of memory on a single row"):
        explain(classes, pictures(1))


def test_pictures_of_different_sizes_go_in_batches_of_their_own() -> None:
    task = Classes(Encoder().double(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4).double()))
    small, wide = torch.rand(3, 8, 8).double(), torch.rand(3, 8, 12).double()
    made = explain(task, [small, small, wide])
    assert task.encodes == [2, 1]
    assert [tuple(e.maps.shape[1:]) for e in made] == [(4, 4), (4, 4), (4, 6)]


@pytest.mark.parametrize("layer", ["first", "second"])
def test_a_tap_is_the_gradient_at_a_hooked_layer(classes: Classes, layer: str) -> None:
    """Also the in-place trap: `first` is overwritten by the in-place ReLU after it."""
    for pixels in pictures(2):
        made = explain(classes, pixels, method=hirescam, target_layers=[layer])
        for one, index in zip(made, (0, 1, 2), strict=True):
            _, features, gradient = unsplit(classes, pixels, index, getattr(classes.encoder, layer))
            assert (features < 0).any()
            torch.testing.assert_close(one.map, (features * gradient).sum(1)[0].float())
    assert classes.encodes == [1, 1]


def test_taps_of_a_batch_with_different_numbers_of_targets(classes: Classes) -> None:
    several, asked = pictures(3), [[0], [1, 2, 3], [2, 0]]
    how: dict[str, Any] = {"method": layercam, "target_layers": ["first", "second"]}
    together = explain(classes, several, each=[{"classes": c} for c in asked], memory=5 * 4 * 4 * 8 * 8 * 4, **how)
    for pixels, made, some in zip(several, together, asked, strict=True):
        torch.testing.assert_close(made.maps, explain(classes, pixels, classes=some, **how).maps)
        assert made.metadata.feature_layer == "first x second"


def test_layer_is_the_gradient_at_a_hooked_layer_and_runs_once() -> None:
    encoder, head = Encoder().double().eval(), Bent().double().eval()
    whole = nn.Sequential(encoder, head)
    runs: list[int] = []
    encoder.first.register_forward_hook(lambda *_: runs.append(1))
    pixels = pictures(1)[0]
    made = explain(Layer(whole, encoder.second), pixels, method=hirescam, classes=[3, 0, 3])
    assert len(runs) == 1
    for one, index in zip(made, [3, 0, 3], strict=True):
        _, features, gradient = unsplit(Classes(encoder, head), pixels, index, encoder.second)
        torch.testing.assert_close(one.map, (features * gradient).sum(1)[0].float())
    predicted = explain(Layer(whole, "0.second"), pixels)
    assert predicted.targets[0].value[0] == int(whole(pixels[None]).argmax())


class Watched(nn.Module):
    """Looks at the numbers of its gradient, which no vmapped backward lets it do."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * (gradient.abs().max().item() >= 0))
        return x


@pytest.mark.parametrize("between", [nn.Identity(), Watched()])
@pytest.mark.parametrize("memory", [None, 1])
def test_many_classes_of_a_layer_are_each_class_alone(between: nn.Module, memory: int | None) -> None:
    task = Layer(nn.Sequential(Encoder().double().eval(), between, Bent().double().eval()), "0.second")
    several, asked = pictures(2), [[3, 0, 3, 1], [2, 1]]
    together = explain(task, several, each=[{"classes": c} for c in asked], method=hirescam, memory=memory)
    for pixels, made, classes in zip(several, together, asked, strict=True):
        for one, index in zip(made, classes, strict=True):
            torch.testing.assert_close(one.map, explain(task, pixels, method=hirescam, classes=[index])[0].map)


def test_two_pictures_and_one_target_give_two_maps() -> None:
    """The trap: the second map silently blank."""
    whole = nn.Sequential(Encoder(), Bent()).eval()
    made = explain(Layer(whole, "0.second"), [p.float() for p in pictures(2)], method=hirescam, classes=[1])
    assert all(bool(e.map.any()) for e in made)
    assert not torch.equal(made[0].map, made[1].map)


@pytest.mark.parametrize("asked", [4, -5])
def test_a_class_that_does_not_exist_is_said(asked: int) -> None:
    whole = nn.Sequential(Encoder(), Bent()).eval()
    with pytest.raises(InputError, match=r"expected a class in 0\.\.3"):
        explain(Layer(whole, "0.second"), pictures(1)[0].float(), classes=[asked])


@pytest.mark.parametrize("head", ["lstm", "transformer"])
@pytest.mark.parametrize("make", [tiny_captioner, tiny_vqa])
def test_one_forward_for_all_targets_is_one_row_per_target(make: Any, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scores` (a shared forward, a backward per round) and `score` (a row per target) are the same mathematics."""
    task = make(head)
    query = {"caption": "a red ball and a blue cube"} if make is tiny_captioner else {"question": "what is the ball", "top": 4}
    several = [torch.randn(3, 16, 16).double() for _ in range(3)]
    shared = explain(task, several, method=hirescam, target_layers=(), **query)
    monkeypatch.setattr("mmgradcam.engine._rounds", lambda *_: iter(()))
    apart = explain(task, several, method=hirescam, target_layers=(), **query)
    for a, b in zip(shared, apart, strict=True):
        assert a.labels == b.labels
        assert bool((a.maps != 0).flatten(1).any(1).all())
        torch.testing.assert_close(a.maps, b.maps)
        torch.testing.assert_close(a.scores, b.scores)
        if a.words is not None:
            assert b.words is not None
            torch.testing.assert_close(a.words, b.words)


@pytest.mark.parametrize("attention", [False, True])
def test_the_gradient_of_a_word_is_that_of_a_plain_forward(attention: bool) -> None:
    task = tiny_captioner("lstm", attention=attention)
    pixels = torch.randn(1, 3, 16, 16).double()
    features = task.encoder(pixels).detach().requires_grad_()
    said = explain(task, pixels[0], method=hirescam, target_layers=(), caption="a blue ball and a red cube")
    ids = torch.tensor([said.targets[0].value.tokens])
    logp = task.head.out(task.head(features, ids[:, :-1])).log_softmax(-1)
    for i, one in enumerate(said):
        word = logp[0, i, ids[0, i + 1]]
        assert one.score == pytest.approx(word.item(), rel=1e-5)
        gradient = torch.autograd.grad(word, features, retain_graph=True)[0]
        torch.testing.assert_close(one.map, (features * gradient).sum(1)[0].detach().float())


def test_images_with_captions_of_different_length_and_order() -> None:
    task = tiny_captioner("lstm")
    several = [torch.randn(3, 16, 16).double() for _ in range(3)]
    captions = ["a ball", "a red ball and a blue cube", "cube and cube"]
    together = explain(task, several, each=[{"caption": c} for c in captions])
    for pixels, made, caption in zip(several, together, captions, strict=True):
        alone = explain(task, pixels, caption=caption)
        assert made.text == caption
        torch.testing.assert_close(made.maps, alone.maps)
        torch.testing.assert_close(made.scores, alone.scores)


def test_question_words_are_gradient_times_embedding() -> None:
    task = tiny_vqa("lstm")
    pixels = torch.randn(1, 3, 16, 16).double()
    made = explain(task, pixels[0], question="What color is the ball?", answer="blue", contrast="red")
    ids = torch.tensor([made.targets[0].value.question])
    embedded = task.head.words(ids).detach().requires_grad_()
    task.head.words.register_forward_hook(lambda *_: embedded)
    logits = task.head(task.encoder(pixels), ids)[0]
    for one, score in zip(made, (logits[1], logits[1] - logits[0]), strict=True):
        gradient = torch.autograd.grad(score, embedded, retain_graph=True)[0]
        slow = (gradient * embedded).sum(-1)[0].tolist()
        assert [word for word, _ in one.importances] == ["what", "color", "is", "the", "ball"]
        assert [value for _, value in one.importances] == pytest.approx(slow, rel=1e-5)


def test_autocast_is_close_to_float32() -> None:
    torch.manual_seed(0)
    task = Classes(Encoder(), Bent())
    pixels = pictures(1)[0].float()
    exact, rough = (explain(task, pixels, autocast=dtype).maps for dtype in (None, torch.bfloat16))
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=float(exact.max()) * 0.05)


def test_a_bf16_model_gives_float32_maps() -> None:
    task = Classes(Encoder().bfloat16(), Bent().bfloat16())
    made = explain(task, pictures(1)[0].bfloat16())
    assert made.maps.dtype == torch.float32
    assert torch.isfinite(made.maps).all()


def test_confident_words_with_tiny_gradients_still_show(classes: Classes) -> None:
    """The trap: an additive epsilon makes the map of a target scaled by 1e-8 faint."""
    pixels = pictures(1)[0]
    plain = explain(classes, pixels)
    score = classes.score
    classes.score = lambda features, targets: score(features, targets) * 1e-8  # type: ignore[method-assign]
    for a, b in zip(plain, explain(classes, pixels), strict=True):
        assert a.warning == b.warning
        torch.testing.assert_close(torch.from_numpy(a.heat()), torch.from_numpy(b.heat()), rtol=1e-3, atol=1e-5)


def test_flat_gradients_are_said_and_never_drawn(classes: Classes) -> None:
    classes.score = lambda features, targets: (features * 0).flatten(1).sum(1)  # type: ignore[method-assign]
    made = explain(classes, pictures(1)[0])
    assert made.warnings == ["no gradient"] * 3
    assert not made[0].heat().any()
    assert made[0].peak is None


def test_maps_with_nothing_in_favour_are_said(classes: Classes) -> None:
    classes.score = lambda features, targets: -features.flatten(1).sum(1)  # type: ignore[method-assign]
    assert explain(classes, pictures(1)[0], method=gradcam).warnings == ["no positive evidence"] * 3


WRONG: dict[str, tuple[Any, str]] = {
    "no graph": (lambda f, t: f.detach().flatten(1).sum(1), "no gradient leads back"),
    "one score for all": (lambda f, t: f.sum(), r"expected \(3,\) scores"),
    "not finite": (lambda f, t: f.flatten(1).sum(1) * float("nan"), "the score of 'class 0', 'class 1', 'class 2' is nan"),
    "a list": (lambda f, t: [1.0], r"expected \(3,\) scores, one per target, got list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_scores_are_said(classes: Classes, name: str) -> None:
    score, message = WRONG[name]
    classes.score = score  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=message):
        explain(classes, pictures(1)[0])


def test_wrong_features_are_said(classes: Classes) -> None:
    classes.encode = lambda images: images.sum()  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"expected \(B, C, \*grid\) features of 1 images, got \(\)"):
        explain(classes, pictures(1)[0])


def test_a_wrong_method_is_said(classes: Classes) -> None:
    with pytest.raises(ModelError, match=r"method <lambda>: expected maps \(3, 4, 4\), got \(3, 5, 4, 4\)"):
        explain(classes, pictures(1)[0], method=lambda a, g: a)


def test_a_layer_the_output_does_not_depend_on_is_said() -> None:
    class Aside(Encoder):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "aside"):
                self.aside = nn.Conv2d(3, 2, 1).double()
            self.aside(x)
            return super().forward(x)

    model = nn.Sequential(Aside().double(), Bent().double())
    model(torch.rand(1, 3, 8, 8).double())
    with pytest.raises(ModelError, match=r"no gradient can reach 0\.aside"):
        explain(Layer(model, "0.aside"), pictures(1)[0])


def test_a_layer_that_runs_twice_is_said() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bend, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.bend(self.conv(self.bend(self.conv(x)))).mean((2, 3)))

    with pytest.raises(ModelError, match="layer bend ran 2 times in one forward"):
        explain(Layer(Twice(), "bend"), pictures(1)[0].float())


def test_layers_of_tokens_are_laid_out_by_the_pictures_aspect_or_by_a_layout() -> None:
    class Tokens(nn.Module):
        def __init__(self, starts: int = 1) -> None:
            super().__init__()
            self.patch, self.block = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6)
            self.start, self.head = nn.Parameter(torch.randn(1, starts, 6)), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            cells = self.patch(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.start.expand(len(x), -1, -1), cells], 1)
            return self.head(torch.tanh(self.block(tokens)).mean(1))

    model, pixels = Tokens(), torch.rand(3, 8, 12)
    with pytest.raises(
        InputError, match=r"9 tokens are no grid of a picture 0\.667 times as tall as it is wide; give a layout"
    ):
        explain(Layer(Tokens(3), "block"), pixels)
    with pytest.raises(InputError, match=r"tokens\(grid=\(2, 2\), skip=1\): expected \(B, 5, C\) tokens, got \(1, 7, 6\)"):
        explain(Layer(model, "block", layout=tokens((2, 2), skip=1)), pixels)
    told = explain(Layer(model, "block", layout=tokens((2, 3), skip=1)), pixels)
    assert told.map.shape == (2, 3)
    torch.testing.assert_close(explain(Layer(model, "block"), pixels).map, told.map)


def test_layouts_put_every_cell_where_it_belongs() -> None:
    cells = torch.arange(6.0)[None, :, None]
    assert tokens((2, 3))(cells)[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tokens((2, 2), skip=2)(cells)[0, 0].tolist() == [[2, 3], [4, 5]]
    assert channels_last(cells.view(1, 2, 3, 1))[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_tap_of_another_model_is_said(classes: Classes) -> None:
    with pytest.raises(InputError, match="expected a layer of the task's model"):
        explain(classes, pictures(1)[0], target_layers=[nn.ReLU()])
    with pytest.raises(InputError, match="no layer is called 'thrid'; the model has first, bend, second"):
        explain(classes, pictures(1)[0], target_layers=["thrid"])


def test_the_encoder_records_nothing_unless_asked_to(classes: Classes) -> None:
    shown = torch.stack(pictures(1))
    assert not encode(classes, shown, []).features.requires_grad
    assert encode(classes, shown, [], graph=True).features.requires_grad


def test_importances_of_words_that_nothing_rests_on_are_0() -> None:
    embedded, powers = torch.randn(3, 4, 5, dtype=torch.float64), torch.tensor([0.0, 3.0])
    none = _importance(embedded, None, powers)
    assert (none.shape, none.dtype, bool(none.any())) == ((3, 4), torch.float32, False)
    gradients = torch.randn(3, 4, 5, dtype=torch.float64)
    expected = (embedded * gradients).sum(-1)[:2] / torch.tensor([1.0, 8.0])[:, None]
    torch.testing.assert_close(_importance(embedded, gradients, powers), expected.float())


def test_slopes_yield_every_row_once(classes: Classes) -> None:
    encoded = encode(classes, torch.stack(pictures(3)), [])
    asked = [[Target("a", 0)], [], [Target("b", 1), Target("c", 2)]]
    rows = [row for part in gradients_of(classes, encoded, asked) for row in part.rows]
    assert sorted(rows) == [(0, 0), (2, 0), (2, 1)]


def test_shared_and_tapped_together() -> None:
    """A shared forward of the head and target layers in the encoder: against a plain graph through both."""
    task = tiny_captioner("transformer")
    pixels = torch.randn(1, 3, 16, 16).double()
    made = explain(task, pixels[0], method=hirescam, target_layers=[TargetLayer(task.encoder.stages[0])], caption="a red cube")
    kept: list[Tensor] = []
    task.encoder.stages[0].register_forward_hook(lambda m, i, o: kept.append(o))
    features = task.encoder(pixels)
    ids = torch.tensor([made.targets[0].value.tokens])
    logp = task.head.out(task.head(features, ids[:, :-1])).log_softmax(-1)
    for i, one in enumerate(made):
        gradient = torch.autograd.grad(logp[0, i, ids[0, i + 1]], kept[0], retain_graph=True)[0]
        torch.testing.assert_close(one.map, (kept[0] * gradient).sum(1)[0].detach().float())


def test_scores_of_variants_are_each_variant_and_target_alone_in_chunks_that_fit(classes: Classes) -> None:
    features = classes.encoder(torch.stack(pictures(5))).detach()
    targets = [Target("a", 2), Target("b", 0), Target("c", 3)]
    expected = torch.stack([classes.head(f[None])[0, [2, 0, 3]] for f in features]).detach()
    row = 4 * 5 * 4 * 4 * 8
    for memory, most in [(None, 15), (4 * row, 4), (5 * row - 1, 4), (row, 1), (1, 1)]:
        classes.scored.clear()
        found = scores(classes, features, targets, memory)
        assert (found.shape, found.dtype, found.requires_grad) == ((5, 3), torch.float64, False)
        torch.testing.assert_close(found, expected)
        assert max(classes.scored) == most
        assert sum(classes.scored) == 15
    half = Classes(classes.encoder, classes.head.bfloat16())
    assert scores(half, features.bfloat16(), targets).dtype == torch.float32


def test_scores_of_a_shared_forward_are_those_of_rows() -> None:
    task = tiny_captioner("transformer")
    features = task.encoder(torch.randn(4, 3, 16, 16).double()).detach()
    targets = task.targets(features[:1], caption="a red ball")
    expected = torch.stack([task.score(f.expand(3, *f.shape[1:]), targets) for f in features[:, None]])
    found = scores(task, features, targets)
    assert found.shape == (4, 3)
    torch.testing.assert_close(found, expected)


def test_pairs_are_each_row_alone_in_chunks_that_fit(classes: Classes) -> None:
    features = classes.encoder(torch.stack(pictures(5))).detach()
    targets = [Target("t", c) for c in (2, 0, 3, 1, 2)]
    expected = torch.stack([classes.head(f[None])[0, t.value] for f, t in zip(features, targets, strict=True)]).float()
    row = 4 * 5 * 4 * 4 * 8
    for memory, most in [(None, [5]), (2 * row, [2, 2, 1]), (3 * row - 1, [2, 2, 1]), (1, [1] * 5)]:
        classes.scored.clear()
        torch.testing.assert_close(paired(classes, features, targets, memory), expected)
        assert classes.scored == most
    with pytest.raises(ModelError, match="Classes has no probabilities; give it a `log_prob`"):
        paired(classes, features, targets, likely=True)
    classes.log_prob = lambda f, t: -2 * classes.score(f, t)  # type: ignore[method-assign]
    torch.testing.assert_close(paired(classes, features, targets, likely=True), -2 * expected)
    classes.unit = "log-probability"
    torch.testing.assert_close(paired(classes, features, targets, likely=True), expected)
    classes.score = lambda f, t: f.flatten(1).sum(1) / 0  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="the score of 't', 't', 't', 't', 't' is inf"):
        paired(classes, features, targets)


@pytest.mark.parametrize("memory", [1, 2 * 8 * 6 * 4 * 4 * 8, 6 * 8 * 6 * 4 * 4 * 8])
@pytest.mark.parametrize("head", ["lstm", "transformer"])
def test_rounds_in_chunks_are_the_whole(head: str, memory: int) -> None:
    """Captions of unlike length and answers of unlike number, so that rounds of a batch have holes."""
    several = [torch.randn(3, 16, 16).double() for _ in range(3)]
    captions = [{"caption": c} for c in ("a ball", "a red ball and a blue cube", "cube")]
    answers = [{"question": "what color is the ball", "top": n} for n in (1, 4, 2)]
    for task, each in ((tiny_captioner(head), captions), (tiny_vqa(head), answers)):
        whole = explain(task, several, method=hirescam, target_layers=("stages.0",), each=each)
        for a, b in zip(
            whole, explain(task, several, method=hirescam, target_layers=("stages.0",), each=each, memory=memory), strict=True
        ):
            torch.testing.assert_close(a.maps, b.maps)
            torch.testing.assert_close(a.scores, b.scores)
            if a.words is not None:
                assert b.words is not None
                torch.testing.assert_close(a.words, b.words)


def test_a_device_that_is_full_halves_the_work_and_goes_on_with_halves() -> None:
    done: list[list[int]] = []

    def work(part: list[int]) -> list[int]:
        done.append(part)
        if len(part) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes")
        return [10 * n for n in part]

    assert list(halving(list(range(7)), 6, work)) == [0, 10, 20, 30, 40, 50, 60]
    assert done == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [0], [1], [2], [3], [4], [5], [6]]
    with pytest.raises(ValueError, match="other"):
        list(halving([1, 2], 2, failing_with(ValueError("other"))))
    with pytest.raises(RuntimeError, match="another"):
        list(halving([1, 2], 2, failing_with(RuntimeError("another"))))
    with pytest.raises(ModelError, match="out of memory on a single row"):
        list(halving([1, 2], 2, failing_with(torch.OutOfMemoryError("full"), tried := [])))
    assert tried == [2, 1]
    assert budget(torch.zeros(1)) == 268_435_456


def test_half_of_what_a_gpu_has_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (asked.append(device), (1001, 5000))[1])
    device = torch.device("cuda", 1)
    assert repr(budget(SimpleNamespace(device=device))) == "500"  # type: ignore[arg-type]
    assert asked == [device]


def failing_with(error: Exception, tried: list[int] | None = None) -> Any:
    def fail(part: list[int]) -> list[int]:
        if tried is not None:
            tried.append(len(part))
        raise error

    return fail


def test_a_full_device_is_not_taken_for_a_model_that_cannot_be_vmapped() -> None:
    """Else every backward would be run once more, one by one, on a device that is full."""

    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                x.register_hook(failing_with(torch.OutOfMemoryError("full")))
            return x.clone()

    task = Layer(nn.Sequential(Encoder().double().eval(), Full(), Bent().double().eval()), "0.second")
    with pytest.raises(torch.OutOfMemoryError):
        explain(task, pictures(1)[0], classes=[0, 1])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: x[0], r"features of 2 images, got \(3, 8, 8\)"),
        (lambda x: x.sum((1, 2, 3)), r"features of 2 images, got \(2,\)"),
        (lambda x: [x], "got list"),
        (lambda x: x.long(), "expected floating-point features, got torch.int64"),
    ],
)
def test_features_of_another_shape_or_kind_are_said(classes: Classes, made: Any, said: str) -> None:
    classes.encode = made  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=said):
        explain(classes, pictures(2))


@pytest.mark.parametrize(
    "made",
    [
        lambda f: [f.sum((2, 3))[:, :3]],  # images first
        lambda f: [torch.zeros(2, 2)],  # too few
        lambda f: [torch.zeros(2, 2), torch.zeros(2, 2)],  # too many
        lambda f: [torch.zeros(3)],
        lambda f: [torch.zeros(3, 2, 1)],
        lambda f: [[1.0]],
    ],
)
def test_wrong_scores_of_a_shared_forward_are_said(classes: Classes, made: Any) -> None:
    classes.scores = lambda features, targets: made(features)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"Classes\.scores: expected tensors \(t, 2\) whose t add up to 3 targets, got"):
        explain(classes, pictures(2))


def test_what_is_not_finite_is_said_of_the_first_and_of_five_by_name(classes: Classes) -> None:
    asked = [Target(f"t{i}", i) for i in range(8)]
    values = torch.tensor([1.0, torch.inf, 2.0, torch.nan, -torch.inf, torch.nan, torch.nan, torch.nan])
    with pytest.raises(ModelError, match=r"Classes: the score of 't1', 't3', 't4', 't5', 't6' is inf; a map"):
        check_finite(classes, values, asked)
    check_finite(classes, values[[0, 2]], asked)
    classes.name = "mine"
    with pytest.raises(ModelError, match=r"mine: the score of 't3' is nan"):
        check_finite(classes, values[3:4], asked[3:4])


def test_rows_of_one_image_share_its_memory(classes: Classes) -> None:
    classes.encoder.float(), classes.head.float()
    encoded = encode(classes, torch.stack(pictures(1)).float(), [])
    (part,) = gradients_of(classes, encoded, [[Target("a", 0), Target("b", 1)]])
    assert part.activations[0][0].shape == (2, 5, 4, 4)
    assert part.activations[0][0].stride(0) == 0
    (alone,) = gradients_of(classes, encoded, [[Target("a", 0)]])
    torch.testing.assert_close(alone.activations[0][1], part.activations[0][1][:1])


def test_places_are_the_pixels_first_and_then_the_taps(classes: Classes) -> None:
    target_layers = [find_target_layer(name, classes.modules()) for name in ("first", "second")]
    encoded = encode(classes, torch.stack(pictures(1)), target_layers, at_pixels=True)
    (part,) = gradients_of(classes, encoded, [[Target("a", 2)]])
    x = pictures(1)[0][None].requires_grad_()
    (gradient,) = torch.autograd.grad(classes.head(classes.encoder(x))[0, 2], x)
    assert [tuple(a.shape[1:]) for a, _ in part.activations] == [(3, 8, 8), (6, 8, 8), (5, 4, 4)]
    torch.testing.assert_close(part.activations[0][0], x.detach().float())
    torch.testing.assert_close(part.activations[0][1], gradient.float())


def test_on_a_cpu_pictures_with_layers_upstream_are_differentiated_one_by_one(classes: Classes, pixels: Tensor) -> None:
    several = torch.stack([pixels, pixels.flip(1), pixels.flip(2)])
    with preserve_state(classes.modules()):
        encoded = encode(classes, several, [find_target_layer("bend", classes.modules())])
    assert [run.images for run in encoded.runs] == [range(0, 1), range(1, 2), range(2, 3)]
    assert encoded.features.shape[0] == 3
    assert not encoded.features.requires_grad
    counts = [1, 3, 2]
    made = explain(classes, several, target_layers="bend", each=[{"classes": list(range(n))} for n in counts])
    for one, picture, n in zip(made, several, counts, strict=True):
        torch.testing.assert_close(one.maps, explain(classes, picture, target_layers="bend", classes=list(range(n))).maps)
    with preserve_state(classes.modules()):
        assert encode(classes, several, []).runs == []
        assert len(encode(classes, several, [find_target_layer("bend", classes.modules())], graph=True).runs) == 1


def test_the_first_of_the_layers_that_no_gradient_can_reach_is_named(classes: Classes) -> None:
    encoder = classes.encoder
    classes.encode = lambda images: encoder(images).detach()  # type: ignore[method-assign]
    target_layers = [find_target_layer(name, classes.modules()) for name in ("second", "first")]
    with pytest.raises(ModelError, match="no gradient can reach second: nothing after it"):
        encode(classes, torch.stack(pictures(2)), target_layers, autocast=None)


def test_a_score_that_is_not_finite_is_named_by_its_target_not_by_its_variant(classes: Classes) -> None:
    spoiled = {(1, 1)}
    score = classes.score

    def spoil(features: Tensor, targets: Sequence[Target]) -> Tensor:
        rows = [(int(f[0, 0, 0]), t.value) for f, t in zip(features, targets, strict=True)]
        return score(features, targets) / torch.tensor([float(row not in spoiled) for row in rows])

    classes.score = spoil  # type: ignore[method-assign]
    features = torch.arange(3.0).double().view(3, 1, 1, 1).expand(3, 5, 4, 4).contiguous()
    with pytest.raises(ModelError, match=r"the score of 'b' is -?inf"):
        scores(classes, features, [Target("a", 0), Target("b", 1)])


class Reader(Task):
    """Scores of the picture, of a text of two tokens, or of both; in one forward for all targets where `shared`."""

    def __init__(self, shared: bool, gradient: float = 1.0, read: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        self.embed = nn.Embedding(5, 3).to(dtype)
        self.shared, self.gradient, self.read, self.backwards = shared, gradient, read, 0

    def encode(self, images: Tensor) -> Tensor:
        return images

    def targets(self, features: Tensor) -> list[Target]:
        return [Target("seen", (1.0, 0.0)), Target("read", (0.0, 1.0)), Target("both", (1.0, 1.0))]

    def words(self) -> nn.Module:
        return self.embed

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1

    def _score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        """(n,) of n features and targets."""
        read = self.embed(torch.tensor([[3, 1]]).expand(len(features), -1)).sum((1, 2)) * self.read
        seen = features * 1
        if seen.requires_grad:
            seen.register_hook(self._count)
        seen = seen.flatten(1).sum(1) * self.gradient
        parts = [
            [part for part, wanted in zip((s, r), t.value, strict=True) if wanted]
            for s, r, t in zip(seen, read, targets, strict=True)
        ]
        return torch.stack([torch.stack(some).sum() for some in parts])

    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> list[Tensor] | None:
        return [self._score(features, some)[None] for some in zip(*targets, strict=True)] if self.shared else None

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        assert not self.shared
        return self._score(features, targets)


@pytest.mark.parametrize("shared", [True, False])
def test_scores_that_rest_on_the_picture_or_on_the_words_alone(shared: bool) -> None:
    """What a score does not rest on has a gradient of exactly 0, in the shape of the others."""
    task, x = Reader(shared), torch.stack(pictures(2))
    word = task.embed.weight[[3, 1]].sum(1).detach().float()
    for target, (seen, read) in ((t, t.value) for t in task.targets(x)):
        (part,) = gradients_of(task, encode(task, x, []), [[target], [target]])
        ((features, gradients),) = part.activations
        assert part.rows == [(0, 0), (1, 0)]
        assert torch.equal(features, x.float())
        assert torch.equal(gradients, torch.full_like(features, seen))
        assert part.words is not None
        torch.testing.assert_close(part.words, (word * read).expand(2, 2))
        assert not any(t.requires_grad for t in (part.scores, features, gradients, part.words))


@pytest.mark.parametrize(("gradient", "read", "backwards"), [(1.0, 2.0**-12, 1), (2.0**-12, 1.0, 2)])
@pytest.mark.parametrize("shared", [True, False])
def test_float16_gradients_of_the_features_are_kept_in_range_and_words_follow(
    shared: bool, gradient: float, read: float, backwards: int
) -> None:
    task = Reader(shared, gradient, read, torch.float16)
    x = torch.rand(1, 3, 2, 2).half()
    (part,) = gradients_of(task, encode(task, x, []), [[task.targets(x)[2]]])
    assert torch.equal(part.activations[0][1], torch.full((1, 3, 2, 2), gradient))
    assert task.backwards == backwards
    assert not part.lost.any()


def test_float16_gradients_that_shrink_on_their_way_to_a_layer_are_kept_in_range() -> None:
    """By a power of two of each row's own: two pictures of one run, and unlike numbers of targets."""

    class Shrinking(Task):
        def __init__(self) -> None:
            self.target_layer = nn.Identity()

        def encode(self, images: Tensor) -> Tensor:
            return self.target_layer(images * 1) * 2.0**-14 + images.detach()

        targets = Reader.targets

        def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
            return features.flatten(1).sum(1) * torch.tensor([t.value for t in targets]).half()

    task, x = Shrinking(), torch.rand(2, 3, 2, 2).half()
    encoded = encode(task, x, [find_target_layer("", [task.target_layer])])
    values = {(0, 0): 1.0, (0, 1): 2.0**-4, (1, 0): 8.0}
    asked = [[Target("a", values[0, 0]), Target("b", values[0, 1])], [Target("c", values[1, 0])]]
    for part in gradients_of(task, encoded, asked):
        for row, gradient in zip(part.rows, part.activations[0][1], strict=True):
            assert torch.equal(gradient, torch.full_like(gradient, values[row] * 2.0**-14)), row


def test_slopes_of_a_shared_forward_are_every_row_once_in_rounds_that_fit(classes: Classes) -> None:
    asked = [[Target("t", c) for c in some] for some in ([2], [3, 0, 1], [], [1, 2])]
    x = torch.stack(pictures(4))
    features = classes.encode(x).detach().requires_grad_()
    logits = classes.head(features)
    alone = {(b, t): logits[b, target.value] for b, some in enumerate(asked) for t, target in enumerate(some)}
    gradient = {row: torch.autograd.grad(score, features, retain_graph=True)[0][row[0]] for row, score in alone.items()}

    def shared(features: Tensor, targets: Sequence[Sequence[Target]]) -> list[Tensor]:
        most = max(map(len, targets))
        index = torch.tensor([[t.value for t in some] + [0] * (most - len(some)) for some in targets])
        return list(torch.split(classes.head(features).gather(1, index).T, 2))

    classes.scores, classes.score = shared, None  # type: ignore[assignment, method-assign]
    row = 8 * features[0].nbytes
    for memory, expected in (
        (None, [[(0, 0), (1, 0), (3, 0), (1, 1), (3, 1)], [(1, 2)]]),
        (6 * row, [[(0, 0), (1, 0), (3, 0), (1, 1), (3, 1)], [(1, 2)]]),
        (6 * row - 1, [[(0, 0), (1, 0), (3, 0)], [(1, 1), (3, 1)], [(1, 2)]]),
        (2 * row, [[(0, 0), (1, 0)], [(1, 1)], [(1, 2)], [(3, 0), (3, 1)]]),
        (1, [[(0, 0)], [(1, 0)], [(1, 1)], [(1, 2)], [(3, 0)], [(3, 1)]]),
    ):
        parts = list(gradients_of(classes, encode(classes, x, []), asked, memory))
        assert [part.rows for part in parts] == expected
        for part in parts:
            for at, score, found in zip(part.rows, part.scores, part.activations[0][1], strict=True):
                torch.testing.assert_close(score, alone[at].detach())
                torch.testing.assert_close(found, gradient[at].float())
                assert (score.requires_grad, found.requires_grad) == (False, False)
        encoded = encode(classes, x, [find_target_layer("second", classes.modules())])
        for part, before in zip(gradients_of(classes, encoded, asked, memory), parts, strict=True):
            assert (part.rows, part.activations[0][0].shape) == (before.rows, (len(part.rows), 5, 4, 4))
            for at, found in zip(part.rows, part.activations[0][1], strict=True):
                torch.testing.assert_close(found, upstream(classes, x, gradient[at], at[0]))


def upstream(task: Classes, x: Tensor, gradient: Tensor, image: int) -> Tensor:
    """A gradient by the features of an image, as one by what the layer `second` puts out."""
    kept: list[Tensor] = []
    handle = task.encoder.second.register_forward_hook(lambda m, i, o: kept.append(o))
    features = task.encoder(x)
    handle.remove()
    (found,) = torch.autograd.grad(features[image], kept, gradient)
    return found[image].float()


@pytest.mark.parametrize("looks", [False, True])
def test_backwards_of_several_vectors_run_as_one_where_that_can_be(looks: bool) -> None:
    """One vector never takes that way; where a hook looks at numbers, each goes alone."""
    seen: list[float] = []

    def hook(gradient: Tensor) -> None:
        seen.append(float(gradient.abs().max().item()) if looks else 1.0)

    x, unused = torch.randn(3, 4).double().requires_grad_(), torch.randn(2).requires_grad_()
    y = x * 1
    y.register_hook(hook)
    weight = torch.randn(3, 4).double()
    for count, calls in ((1, 1), (2, 2 if looks else 1), (3, 3 if looks else 1)):
        seen.clear()
        vectors = torch.randn(count, 3, 4).double()
        made, none = _products(y * weight, [x, unused], vectors)
        assert made is not None
        torch.testing.assert_close(made, vectors * weight)
        assert (none, made.requires_grad) == (None, False)
        assert len(seen) == calls
    graphed, _ = _products(y * weight, [x, unused], torch.randn(2, 3, 4).double(), graph=True)
    assert graphed is not None


def test_so_many_items_fit() -> None:
    tensors = [torch.zeros(2, 3), torch.zeros(5, dtype=torch.float64)]
    size = 3 * (24 + 40)
    told = [(size, 1), (2 * size - 1, 1), (2 * size, 2), (7 * size + 1, 7), (1, 1), (None, 2**28 // size)]
    assert [fitting(tensors, 3, memory) for memory, _ in told] == [count for _, count in told]


def test_rows_are_numbered_and_put_in_order() -> None:
    assert turns_of([0, 0, 1, 0, 1]) == [0, 1, 0, 2, 1]
    features = torch.arange(12.0).view(2, 3, 2)
    assert torch.equal(of_rows(features, [1, 0, 1]), features[[1, 0, 1]])
    assert of_rows(features[:1], [0, 0]).stride() == (0, 2, 1)
    assert torch.equal(joined([features[:1], features[1:]], [1, 0]), features.flip(0))
    assert joined([features], [0, 1]) is features


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 3, 4), (1, 6)])
def test_stacked_parts_lie_in_memory_as_each_did(shape: tuple[int, ...]) -> None:
    plain = torch.randn(2, *shape)
    moved = plain.movedim(2, -1).contiguous().movedim(-1, 2) if len(shape) > 2 else plain
    for parts in (plain, moved):
        made = stacked([parts[0], parts[1].contiguous()])
        assert torch.equal(made, torch.cat(list(plain)))
        assert made.stride()[1:] == parts[0].stride()[1:]


def test_backwards_to_a_layer_are_as_many_as_fit_and_no_more(classes: Classes, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, ...]] = []

    def products(outputs: Tensor, inputs: Any, vectors: Tensor, *more: Any) -> Any:
        given.append(tuple(vectors.shape[:2]))
        return _products(outputs, inputs, vectors, *more)

    monkeypatch.setattr("mmgradcam.engine._products", products)
    two = 2 * 8 * 6 * 8 * 8 * 8  # of what `first` puts out
    for memory, turns in ((None, [5]), (two, [2, 2, 1]), (two - 1, [1] * 5), (3 * two // 2, [3, 2])):
        given.clear()
        explain(classes, pictures(1)[0], target_layers=["first"], classes=[0, 1, 2, 3, 0], memory=memory)
        assert given == [(count, 1) for count in turns]
