"""Fits the flag of what is made up, `mmgradcam/metrics/hallucination.json`, on validation scenes, and measures it on test
scenes and photos.

    python scripts/bundled/calibrate_hallucination.py                         # collect, fit, measure; about an hour on one core
    python scripts/bundled/calibrate_hallucination.py --photos val.parquet    # how it does on photos, too

What is collected is kept in runs/flag and taken up again; figures go to runs/flag/figures.json. Seeds are fixed. Nothing is
chosen on a test scene.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hallucination_data import ALL, ROLES, Floats, Rows, answers, joined, kept, made_to_say, photos, really_said

from mmgradcam.metrics.hallucination import COLUMNS, LIMITS, chances
from mmgradcam.metrics.similarity import ranks
from mmgradcam.scenes.questions import QUESTION_KINDS

Fitted = dict[str, Any]
EVERY_LIMIT = (*LIMITS, (-8.0, 8.0), (-8.0, 8.0), (0.0, 1.0))
MODELS = {
    "words": ("scenes-captioner", "scenes-captioner-transformer"),
    "answers": ("scenes-vqa", "scenes-vqa-transformer"),
}
COUNTS = {"lies": (256, 320), "said": (384, 800), "answers": (96, 128)}
"""Scenes of the validation and the test split."""
SLIPS = 0.2
"""Share of the weight that what models really say has in the fit; the rest is on what they are made to say. The first is what
the flag is for, but of few false words; 0.1 to 0.4 do about alike on validation scenes."""


def balanced(false: npt.NDArray[np.bool_]) -> Floats:
    """Weights that add up to 1, half of it on what is false."""
    return np.where(false, 0.5 / false.sum(), 0.5 / (~false).sum())


def lesson(rows: Rows) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Evidence, truth and weights of what a flag is fitted on: lies beside the truth, and the model's own words or answers."""
    told, said = pairs(rows), claims(rows)
    weights = np.r_[(1 - SLIPS) * balanced(told.false), SLIPS * balanced(said.false)]
    return np.r_[told.x, said.x], np.r_[told.false, said.false], weights


def fit(x: Floats, false: npt.NDArray[np.bool_], share: Floats, which: Sequence[int], ridge: float = 0.01) -> Fitted:
    """Logistic regression by Newton's steps on weighted rows; ridge on the standardised weights."""
    limits = np.array([EVERY_LIMIT[c] for c in which])
    x = np.clip(x[:, which], *limits.T)
    mean = share @ x
    std = np.maximum(np.sqrt(share @ (x - mean) ** 2), 1e-6)
    z, penalty = np.c_[np.ones(len(x)), (x - mean) / std], np.diag([0.0] + [ridge] * len(which))
    weights = np.zeros(1 + len(which))
    for _ in range(50):
        p = 1 / (1 + np.exp(-z @ weights))
        gradient, bend = z.T @ (share * (p - false)) + penalty @ weights, (z.T * (share * p * (1 - p))) @ z + penalty
        weights = weights - np.linalg.solve(bend, gradient)
    bias, *rest = weights.tolist()
    return {"limits": limits.tolist(), "mean": mean.tolist(), "std": std.tolist(), "bias": bias, "weights": rest}


def roc_auc(score: Floats, false: npt.NDArray[np.bool_]) -> float:
    """The chance that a false statement scores above a true one; a tie is half (Mann-Whitney)."""
    # Of scipy's ranks: its mannwhitneyu also works out a p, and takes 8 times as long in each draw of the bootstrap.
    n = int(false.sum())
    return float((ranks(score)[false].sum() - n * (n + 1) / 2) / (n * (len(false) - n))) if 0 < n < len(false) else float("nan")


def average_precision(score: Floats, false: npt.NDArray[np.bool_]) -> float:
    """Mean over the false of the precision where it stands, ties broken against them."""
    found = false[np.lexsort((false, -score))]
    return float((np.cumsum(found) / np.arange(1, len(found) + 1))[found].mean())


