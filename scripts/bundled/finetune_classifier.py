"""Trains a classifier people have on pictures of their own, and shows what it goes by.

    python scripts/bundled/finetune_classifier.py --model torchvision:resnet18 --data photos/ --out runs/mine
    python scripts/bundled/finetune_classifier.py --model google/mobilenet_v2_1.0_224 --data runs/defects --out runs/cracks

`--data` is an image folder (photos/train/cat/1.jpg, ..., or photos/cat/1.jpg, which is then parted), or anything `datasets`
loads with a picture and a label in each row. First the new classifier alone learns, over the model as it came; then all of
it, at a smaller rate. Classes are weighted by how rare they are; training stops when validation has stopped to improve, and
is resumed where it was stopped. OUT then holds the model (`mmgradcam classify IMAGE --model OUT`), figures.json with the
figures of each class, and page.html, where right and wrong predictions of each class are explained.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from torch import Tensor, nn
from torchvision.transforms import v2

from mmgradcam import Explanation, explain
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import open_picture
from mmgradcam.render.embedded import data_uri
from mmgradcam.render.templating import environment
from mmgradcam.tasks import Layer, load
from mmgradcam.tasks.hub.classifiers import from_timm, save, with_classes

CHANGES = v2.Compose(
    [v2.RandomHorizontalFlip(), v2.RandomAffine(8, (0.06, 0.06), (0.9, 1.1)), v2.ColorJitter(0.2, 0.2, 0.15, 0.03)]
)
"""What may become of a training picture without its class changing."""


def splits_of(data: str, seed: int) -> dict[str, Any]:
    """Rows of train, validation and test; parted 70 : 15 : 15 where the data is one piece.

    Raises:
        InputError: it cannot be loaded, or holds no pictures with labels.
    """
    import datasets

    try:
        found = datasets.load_dataset("imagefolder", data_dir=data) if Path(data).is_dir() else datasets.load_dataset(data)
    except Exception as error:  # the library fails in many ways
        raise InputError(
            f"{data}: expected an image folder or a data set of pictures ({' '.join(str(error).split())[:160]})"
        ) from None
    if "train" not in found or not {"image", "label"} <= set(found["train"].features):
        raise InputError(f"{data}: expected a split train with columns image and label, got {found}")
    rest = [name for name in ("validation", "test") if name in found]
    if len(rest) == 2:
        return {name: found[name] for name in ("train", "validation", "test")}
    parted = found["train"].train_test_split(0.15 * (3 - len(rest)) / 1.5, seed=seed, stratify_by_column="label")
    if rest:
        return {"train": parted["train"], "validation": parted["test"], "test": found[rest[0]]}
    halves = parted["test"].train_test_split(0.5, seed=seed, stratify_by_column="label")
    return {"train": parted["train"], "validation": halves["train"], "test": halves["test"]}


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Rows as the model sees them."""

    def __init__(self, rows: Any, task: Layer, changed: bool) -> None:
        self.rows, self.task, self.changed = rows, task, changed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        image = open_picture(row["image"])
        return self.task.prepare(CHANGES(image) if self.changed else image).pixels, int(row["label"])


