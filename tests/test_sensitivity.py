"""Sanity checks: figures by hand and by independent libraries, a map that ignores its model called out, the model left as
found.
"""

from __future__ import annotations

import copy
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Classes
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from mmgradcam import Explanation, InputError, ModelError, Target, Task, explain, gradcam, hirescam, layercam, rise, smooth
from mmgradcam.explanation import FAIL
from mmgradcam.metrics.randomization import label_randomization, layers_of, parameter_randomization, reset
from mmgradcam.metrics.sanity import sanity_check
from mmgradcam.metrics.sensitivity import (
    methods_agree,
    noise_sensitivity,
    seed_sensitivity,
    swapped_labels,
    swapped_pictures,
)
from mmgradcam.metrics.similarity import correlation, ranks, spearman, ssim, to_grid


def test_rank_correlation_by_hand() -> None:
    one = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]).expand(3, 3, 3)
    other = torch.stack([one[0].square(), -one[0], torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])])
    # Ranks of the last: eight ties at 4.5 and a 9; sum of rank products about the mean 4 * 4 + 4 * .5, norms 60 and 18.
    np.testing.assert_allclose(spearman(one, other), [1, -1, 18 / (60 * 18) ** 0.5], atol=1e-12)
    assert spearman(one[:1], torch.zeros(1, 3, 3)).tolist() == [0.0]
    with pytest.raises(InputError, match=r"of one shape, got \(3, 3, 3\) and \(1, 3, 3\)"):
        spearman(one, one[:1])


def test_tied_values_share_the_mean_of_their_ranks() -> None:
    assert ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
    assert ranks(np.array([3.0, 3.0, 3.0])).tolist() == [2.0, 2.0, 2.0]
    assert ranks(np.array([0.0])).tolist() == [1.0]


