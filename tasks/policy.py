"""Policies: which action a network takes, and what of the observation made it."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError, ModelError
from mmgradcam.images.pictures import PreparedImage
from mmgradcam.layers import Layout, TargetLayer, preserve_state
from mmgradcam.task import Target, Task
from mmgradcam.tasks.classes import indices, scores_of
from mmgradcam.tasks.nets.goto import GoToNet
from mmgradcam.tasks.vocabulary import Vocabulary, tokenize
from mmgradcam.utils.probability import full, log_prob

STATE = "state value"
"""What the target is called that is the value of the state."""


class Policy(Task):
    """A policy with a convolutional encoder, explained at one of its layers.

    It explains one observation at a time: `explain(policy.at(observation), policy.picture(observation))`. The one forward
    predicts and scores, recorded from the layer on. Frames that are stacked as channels share one map.

    Query: `action=` by name or number explains that action instead of the one the policy takes; `contrast=` also why not that
    one, by the difference of their scores (the action taken, where it is that one itself, is held against the best of the
    others); `top=K` the K best; `value=True` also the value of the state, of a policy that has one.

    Args:
        net: maps observations to scores of the actions (B, A), or to a pair of those and the state's value (B,). It gets the
            prepared image (B, channels, h, w), or a dict of it and the other entries where observations are dicts.
        layer: a module of the net, or its dotted name.
        actions: names of the A actions, or of the first of them.
        unit: "Q-value", or "log-probability" where the net gives logits.
        image: the key of the image, where observations are dicts.
        scale: what pixels are divided by.
        layout: makes (B, C, *grid) of the layer's output, if it puts out tokens.
        others: makes tensors (1, ...) of the other entries of an observation, by key; by default numbers become tensors.

    Attributes:
        seen: (A,) scores of all actions as the bound observation was first looked at; None before.
    """

    feature_layer = "scores"
    query_types = frozenset({"observations", "action", "contrast", "top", "value"})

    def __init__(
        self,
        net: nn.Module,
        layer: nn.Module | str,
        actions: Sequence[str] = (),
        unit: str = "Q-value",
        image: str | None = None,
        scale: float = 255.0,
        layout: Layout | None = None,
        others: Any = None,
    ) -> None:
        if unit not in ("Q-value", "log-probability"):
            raise InputError(f'Policy: expected unit="Q-value" or "log-probability", got {unit!r}')
        self.net, self.labels, self.unit, self.image, self.scale = net, list(actions), unit, image, scale
        self.name = type(net).__name__
        modules = dict(net.named_modules())
        if isinstance(layer, str) and layer not in modules:
            raise InputError(f"{self.name} has no layer {layer!r}; it has {', '.join(n for n in modules if n)}")
        self.target_layers = (TargetLayer(modules[layer] if isinstance(layer, str) else layer, layout),)
        self._others = others or _tensors
        self._observation: Any = None
        self.seen: Tensor | None = None

    def at(self, observation: Any) -> Policy:
        """The same policy, bound to one observation: an array (h, w, channels) or (channels, h, w), or a dict with one.

        Raises:
            InputError: there is no image in the observation.
        """
        bound = copy.copy(self)
        bound._observation, bound.seen = observation, None
        self._pixels(observation)
        return bound

    def picture(self, observation: Any) -> Image.Image:
        """The observation's image for people: of stacked frames the last, RGB where the channels are a multiple of three."""
        pixels = self._pixels(observation)
        last = pixels[-3:] if pixels.shape[0] % 3 == 0 else pixels[-1:]
        return Image.fromarray(np.ascontiguousarray(last.expand(3, -1, -1).permute(1, 2, 0).numpy().astype(np.uint8)))

    def prepare(self, image: Image.Image) -> PreparedImage:
        """The bound observation as the net sees it; the picture is for people only."""
        if self._observation is None:
            raise InputError("a policy explains an observation: explain(policy.at(observation), policy.picture(observation))")
        return PreparedImage(self._pixels(self._observation).float() / self.scale, (0.0, 0.0, 1.0, 1.0))

    def encode(self, images: Tensor) -> Tensor:
        made = self.net(self._observed(images))
        scores, value = made if isinstance(made, tuple) else (made, None)
        if not isinstance(scores, Tensor) or scores.dim() != 2:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ModelError(f"{self.name}: expected (B, A) scores of the actions, got {got}")
        if self.seen is None and self._observation is not None:
            self.seen = self._told(scores[:1].detach())[0].cpu()
        if value is None:
            value = scores.new_full((len(scores),), torch.nan)
        return torch.cat([scores, value.view(-1, 1)], 1)

    def targets(
        self,
        features: Tensor,
        action: int | str | None = None,
        contrast: int | str | None = None,
        top: int = 1,
        value: bool = False,
    ) -> list[Target]:
        scores, state = self._told(features[:1, :-1])[0], features[0, -1]
        if not 1 <= top <= len(scores):
            raise InputError(f"top: expected 1 to {len(scores)} actions, got {top}")
        chosen = scores.topk(top).indices.tolist() if action is None else [self._index(action, len(scores))]
        made = [self._target(index, scores, action is not None or n == 0) for n, index in enumerate(chosen)]
        if contrast is not None:
            other = self._index(contrast, len(scores))
            if other == chosen[0] and action is None:
                other = int(scores.index_fill(0, torch.tensor(other, device=scores.device), -torch.inf).argmax())
            if other == chosen[0]:
                raise InputError(f"against: {self.called(other)!r} is the action itself; name another one")
            label = f"{self.called(chosen[0])} rather than {self.called(other)}"
            made.insert(1, Target(label, (chosen[0], other), asserted=False))
        if value:
            if torch.isnan(state):
                raise InputError(f"{self.name} tells no value of a state; let its net return (scores, value)")
            made.append(Target(STATE, (len(scores), None)))
        return made

    def _target(self, index: int, scores: Tensor, asserted: bool) -> Target:
        likely = float(scores[index].exp()) if self.unit == "log-probability" else None
        return Target(self.called(index), (index, None), probability=likely, asserted=asserted)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        found = scores_of(features, targets)
        if self.unit != "log-probability":
            return found
        logits = features[:, :-1]
        actions, others = indices(targets, features.device)
        state = actions == logits.shape[1]
        return torch.where(state, full(found), log_prob(logits, actions.masked_fill(state, 0), others))

    def _told(self, scores: Tensor) -> Tensor:
        """(B, A) scores of the net as scores of the actions: (B, A) float32 Q-values or log-probabilities."""
        if self.unit != "log-probability":
            return scores.float()
        count = scores.shape[1]
        every = torch.arange(count, device=scores.device).expand(len(scores), -1)
        return log_prob(scores[:, None].expand(-1, count, -1), every).float()

    def values(self, observation: Any) -> Tensor:
        """(A,) scores of the actions."""
        bound = self.at(observation)
        pixels = bound.prepare(self.picture(observation)).pixels[None].to(self.device)
        with preserve_state([self.net]), torch.no_grad():
            made = self._told(bound.encode(pixels)[:, :-1])[0].cpu()
        return made

    def called(self, index: int) -> str:
        """An action's name."""
        return self.labels[index] if index < len(self.labels) else f"action {index}"

    def _index(self, key: int | str, count: int) -> int:
        if isinstance(key, str) and key in self.labels:
            return self.labels.index(key)
        if isinstance(key, str) and not key.isdigit():
            near = difflib.get_close_matches(key, self.labels, n=3, cutoff=0.4) or self.labels[:count]
            raise InputError(f"no action is called {key!r}; there are {', '.join(near) or f'0 to {count - 1}'}")
        if not 0 <= int(key) < count:
            raise InputError(f"expected an action in 0..{count - 1}, got {key}")
        return int(key)

    def _pixels(self, observation: Any) -> Tensor:
        """(channels, h, w) of an observation's image."""
        if self.image is not None:
            if not isinstance(observation, Mapping) or self.image not in observation:
                has = ", ".join(observation) if isinstance(observation, Mapping) else type(observation).__name__
                raise InputError(
                    f"expected an observation with {self.image!r}, got {has}; this world and "
                    f"{self.name} do not go together, name another --model"
                )
            observation = observation[self.image]
        elif isinstance(observation, Mapping):
            raise InputError(
                f"expected an observation that is an image, got {', '.join(observation)}; set image= of {self.name}"
            )
        pixels = torch.as_tensor(np.asarray(observation))
        if pixels.dim() == 2:
            pixels = pixels[None]
        if pixels.dim() != 3:
            raise InputError(f"expected an image (h, w, channels) or (channels, h, w), got {tuple(pixels.shape)}")
        last = pixels.shape[2] < min(pixels.shape[:2])
        return pixels.permute(2, 0, 1) if last else pixels

    def _observed(self, images: Tensor) -> Any:
        if self.image is None:
            return images
        others = self._others({k: v for k, v in self._observation.items() if k != self.image})
        return {
            self.image: images,
            **{k: v.to(images.device).expand(len(images), *v.shape[1:]) for k, v in others.items()},
        }


def _tensors(others: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: torch.as_tensor(np.asarray(value))[None] for key, value in others.items() if not isinstance(value, str)}


def told(encoder: nn.Module, head: nn.Module, vocabulary: Vocabulary, actions: Sequence[str]) -> Policy:
    """A policy that sees an "image" and is told a "mission": the project's own, over BabyAI.

    Args:
        encoder: (B, 3, h, w) -> (B, C, rows, columns).
        head: those and (B, L) tokens of the mission -> (B, A) logits.
        vocabulary: the words of missions.
        actions: names of the A actions.
    """

    def others(entries: Mapping[str, Any]) -> dict[str, Tensor]:
        words = tokenize(str(entries.get("mission", "")))
        unknown = [word for word in words if word not in vocabulary]
        if unknown or not words:
            raise InputError(f"mission: expected words among {', '.join(vocabulary.words)}; got {' '.join(words) or 'none'}")
        return {"mission": torch.tensor([vocabulary.encode(words)])}

    return Policy(GoToNet(encoder, head), "encoder", actions, "log-probability", "image", others=others)
