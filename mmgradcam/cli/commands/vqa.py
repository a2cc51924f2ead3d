"""The command `vqa`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgradcam.cli.loading import Map, answerer, load_asked
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
    show_answers,
)


def vqa(
    images: Images,
    question: Annotated[str, typer.Option(help="What to ask.")],
    model: Model = None,
    answer: Annotated[str | None, typer.Option(help="Explain this answer instead of the likeliest.")] = None,
    contrast: Annotated[str | None, typer.Option(help="Also explain why the answer is not this one.")] = None,
    top: Annotated[
        int | None, typer.Option(help="Explain that many of the likeliest answers; 3 where the model ranks them.", min=1)
    ] = None,
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
    """Ask a question of pictures; show where each answer came from, and what it owes each word of the question."""
    refuse_unreadable(images)
    task = load_asked(model, device, "question", encoder) if model else answerer(device, encoder)
    top = 3 if top is None and "top" in task.query_types else top
    query = {"question": question, "answer": answer, "contrast": contrast, "top": top, "max_new_tokens": max_new_tokens}
    explain_each(
        task,
        images,
        {k: v for k, v in query.items() if v is not None},
        Map(method, smoothgrad, layer, grounding, check),
        out,
        show_answers,
    )