@pytest.mark.parametrize("grid", [(1,), (7,), (1, 1), (6, 7), (2, 3, 4)])
def test_ranks_are_counts_of_what_is_smaller(grid: tuple[int, ...]) -> None:
    """Written out: one more than how many values are smaller, and half of how many others are equal."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(5, *grid, generator=generator).mul(2).round() for _ in range(2))  # many ties
    one[0] = 3.0
    slow = [
        np.array(
            [[1 + (row < value).sum() + ((row == value).sum() - 1) / 2 for value in row] for row in maps.flatten(1).numpy()]
        )
        for maps in (one, other)
    ]
    np.testing.assert_array_equal(np.stack([ranks(row) for row in one.flatten(1).double().numpy()]), slow[0])
    even = [min(map(np.ptp, pair)) == 0 for pair in zip(*slow, strict=True)]
    expected = [0.0 if same else np.corrcoef(*pair)[0, 1] for same, pair in zip(even, zip(*slow, strict=True), strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected, atol=1e-12)
    assert even[0]
    assert all(even) == (math.prod(grid) == 1)
    assert spearman(one[:0], other[:0]).shape == (0,)


def test_structural_similarity_by_hand() -> None:
    one, other = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[5.0, 3.0]]])  # scaled: 0 1 and 1 0; a window of one cell
    np.testing.assert_allclose(ssim(one, other), [1e-4 / (1 + 1e-4)])
    np.testing.assert_allclose(ssim(one, 7 * one + 2), [1.0])
    assert ssim(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3)).tolist() == [1.0]


def test_structural_similarity_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image to compare with")
    one, other = torch.rand(3, 16, 20), torch.rand(3, 16, 20)
    other[1] = one[1] + 0.2 * other[1]
    scaled = [[((m - m.min()) / (m.max() - m.min())).double().numpy() for m in maps] for maps in (one, other)]
    expected = [
        metrics.structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
        for a, b in zip(*scaled, strict=True)
    ]
    np.testing.assert_allclose(ssim(one, other), expected, atol=1e-6)


def test_maps_are_brought_to_a_coarser_grid_by_means() -> None:
    maps = torch.arange(16.0).view(1, 4, 4)
    assert to_grid(maps, (2, 2)).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    with pytest.raises(InputError, match="over height and width"):
        to_grid(torch.zeros(1, 2, 4, 4), (2, 2))


def test_maps_of_other_grids_than_of_a_picture_are_only_taken_as_they_are() -> None:
    clip = torch.rand(1, 2, 4, 4)
    assert to_grid(clip, (2, 4, 4)) is clip
    for maps, grid in (
        (clip, (2, 2)),
        (torch.rand(1, 4, 4), (4,)),
        (torch.rand(1, 4, 4), (1, 4, 4)),
        (torch.rand(1, 4), (2, 2)),
    ):
        with pytest.raises(InputError, match=re.escape(f"over height and width, got grids {tuple(maps.shape)[1:]} and {grid}")):
            to_grid(maps, grid)
    for wrong in ((torch.rand(4), torch.rand(4)), (torch.rand(1, 4), torch.rand(1, 5))):
        with pytest.raises(InputError, match="two stacks of maps"):
            spearman(*wrong)
    one = torch.tensor([[1.0, float("nan"), 3.0]])
    assert spearman(one, torch.tensor([[2.0, 1.0, 3.0]])).tolist() == [1.0], "what is no number is 0"


@pytest.mark.parametrize("side", range(1, 14))
def test_the_window_is_the_largest_odd_one_that_fits_up_to_eleven(side: int) -> None:
    """Written out: Gaussian weights of deviation 1.5 that sum to 1, over all places where the window lies in the map."""
    size = max(n for n in range(1, 12, 2) if n <= side)
    line = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / 1.5) ** 2)
    line /= line.sum()
    maps = torch.rand(2, 1, side, dtype=torch.float64) if side > 1 else torch.ones(2, 1, 1, dtype=torch.float64)
    a, b = ((m - m.min()) / max(m.max() - m.min(), 1e-9) for m in maps.numpy()[:, 0])
    found = []
    for at in range(side - size + 1):
        x, y = a[at : at + size], b[at : at + size]
        mx, my = line @ x, line @ y
        vx, vy, xy = line @ (x - mx) ** 2, line @ (y - my) ** 2, line @ ((x - mx) * (y - my))
        found.append((2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    np.testing.assert_allclose(ssim(maps[:1], maps[1:]), [np.mean(found)], atol=1e-12)


@pytest.mark.parametrize("grid", [(4, 13), (12, 11), (3, 2, 9)])
def test_structural_similarity_of_maps_and_clips_is_its_formula(grid: tuple[int, ...]) -> None:
    """Written out for each place of a window in two dimensions, slice by slice."""
    maps = torch.rand(2, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = ((m - m.min()) / (m.max() - m.min()) for m in maps.numpy().reshape(2, -1, *grid[-2:]))
    sizes = [max(n for n in range(1, 12, 2) if n <= side) for side in grid[-2:]]
    lines = [np.exp(-0.5 * ((np.arange(n) - n // 2) / 1.5) ** 2) for n in sizes]
    window = np.outer(*lines) / np.outer(*lines).sum()
    found = []
    for x, y in zip(
        *(np.lib.stride_tricks.sliding_window_view(m, sizes, (1, 2)).reshape(-1, *sizes) for m in (a, b)), strict=True
    ):
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy, xy = ((window * (p - mp) * (q - mq)).sum() for p, mp, q, mq in ((x, mx, x, mx), (y, my, y, my), (x, mx, y, my)))
        found.append((2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    np.testing.assert_allclose(ssim(maps[:1], maps[1:]), [np.mean(found)], atol=1e-12)


def test_a_correlation_is_no_larger_than_1() -> None:
    """Rounding would make some of them 1.0000000000000002."""
    draw = np.random.default_rng(0)
    made = [correlation(one, sign * one) for one in draw.random((200, 7)) for sign in (1, -1)]
    assert max(made) == 1.0
    assert min(made) == -1.0
    assert made == pytest.approx([1.0, -1.0] * 200)


class Plain(Task):
    """Features that are the pixels; one convolution and a layer without `reset_parameters` as the head."""

    def __init__(self) -> None:
        class Scale(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.with_method = nn.Parameter(torch.tensor([0.5, -1.5, 2.5, 0.25]))

            def forward(self, x: Tensor) -> Tensor:
                return x * self.with_method

        self.head = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Scale())

    def encode(self, images: Tensor) -> Tensor:
        return images

    def targets(self, features: Tensor) -> list[Target]:
        return [Target("first", 0), Target("second", 1)]

    def score(self, features: Tensor, targets: list[Target]) -> Tensor:
        return self.head(features)[torch.arange(len(targets)), torch.tensor([t.value for t in targets])]


def edges(features: Tensor, gradients: Tensor) -> Tensor:
    """An edge detector that calls itself an explanation: it reads no gradient."""
    grey = features.mean(1)
    across = (grey.diff(dim=2, prepend=grey[:, :, :1])) ** 2
    return across + grey.diff(dim=1, prepend=grey[:, :1]) ** 2


@pytest.fixture
def plain() -> Task:
    return Plain()


def test_a_map_that_ignores_the_weights_is_called_out(plain: Task, picture: Image.Image) -> None:
    bad, good = (explain(plain, picture, method=method) for method in (edges, hirescam))
    for stage in parameter_randomization(bad) + parameter_randomization(bad, how="independent"):
        np.testing.assert_allclose([stage.absolute, stage.positive, stage.ssim], 1.0, atol=1e-6)
    assert (parameter_randomization(good)[-1].positive < 0.6).all()
    np.testing.assert_allclose(label_randomization(bad), 1.0)
    np.testing.assert_allclose(label_randomization(good, [4, 0])[1], parameter_randomization(good, seed=0)[-1].positive)
    said = sanity_check(bad).sanity_results
    assert [sanity_result.status for sanity_result in said if sanity_result] == [FAIL] * 2
    assert "little of the map changes when the model's weights are made random (r 1.00)" in str(said[0])
    assert bad.sanity_results == [None, None]


def test_stages_are_what_making_layers_random_by_hand_gives(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=hirescam)
    layers = layers_of(classes, pixels, made.targets)
    assert [layer.name for layer in layers] == ["outer", "inner", "norm", "second", "first"]
    by_hand = copy.deepcopy(classes)
    for how in ("cascading", "independent"):
        other = copy.deepcopy(by_hand)
        stages = parameter_randomization(made, seed=5, how=how, stages=None)
        assert [stage.layers for stage in stages] == [(layer.name,) for layer in layers]
        for n, (stage, layer) in enumerate(zip(stages, layers, strict=True)):
            if how == "independent":
                other = copy.deepcopy(by_hand)
            with torch.random.fork_rng():
                torch.manual_seed(5 * 1_000_003 + n)
                root = other.head if layer.name in ("outer", "inner") else other.encoder
                getattr(root, layer.name).reset_parameters()
            expected = explain(other, pixels, method=hirescam)
            np.testing.assert_allclose(stage.scores, expected.scores, atol=1e-6)
            np.testing.assert_allclose(stage.absolute, spearman(made.maps.abs(), expected.maps.abs()), atol=1e-9)
            np.testing.assert_allclose(stage.positive, spearman(made.maps.relu(), expected.maps.relu()), atol=1e-9)
            np.testing.assert_allclose(stage.ssim, ssim(made.maps.relu(), expected.maps.relu()), atol=1e-9)
    two = parameter_randomization(made, seed=5, stages=2)
    assert [stage.layers for stage in two] == [("outer", "inner", "norm"), ("second", "first")]
    np.testing.assert_allclose(two[-1].scores, parameter_randomization(made, seed=5, stages=None)[-1].scores)


def test_a_layer_without_a_way_of_its_own_gets_normal_numbers_of_its_deviation(plain: Task, picture: Image.Image) -> None:
    made = explain(plain, picture)
    assert [(stage.layers, stage.reset) for stage in parameter_randomization(made, stages=None)] == [(("4",), 0), (("0",), 1)]
    layer = nn.Module()
    layer.weight = nn.Parameter(3 + 2 * torch.randn(100_000))
    assert not reset(layer, 0, 0)
    assert layer.weight.mean().item() == pytest.approx(3, abs=0.05)
    assert layer.weight.std().item() == pytest.approx(2, abs=0.05)


def test_the_model_is_left_as_found_and_seeds_decide(classes: Classes, pixels: Tensor) -> None:
    classes.encoder.train()
    before, modes = copy.deepcopy(classes.encoder.state_dict()), [m.training for r in classes.modules() for m in r.modules()]
    made, drawn = explain(classes, pixels, method=hirescam), torch.get_rng_state()
    found = [sanity_check(made, seed=seed) for seed in (0, 0, 1)]
    parameter_randomization(made, how="independent")
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in classes.encoder.state_dict().items())
    assert [m.training for r in classes.modules() for m in r.modules()] == modes
    assert all(p.requires_grad and p.grad is None for r in classes.modules() for p in r.parameters())
    assert found[0].sanity_results == found[1].sanity_results != found[2].sanity_results
    torch.testing.assert_close(found[0].maps, made.maps)


def test_what_cannot_be_checked_says_so(classes: Classes, pixels: Tensor, tmp_path: Path) -> None:
    made = explain(classes, pixels)
    made.save(tmp_path / "kept.npz")
    with pytest.raises(InputError, match="loaded from a file"):
        sanity_check(Explanation.load(tmp_path / "kept.npz"))
    with pytest.raises(InputError, match='"cascading" or "independent", got \'up\''):
        parameter_randomization(made, how="up")
    with pytest.raises(InputError, match="gradcam draws nothing at random"):
        seed_sensitivity(made)
    classes.lock = (i for i in range(3))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="cannot be copied"):
        parameter_randomization(made)


def test_swaps_are_correlations_with_the_other_maps(classes: Classes, pixels: Tensor) -> None:
    one, two = explain(classes, [pixels, pixels.flip(2)], method=hirescam)
    maps = one.maps.relu()
    by_hand = [np.mean([spearman(maps[i][None], maps[k][None])[0] for k in range(3) if k != i]) for i in range(3)]
    np.testing.assert_allclose(swapped_labels(one), by_hand)
    assert np.isnan(swapped_labels(one[0])).all()
    found = swapped_pictures([one, two])
    np.testing.assert_allclose(found[0], spearman(one.maps.relu(), two.maps.relu()), atol=1e-9)
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    with pytest.raises(InputError, match="2 pictures or more"):
        swapped_pictures([one])


def test_noise_is_measured_against_the_noise_itself(plain: Task, picture: Image.Image) -> None:
    from mmgradcam.images.pictures import to_tensor
    from mmgradcam.methods.perturbation import noisy

    made = explain(plain, picture, method=lambda features, gradients: features.sum(1))
    x = to_tensor(picture)
    off = [(copy_ - x).sum(0).norm() / x.sum(0).norm() for copy_ in noisy(x[None], 5, 0.1, 7)]
    noise = noise_sensitivity(made, sigma=0.1, samples=5, seed=7)
    np.testing.assert_allclose(noise.most, max(off), rtol=1e-5)
    assert noise.scores.shape == (5, 2)
    assert noise_sensitivity(made, sigma=0.0).most.max() == 0
    np.testing.assert_allclose(noise_sensitivity(made, sigma=0.0).correlation, 1)


def test_seeds_and_methods_are_compared(classes: Classes, pixels: Tensor) -> None:
    few, many = (explain(classes, pixels, method=partial(rise, count=count, cells=3)) for count in (4, 400))
    assert (seed_sensitivity(many) > seed_sensitivity(few)).all()
    still = explain(classes, pixels, method=smooth(layercam, 2, sigma=0.0))
    np.testing.assert_allclose(seed_sensitivity(still), 1)
    assert (seed_sensitivity(explain(classes, pixels, method=smooth(layercam, 2, sigma=0.5))) < 1).all()
    several = [explain(classes, pixels, method=method) for method in (hirescam, gradcam)]
    found = methods_agree([*several, many])
    assert found.shape == (3, 3, 3)
    np.testing.assert_allclose(found[0, 1], spearman(several[0].maps.relu(), several[1].maps))
    np.testing.assert_allclose(found[0, 2], spearman(several[0].maps.relu(), to_grid(many.maps, (4, 4)).relu()))
    with pytest.raises(InputError, match="the same targets"):
        methods_agree([several[0], several[1][0]])
    with pytest.raises(InputError, match="the same targets"):
        methods_agree([])
    np.testing.assert_allclose(methods_agree([several[0]]), np.ones((1, 1, 3)))


def test_targets_of_the_same_label_are_no_swap(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=hirescam)
    made.targets = [Target("a", 0), Target("b", 1), Target("a", 2)]
    maps = made.maps.relu()
    first, third = (spearman(maps[k][None], maps[1][None])[0] for k in (0, 2))
    np.testing.assert_allclose(swapped_labels(made), [first, (first + third) / 2, third])


def test_each_picture_is_swapped_with_the_next(classes: Classes, pixels: Tensor) -> None:
    three = explain(classes, [pixels, pixels.flip(2), pixels.flip(1)], method=hirescam, classes=[0, 1])
    found = swapped_pictures(three)
    for n, one in enumerate(three):
        other = three[(n + 1) % 3].maps.relu()
        np.testing.assert_allclose(found[n], spearman(one.maps.relu(), other), atol=1e-9)
    with pytest.raises(InputError, match="by one model, got 2"):
        swapped_pictures([three[0], explain(copy.deepcopy(classes), pixels)])


def test_noise_is_that_of_a_twentieth_of_the_range_by_default(classes: Classes, pixels: Tensor) -> None:
    from mmgradcam.methods.perturbation import noisy

    made = explain(classes, pixels, method=hirescam)
    found = noise_sensitivity(made)
    others = [explain(classes, one, method=hirescam) for one in noisy(pixels[None], 8, 0.05, 0)]
    own = made.maps.flatten(1)
    changes = torch.stack([(other.maps.flatten(1) - own).norm(dim=1) / own.norm(dim=1) for other in others])
    np.testing.assert_allclose(found.most, changes.amax(0), rtol=1e-5)
    likeness = [spearman(made.maps.relu(), other.maps.relu()) for other in others]
    np.testing.assert_allclose(found.correlation, np.mean(likeness, 0), atol=1e-6)
    np.testing.assert_allclose(found.scores, torch.stack([other.scores for other in others]), atol=1e-5)
    nothing = explain(classes, pixels, method=lambda features, gradients: 0 * features.sum(1))
    assert noise_sensitivity(nothing).most.tolist() == [0, 0, 0]  # a map of norm 0 is divided by 1


def test_other_seeds_are_the_method_with_other_seeds(classes: Classes, pixels: Tensor) -> None:
    few = partial(rise, count=6, cells=3)
    made = explain(classes, pixels, method=few)
    others = [explain(classes, pixels, method=partial(few, seed=seed)).maps.relu() for seed in (1, 2, 3)]
    np.testing.assert_allclose(seed_sensitivity(made), np.mean([spearman(made.maps.relu(), o) for o in others], 0), atol=1e-9)
    with pytest.raises(InputError, match="the same targets"):
        methods_agree([])


class Around(nn.Module):
    """A weight of its own around two layers, of which the second never runs; the whole is held twice."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.tensor([2.0]))
        self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.own * self.used(x)


