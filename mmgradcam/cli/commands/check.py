"""The command `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmgradcam.cli.loading import load_asked
from mmgradcam.cli.options import (
    Device,
    Encoder,
)
from mmgradcam.cli.tables import (
    show_findings,
)
from mmgradcam.errors import InputError


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
