"""Makes a bundled model of what scripts/train_photos.py trained: chooses its method and layers, measures it, writes its card.

    python scripts/publish_photos.py photo-captioner --run runs/photos/photo-captioner --train train.parquet --val val.parquet

Method and layers are chosen on photos at the end of the training set that the head was not trained on; their boxes are read for
that and for nothing else. The figures are those of the validation photos.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from photo_data import HELD
from train_photos import HUB

from mmgradcam import methods
from mmgradcam.bulk.photos import evaluate_photos
from mmgradcam.data.photos import Photos
from mmgradcam.task import Task
from mmgradcam.tasks import load
from mmgradcam.tasks.loading import build, parts, save

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
NETS = "mmgradcam.tasks.nets"
METHODS = ("gradcam", "hirescam", "layercam", "normgrad")
HUB_LAYERS: list[list[str]] = [
    [],
    ["model.layer.14"],
    ["model.layer.11"],
    ["model.layer.4"],
    ["model.layer.4", "model.layer.14"],
    ["model.layer.4", "model.layer.11", "model.layer.14"],
]
OWN_LAYERS: list[list[str]] = [[], ["stages.2"], ["stages.1"], ["stages.0"], ["stages.1", "stages.2"], ["stages.0", "stages.2"]]
SUMMARIES = {
    "photo-captioner": "captions photos; MobileNetV2 of the hub, LSTM with attention over word detectors",
    "photo-captioner-transformer": "captions photos; MobileNetV2 of the hub, transformer over word detectors",
    "photo-captioner-small": "captions photos; its own encoder, LSTM with attention over word detectors",
    "photo-vqa": "answers questions about photos; MobileNetV2 of the hub, LSTM with glimpses over word detectors",
}
Figures = dict[str, Any]


def describe(name: str, run: Path) -> dict[str, Any]:
    about = json.loads((run / "about.json").read_text())
    captions = "captioner" in name
    if "small" in name:
        from distill_photos import ENCODER

        encoder: dict[str, Any] = {"class": f"{NETS}.encoder:Encoder", **ENCODER}
    else:
        changed = {"model_type": "mobilenet_v2", "output_stride": 16}
        encoder = {
            "class": f"{NETS}.backbone:Backbone",
            "name": HUB,
            "config": changed,
            "weights": True,
            "without": ["conv_1x1"],
        }
    return {
        "task": f"mmgradcam.tasks.{'captioning:Captioning' if captions else 'vqa:VQA'}",
        "summary": SUMMARIES[name],
        "encoder": encoder,
        "head": {"class": f"{NETS}.evidence:{'EvidenceCaptioner' if captions else 'EvidenceAnswerer'}", **about["head"]},
        "fit": {**about["fit"], "size": list(about["fit"]["size"])},
        "seam": "features",
        "words": about["words"],
        **({"beam": 3} if captions else {"answers": about["answers"]}),
        "stored": "int8",
        "method": "normgrad",
        "taps": [] if "small" in name else ["model.layer.14"],
        "fuse": "product",
    }


def export(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Writes the model folder with what is known so far, and returns its config."""
    kept = torch.load(given.run / "best.pt", map_location="cpu", weights_only=True)
    config = describe(name, given.run)
    asked = config if "small" in name else {**config, "encoder": {**config["encoder"], "name": str(given.encoder or HUB)}}
    task = build(asked)
    parts(task)["head"].load_state_dict(kept["head"])
    if "small" in name:
        parts(task)["encoder"].load_state_dict(torch.load(given.student, map_location="cpu", weights_only=True)["encoder"])
    save(task, config, CHECKPOINTS / name)
    return config


def loaded(name: str, given: argparse.Namespace) -> Task:
    return load(CHECKPOINTS / name, encoder=None if "small" in name else given.encoder)


def candidates(name: str) -> list[tuple[str, list[str]]]:
    layers = OWN_LAYERS if "small" in name else HUB_LAYERS
    return [(method, taps) for taps in layers for method in METHODS if len(taps) < 2 or method in ("layercam", "normgrad")]


def choose(name: str, given: argparse.Namespace) -> list[Figures]:
    """Figures of each method at each layer on held training photos, kept in the run's methods.json."""
    kept = given.run / "methods.json"
    rows: list[Figures] = json.loads(kept.read_text()) if kept.exists() else []
    task = loaded(name, given)
    photos = Photos(given.train)
    photos = Photos(photos.rows.select(range(len(photos) - HELD, len(photos) - HELD + given.choose_on)))
    for method, taps in candidates(name)[len(rows) :]:
        found = evaluate_photos(task, photos, method=getattr(methods, method), taps=taps)  # type: ignore[arg-type]
        rows.append({"method": method, "taps": taps, **found["pointing"], "inside_outside": found["inside_outside"]})
        print({k: round(v, 1) if isinstance(v, float) else v for k, v in rows[-1].items() if k != "types"}, flush=True)
        kept.write_text(json.dumps(rows))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SUMMARIES)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="a folder with the hub's encoder")
    parser.add_argument("--student", type=Path, help="encoder.pt of scripts/distill_photos.py")
    parser.add_argument("--choose-on", type=int, default=40)
    parser.add_argument("--measure-on", type=int, default=1000)
    parser.add_argument("--until", choices=("export", "choose", "card"), default="card")
    given = parser.parse_args()
    export(given.name, given)
    if given.until != "export":
        choose(given.name, given)
