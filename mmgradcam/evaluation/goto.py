"""How good is a policy that is told where to go, and do its maps lie on what it was told to go to?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from mmgradcam.errors import InputError
from mmgradcam.explaining.explain import explain
from mmgradcam.scenes.goto import TILE, WORLD, Room, from_above, mission, room_of
from mmgradcam.scenes.splits import seeds
from mmgradcam.task import Method
from mmgradcam.tasks import Policy


def evaluate_goto(
    task: Policy,
    limit: int = 500,
    split: str = "test",
    *,
    method: Method | None = None,
    target_layers: Sequence[Any] | None = None,
    maps: bool = True,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> dict[str, Any]:
    """Success in rooms the policy has not seen, and where the map of each action it takes peaks.

    At every step, the room in full view, the map of the action taken is made under the instruction and under another one, that
    names another object of the room.

    Args:
        task: a policy of "image" and "mission".
        limit: number of episodes.
        split: "validation" or "test".
        method: explain with this method instead of the policy's own choice.
        target_layers: explain at these layers instead of the policy's own choice.
        maps: else only success is measured.
        progress: wraps the iteration over episodes, given their number, to show how far it is.

    Returns:
        `success`, share of the episodes that end at the object, `steps`, their mean length; `pointing`, shares of the maps:
        `own`, the peak lies in the cell of an object that was meant, `swapped`, the same by the map under the other
        instruction, `follows`, that map's peak lies on what the other instruction meant, `agent`, the peak lies on the agent;
        `centre` and `random`, what those cells would score; `moved`, half the sum of the absolute differences of the two maps,
        each scaled to a sum of 1: 0 where they are the same, 1 where they share no cell; `count`.

    Raises:
        InputError: the task is of another kind.
    """
    if "observations" not in task.query_types:
        raise InputError(f"evaluate: expected a policy of an image and a mission, got {task.name}")
    world = from_above(WORLD)
    won, lengths, rows = [], [], []
    numbers: Iterable[int] = seeds(split, limit)
    for seed in progress(numbers, limit) if progress else numbers:
        seen, _ = world.reset(seed=seed)
        rng = np.random.default_rng([seed, 0x60A])
        wanted = world.unwrapped.instrs.desc
        goal, over, cut, reward, count = (str(wanted.color), str(wanted.type)), False, False, 0.0, 0
        while not (over or cut):
            if maps:
                best, found = _held(task, world, seen, goal, rng, {"method": method, "target_layers": target_layers})
                rows += found
            else:
                best = int(task.values(seen).argmax())
            seen, reward, over, cut, _ = world.step(best)
            count += 1
        won.append(reward > 0)
        lengths.append(count)
    names = ("own", "swapped", "follows", "agent", "centre", "random", "moved")
    pointing = dict(zip(names, np.mean(np.array(rows, float), 0).tolist(), strict=True)) if rows else {}
    return {
        "success": float(np.mean(won)),
        "steps": float(np.mean(lengths)),
        "episodes": len(won),
        **({"pointing": {**pointing, "count": len(rows)}} if rows else {}),
    }


def _held(
    task: Policy, world: Any, seen: Any, goal: tuple[str, str], rng: np.random.Generator, how: dict[str, Any]
) -> tuple[int, list[tuple[float, ...]]]:
    """The action taken, and one row of figures for the step, or none where there is no other object to be sent to."""
    room: Room = room_of(world)
    bound = task.at(seen)
    own = explain(bound, task.picture(seen), **how)[0].map.clamp(min=0)
    assert bound.seen is not None
    taken = int(bound.seen.argmax())
    others = sorted({(color, kind) for color, kind, _ in room.objects} - {goal})
    if not others:
        return taken, []
    other = others[int(rng.integers(len(others)))]
    told = task.at({**seen, "mission": mission(room, *other)})
    instead = explain(told, task.picture(seen), action=taken, **how)[0].map.clamp(min=0)
    shares = [raw / raw.sum().clamp(min=1e-12) for raw in (own, instead)]
    here, there = (_peak(raw, seen["image"].shape[0] // TILE) for raw in (own, instead))
    meant, sent = (set(room.named(*one)) for one in (goal, other))
    width, height = room.cells.shape[:2]
    return taken, [
        (
            here in meant,
            there in meant,
            there in sent,
            here == tuple(int(v) for v in world.unwrapped.agent_pos),
            (width // 2, height // 2) in meant,
            len(meant) / (width * height),
            float((shares[0] - shares[1]).abs().sum()) / 2,
        )
    ]


def _peak(raw: torch.Tensor, cells: int) -> tuple[int, int]:
    """The cell (x, y) of the room in which a map peaks."""
    rows, columns = raw.shape
    y, x = divmod(int(raw.argmax()), columns)
    return int((x + 0.5) / columns * cells), int((y + 0.5) / rows * cells)
