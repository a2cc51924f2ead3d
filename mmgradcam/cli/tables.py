"""What the command line prints: tables of words, answers, classes and figures, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from mmgradcam.errors import one_line

if TYPE_CHECKING:
    from mmgradcam.checking.check import Finding
    from mmgradcam.evaluation.episode import Step
    from mmgradcam.evaluation.run import Audit
    from mmgradcam.explanation import Explanation
    from mmgradcam.metrics.definition import Metric
    from mmgradcam.tasks import Policy


def show_words(explanation: Explanation) -> None:
    """The caption, and a line per word."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(one_line(explanation.text), style="bold")
    likely = any(target.probability is not None for target in explanation.targets)
    asked = any(target.grounding is not None for target in explanation.targets)
    table = Table("word", *["probability"] * likely, explanation.metadata.unit, *["grounding"] * asked, "peak x, y", "")
    for one in explanation:
        probability = one.targets[0].probability
        shown = ["" if probability is None else f"{probability:.3f}"] * likely
        table.add_row(
            one_line(one.label),
            *shown,
            f"{one.score:.3f}",
            *[relies(one)] * asked,
            *peak(one),
            style="dim" if one.weakly_grounded else "",
        )
    console.print(table)
    show_remarks(explanation)
    show_hallucinations(explanation)
    show_verdicts(explanation)


def show_answers(explanation: Explanation) -> None:
    """The answer, a line per answer, and what the likeliest owes each word of the question."""
    from rich.console import Console
    from rich.table import Table

    from mmgradcam.metrics import language_prior

    console = Console(highlight=False, markup=False)
    console.print(one_line(f"{explanation.metadata.query['question']} {explanation.labels[0]}"), style="bold")
    asked = any(target.grounding is not None for target in explanation.targets)
    table = Table("answer", "probability", explanation.metadata.unit, *["grounding"] * asked, "peak x, y", "")
    for one in explanation:
        probability = one.targets[0].probability
        shown = "" if probability is None else f"{probability:.3f}"
        table.add_row(one_line(one.label), shown, f"{one.score:.3f}", *[relies(one)] * asked, *peak(one))
    console.print(table)
    if asked:
        prior = language_prior(explanation, top=3)
        alone = ", ".join(f"{label} p {p:.2f}" for label, p in prior.blind)
        console.print(
            f"without the picture: {one_line(alone)}; the question alone explains {prior.explained:.0%} of the answer"
        )
    words = Table("word of the question", f"importance for {one_line(explanation.labels[0])}")
    for word, value in explanation[0].importances:
        words.add_row(one_line(word), f"{value:+.3f}")
    console.print(words)
    show_remarks(explanation)
    show_hallucinations(explanation)
    show_verdicts(explanation)


def show_findings(findings: Sequence[Finding]) -> None:
    """A line per finding, what is wrong in red."""
    from rich.console import Console
    from rich.text import Text

    colors = {True: "green", False: "bold red", None: "dim"}
    for finding in findings:
        mark, _, said = str(finding).partition("  ")
        Console(highlight=False, soft_wrap=True).print(Text.assemble((mark, colors[finding.ok]), "  ", said))


def show_episode(steps: Sequence[Step], policy: Policy) -> None:
    """A line per step, and what the episode brought."""
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "action", policy.unit, "explained", "peak x, y", "")
    for n, step in enumerate(steps):
        one = step.explanation[0]
        table.add_row(str(n + 1), policy.called(step.taken), f"{step.values[step.taken]:.3f}", one_line(one.label), *peak(one))
    console = Console(highlight=False, markup=False)
    if steps and steps[0].told:
        console.print(one_line(steps[0].told), style="bold")
    console.print(table)
    ended = "ended" if steps and steps[-1].ended else "was cut"
    console.print(f"{len(steps)} steps, then it {ended}; reward {sum(step.reward for step in steps):.3g}")


