"""Plays a policy in its world and explains every action it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmgradcam.errors import InputError
from mmgradcam.explaining.explain import explain
from mmgradcam.explanation import Explanation
from mmgradcam.images.clips import Clip
from mmgradcam.render.animation import Animation, FrameInfo, HeatTrack
from mmgradcam.scenes.goto import from_above
from mmgradcam.storage.npz import pack
from mmgradcam.tasks import Policy
from mmgradcam.utils.writing import to_json, write_folder

RATE = 3.0
"""Steps a second, in a film of an episode."""


@dataclass(frozen=True)
class Step:
    """One step of an episode.

    Attributes:
        explanation: of the action, over the observation's picture; further targets, such as a contrast, after it.
        values: the scores of all actions.
        taken: the action that was taken.
        reward: what it brought.
        ended: the episode is over after it.
        told: the instruction, where the observation has one.
    """

    explanation: Explanation
    values: Sequence[float]
    taken: int
    reward: float
    ended: bool
    told: str = ""


def open_world(name: str) -> Any:
    """An environment of gymnasium by its id, as policies that see pictures are trained on it.

    Worlds of MiniGrid and BabyAI show the whole room from above in color, 8 pixels a cell. Atari games ("ALE/Pong-v5") show
    four grey frames of 84 x 84, every fourth of the game's, as in Mnih et al. 2015. Others show what they show.

    Raises:
        InputError: gymnasium, or the package of the world, is not installed, or there is no such world.
    """
    try:
        import gymnasium
    except ImportError:
        raise InputError("gymnasium is needed to play: pip install gymnasium minigrid") from None
    from gymnasium import wrappers

    try:
        if name.startswith(("MiniGrid-", "BabyAI-")):
            return from_above(name)
        if name.startswith("ALE/"):
            import ale_py

            gymnasium.register_envs(ale_py)
            game = gymnasium.make(name, frameskip=1)
            return wrappers.FrameStackObservation(wrappers.AtariPreprocessing(game), 4)
        return gymnasium.make(name)
    except ImportError as error:
        raise InputError(f"{name}: the package {error.name} is needed: pip install {error.name}") from None
    except gymnasium.error.Error as error:
        raise InputError(f"{name}: {' '.join(str(error).split())} Expected a world of gymnasium, such as ALE/Pong-v5") from None


def play(world: Any, policy: Policy, steps: int | None = None, seed: int = 0, **how: Any) -> Iterator[Step]:
    """Plays one episode, the best action at each step, and explains each.

    Args:
        world: an environment of gymnasium whose observations are images, or dicts with one; its actions are discrete.
        policy: who plays.
        steps: the most; by default as many as the world allows.
        seed: of the world.
        **how: what `explain` is to be asked with, such as `contrast="left"` or `method=layercam`.

    Raises:
        InputError: the world's actions are not discrete, or fewer than the policy's.
    """
    if not hasattr(world.action_space, "n"):
        raise InputError(f"expected a world of discrete actions, got {world.action_space}")
    seen, _ = world.reset(seed=seed)
    taken = 0
    while steps is None or taken < steps:
        bound = policy.at(seen)
        explanation = explain(bound, policy.picture(seen), **how)
        assert bound.seen is not None
        values = bound.seen.tolist()
        best = values.index(max(values))
        if best >= world.action_space.n:
            raise InputError(
                f"the policy takes action {best}, the world has {world.action_space.n}; they do not belong together"
            )
        told = str(seen["mission"]) if isinstance(seen, dict) and "mission" in seen else ""
        seen, reward, over, cut, _ = world.step(best)
        taken += 1
        yield Step(explanation, values, best, float(reward), bool(over or cut), told)
        if over or cut:
            return


def animation_of(steps: Iterable[Step], policy: Policy, title: str) -> Animation:
    """An episode as a film: of each frame the map, what was done, and the scores of all actions.

    Raises:
        InputError: there is no step.
    """
    played = list(steps)
    if not played:
        raise InputError("the episode has no step; allow at least one")
    first = played[0].explanation
    tracks = []
    scaled = [step.explanation.scaled().numpy() for step in played]  # each to its own maximum
    for i, target in enumerate(first.targets):
        alike = all(step.explanation.labels[i] == target.label for step in played)
        label = target.label if alike else ("the action taken" if i == 0 else "rather than another")
        tracks.append(HeatTrack(label, np.stack([heats[i] for heats in scaled]), box=first.box))  # type: ignore[arg-type]
    moments = []
    for n, step in enumerate(played):
        values = [(policy.called(k), value) for k, value in enumerate(step.values)]
        won = f", reward {step.reward:.3g}" if step.reward else ""
        told = f"{step.told}: " if step.told else ""
        own, *more = step.explanation.labels
        shown = f"; the map explains {own}" if own != policy.called(step.taken) else ""
        shown += "".join(f"; {label}" for label in more)
        moments.append(FrameInfo(f"step {n + 1}: {told}{policy.called(step.taken)}{won}{shown}", values, step.taken))
    metadata = first.metadata
    made = f"{metadata.method} at {metadata.feature_layer}, model {metadata.model}"
    note = f"{made}; the {metadata.unit} of an action. Heat is scaled in each frame."
    clip = Clip(tuple(step.explanation.picture for step in played), RATE, title)
    return Animation(clip, tracks, title, note, moments, f"{metadata.unit} of every action")


def save(steps: Sequence[Step], film: Animation, folder: Path, suffix: str = ".gif") -> list[Path]:
    """Writes `files` into a folder.

    Returns:
        The files written, all of them or none; see `mmgradcam.utils.writing.write_folder`.
    """
    return write_folder(folder, files(steps, film, suffix))


def files(steps: Sequence[Step], film: Animation, suffix: str = ".gif") -> dict[str, bytes]:
    """By name: the film (see `Animation.save`), `episode.json`, and `maps.npz` with the arrays of all steps.

    The arrays: `pictures` (T, h, w, 3), `maps` (T, K, rows, columns) raw, `scores` (T, K), `values` (T, A), `taken`, `rewards`.
    """
    first = steps[0].explanation
    described = {
        "title": film.title, "model": first.metadata.model, "unit": first.metadata.unit, "method": first.metadata.method,
        "feature_layer": first.metadata.feature_layer, "ended": steps[-1].ended, "reward": sum(step.reward for step in steps),
        "steps": [
            {
                "said": moment.said, "told": step.told, "taken": step.taken, "reward": step.reward,
                "values": dict(moment.values), "targets": step.explanation.labels,
                "scores": step.explanation.scores.tolist(), "peaks": [one.peak for one in step.explanation],
            }
            for step, moment in zip(steps, film.moments, strict=True)
        ],
    }  # fmt: skip
    arrays = {
        "pictures": np.stack([np.asarray(step.explanation.picture) for step in steps]),
        "maps": np.stack([step.explanation.maps.numpy() for step in steps]),
        "scores": np.stack([step.explanation.scores.numpy() for step in steps]),
        "values": np.array([step.values for step in steps]),
        "taken": np.array([step.taken for step in steps]),
        "rewards": np.array([step.reward for step in steps]),
    }
    text = to_json(described, indent=2) + "\n"
    return {**film.files(suffix), "episode.json": text.encode(), "maps.npz": pack(arrays)}
