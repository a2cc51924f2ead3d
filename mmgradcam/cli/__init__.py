"""The command line. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from mmgradcam.cli.commands.caption import caption
from mmgradcam.cli.commands.check import check
from mmgradcam.cli.commands.classify import classify
from mmgradcam.cli.commands.evaluate import EvaluateCommand, evaluate
from mmgradcam.cli.commands.listings import methods, metrics, models
from mmgradcam.cli.commands.policy import policy
from mmgradcam.cli.commands.video import video
from mmgradcam.cli.commands.vqa import vqa
from mmgradcam.cli.loading import complain
from mmgradcam.errors import InputError, ModelError


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

for command in (caption, vqa, classify, video, policy, models, methods, metrics, check):
    app.command()(command)
app.command(cls=EvaluateCommand)(evaluate)


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
