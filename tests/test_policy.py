"""Policies explained: the gradient is that of the whole net, whatever library it is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmgradcam import InputError, explain, gradcam, hirescam
from mmgradcam.tasks import Policy
from mmgradcam.tasks.hub.baselines import of_baselines


class Net(nn.Module):
    """A dueling net over stacked grey frames: scores of three actions, and the state's value."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(channels, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.ReLU())
        self.out, self.value = nn.LazyLinear(3), nn.LazyLinear(1)
        self(torch.zeros(1, channels, 32, 32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x).flatten(1)
        return self.out(y), self.value(y)[:, 0]


def stack() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)


def by_hand(net: Net, pixels: Tensor, score: Any) -> tuple[Tensor, Tensor]:
    """Features and gradient of a scalar of the net's scores and value."""
    leaf = net.conv(pixels).detach().requires_grad_()
    flat = leaf.flatten(1)
    (gradient,) = torch.autograd.grad(score(net.out(flat)[0], net.value(flat)[0, 0]), leaf)
    return leaf.detach(), gradient


@pytest.mark.parametrize(
    ("query", "labels", "scores"),
    [
        ({"action": "jump"}, ["jump"], [lambda q, v: q[2]]),
        ({"action": 0, "contrast": "jump"}, ["left", "left rather than jump"], [lambda q, v: q[0], lambda q, v: q[0] - q[2]]),
        ({"action": "right", "value": True}, ["right", "state value"], [lambda q, v: q[1], lambda q, v: v]),
    ],
)
def test_maps_are_those_of_the_whole_net_s_gradient(query: dict[str, Any], labels: list[str], scores: list[Any]) -> None:
    net, seen = Net(), stack()
    task = Policy(net, "conv.3", ["left", "right", "jump"])
    made = explain(task.at(seen), task.picture(seen), method=hirescam, **query)
    assert made.labels == labels
    pixels = torch.from_numpy(seen).permute(2, 0, 1)[None].float() / 255
    for one, score in zip(made, scores, strict=True):
        features, gradient = by_hand(net, pixels, score)
        torch.testing.assert_close(one.map, (features * gradient).sum(1)[0])
    assert made.metadata.unit == "Q-value"


def test_without_a_wish_the_action_taken_is_explained() -> None:
    net, seen = Net(), stack()
    task = Policy(net, net.conv, ["left", "right", "jump"], unit="log-probability")
    values = task.values(seen)
    assert float(values.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    made = explain(task.at(seen), task.picture(seen), top=3)
    assert made.labels == [task.called(i) for i in values.argsort(descending=True)]
    np.testing.assert_allclose(made.scores, values.sort(descending=True).values, atol=1e-5)
    assert net.training, "left as it was found"


def test_wrong_wishes_are_one_line() -> None:
    task, seen = Policy(Net(), "conv.3", ["left", "right"]), stack()
    for query, said in [
        ({"action": "lfet"}, "no action is called 'lfet'; there are left"),
        ({"action": 7}, r"expected an action in 0\.\.2, got 7"),
        ({"action": 1, "contrast": "right"}, "is the action itself"),
        ({"top": 9}, "expected 1 to 3 actions"),
        ({"colour": 1}, "asked with action="),
    ]:
        with pytest.raises(InputError, match=said):
            explain(task.at(seen), task.picture(seen), **query)
    assert task.called(2) == "action 2"
    with pytest.raises(InputError, match="explains an observation"):
        explain(task, task.picture(seen))
    with pytest.raises(InputError, match="expected an image"):
        task.at(np.zeros(5))
    with pytest.raises(InputError, match="expected an observation with 'image', got ndarray"):
        Policy(Net(), "conv.3", image="image").at(np.zeros(5))

    class Blind(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x)[0]

    without = Policy(Blind(), "conv.3")
    with pytest.raises(InputError, match="tells no value of a state"):
        explain(without.at(seen), without.picture(seen), value=True)
    assert explain(without.at(seen), without.picture(seen)).maps.isfinite().all()


def test_the_picture_is_the_last_of_stacked_frames() -> None:
    seen = stack()
    np.testing.assert_array_equal(np.asarray(Policy(Net(), "conv.3").picture(seen))[..., 0], seen[..., 3])
    colors = np.random.default_rng(1).integers(0, 256, (32, 32, 6), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Policy(Net(6), "conv.3").picture(colors)), colors[..., 3:])


@pytest.mark.parametrize("kind", ["PPO", "A2C", "DQN"])
@pytest.mark.parametrize("several", [False, True])
def test_policies_of_stable_baselines(kind: str, several: bool) -> None:
    baselines = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    import gymnasium

    image = gymnasium.spaces.Box(0, 255, (48, 48, 3), np.uint8)
    more = {"where": gymnasium.spaces.Discrete(4), "speed": gymnasium.spaces.Box(-1, 1, (2,), np.float32)}
    space = gymnasium.spaces.Dict({"image": image, **more}) if several else image

    class World(gymnasium.Env):  # type: ignore[type-arg, name-defined, misc]
        observation_space, action_space = space, gymnasium.spaces.Discrete(5)

        def reset(self, **_: Any) -> Any:
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            return self.observation_space.sample(), 0.0, False, True, {}

    small = {"PPO": {"n_steps": 2, "batch_size": 2}, "A2C": {"n_steps": 2}, "DQN": {"buffer_size": 10}}[kind]
    model = getattr(baselines, kind)("MultiInputPolicy" if several else "CnnPolicy", World(), seed=0, device="cpu", **small)
    task = of_baselines(model, ["a", "b", "c", "d", "e"])
    world = World()
    world.observation_space.seed(0)
    seen, _ = world.reset()
    made = explain(task.at(seen), task.picture(seen), top=5, method=gradcam, value=kind != "DQN")
    assert made.maps.shape[1:] == (2, 2)
    tensors, _ = model.policy.obs_to_tensor(seen)
    taken = int(model.predict(seen, deterministic=True)[0])
    assert made.labels[0] == task.called(taken)
    if kind == "DQN":
        expected = model.q_net(tensors)[0].detach()
    else:
        expected = model.policy.get_distribution(tensors).distribution.logits[0].detach()
        assert made["state value"].score == pytest.approx(model.policy.predict_values(tensors).item(), abs=1e-4)
    torch.testing.assert_close(task.values(seen), expected.float())
    assert task.unit == ("Q-value" if kind == "DQN" else "log-probability")


def test_what_is_no_policy_of_images_is_one_line() -> None:
    baselines = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    with pytest.raises(InputError, match="has no convolution"):
        of_baselines(baselines.PPO("MlpPolicy", "CartPole-v1", n_steps=2, batch_size=2, device="cpu"))
    with pytest.raises(InputError, match="discrete actions"):
        of_baselines(baselines.PPO("MlpPolicy", "Pendulum-v1", n_steps=2, batch_size=2, device="cpu"))
