"""The command line. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mmgradcam.cli.evaluating import EvaluateCommand, evaluate
from mmgradcam.cli.loading import Map, answerer, captioner, complain, load_asked, method_of, target_layers_of
from mmgradcam.cli.options import (
    AnimationFormat,
    Checked,
    Classes,
    Contrast,
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
    Top,
)
from mmgradcam.cli.tables import (
    doing,
    progress,
    show_answers,
    show_classes,
    show_episode,
    show_findings,
    show_words,
)
from mmgradcam.errors import InputError, ModelError, one_line
from mmgradcam.utils.files import PICTURE, regular

if TYPE_CHECKING:
    from mmgradcam.explanation import Explanation
    from mmgradcam.task import Task


class _Commands(TyperGroup):
    """Commands that a Ctrl-C ends with one line and status 130, which versions of click and typer do each in their own way."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted; what was written is whole")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    help="See where in the picture each word, phrase or answer of a vision-language model came from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
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
    _refuse_unreadable(images)
    task = load_asked(model, device, "caption", encoder) if model else captioner(device, encoder)
    query = {"caption": caption, "prompt": prompt, "only": only or None, "max_new_tokens": max_new_tokens}
    _explain_each(
        task,
        images,
        {k: v for k, v in query.items() if v is not None},
        Map(method, smoothgrad, layer, grounding, check),
        out,
        show_words,
    )


@app.command()
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
    _refuse_unreadable(images)
    task = load_asked(model, device, "question", encoder) if model else answerer(device, encoder)
    top = 3 if top is None and "top" in task.query_types else top
    query = {"question": question, "answer": answer, "contrast": contrast, "top": top, "max_new_tokens": max_new_tokens}
    _explain_each(
        task,
        images,
        {k: v for k, v in query.items() if v is not None},
        Map(method, smoothgrad, layer, grounding, check),
        out,
        show_answers,
    )


@app.command()
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
    _refuse_unreadable(images)
    task = load_asked(model, device, "classes")
    query = {"classes": classes or None, "top": top, "contrast": contrast}
    query = {k: v for k, v in query.items() if v is not None}
    _explain_each(task, images, query, Map(method, smoothgrad, layer, check=check), out, show_classes)


@app.command()
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
    suffix = _animation_suffix(animation_format)
    task = load_asked(model, device, "clips")
    query = {k: v for k, v in {"classes": classes or None, "top": top, "contrast": contrast}.items() if v is not None}
    how = Map(method, smoothgrad, layer)
    _explain_each(task, films, query, how, out, show_classes, {"film": suffix})


@app.command()
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
        _animation_suffix(animation_format),
        {k: v for k, v in {"action": action, "contrast": contrast}.items() if v is not None},
    )
    task: Any = load_asked(model, device, "observations")
    with doing(f"playing {world}"):
        how = {"method": method_of(method), "target_layers": target_layers_of(task, layer), **query}
        played = list(play(open_world(world), task, steps, seed, **how))
    show_episode(played, task)
    name = Path(model.rpartition(":")[2] or model).name
    print(_write(out, f"{name}-{seed}", files(played, animation_of(played, task, f"{world}, seed {seed}"), suffix)))


@app.command()
def models() -> None:
    """List the bundled models with the figures of their cards."""
    from rich.console import Console
    from rich.table import Column, Table

    from mmgradcam import checkpoints

    table = Table(Column("model", no_wrap=True), "what it does", "figures on held-out pictures")
    for name in checkpoints.names():
        config = checkpoints.config(checkpoints.folder(name))
        table.add_row(name, config["summary"], config["headline"])
    Console().print(table)


@app.command()
def methods() -> None:
    """List the methods that draw maps, and their settings: --method "rise(count=500)"."""
    from rich.console import Console
    from rich.table import Column, Table

    import mmgradcam.methods as room
    from mmgradcam.explaining.arguments import method_names, settings_of

    table = Table(Column("method", no_wrap=True), "what it is", "settings")
    for name in [*method_names(), "smooth"]:
        settings = ", ".join(f"{key}={one.default!r}" for key, one in settings_of(name).items())
        called = f"{name}(METHOD)" if name == "smooth" else name
        table.add_row(called, (getattr(room, name).__doc__ or "").splitlines()[0], settings)
    Console(markup=False).print(table)


