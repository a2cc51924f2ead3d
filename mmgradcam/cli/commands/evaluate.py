"""The command that measures: a model's own figures, or methods compared on a data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from mmgradcam.cli.loading import load_asked, method_of, names_of, supported_by, target_layers_of
from mmgradcam.cli.options import Device, Encoder, Layers, MethodName, writable
from mmgradcam.cli.tables import progress, show_audit, show_figures
from mmgradcam.errors import InputError
from mmgradcam.utils.writing import to_json

if TYPE_CHECKING:
    from mmgradcam.task import Task


HELD_OUT = {"images": "scenes:test:generated", "clips": "motions:test"}
"""What a model is measured on unless a data set is named, by what it sees: what no bundled model was trained on."""


class EvaluateCommand(TyperCommand):
    """`evaluate`, whose help lists the metrics only when it is asked for: the list loads torch."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from mmgradcam.evaluation.measures import measures

        for param in self.params:
            if param.name == "metrics" and isinstance(param, TyperOption):
                param.help = f"{param.help} All: {', '.join(measures())}."
        super().format_help(ctx, formatter)


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="A bundled model, any other by name, or a folder.", metavar="[MODEL]")
    ] = None,
    named: Annotated[str | None, typer.Option("--model", help="The same, as an option.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A data set, its layout recognised (docs/data.md); without, held-out scenes or rendered clips."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the data set's pictures, if it is elsewhere.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods to compare, separated by commas; by default the model's own.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas; by default those that fit the model. `mmgradcam metrics` says what each is.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Number of samples; by default all of a data set, and 1000 held-out ones.", min=1)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for rows, plots and the page; a run that was stopped goes on.", callback=writable),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    method: MethodName = None,
    layer: Layers = None,
    encoder: Encoder = None,
    device: Device = "auto",
) -> None:
    """Measure a model and its maps; with --methods, --metrics or --out, compare methods on any data set."""
    name = model or named
    if name is None or (model and named):
        raise InputError("evaluate: expected one model, as mmgradcam evaluate scenes-captioner or --model scenes-captioner")
    load = cache(lambda: load_asked(name, device, None, encoder))
    if data is None and (limit or 0) > 10_000:
        raise InputError(f"--limit: there are 10000 held-out scenes, got {limit}")
    figures = None
    if data is None and not (methods or metrics or out or images):
        figures = _of_episodes(load, limit, method, layer)
    if figures is None:
        limit = limit or (1000 if data is None else None)
        _audit(load, data, images, methods or method, metrics, limit, out, as_json, layer)
    elif as_json:
        typer.echo(to_json(figures, indent=2, ascii_only=True))
    else:
        show_figures(figures)


def _of_episodes(
    load: Callable[[], Task], limit: int | None, method: str | None, layer: list[str] | None
) -> dict[str, Any] | None:
    """The figures of a policy in rendered rooms; None of other models."""
    from mmgradcam.evaluation.goto import evaluate_goto

    task: Any = load()
    if "observations" not in supported_by(task):
        return None
    shown, layers = progress(f"{limit or 1000} episodes"), target_layers_of(task, layer)
    return evaluate_goto(task, limit or 1000, method=method_of(method), target_layers=layers, progress=shown)


def _audit(
    load: Callable[[], Task],
    data: str | None,
    images: Path | None,
    methods: str | None,
    metrics: str | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
    layers: list[str] | None,
) -> None:
    """Compares methods on a data set."""
    from mmgradcam.datasets.sources import open_data
    from mmgradcam.evaluation.measures import defaults_of, measures_of
    from mmgradcam.evaluation.queries import sees
    from mmgradcam.evaluation.reports import save, summary
    from mmgradcam.evaluation.run import audit
    from mmgradcam.methods import gradcam

    wanted = [method_of(one) for one in names_of(methods or "")]
    measures = measures_of(names_of(metrics or ""))
    source = None if data is None else open_data(data, images)
    task = load()
    source = source or open_data(HELD_OUT.get(sees(task), HELD_OUT["images"]), images)
    measures = measures or measures_of(defaults_of(task))
    ways = wanted or [task.method or gradcam]
    made = audit(
        task,
        source,
        ways,
        measures,
        limit=limit,
        target_layers=target_layers_of(task, layers),
        out=out,
        progress=progress("batches"),
    )
    if not made.rows:
        raise InputError(
            f"evaluate: {source.name} says nothing that {task.name} could be asked ({len(made.bad)} records malformed)"
        )
    if as_json:
        typer.echo(to_json(summary(made), indent=2, ascii_only=True))
    else:
        show_audit(made)
    if out is not None:
        written = "wrote " + "\n      ".join(str(path) for path in save(made, out))
        typer.echo(written, err=as_json)