class Held(Task):
    def __init__(self) -> None:
        self.body = Around()
        self.again, self.head = self.body, nn.Linear(2, 2)

    def encode(self, images: Tensor) -> Tensor:
        return self.body(images)

    def targets(self, features: Tensor) -> list[Target]:
        return [Target("one", 0)]

    def score(self, features: Tensor, targets: list[Target]) -> Tensor:
        return self.head(features.mean((2, 3)))[:, 0]


def test_layers_are_found_once_in_the_order_they_run() -> None:
    task = Held()
    layers = layers_of(task, torch.rand(3, 8, 8), [Target("one", 0)])
    assert [layer.name for layer in layers] == ["Linear", "unused", "Around", "used"]
    assert sorted(layers[2].own()) == ["own"]
    stages = parameter_randomization(explain(task, torch.rand(3, 8, 8)), stages=1)
    assert [stage.layers for stage in stages] == [("Linear", "unused", "Around", "used")]
    assert stages[0].reset == 3
    assert len(parameter_randomization(explain(task, torch.rand(3, 8, 8)))) == 4  # fewer layers than stages


def test_at_most_eight_stages_by_default() -> None:
    task = Held()
    task.head = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    stages = parameter_randomization(explain(task, torch.rand(3, 8, 8)))
    assert [len(stage.layers) for stage in stages] == [2, 2, 2, 2, 1, 1, 1, 1]
    for few in (1, 0):
        assert [len(stage.layers) for stage in parameter_randomization(explain(task, torch.rand(3, 8, 8)), stages=few)] == [12]