def show_classes(explanation: Explanation) -> None:
    """A line per class."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table("class", "probability", explanation.metadata.unit, "peak x, y", "")
    for one in explanation:
        probability = one.targets[0].probability
        table.add_row(one_line(one.label), "" if probability is None else f"{probability:.3f}", f"{one.score:.3f}", *peak(one))
    console.print(table)
    console.print(f"maps by {explanation.metadata.method} at layer {explanation.metadata.feature_layer}")
    show_verdicts(explanation)


def show_verdicts(explanation: Explanation) -> None:
    """A line per target that was checked: does its map pass, and why?"""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    width = max(map(len, explanation.labels), default=0)
    for one in explanation:
        if (sanity_result := one.sanity_result) is not None:
            said = (
                sanity_result.headline,
                "green" if sanity_result.passes else "bold red" if sanity_result.fails else "yellow",
            )
            console.print(Text.assemble(f"{one_line(one.label):<{width}}  ", said, f": {sanity_result.reason}"))
    if checked := next(filter(None, explanation.sanity_results), None):
        console.print(checked.CAVEAT, style="dim")


def show_remarks(explanation: Explanation) -> None:
    """What people should know of all targets together, a line each."""
    from rich.console import Console

    for one in explanation.metadata.remarks:
        Console(highlight=False, markup=False, soft_wrap=True).print(one, style="yellow")


def show_hallucinations(explanation: Explanation) -> None:
    """A line per target that may be hallucinated."""
    from rich.console import Console
    from rich.text import Text

    from mmgradcam.render.pages import hallucination_note

    width = max(map(len, explanation.labels), default=0)
    for one in explanation:
        if said := hallucination_note(one):
            Console(highlight=False, soft_wrap=True).print(
                Text.assemble(f"{one_line(one.label):<{width}}  ", (said, "bold red"))
            )


def relies(one: Explanation) -> str:
    """How many times as likely the picture makes a target."""
    from mmgradcam.render.pages import times

    grounding = one.targets[0].grounding
    return "" if grounding is None else times(grounding)


def peak(one: Explanation) -> tuple[str, str]:
    """Where a map peaks, in pixels and in words; or why it does not."""
    where = one.peak
    if where is None:
        return "-", one.warning or ""
    x, y = where[0] / one.picture.width, where[1] / one.picture.height
    row, column = ("top", "middle", "bottom")[min(2, int(3 * y))], ("left", "centre", "right")[min(2, int(3 * x))]
    return f"{where[0]}, {where[1]}", f"{row} {column}"


def show_figures(figures: dict[str, Any]) -> None:
    """Figures of a policy."""
    from rich.console import Console
    from rich.table import Table

    for title, values in figures.items():
        if not isinstance(values, dict):
            typer.echo(f"{title.replace('_', ' ')}: {values:.3f}")
            continue
        table = Table(title.replace("_", " "), "", title_justify="left")
        for name, value in values.items():
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
        Console().print(table)


def show_audit(made: Audit) -> None:
    """A line per figure, a column per method, with 95% intervals; then what could not be read."""
    from rich.console import Console
    from rich.table import Table

    from mmgradcam.evaluation.reports import listed_figures

    found, known = {method: made.figures(method) for method in made.methods}, made.metrics()
    table = Table("", *found, title=f"{made.model} on {made.data}: {made.pictures} pictures", title_justify="left")
    names = listed_figures(known, found)
    for name in names:
        table.add_row(name.replace("_", " "), *(str(one.get(name, "-")) for one in found.values()))
    of_whole = {method: made.wholes(method) for method in made.methods}
    whole = list(dict.fromkeys(name for one in of_whole.values() for name in one))
    for name in whole:
        table.add_row(name.replace("_", " "), *(f"{one[name]:.3g}" for one in of_whole.values()))
    console = Console(highlight=False, markup=False)
    console.print(table)
    if len(made.kinds()) > 1:
        console.print(_kinds(made, known, names))
    speeds = ", ".join(f"{name} {speed:.3g}" for name, speed in made.speeds().items())
    console.print(f"pictures a second: {speeds}")
    for one in (known[name] for name in (*names, *whole) if name in known):
        better = f"; {one.better} is better" if one.better else ""
        said = f"{one.name.replace('_', ' ')}: {one.description} ({one.source}){better}"
        console.print(said, style="dim", soft_wrap=True)
    for line in made.bad[:10]:
        console.print(f"malformed, left out: {line}")
    if len(made.bad) > 10:
        console.print(f"and {len(made.bad) - 10} more malformed records")


def _kinds(made: Audit, known: Mapping[str, Metric], names: Sequence[str]) -> Any:
    """A line per kind of target and method: the metrics that have a direction, the most important first."""
    from rich.table import Table

    shown = [name for name in names if name in known and known[name].better][:6]
    table = Table("kind", "method", "targets", *(name.replace("_", " ") for name in shown))
    for kind in made.kinds():
        for method in made.methods:
            found = made.figures(method, kind)
            count = max((figure.rows for figure in found.values()), default=0)
            cells = [f"{found[name].mean:.3g}" if name in found else "-" for name in shown]
            table.add_row(one_line(kind), one_line(method), str(count), *cells)
    return table


@contextmanager
def doing(what: str, live: bool = True) -> Iterator[None]:
    """Says on stderr what is under way: on a terminal a status that goes again, elsewhere a plain line.

    Args:
        what: in a few words.
        live: whether a terminal has room for a status; not below a bar.
    """
    if not sys.stderr.isatty():
        print(one_line(what), file=sys.stderr, flush=True)
        yield
    elif not live:
        yield
    else:
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text(one_line(what))):
            yield


def progress(what: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """What wraps an iteration over items, given their number, to draw a bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    def shown(items: Iterable[Any], count: int) -> Iterable[Any]:
        return track(items, what, total=count, console=Console(stderr=True), transient=True, disable=count < 2)

    return shown
