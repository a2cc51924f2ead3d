"""Data sets as they are handed out, recognised by how they are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmgradcam.datasets.coco import coco
from mmgradcam.datasets.entities import entities
from mmgradcam.datasets.folders import image_folder, pictures
from mmgradcam.datasets.motion_source import motions
from mmgradcam.datasets.scene_source import scenes
from mmgradcam.datasets.stream import Source as Source
from mmgradcam.datasets.voc import imagenet, is_voc, voc
from mmgradcam.datasets.vqa import hat, is_hat, vqa
from mmgradcam.errors import InputError
from mmgradcam.utils.files import exists, is_folder

KNOWN = (
    "a Parquet file, COCO's captions_*.json or instances_*.json, VQA's annotations JSON, a folder vqahat_val, VOCdevkit, "
    'ILSVRC, of Flickr30k Entities, of a saved data set or of pictures, "scenes", or "motions"'
)


def open_data(spec: str | Path | Any, images: Path | None = None) -> Source:
    """A data set as a stream of photos, whatever its layout.

    Args:
        spec: a path, of which the layout is recognised (docs/data.md has a table of them); "scenes" or "scenes:validation",
            the project's own, or "scenes:test:generated", for captions that a model generates; "motions" or
            "motions:validation", rendered clips; a data set of `datasets`; or a `Source`, which is returned as it is.
        images: the folder of the pictures, where it is not where the layout has it.

    Raises:
        InputError: no such file or folder, or none of the layouts.

    >>> source = open_data("scenes:validation")
    >>> source.name, len(source), next(iter(source)).name
    ('scenes:validation', 10000, 'scene-50000')
    """
    if isinstance(spec, Source):
        return spec
    if hasattr(spec, "column_names"):
        from mmgradcam.datasets.tables import table

        return table(spec)
    if not isinstance(spec, (str, Path)):
        raise InputError(f"data: expected {KNOWN}, or a data set of `datasets`; got {type(spec).__name__}")
    if str(spec) == "scenes" or str(spec).startswith("scenes:"):
        split, _, generated = str(spec).removeprefix("scenes").removeprefix(":").partition(":")
        if generated not in ("", "generated"):
            raise InputError(f'scenes: expected "scenes:{split}" or "scenes:{split}:generated", got {str(spec)!r}')
        return scenes(split or "test", bool(generated))
    if str(spec) == "motions" or str(spec).startswith("motions:"):
        return motions(str(spec).partition(":")[2] or "test")
    path = Path(spec)
    images = Path(images) if images else None
    if images and not is_folder(images):
        raise InputError(f"{images}: no such folder; expected the pictures of {path}")
    if not exists(path):
        raise InputError(f"{path}: no such file or folder; expected {KNOWN}")
    return _file(path, images) if path.is_file() else _folder(path, images)


def _file(path: Path, images: Path | None) -> Source:
    if path.suffix == ".parquet":
        from mmgradcam.datasets.tables import saved

        return saved(path)
    if path.suffix == ".json" and "mscoco_" in path.name:
        return vqa(path, images)
    if path.suffix == ".json":
        return coco(path, images)
    if path.suffix == ".csv":
        return image_folder(path, images)
    if path.suffix == ".txt" and len(path.parents) > 2 and is_voc(path.parents[2]):
        return voc(path, images)
    if path.suffix == ".txt" and (path.parent / "Sentences").is_dir():
        return entities(path, images)
    raise InputError(f"{path}: not a data set of a known layout; expected {KNOWN}")


def _folder(path: Path, images: Path | None) -> Source:
    for root in (path, path / "ILSVRC"):
        if (root / "Annotations" / "CLS-LOC").is_dir():
            return imagenet(root, images)
    years = [root for root in (path, *sorted(path.glob("VOC20*"), reverse=True)) if is_voc(root)]
    if years:
        return voc(years[0], images)
    if (path / "Sentences").is_dir() and (path / "Annotations").is_dir():
        return entities(path, images)
    if is_hat(path):
        return hat(path, images)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file() or any(path.rglob("*.parquet")):
        from mmgradcam.datasets.tables import saved

        return saved(path)
    listed = sorted((path / "annotations").glob("captions_*.json")) + sorted((path / "annotations").glob("instances_*.json"))
    if listed:
        raise InputError(f"{path}: expected one of COCO's files, such as {listed[-1]}; name it")
    if pictures(path):
        return image_folder(path, images)
    raise InputError(f"{path}: not a data set of a known layout; expected {KNOWN}")