def batches(pictures: Pictures, size: int, seed: int | None, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.Generator().manual_seed(seed) if seed is not None else None
    yield from torch.utils.data.DataLoader(
        pictures, size, shuffle=seed is not None, generator=order, num_workers=workers, drop_last=False
    )


def logits_of(model: nn.Module, pixels: Tensor) -> Tensor:
    output = model(pixels)
    found: Tensor = getattr(output, "logits", output)
    return found


@torch.no_grad()
def judged(task: Layer, pictures: Pictures, given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Predicted and true classes of all rows."""
    task.model.eval()
    said, true = [], []
    for pixels, labels in batches(pictures, given.batch, None, given.workers):
        said.append(logits_of(task.model, pixels.to(given.device)).argmax(1).cpu())
        true.append(labels)
    return torch.cat(said), torch.cat(true)


def balanced(said: Tensor, true: Tensor) -> float:
    """Mean over the classes of the share found right."""
    return float(np.mean([(said[true == c] == c).float().mean() for c in true.unique()]))


def train(task: Layer, splits: dict[str, Any], given: argparse.Namespace) -> None:
    """Trains in place; the weights that did best on validation stay."""
    counts = np.bincount(np.asarray(splits["train"]["label"]), minlength=len(task.labels))
    weights = torch.tensor(counts.sum() / np.maximum(counts, 1) / len(counts), dtype=torch.float32).to(given.device)
    seen, held = Pictures(splits["train"], task, True), Pictures(splits["validation"], task, False)
    head = [p for p in task.model.parameters() if p.requires_grad]
    begun, best, since = 0, -1.0, 0
    kept = given.out / "last.pt"
    if kept.exists():
        state = torch.load(kept, map_location=given.device, weights_only=True)
        task.model.load_state_dict(state["model"])
        begun, best, since = state["epoch"], state["best"], state["since"]
    for epoch in range(begun, given.frozen + given.epochs):
        whole = epoch >= given.frozen
        if whole and since >= given.patience:
            break
        for parameter in task.model.parameters():
            parameter.requires_grad_(whole or any(parameter is p for p in head))
        learning = [p for p in task.model.parameters() if p.requires_grad]
        rate = given.rate * (0.1 if whole else 1.0) * 0.9 ** (epoch - given.frozen if whole else epoch)
        optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.01)
        torch.manual_seed(given.seed + epoch)
        task.model.train(whole)
        for module in task.model.modules():  # few pictures: the statistics it came with are better than a batch's
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        start, total = time.time(), 0.0
        steps = -(-len(seen) // given.batch)
        for pixels, labels in track(batches(seen, given.batch, given.seed + epoch, given.workers), f"epoch {epoch + 1}", steps):
            loss = F.cross_entropy(logits_of(task.model, pixels.to(given.device)), labels.to(given.device), weight=weights)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            total += loss.item() / steps
        right = balanced(*judged(task, held, given))
        since = 0 if right > best else since + 1
        if right > best:
            best = right
            torch.save(task.model.state_dict(), given.out / "best.pt")
        state = {"model": task.model.state_dict(), "epoch": epoch + 1, "best": best, "since": since}
        torch.save(state, given.out / "part.pt")
        (given.out / "part.pt").replace(kept)
        stage = "all of it" if whole else "the new classifier"
        print(f"epoch {epoch + 1}, {stage}: loss {total:.3f}, right {right:.3f}, {time.time() - start:.0f} s", flush=True)
    task.model.load_state_dict(torch.load(given.out / "best.pt", map_location=given.device, weights_only=True))
    task.model.eval()


def figures(said: Tensor, true: Tensor, labels: Sequence[str]) -> dict[str, Any]:
    """Precision, recall and count of each class, and the share right over all and over the classes."""
    found: dict[str, Any] = {"accuracy": float((said == true).float().mean()), "balanced": balanced(said, true), "classes": {}}
    for c, label in enumerate(labels):
        hit = int(((said == c) & (true == c)).sum())
        found["classes"][label] = {
            "precision": hit / max(1, int((said == c).sum())),
            "recall": hit / max(1, int((true == c).sum())),
            "pictures": int((true == c).sum()),
        }
    return found


def drawn(task: Layer, picture: Any, class_: int, given: argparse.Namespace) -> Explanation:
    return explain(task, open_picture(picture), classes=[class_], method=given.method, target_layers=given.layer)


PAGE = """{% extends "base.html" %}
{% block style %}{{ super() }}
.maps{display:flex;flex-wrap:wrap;gap:1rem}
.maps figure{line-height:1.4}
.maps img{display:inline;width:11rem;max-width:48%;border-radius:.3rem}
{% endblock %}
{% block body %}
<h1>{{ title }}</h1>
<p>{{ task.name }}; maps by {{ method }} at {{ layers }}, of the class that was predicted.</p>
{% for part in parts %}
<h2>{{ part.label }}, {{ part.title }} ({{ part.count }})</h2><div class="maps">
{% for one, truth in part.shown %}
<figure><img src="{{ embedded(one.picture) }}" alt=""><img src="{{ embedded(one.overlay()) }}" alt="map">
<figcaption>{{ part.label }} {{ "{:.0%}".format(one.targets[0].probability or 0.0) }}
{%- if truth != part.label %} (it is {{ truth }}){% endif %}</figcaption></figure>
{% else %}
<p>none</p>
{% endfor %}
</div>
{% endfor %}
{% endblock %}
"""


def page(task: Layer, rows: Any, said: Tensor, true: Tensor, given: argparse.Namespace) -> str:
    """Right and wrong predictions of each class, with what the prediction went by."""
    parts = []
    for c, label in enumerate(task.labels):
        for title, chosen in (("right", (said == c) & (true == c)), ("wrong", (said == c) & (true != c))):
            at = chosen.nonzero().flatten()[: given.each].tolist()
            shown = [(drawn(task, rows[i]["image"], c, given), task.labels[int(true[i])]) for i in at]
            parts.append({"label": label, "title": title, "count": int(chosen.sum()), "shown": shown})
    return (
        environment()
        .from_string(PAGE)
        .render(
            title="What the classifier goes by",
            task=task,
            method=given.method,
            layers=" x ".join(given.layer or [t.name for t in task.target_layers]),
            parts=parts,
            embedded=embedded,
        )
    )


def embedded(image: Image.Image) -> str:
    data = io.BytesIO()
    small = image.convert("RGB")
    small.thumbnail((360, 360))
    small.save(data, "WEBP", quality=80)
    return data_uri(data.getvalue(), "webp")


def met(task: Layer, rows: Any, given: argparse.Namespace) -> dict[str, float] | None:
    """How often the map's box meets the true one at IoU 0.5, and peaks inside it, where boxes.json says what is true."""
    import datasets

    path = Path(given.data) / "boxes.json"
    if not path.exists():
        return None
    boxes = json.loads(path.read_text())
    root, class_ = Path(given.data).resolve(), task.labels.index(given.defect)
    hits, peaks, centres = [], [], []
    for row in rows.cast_column("image", datasets.Image(decode=False)):
        box = boxes.get(str(Path(row["image"]["path"]).resolve().relative_to(root)))
        if box is None:
            continue
        one = drawn(task, row["image"]["path"], class_, given)
        found = one.boxes(given.threshold)
        hits.append(bool(found) and overlap(found[0], box) >= 0.5)
        x, y = one.peak or (-1, -1)
        peaks.append(box[0] <= x < box[2] and box[1] <= y < box[3])
        centres.append(box[0] <= one.picture.width / 2 < box[2] and box[1] <= one.picture.height / 2 < box[3])
    return {
        "box_iou_half": float(np.mean(hits)),
        "peak_inside": float(np.mean(peaks)),
        "centre_inside": float(np.mean(centres)),
        "pictures": len(hits),
    }


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return both / (sum(area) - both)


def main(given: argparse.Namespace) -> None:
    given.out.mkdir(parents=True, exist_ok=True)
    splits = splits_of(given.data, given.seed)
    labels = splits["train"].features["label"].names
    torch.manual_seed(given.seed)
    if given.model.startswith("timm:"):  # also encoders without classes
        task = from_timm(given.model.removeprefix("timm:"), labels, pretrained=True)
    else:
        base: Any = load(given.model)
        if "classes" not in base.query_types or base.clip_length is not None:
            raise InputError(f"{given.model} is no classifier")
        torch.manual_seed(given.seed)
        task = with_classes(base, labels)
    task.model.to(given.device)
    train(task, splits, given)
    said, true = judged(task, Pictures(splits["test"], task, False), given)
    found = figures(said, true, labels)
    if given.defect:
        found["maps"] = met(task, splits["test"], given)
    save(task, given.model, given.out)
    (given.out / "figures.json").write_text(json.dumps(found, indent=1))
    (given.out / "page.html").write_text(page(task, splits["test"], said, true, given), encoding="utf-8")
    print(json.dumps(found, indent=1))
    print(f"wrote {given.out}/model.safetensors, figures.json and page.html; mmgradcam classify IMAGE --model {given.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="torchvision:NAME, timm:NAME, a hub id or a folder")
    parser.add_argument("--data", required=True, help="an image folder, or a data set of `datasets`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frozen", type=int, default=3, help="epochs of the new classifier alone")
    parser.add_argument("--epochs", type=int, default=12, help="most epochs of all of it, after them")
    parser.add_argument("--patience", type=int, default=3, help="epochs without improvement after which it ends")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--each", type=int, default=6, help="pictures on the page per class, right and wrong")
    parser.add_argument("--defect", help="class whose maps are held against boxes.json of the data")
    parser.add_argument("--layer", nargs="+", help="take the maps at this layer, or at several, fused; earlier ones are finer")
    parser.add_argument("--method", default="gradcam", help="of the maps, as `mmgradcam methods` lists them")
    parser.add_argument("--threshold", type=float, default=0.15, help="share of its maximum above which a map's box is drawn")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    try:
        main(given)
    except InputError as error:
        parser.exit(1, f"{error}\n")
