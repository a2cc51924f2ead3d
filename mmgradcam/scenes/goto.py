"""Worlds of BabyAI (Chevalier-Boisvert et al. 2019) seen from above: pictures, instructions, and the best way to go.

Needs the packages gymnasium and minigrid.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import InputError

WORLD = "BabyAI-GoToLocalS8N7-v0"
"""One room of 8 x 8 cells with seven objects; "go to the red ball"."""
TILE = 8
"""Pixels of a cell's side."""
ACTIONS = ("left", "right", "forward", "pick up", "drop", "toggle", "done")
WAYS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Where the agent looks: x and y of the cell before it, for each of its four directions."""
FAR = 10_000
"""More steps than any way takes."""

Pixels = npt.NDArray[np.uint8]


def from_above(name: str, render: bool = True) -> Any:
    """A world of MiniGrid whose observations have a picture of all of it, 8 pixels a cell, under "image".

    Args:
        name: its id.
        render: else observations are the world's own, which is faster.

    Raises:
        InputError: gymnasium or minigrid is not installed.
    """
    try:
        import gymnasium
        import minigrid  # noqa: F401  # registers the worlds
        from minigrid.wrappers import RGBImgObsWrapper
    except ImportError:
        raise InputError("gymnasium and minigrid are needed: pip install gymnasium minigrid") from None

    class Quiet(gymnasium.Wrapper):
        """Without what MiniGrid prints while it looks for a room that can be solved."""

        def reset(self, **how: Any) -> Any:
            with redirect_stdout(io.StringIO()):
                return super().reset(**how)

    shown: Any = RGBImgObsWrapper
    world = Quiet(gymnasium.make(name, highlight=False))
    return shown(world, tile_size=TILE) if render else world


@dataclass(frozen=True)
class Room:
    """A room, apart from where the agent is.

    Attributes:
        cells: (width, height, 3) codes of kind, color and state, as minigrid has them.
        objects: color, kind and cell (x, y) of each object.
    """

    cells: npt.NDArray[np.uint8]
    objects: tuple[tuple[str, str, tuple[int, int]], ...]

    def free(self) -> list[tuple[int, int]]:
        """Cells that the agent can stand on."""
        return [(int(x), int(y)) for x, y in np.argwhere(self.cells[..., 0] == 1)]

    def named(self, color: str, kind: str) -> list[tuple[int, int]]:
        """Cells of the objects of a color and kind."""
        return [at for own, what, at in self.objects if (own, what) == (color, kind)]


def room_of(world: Any) -> Room:
    """The room of an environment that was reset."""
    grid = world.unwrapped.grid
    objects = []
    for x in range(grid.width):
        for y in range(grid.height):
            cell = grid.get(x, y)
            if cell is not None and cell.type not in ("wall", "floor"):
                objects.append((str(cell.color), str(cell.type), (x, y)))
    return Room(grid.encode(), tuple(objects))


def mission(room: Room, color: str, kind: str) -> str:
    """The instruction in BabyAI's words: "the" where there is one such object, else "a"."""
    return f"go to {'the' if len(room.named(color, kind)) == 1 else 'a'} {color} {kind}"


def steps_to(room: Room, goals: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """(width, height, 4): how many actions it takes from each place and direction until a goal is before the agent."""
    width, height = room.cells.shape[:2]
    free = set(room.free())
    steps = np.full((width, height, 4), FAR)
    queue: deque[tuple[int, int, int]] = deque()
    for gx, gy in goals:
        for d, (dx, dy) in enumerate(WAYS):
            if (gx - dx, gy - dy) in free:
                steps[gx - dx, gy - dy, d] = 0
                queue.append((gx - dx, gy - dy, d))
    while queue:
        x, y, d = queue.popleft()
        dx, dy = WAYS[d]
        for before in ((x, y, (d + 1) % 4), (x, y, (d - 1) % 4), (x - dx, y - dy, d)):
            if before[:2] in free and steps[before] == FAR:
                steps[before] = steps[x, y, d] + 1
                queue.append(before)
    return steps


def best_actions(steps: npt.NDArray[np.int64], x: int, y: int, d: int) -> list[int]:
    """The actions that lead nearer, all that do; "done" where the goal is before the agent already."""
    return [int(action) for action in np.flatnonzero(advice(steps)[y, x, d])]


def advice(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(height, width, 4, actions): in each place and direction, which actions are the best; none where there is no way.

    Args:
        steps: what `steps_to` gives.
    """
    width, height = steps.shape[:2]
    found = np.zeros((width, height, 4, len(ACTIONS)), bool)
    near = steps - 1
    found[..., 0] = np.roll(steps, 1, 2) == near
    found[..., 1] = np.roll(steps, -1, 2) == near
    for d, (dx, dy) in enumerate(WAYS):
        before = np.full((width, height), FAR)
        xs, ys = slice(max(0, -dx), width - max(0, dx)), slice(max(0, -dy), height - max(0, dy))
        before[xs, ys] = steps[max(0, dx) : width - max(0, -dx), max(0, dy) : height - max(0, -dy), d]
        found[..., d, 2] = before == near[..., d]
    found[..., ACTIONS.index("done")] = steps == 0
    found[steps >= FAR] = False
    found[steps == 0, :3] = False
    return found.transpose(1, 0, 2, 3)


def picture(room: Room, x: int, y: int, d: int) -> Pixels:
    """The room from above with the agent, (8 height, 8 width, 3): what the environment draws."""
    width, height = room.cells.shape[:2]
    rows = [
        np.concatenate(
            [_tile(*(int(v) for v in room.cells[i, j]), d if (i, j) == (x, y) else -1) for i in range(width)], axis=1
        )
        for j in range(height)
    ]
    return np.concatenate(rows)


@lru_cache(maxsize=4096)
def _tile(kind: int, color: int, state: int, agent: int) -> Pixels:
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import WorldObj

    thing = WorldObj.decode(kind, color, state)
    tile = Grid.render_tile(thing, agent if agent >= 0 else None, highlight=False, tile_size=TILE)
    return np.asarray(tile).astype(np.uint8)
