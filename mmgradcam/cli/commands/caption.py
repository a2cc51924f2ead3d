"""The command `caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgradcam.cli.loading import Map, captioner, load_asked
from mmgradcam.cli.options import (
    Checked,
    Device,
    Encoder,
    Grounding,
    Images,
    Layers,
    Longest,
    MethodName,
    Model,
    Out,
    SmoothGrad,
)
from mmgradcam.cli.running import explain_each, refuse_unreadable
from mmgradcam.cli.tables import (
    show_words,
)


def caption(
    images: Images,
    model: Model = None,
    caption: Annotated[str | None, typer.Option(help="Explain this sentence instead of the generated caption.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What a hub model is to go on from or reply to.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Explain this word or phrase alone; may be given again.")] = None,
    max_new_tokens: Longest = None,
    method: MethodName = None,
    smoothgrad: SmoothGrad = 0,
    layer: Layers = None,
    grounding: Grounding = True,
    check: Checked = False,
    out: Out = Path("explanations"),
    encoder: Encoder = None,
    device: Device = "auto",
) -> None:
    """Caption pictures and show where each word came from."""
    refuse_unreadable(images)
    task = load_asked(model, device, "caption", encoder) if model else captioner(device, encoder)
    query = {"caption": caption, "prompt": prompt, "only": only or None, "max_new_tokens": max_new_tokens}
    explain_each(
        task,
        images,
        {k: v for k, v in query.items() if v is not None},
        Map(method, smoothgrad, layer, grounding, check),
        out,
        show_words,
    )