def calibration_error(p: Floats, false: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean over bins of equal width of |mean p - share that is false|, weighted by how many lie in each."""
    of = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum((of == b).mean() * abs(p[of == b].mean() - false[of == b].mean()) for b in range(bins) if (of == b).any()))


def interval(rows: Rows, score: Floats, draws: int = 500) -> list[float]:
    """95% of the AUC, by bootstrap over pictures."""
    rng, (_, of) = np.random.default_rng(0), np.unique(rows.picture, return_inverse=True)
    members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
    drawn = (np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]) for _ in range(draws))
    found = [roc_auc(score[at], rows.false[at]) for at in drawn]
    return [float(v) for v in np.nanquantile(found, [0.025, 0.975])]


def measured(rows: Rows, p: Floats, groups: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of the flag beside probability alone and grounding alone."""
    found: dict[str, Any] = {
        "auc": roc_auc(p, rows.false),
        "interval": interval(rows, p),
        "average_precision": average_precision(p, rows.false),
        "calibration_error": calibration_error(p, rows.false),
        "alone": {name: roc_auc(-rows.x[:, c], rows.false) for c, name in enumerate(ALL)},
        "false": int(rows.false.sum()),
        "true": int((~rows.false).sum()),
    }
    found["by"] = {}
    for group in groups:
        of = rows.role == group
        if rows.false[of].any() and not rows.false[of].all():
            alone = {name: roc_auc(-rows.x[of, c], rows.false[of]) for c, name in enumerate(ALL[:2])}
            found["by"][group] = {"auc": roc_auc(p[of], rows.false[of]), "alone": alone, "false": int(rows.false[of].sum())}
    return found


def threshold(true: Floats) -> float:
    """What 5% of true words reach; but nothing is flagged that is likelier true than false."""
    return max(0.5, float(np.quantile(true, 0.95)))


def pairs(rows: Rows) -> Rows:
    return rows[(rows.what == "lie") | (rows.what == "true")]


def claims(rows: Rows) -> Rows:
    """What the model said of itself and can be false."""
    return rows[(rows.what == "said") & (rows.role != "function")]


def ablation(data: dict[str, Rows]) -> dict[str, Any]:
    """AUC on each model's validation rows of flags on other columns, fitted on the other model's: lies, and what it really
    said.
    """
    sets = {name: (c,) for c, name in enumerate(ALL[:-1])} | {"log p, grounding": (0, 1), "the flag": (0, 1, 2)}
    sets |= {f"the flag, {ALL[c]}": (0, 1, 2, c) for c in (3, 4)}
    found: dict[str, Any] = {}
    for name, which in sets.items():
        for held in data:
            fitted = fit(*lesson(joined([data[m] for m in data if m != held])), which)
            shown = {"lies": pairs(data[held]), "really said": claims(data[held])}
            figures = {k: roc_auc(chances(fitted, some.x[:, which]), some.false) for k, some in shown.items()}
            found.setdefault(name, {})[held] = figures
    with_maps = {m: pairs(rows[np.isfinite(rows.x[:, 5])]) for m, rows in data.items()}
    if not all(map(len, with_maps.values())):
        return found
    for name, which in {"std": (5,), "lies only": (0, 1, 2), "lies only, spread": (0, 1, 2, 5)}.items():
        for held, test in with_maps.items():
            told = joined([with_maps[m] for m in data if m != held])
            p = chances(fit(told.x, told.false, balanced(told.false), which), test.x[:, which])
            found.setdefault(name, {})[held] = {"lies": roc_auc(p, test.false)}
    return found


def calibrate(kind: str, out: Path) -> tuple[Fitted, dict[str, Any]]:
    """Fits the flag of words or of answers on both models' validation rows; measures it, and flags that lack a model."""
    groups, which = (ROLES, QUESTION_KINDS)[kind == "answers"], list(range(len(COLUMNS)))
    data: dict[str, dict[str, Rows]] = {"validation": {}, "test": {}}
    for name in MODELS[kind]:
        for n, split in enumerate(data):
            if kind == "words":
                parts = [
                    kept(out / f"{name}-{split}-lies.npz", partial(made_to_say, name, split, COUNTS["lies"][n])),
                    kept(out / f"{name}-{split}-said.npz", partial(really_said, name, split, COUNTS["said"][n])),
                ]
                data[split][name] = joined(parts)
            else:
                data[split][name] = kept(out / f"{name}-{split}.npz", partial(answers, name, split, COUNTS["answers"][n]))

    def flag_of(names: Sequence[str]) -> Fitted:
        rows = joined([data["validation"][name] for name in names])
        made = fit(*lesson(rows), which)
        true = rows[~rows.false & np.isin(rows.what, ["true", "other"])]
        return {
            "models": list(names),
            "columns": list(COLUMNS),
            **made,
            "threshold": threshold(chances(made, true.x[:, which])),
        }

    flags = {"both": flag_of(MODELS[kind]), **{name: flag_of([name]) for name in MODELS[kind]}}
    figures: dict[str, Any] = {"validation": ablation(data["validation"]), "test": {}}
    for name, rows in data["test"].items():
        figures["test"][name] = {}
        for trained, fitted in flags.items():
            told, said = pairs(rows), claims(rows)
            p, q = (chances(fitted, some.x[:, which]) for some in (told, said))
            every = chances(fitted, rows.x[:, which]) > fitted["threshold"]
            found = {"made_to_say": measured(told, p, groups), "really_said": measured(said, q, groups)}
            shares = {"lies": rows.what == "lie", "said and false": (rows.what == "said") & rows.false,
                      "true words": ~rows.false & np.isin(rows.what, ["true", "other"]), "said and true": (rows.what == "said") & ~rows.false,
                      "true, after a lie": rows.what == "after", "near": (rows.what == "lie") & rows.near}  # fmt: skip
            found["is_hallucinated"] = {k: float(every[of].mean()) for k, of in shares.items() if of.any()}
            figures["test"][name][f"fitted on {trained}"] = found
    return flags["both"], figures


def of_photos(scenes: Fitted, rows: Rows) -> tuple[Fitted, dict[str, Any]]:
    """A flag fitted on every other photo; how it and the one of scenes do on the rest."""
    which, half = list(range(len(COLUMNS))), rows.picture % 2 == 0
    told, test = pairs(rows[half]), rows[~half]
    fitted = fit(told.x, told.false, balanced(told.false), which)
    true = chances(fitted, rows[half & ~rows.false].x[:, which])
    fitted = {
        "models": ["photo-captioner-small"],
        "columns": list(COLUMNS),
        **fitted,
        "threshold": threshold(true),
    }
    figures: dict[str, Any] = {}
    for name, flag in {"fitted on photos": fitted, "fitted on scenes": scenes}.items():
        p = chances(flag, test.x[:, which])
        nouns = np.isin(test.what, ["lie", "true"])
        doubted = {"false": test.false, "true": nouns & ~test.false, "other words": test.what == "other"}
        figures[name] = {
            **measured(test[nouns], p[nouns]),
            "is_hallucinated": {k: float((p[of] > flag["threshold"]).mean()) for k, of in doubted.items()},
        }
    return fitted, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/flag"))
    parser.add_argument("--photos", type=Path, help="Parquet of photos with captions and phrases, none of them trained on")
    parser.add_argument("--count", type=int, default=200, help="photos")
    parser.add_argument("--only", choices=list(MODELS), help="collect for these alone, and stop")
    told = parser.parse_args()
    torch.set_num_threads(1)
    made, figures = {}, {}
    for kind in [told.only] if told.only else MODELS:
        made[kind], figures[kind] = calibrate(kind, told.out)
    if told.only:
        return
    if told.photos:
        rows = kept(told.out / "photos.npz", partial(photos, told.photos, told.count))
        made["photos"], figures["photos"] = of_photos(made["words"], rows)
    path = Path(__file__).parents[2] / "mmgradcam" / "metrics" / "hallucination.json"
    kept_flags = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made = {**{k: v for k, v in kept_flags.items() if k == "photos"}, **made}  # photos are not always at hand
    path.write_text(json.dumps(_rounded(made), indent=2) + "\n", encoding="utf-8")
    print(tables(figures))
    (told.out / "figures.json").write_text(json.dumps(_rounded(figures), indent=1) + "\n", encoding="utf-8")


def tables(figures: dict[str, Any]) -> str:
    """The figures as the tables of docs/grounding.md."""
    lines = []
    for kind, found in figures.items():
        if kind == "photos":
            lines += [
                "",
                "| flag | AUC | 95% | average precision | calibration error | log p alone | grounding alone | false flagged | true flagged | other words flagged |",
                "|" + " --- |" * 10,
            ]
            lines += [
                f"| {_line(name, one)} | "
                + " | ".join(f"{one['is_hallucinated'][k]:.1%}" for k in ("false", "true", "other words"))
                + " |"
                for name, one in found.items()
            ]
            continue
        for what in ("made_to_say", "really_said"):
            lines += [
                "",
                f"{kind}, {what.replace('_', ' ')}",
                "",
                "| model | flag | AUC | 95% | average precision | calibration error | log p alone | grounding alone | false, true |",
                "|" + " --- |" * 9,
            ]
            for model, flags in found["test"].items():
                lines += [
                    f"| {model} | {_line(name, one[what])} | {one[what]['false']}, {one[what]['true']} |"
                    for name, one in flags.items()
                ]
            lines += [
                "",
                "| AUC (log p alone, grounding alone; false) | " + " | ".join(found["test"]) + " |",
                "|" + " --- |" * (1 + len(found["test"])),
            ]
            groups = dict.fromkeys(g for flags in found["test"].values() for g in flags["fitted on both"][what]["by"])
            for group in groups:
                cells = [flags["fitted on both"][what]["by"].get(group) for flags in found["test"].values()]
                shown = [
                    f"{c['auc']:.3f} ({c['alone']['log p']:.3f}, {c['alone']['grounding']:.3f}; {c['false']})" if c else "-"
                    for c in cells
                ]
                lines.append(f"| {group} | " + " | ".join(shown) + " |")
        lines += ["", "| share flagged | " + " | ".join(found["test"]) + " |", "|" + " --- |" * (1 + len(found["test"]))]
        for k in next(iter(found["test"].values()))["fitted on both"]["is_hallucinated"]:
            lines.append(
                f"| {k} | "
                + " | ".join(f"{flags['fitted on both']['is_hallucinated'][k]:.1%}" for flags in found["test"].values())
                + " |"
            )
        lines += [
            "",
            "| validation, fitted on the other model | "
            + " | ".join(f"{m}: {k}" for m in found["test"] for k in ("lies", "really said"))
            + " |",
            "|" + " --- |" * 5,
        ]
        for name, one in found["validation"].items():
            lines.append(
                f"| {name} | "
                + " | ".join(f"{one[m][k]:.3f}" if k in one[m] else "-" for m in found["test"] for k in ("lies", "really said"))
                + " |"
            )
    return "\n".join(lines)


def _line(name: str, one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{name} | **{one['auc']:.3f}** | {low:.3f}-{high:.3f} | {one['average_precision']:.3f} | {one['calibration_error']:.3f} | {one['alone']['log p']:.3f} | {one['alone']['grounding']:.3f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