def test_layers_inside_a_layer_keep_their_weights() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.inner = nn.Parameter(torch.arange(4.0)), nn.Linear(2, 3)

    module = Outer()
    inner, own = module.inner.weight.detach().clone(), module.own.detach().clone()
    assert reset(module, 1, 2) is False
    assert torch.equal(module.inner.weight, inner)
    assert not torch.equal(module.own, own)


def test_two_numbers_become_normal_ones_of_their_mean_and_deviation() -> None:
    layer = nn.Module()
    layer.pair = nn.Parameter(torch.tensor([4.0, 6.0]))
    assert not reset(layer, seed=7, number=5)
    with torch.random.fork_rng():
        torch.manual_seed(7 * 1_000_003 + 5)
        torch.testing.assert_close(layer.pair.detach(), 5 + math.sqrt(2) * torch.randn(2))


def test_a_single_number_becomes_a_normal_one_of_its_size() -> None:
    layer = nn.Module()
    layer.size = nn.Parameter(torch.tensor([-3.0]))
    assert not reset(layer, seed=7, number=5)
    with torch.random.fork_rng():
        torch.manual_seed(7 * 1_000_003 + 5)
        assert layer.size.item() == pytest.approx(3 * torch.randn(1).item())


def test_models_that_cannot_be_made_random_say_so(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels)
    with pytest.raises(InputError, match="a check needs a target, and this explanation has none"):
        parameter_randomization(
            Explanation(made.picture, made.box, [], made.maps[:0], made.scores[:0], None, [], made.metadata)
        )

    class Shared(nn.Linear):
        def __deepcopy__(self, memo: object) -> Shared:
            return self

    classes.extra = Shared(2, 2)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="its copy shares weights with it"):
        label_randomization(made)

    class Bare(Task):
        def encode(self, images: Tensor) -> Tensor:
            return images

        def targets(self, features: Tensor) -> list[Target]:
            return [Target("mean")]

        def score(self, features: Tensor, targets: list[Target]) -> Tensor:
            return features.mean((1, 2, 3))

    with pytest.raises(InputError, match="Bare has no weights to make random"):
        label_randomization(explain(Bare(), torch.rand(3, 8, 8)))