@app.command()
def metrics() -> None:
    """List the metrics of `evaluate`: what each measures, its range, and where it is from."""
    from rich.console import Console
    from rich.table import Column, Table

    from mmgradcam.evaluation.measures import listed

    table = Table(Column("--metrics", no_wrap=True), Column("metric", no_wrap=True), "better", "range", "what it is", "source")
    for one in listed():
        table.add_row(one.chosen_by, one.name, one.better, one.interval, one.description, one.source)
    Console(markup=False).print(table)


@app.command()
def check(
    task: Annotated[str, typer.Argument(help="FILE.py:NAME, a plugin's model, or any other by name.", metavar="TASK")],
    image: Annotated[
        Path | None, typer.Argument(help="Picture or film to try it on, else one is made up; of a policy, its environment.")
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option(help="What to ask, as KEY=VALUE (question=what is it?); repeat it for several.")
    ] = None,
    encoder: Encoder = None,
    device: Device = "auto",
) -> None:
    """Try a task of your own on one picture: say what is right and wrong with it, and what to change."""
    from mmgradcam.checking.check import check as tried

    pairs = [(pair, *pair.partition("=")) for pair in query or ()]
    if bad := [pair for pair, key, equals, _ in pairs if not (equals and key.isidentifier())]:
        raise InputError(f"--query: expected KEY=VALUE, as question='what is it?', got {bad[0]!r}")
    asked: Any = load_asked(task, device, None, encoder)
    given: Any = image
    if "observations" in asked.query_types:
        from mmgradcam.evaluation.episode import open_world

        if image is None:
            raise InputError(f"{asked.name} sees observations; name an environment after it, such as BabyAI-GoToLocal-v0")
        seen, _ = open_world(str(image)).reset(seed=0)
        asked, given = asked.at(seen), asked.picture(seen)
    findings = tried(asked, given, **{key: value for _, key, _, value in pairs})
    show_findings(findings)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


app.command(cls=EvaluateCommand)(evaluate)


def _refuse_unreadable(images: list[Path]) -> None:
    """Names pictures that are no files, and ends, if none of them is one: no model is loaded for nothing."""
    wrong: list[InputError] = []
    for image in images:
        try:
            regular(image, PICTURE)
        except InputError as error:
            wrong.append(error)
    if len(wrong) == len(images):
        for each in wrong:
            complain(each)
        raise typer.Exit(1)


def _explain_each(
    task: Task,
    images: list[Path],
    query: dict[str, Any],
    how: Map,
    out: Path,
    show: Callable[[Explanation], None],
    form: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Explains pictures one by one; a bad one is named and the rest go on."""
    from mmgradcam.explaining.explain import explain
    from mmgradcam.metrics.hallucination import annotate_hallucination, calibrated
    from mmgradcam.metrics.sanity import sanity_check
    from mmgradcam.storage.record import files

    chosen, target_layers = how.method(task), how.target_layers(task)
    failed = 0
    for image in progress("explaining")(images, len(images)):
        try:
            with doing(f"explaining {image}", live=len(images) == 1):
                explanation = explain(task, image, method=chosen, target_layers=target_layers, grounding=how.grounding, **query)
                explanation = annotate_hallucination(explanation) if how.grounding and calibrated(explanation) else explanation
                explanation = sanity_check(explanation) if how.check else explanation
            with doing(f"writing into {out}", live=len(images) == 1):
                wrote = _write(out, image.name if image.is_dir() else image.stem, files(explanation, **form))
        except InputError as error:
            failed += 1
            complain(error)
            continue
        if len(images) > 1:
            print(f"\n{one_line(str(image))}")
        show(explanation)
        print(wrote)
    if failed:
        raise typer.Exit(1)


def _animation_suffix(name: str) -> str:
    if name not in ("gif", "webp", "mp4"):
        raise InputError(f"--animation-format: expected gif, webp or mp4, got {name}")
    return f".{name}"


def _write(out: Path, called: str, files: Mapping[str, bytes]) -> str:
    """Writes files into a new folder, whose name is that of a picture as nearly as can be, and tells what was written."""
    from mmgradcam.utils.naming import safe_name
    from mmgradcam.utils.writing import write_new_folder

    name = safe_name(called)
    folder = write_new_folder(out, name, files)
    kept = f"{out / name} was there already and stays as it is\n" if folder.name != name else ""
    return f"{kept}wrote " + "\n      ".join(str(folder / file) for file in files)


def main() -> None:
    """Runs the command line; a user's mistake is one line on stderr and exit status 1 or 2, never a traceback."""
    warnings.showwarning = lambda message, *_, **__: complain(message)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where a terminal or file cannot show a character, its number is printed
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (InputError, ModelError) as error:
        complain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
