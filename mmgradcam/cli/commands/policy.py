"""The command `policy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmgradcam.cli.loading import load_asked, method_of, target_layers_of
from mmgradcam.cli.options import (
    AnimationFormat,
    Device,
    Layers,
    MethodName,
    Out,
)
from mmgradcam.cli.running import animation_suffix, write
from mmgradcam.cli.tables import (
    doing,
    show_episode,
)


def policy(
    world: Annotated[str, typer.Argument(help="An environment of gymnasium (BabyAI-..., ALE/...).", metavar="ENV")],
    model: Annotated[str, typer.Option(help="A bundled model, FILE.py:NAME or a plugin's.")] = "babyai-goto",
    steps: Annotated[int | None, typer.Option(help="Most steps of the episode; by default until it ends.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the world.", min=0)] = 0,
    action: Annotated[str | None, typer.Option(help="Explain this action at each step, not the one taken.")] = None,
    contrast: Annotated[str | None, typer.Option(help="Also explain why the action is not this one.")] = None,
    method: MethodName = None,
    layer: Layers = None,
    animation_format: AnimationFormat = "gif",
    out: Out = Path("explanations"),
    device: Device = "auto",
) -> None:
    """Play an episode; show what of each observation made the action taken."""
    from mmgradcam.evaluation.episode import animation_of, files, open_world, play

    suffix, query = (
        animation_suffix(animation_format),
        {k: v for k, v in {"action": action, "contrast": contrast}.items() if v is not None},
    )
    task: Any = load_asked(model, device, "observations")
    with doing(f"playing {world}"):
        how = {"method": method_of(method), "target_layers": target_layers_of(task, layer), **query}
        played = list(play(open_world(world), task, steps, seed, **how))
    show_episode(played, task)
    name = Path(model.rpartition(":")[2] or model).name
    print(write(out, f"{name}-{seed}", files(played, animation_of(played, task, f"{world}, seed {seed}"), suffix)))
