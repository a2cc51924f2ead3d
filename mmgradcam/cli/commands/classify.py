"""The command `classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgradcam.cli.loading import Map, load_asked
from mmgradcam.cli.options import (
    Checked,
    Classes,
    Contrast,
    Device,
    Images,
    Layers,
    MethodName,
    Out,
    SmoothGrad,
    Top,
)
from mmgradcam.cli.running import explain_each, refuse_unreadable
from mmgradcam.cli.tables import (
    show_classes,
)


def classify(
    images: Images,
    model: Annotated[str, typer.Option(help="torchvision:NAME, timm:NAME, a hub id (org/name) or a folder.")],
    classes: Classes = None,
    top: Top = None,
    contrast: Contrast = None,
    method: MethodName = None,
    smoothgrad: SmoothGrad = 0,
    layer: Layers = None,
    check: Checked = False,
    out: Out = Path("explanations"),
    device: Device = "auto",
) -> None:
    """Classify pictures with a model people have; show where each class came from."""
    refuse_unreadable(images)
    task = load_asked(model, device, "classes")
    query = {"classes": classes or None, "top": top, "contrast": contrast}
    query = {k: v for k, v in query.items() if v is not None}
    explain_each(task, images, query, Map(method, smoothgrad, layer, check=check), out, show_classes)