def test_a_model_of_the_hub_is_checked(tmp_path: Path, picture: Image.Image) -> None:
    from hub_models import saved

    from mmgradcam.tasks import load

    task = load(saved("blip", tmp_path), device="cpu")
    before, made = task.fingerprint(), explain(task, picture, caption="a dog catches red frisbee")
    stages = parameter_randomization(made)
    assert stages[0].layers[0] == "text_decoder.cls.predictions.decoder"
    assert stages[-1].layers[-1] == "vision_model.embeddings.patch_embedding"
    assert all(sanity_result is not None and sanity_result.reason for sanity_result in sanity_check(made).sanity_results)
    assert task.fingerprint() == before


def test_the_command_line_checks_on_request(folders: dict[str, Path], tmp_path: Path, picture: Image.Image) -> None:
    from mmgradcam.cli import app

    picture.save(tmp_path / "photo.png")
    asked = ["vqa", str(tmp_path / "photo.png"), "--model", str(folders["vqa"]), "--question", "what color is the ball?"]
    told = {}
    for check in (False, True):
        done = CliRunner().invoke(
            app, [*asked, "--device", "cpu", "--out", str(tmp_path / str(check)), *["--sanity-check"] * check]
        )
        assert done.exit_code == 0, done.output
        told[check] = (
            done.output + (tmp_path / str(check) / "photo" / "index.html").read_text().split("<body>")[1].split("<script>")[0]
        )
    assert "random" not in told[False]
    assert told[True].count("made random") + told[True].count("costs") >= 6
