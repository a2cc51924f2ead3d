"""One metric is one function with one decorator: its record is what tables, pages, JSON and docs say of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import test_audit as audits
from typer.testing import CliRunner

from mmgradcam import InputError, gradcam, hirescam
from mmgradcam.cli import app
from mmgradcam.evaluation import localization
from mmgradcam.evaluation.batch import Batch, Column
from mmgradcam.evaluation.measures import MODULES, listed, measures, measures_of
from mmgradcam.evaluation.reports import draw_plots, page, summary
from mmgradcam.evaluation.run import audit
from mmgradcam.metrics import definition
from mmgradcam.metrics.definition import SHARE, all_metrics, metric, metric_of, metrics_of


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test decorates is forgotten after it."""
    monkeypatch.setattr(definition, "_METRICS", dict(definition._METRICS))


def test_every_column_has_a_record_and_every_value_is_in_its_range() -> None:
    slow = {
        "word_iou",
        "parameter_randomization",
        "noise",
        "hallucination_probability",
        "pictures",
        "captions",
    }  # the last of captioners alone
    names = [name for name in measures() if name not in slow]
    assert len(names) > 15
    made = audit(audits.colored(), audits.source(), [hirescam, gradcam], names, limit=2)
    columns = ["correct", *made.columns()]
    assert set(columns) <= set(made.metrics())
    for name in columns:
        one = metric_of(name)
        assert one is not None, name
        low, high = (-math.inf if one.range[0] is None else one.range[0]), (math.inf if one.range[1] is None else one.range[1])
        values = [row[name] for row in made.rows if row[name] is not None]
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in values), name
    assert {name for name, one in made.metrics().items() if one.level == "means"} == {
        "pointing_swapped_pairs", "specificity", "specificity_15px", "inside_outside", "seed_iou",
    }  # fmt: skip


def test_records_say_what_people_must_know() -> None:
    every = [one for one in listed() if one.compute.__module__ in MODULES]
    assert len({one.name for one in every}) == len(every) > 50
    for one in every:
        assert one.description.strip(), one.name
        assert one.source == "mmgradcam" or any(letter.isdigit() for letter in one.source), f"{one.name}: a year"
        assert (one.level == "target") == (not one.of), one.name
        for other in (*one.of, *one.baselines):
            assert metric_of(other) is not None, f"{one.name}: {other}"
    assert {one.name for one in every if one.name.startswith("baseline_")} == {
        other for one in every for other in one.baselines
    }
    assert all(one.higher_is_better is None for one in every if one.name.startswith("baseline_"))


def hottest(batch: Batch) -> dict[str, Column]:
    return {"hottest": [float((heat > 0.5).mean()) for heat in batch.heats]}


def described(**more: Any) -> Any:
    told = {"higher_is_better": False, "range": SHARE, "description": "how much of it is hot", "source": "Nobody 1999"}
    return metric("hottest", **{**told, **more})


def test_a_metric_of_ones_own_is_one_function_with_one_decorator(capsys: pytest.CaptureFixture[str]) -> None:
    from mmgradcam.cli.tables import show_audit

    def own(batch: Batch) -> dict[str, Column]:
        return hottest(batch)

    assert described()(own) is own
    assert [one.name for one in metrics_of(own)] == ["hottest"]
    assert measures_of(["own"]) == measures_of(["hottest"]) == measures_of([own]) == [own]
    made = audit(audits.colored(), audits.source(), [hirescam, gradcam], ["hottest", "pointing"])
    told = json.loads(json.dumps(summary(made)))
    assert told["metrics"]["hottest"] == {
        "higher_is_better": False,
        "range": [0.0, 1.0],
        "description": "how much of it is hot",
        "source": "Nobody 1999",
    }
    assert "how much of it is hot" in page(made, b"")
    show_audit(made)
    assert "hottest: how much of it is hot (Nobody 1999); lower is better" in capsys.readouterr().out
    assert draw_plots(made).startswith(b"\x89PNG")


def test_a_plain_function_is_measured_without_a_record() -> None:
    made = audit(audits.colored(), audits.source(), [hirescam], [hottest])
    assert metrics_of(hottest) == ()
    assert list(made.metrics()) == ["correct"]
    assert 0 < made.figures("hirescam")["hottest"].mean < 1
    assert "hottest" in page(made, b"")


def test_two_metrics_of_one_name_are_refused_but_a_definition_may_be_executed_again() -> None:
    def one(batch: Batch) -> dict[str, Column]:
        return hottest(batch)

    def other(batch: Batch) -> dict[str, Column]:
        return hottest(batch)

    described()(one)
    with pytest.raises(InputError, match=r"metric 'hottest': test_metric\..*one has that name; choose another"):
        described()(other)
    other.__qualname__ = one.__qualname__
    described(description="anew")(other)
    again = metric_of("hottest")
    assert again is not None
    assert (again.compute, again.description) == (other, "anew")
    assert sum(each.name == "hottest" for each in all_metrics()) == 1


def test_metrics_are_chosen_by_function_or_by_column() -> None:
    assert measures_of(["pointing_swapped", "pointing", "baseline_center"]) == [localization.pointing]
    with pytest.raises(InputError, match="there is no metric 'average_dro'; did you mean average_drop"):
        measures_of(["average_dro"])
    with pytest.raises(InputError, match="there is no metric 'correct'"):
        measures_of(["correct"])  # which every row has


def test_the_command_line_lists_all_metrics() -> None:
    run = CliRunner()
    done = run.invoke(app, ["metrics"], env={"COLUMNS": "300"})
    assert done.exit_code == 0
    for one in listed():
        assert one.name in done.output
        assert one.description in done.output
    shown = run.invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in shown for name in measures())


def test_tables_show_kinds_and_no_column_that_others_are_made_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmgradcam.cli.tables import show_audit

    monkeypatch.setenv("COLUMNS", "200")
    made = audit(audits.colored(), audits.source(), [hirescam], ["pointing", "heat"])
    show_audit(made)
    said = capsys.readouterr().out
    for shown in (said, page(made, b"")):
        assert "swapped hits" not in shown
        assert "outside the object" not in shown, "what only a ratio is made of"
        assert "baseline center" in shown
        assert "inside outside" in shown
    (true,) = [line for line in said.splitlines() if line.startswith("│ true")]
    assert [cell.strip() for cell in true.strip("│").split("│")][:5] == ["true", "hirescam", "4", "1", "0.75"]
    assert {"swapped_hits", "inside", "outside"} <= set(summary(made)["figures"]["hirescam"]), "rows and JSON hold them"
