"""Policies of stable-baselines3: PPO, A2C and DQN, `CnnPolicy` and `MultiInputPolicy`, handed over in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.tasks.policy import Policy


class _Net(nn.Module):
    """A policy's scores, and the value of the state where it has a critic, of a prepared observation."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Any) -> Any:
        policy = self.policy
        if hasattr(policy, "q_net"):
            net = policy.q_net
            return net.q_net(net.features_extractor(observation))
        if policy.share_features_extractor:
            to_act, to_judge = policy.mlp_extractor(policy.features_extractor(observation))
        else:
            to_act = policy.mlp_extractor.forward_actor(policy.pi_features_extractor(observation))
            to_judge = policy.mlp_extractor.forward_critic(policy.vf_features_extractor(observation))
        return policy.action_net(to_act), policy.value_net(to_judge)[:, 0]


def of_baselines(model: Any, actions: Sequence[str] = (), layer: nn.Module | str | None = None) -> Policy:
    """A policy of stable-baselines3 as a task, its maps taken at its encoder's last convolution.

    Args:
        model: a PPO, A2C or DQN model, or its policy.
        actions: names of the actions.
        layer: another layer of the policy.

    Returns:
        A `Policy`: of log-probabilities for PPO and A2C, of Q-values for DQN.

    Raises:
        InputError: its actions are not discrete, or it sees no image.
    """
    policy = getattr(model, "policy", model)
    space = policy.action_space
    if not hasattr(space, "n") or not (hasattr(policy, "q_net") or hasattr(policy, "action_net")):
        raise InputError(f"expected a policy of PPO, A2C or DQN with discrete actions, got {type(policy).__name__} of {space}")
    extractor = policy.q_net.features_extractor if hasattr(policy, "q_net") else policy.pi_features_extractor
    convolutions = [module for module in extractor.modules() if isinstance(module, nn.Conv2d)]
    if layer is None and not convolutions:
        raise InputError(f"{type(extractor).__name__} has no convolution; give a layer, or a policy that sees images")
    spaces: Any = getattr(policy.observation_space, "spaces", None)
    key = None
    if spaces is not None:
        images = [k for k, s in spaces.items() if len(s.shape or ()) == 3]
        if len(images) != 1:
            raise InputError(f"expected observations with one image, got {len(images)}: {', '.join(images) or 'none'}")
        key = images[0]
    scale = 255.0 if policy.normalize_images else 1.0

    def others(entries: dict[str, Any]) -> dict[str, Tensor]:
        from stable_baselines3.common.preprocessing import preprocess_obs

        tensors = {k: torch.as_tensor(v)[None] for k, v in entries.items()}
        made = {k: preprocess_obs(v, spaces[k], normalize_images=policy.normalize_images) for k, v in tensors.items()}
        return {k: v for k, v in made.items() if isinstance(v, Tensor)}

    unit = "Q-value" if hasattr(policy, "q_net") else "log-probability"
    at = _after(extractor, convolutions[-1]) if layer is None else layer
    made = Policy(_Net(policy), at, actions, unit, key, scale, others=others)
    made.name = type(model).__name__
    return made


def _after(extractor: nn.Module, convolution: nn.Module) -> nn.Module:
    """The activation right after a convolution, where there is one: its output is what the rest of the net reads."""
    for module in extractor.modules():
        parts = list(module.children())
        if isinstance(module, nn.Sequential) and convolution in parts:
            place = parts.index(convolution) + 1
            if place < len(parts) and isinstance(parts[place], (nn.ReLU, nn.ELU, nn.Tanh, nn.LeakyReLU)):
                return parts[place]
    return convolution
