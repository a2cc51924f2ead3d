"""Models by name and from folders: read as they were written, refused in one line when they cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmgradcam import InputError, explain
from mmgradcam.tasks import Captioning, load


def test_a_folder_is_read_as_it_was_written(folders: dict[str, Path]) -> None:
    task = load(folders["captioner"], device="cpu")
    assert isinstance(task, Captioning)
    assert (task.name, task.seam) == (folders["captioner"].name, "the encoder's features, stride 4")
    assert not task.encoder.training
    assert all(p.dtype == torch.float32 for m in task.modules() for p in m.parameters())
    again = load(folders["captioner"], device="cpu")
    assert task.fingerprint() == again.fingerprint()
    made = explain(task, Image.new("RGB", (70, 40), "red"), caption="a red cube")
    assert (made.about.method, made.maps.shape) == ("layercam", (3, 16, 16))


def test_a_model_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="there is no model 'scene-captioner'; did you mean scenes-captioner"):
        load("scene-captioner")


def change(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


BROKEN: dict[str, tuple[Any, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "expected a model folder with config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "the model is damaged or incomplete"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 40), "the model is damaged or incomplete"),
    "bad json": (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "foreign json": (lambda f: (f / "config.json").write_text("[]"), "expected the description of an mmgradcam model"),
    "newer": (lambda f: change(f, format=9), "expected model format 1, got 9"),
    "other sizes": (lambda f: change(f, words=["a"]), "the model is damaged or incomplete"),
    "other code": (lambda f: change(f, task="os:system"), "expected a Task of mmgradcam, got os:system"),
    "other class": (lambda f: change(f, task="mmgradcam.store:pack"), "expected a Task of mmgradcam"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_folders_are_refused(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(folders["captioner"], tmp_path / "copy")
    damage, message = BROKEN[name]
    damage(tmp_path / "copy")
    if name == "other sizes":
        head = json.loads((tmp_path / "copy" / "config.json").read_text())["head"]
        change(tmp_path / "copy", head={**head, "vocabulary": 5})
    with pytest.raises(InputError, match=message) as refusal:
        load(tmp_path / "copy")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("device", ["cuda:77", "nonsense", "meta", "cpu:x", "", "vulkan"])
def test_a_device_that_does_not_exist_is_said(folders: dict[str, Path], device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' cannot be used"):
        load(folders["vqa"], device=device)
