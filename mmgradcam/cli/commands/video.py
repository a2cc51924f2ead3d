"""The command `video`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgradcam.cli.loading import Map, load_asked
from mmgradcam.cli.options import (
    AnimationFormat,
    Classes,
    Contrast,
    Device,
    Layers,
    MethodName,
    Out,
    SmoothGrad,
    Top,
)
from mmgradcam.cli.running import animation_suffix, explain_each
from mmgradcam.cli.tables import (
    show_classes,
)


def video(
    films: Annotated[list[Path], typer.Argument(help="Films: MP4, WebM, GIF, ..., or folders of frames.", metavar="FILM...")],
    model: Annotated[str, typer.Option(help="torchvision:NAME (r3d_18, ...), clips-motion, FILE.py:NAME or a folder.")],
    classes: Classes = None,
    top: Top = None,
    contrast: Contrast = None,
    method: MethodName = None,
    smoothgrad: SmoothGrad = 0,
    layer: Layers = None,
    animation_format: AnimationFormat = "gif",
    out: Out = Path("explanations"),
    device: Device = "auto",
) -> None:
    """Classify clips; show where and when each class came from."""
    suffix = animation_suffix(animation_format)
    task = load_asked(model, device, "clips")
    query = {k: v for k, v in {"classes": classes or None, "top": top, "contrast": contrast}.items() if v is not None}
    how = Map(method, smoothgrad, layer)
    explain_each(task, films, query, how, out, show_classes, {"film": suffix})
