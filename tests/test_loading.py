"""Models by name and from folders: read as they were written, refused in one line when they cannot be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmgradcam import InputError, explain
from mmgradcam.tasks import Captioning, load
from mmgradcam.tasks.loading import build, save


def test_a_folder_is_read_as_it_was_written(folders: dict[str, Path]) -> None:
    task = load(folders["captioner"], device="cpu")
    assert isinstance(task, Captioning)
    assert (task.name, task.feature_layer) == (folders["captioner"].name, "the encoder's features, stride 4")
    assert not task.encoder.training
    assert all(p.dtype == torch.float32 for m in task.modules() for p in m.parameters())
    again = load(folders["captioner"], device="cpu")
    assert task.fingerprint() == again.fingerprint()
    made = explain(task, Image.new("RGB", (70, 40), "red"), caption="a red cube")
    assert (made.metadata.method, made.maps.shape) == ("layercam", (3, 16, 16))


def test_a_model_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="there is no model 'scene-captioner'; did you mean scenes-captioner"):
        load("scene-captioner")


def change(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def put(name: str, key: str, value: Any) -> Any:
    """An edit of a config: sets a value by a dotted key; `...` takes the key away."""

    def edit(folder: Path) -> None:
        config = made = json.loads((folder / "config.json").read_text())
        *steps, last = (int(step) if step.isdigit() else step for step in key.split("."))
        for step in steps:
            made = made[step]
        if value is ...:
            del made[last]
        else:
            made[last] = value
        (folder / "config.json").write_text(json.dumps(config))

    return name, edit


def text(data: bytes) -> Any:
    return "captioner", lambda folder: (folder / "config.json").write_bytes(data)


def weigh(name: str, edit: Any) -> Any:
    """An edit of the weights, a dictionary of tensors."""

    def edited(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")

    return name, edited


def file(name: str, edit: Any) -> Any:
    def edited(folder: Path) -> None:
        (folder / name).unlink()
        edit(folder / name)

    return "captioner", edited


MATRIX, LARGE = "head.out.weight", "head.say_word.weight"
NETS = "mmgradcam.tasks.nets"

BROKEN: list[tuple[Any, str]] = [
    # what is done to which folder, and what the line names
    (file("config.json", lambda p: None), "expected a model folder with config.json"),
    (file("config.json", os.mkfifo), "config.json: expected a description .config.json., got a pipe"),
    (file("config.json", lambda p: p.mkdir()), "config.json: expected a description .config.json., got a folder"),
    (file("config.json", lambda p: p.symlink_to("/dev/zero")), "got a device"),
    (file("model.safetensors", lambda p: None), "model.safetensors: no such file"),
    (file("model.safetensors", os.mkfifo), "model.safetensors: expected weights .model.safetensors., got a pipe"),
    (file("model.safetensors", lambda p: p.mkdir()), "got a folder"),
    (file("model.safetensors", lambda p: p.write_bytes(b"")), "the model is damaged or incomplete"),
    (file("model.safetensors", lambda p: p.write_bytes(b"x" * 40)), "the model is damaged or incomplete"),
    (file("model.safetensors", lambda p: p.write_bytes(b"\xff" * 8 + b"{}")), "the model is damaged or incomplete"),
    (file("model.safetensors", lambda p: p.write_bytes((2).to_bytes(8, "little") + b"{}")), "expected a tensor of that name, got none"),
    (file("model.safetensors", lambda p: torch.save({}, p)), "the model is damaged or incomplete"),
    *((text(data), "config.json: cannot be read") for data in (b"", b"{", b"{]", b"\xff\xfe", b'{"a":' * 10**5, b"1" * 5000)),
    *((text(data), "expected the description of an mmgradcam model") for data in (b"[]", b"3", b"null", b'"task"', b"{}")),
    (put("captioner", "format", ...), "expected model format 1, got None"),
    *((put("captioner", "format", value), "expected model format 1, got") for value in (9, "1", True, None, [1])),
    *((put("captioner", key, ...), f"config.json: {key}: field required") for key in ("encoder", "head", "feature_layer", "method", "fuse", "target_layers")),
    (put("captioner", "task", ...), "with a task; got something else"),
    *((put("captioner", key, None), f"config.json: {key}: ") for key in ("task", "encoder", "head", "fit", "words", "feature_layer", "target_layers")),
    *((put("captioner", key, 3), f"config.json: {key}: ") for key in ("task", "encoder", "head", "fit", "words", "feature_layer", "method", "target_layers", "fuse")),
    *((put("captioner", "task", task), "task: expected a Task of mmgradcam, got") for task in ("os:system", "mmgradcam.storage.npz:pack", "mmgradcam.__main__:x", "mmgradcam.tasks.nope:X", "mmgradcam.tasks.captioning:Nope", "mmgradcam.tasks.captioning", "", ":", f"{NETS}.encoder:Encoder")),
    *((put("captioner", "encoder.class", kind), "encoder.class: expected a Module of mmgradcam, got") for kind in ("os:system", "", 3, None, [], f"{NETS}.nope:X", "mmgradcam.tasks.captioning:Captioning")),
    (put("captioner", "encoder.class", ...), "encoder.class: expected a Module of mmgradcam"),
    (put("captioner", "task", "mmgradcam.tasks.vqa:VQA"), "answers: mmgradcam.tasks.vqa:VQA needs it, and there is none"),
    (put("vqa", "task", "mmgradcam.tasks.captioning:Captioning"), "answers: mmgradcam.tasks.captioning:Captioning has no use for it"),
    (put("captioner", "task", "mmgradcam.tasks.video:Video"), "labels: mmgradcam.tasks.video:Video needs it"),
    (put("vqa", "head.class", f"{NETS}.captioners:LSTMCaptioner"), "head.heads: extra inputs are not permitted"),
    (put("captioner", "encoder", {"class": f"{NETS}.clips:SliceHead", "channels": 6, "classes": 6}), "expected a tensor of that name, got none"),
    (put("captioner", "head", {"class": f"{NETS}.clips:SliceHead", "channels": 6, "classes": 6}), "expected a head as CaptionHead is, got SliceHead without together"),
    (put("captioner", "head.channels", ...), "head.channels: field required"),
    (put("captioner", "head.more", 1), "head.more: extra inputs are not permitted"),
    (put("captioner", "head.channels", "6"), "head.channels: input should be a valid integer, got '6'"),
    (put("captioner", "head.channels", 6.5), "head.channels: input should be a valid integer"),
    (put("captioner", "head.channels", True), "head.channels: input should be a valid integer"),
    (put("captioner", "head.channels", 7), r"head.begin.weight: expected \(16, 7\), got \(16, 6\)"),
    *((put("captioner", "head.width", value), "config.json: head.width: expected numbers of 0 to 1,000,000, got") for value in (10**9, -1, 10**30)),
    (put("captioner", "head.width", 10**6), "head.words.weight: expected .*, 1000000., got"),
    (put("captioner", "head.width", 0), "head.words.weight: expected .*, 0., got"),
    (put("captioner", "encoder.channels", 10**9), "encoder.channels: expected numbers of 0 to 1,000,000, got 1000000000"),
    (put("captioner", "encoder.widths", [4, 6, 10**9]), "encoder.widths: expected numbers of 0 to 1,000,000"),
    (put("captioner", "encoder.widths", [4, 6]), "the model is damaged or incomplete .Encoder: expected one depth per stage"),
    (put("captioner", "encoder.widths", "468"), "encoder.widths: "),
    (put("captioner", "encoder.depths", [1, 10**6]), "encoder.depths: expected numbers of 0 to 1,000, got 1000000"),
    (put("captioner", "encoder.depths", [1, 2]), "encoder.stages.1.1.conv1.weight: expected a tensor of that name, got none"),
    (put("captioner", "encoder.depths", [1, 0]), "model.safetensors: encoder.stages.1.0.conv1.weight: the model has no tensor of that name"),
    (put("captioner", "encoder.level", 7), "the model is damaged or incomplete"),
    (put("captioner", "head.vocabulary", 3), "head.vocabulary: expected 68, as words are 64, got '3'"),
    (put("captioner", "words", ["a"]), "head.vocabulary: expected 5, as words are 1"),
    (put("captioner", "words", []), "words: "),
    (put("captioner", "words.1", "a"), "words: expected each of them once"),
    (put("captioner", "words.1", 3), r"words\[1\]: input should be a valid string"),
    (put("captioner", "words.1", ""), r"words\[1\]: "),
    (put("captioner", "words", ...), "words: .* needs it"),
    (put("vqa", "answers", ["yes", "no"]), "head.answers: expected 2, as answers are 2, got '36'"),
    (put("vqa", "answers.0", "no"), "answers: expected each of them once"),
    (put("captioner", "method", "gradcan"), "method: expected a method of `mmgradcam methods`, got 'gradcan'"),
    (put("captioner", "method", "smooth"), "method: expected a method"),
    (put("captioner", "method", "rise(masks=5)"), r"method: expected a method .* got 'rise\(masks=5\)'"),
    (put("captioner", "method", "__name__"), "method: expected a method"),
    (put("captioner", "fuse", "layercam"), "fuse: input should be 'product' or 'mean'"),
    (put("captioner", "target_layers", ["stages.7"]), "no layer is called 'stages.7'"),
    (put("captioner", "target_layers", [3]), r"target_layers\[0\]: "),
    (put("captioner", "target_layers", "stem"), "target_layers: "),
    (put("captioner", "fit", ...), "fit: .* needs it"),
    (put("captioner", "fit.size", [64]), r"fit.size\[1\]: field required"),
    *((put("captioner", "fit.size", value), "fit.size") for value in ([0, 64], [7, 64], [64, -1], [64, 10**9], 64, "64", [64.0, 64.5], [64, 64, 3])),
    *((put("captioner", "fit.std", value), "fit.std") for value in ([0, 1, 1], [1, 1], 1, [1, 1, -1], [1, 1, "1"], [1, 1, float("nan")])),
    *((put("captioner", "fit.mean", value), "fit.mean") for value in ([0.5], 0.5, None, [0.5, 0.5, float("inf")])),
    (put("captioner", "fit.how", "squash"), "fit.how: input should be 'pad', 'crop' or 'stretch', got 'squash'"),
    (put("captioner", "fit.more", 1), "fit.more: extra inputs are not permitted"),
    *((put("captioner", "beam", value), "beam: ") for value in (0, -1, "3", 10**9, 1.5, True)),
    (put("captioner", "unit", "logit"), 'config.json: captioning: expected unit "log-probability" or "word logit"'),
    (put("vqa", "beam", 3), "beam: mmgradcam.tasks.vqa:VQA has no use for it"),
    (put("captioner", "stored", "int4"), "stored: "),
    (weigh("captioner", lambda w: w.pop(MATRIX)), f"model.safetensors: {MATRIX}: expected a tensor of that name, got none"),
    (weigh("captioner", lambda w: w.update(more=w[MATRIX].clone())), "model.safetensors: more: the model has no tensor of that name"),
    (weigh("captioner", lambda w: w.update({MATRIX: w[MATRIX].T})), f"{MATRIX}: expected .68, 8., got .8, 68."),
    (weigh("captioner", lambda w: w.update({MATRIX: w[MATRIX][:, None]})), f"{MATRIX}: expected .68, 8., got .68, 1, 8."),
    (weigh("captioner", lambda w: w.update({MATRIX: w[MATRIX].to(torch.int64)})), f"{MATRIX}: expected floats, or int8 with scales, got I64"),
    (weigh("captioner", lambda w: w.update({MATRIX: w[MATRIX].to(torch.int8)})), f"{MATRIX}:scale: expected a scale for each row of int8, .68,., got none"),
    (weigh("captioner", lambda w: w.update({MATRIX + ":scale": torch.ones(68)})), f"{MATRIX}: expected floats, or int8 with scales, got F16 with scales"),
    (weigh("captioner", lambda w: w[MATRIX][0].fill_(float("nan"))), f"{MATRIX}: expected finite numbers"),
    (weigh("captioner", lambda w: w[MATRIX][0].fill_(float("inf"))), f"{MATRIX}: expected finite numbers"),
    (weigh("captioner", lambda w: w.update({"encoder.stem.1.num_batches_tracked": torch.tensor(0.5)})), "num_batches_tracked: expected whole numbers, got F32"),
    (weigh("int8", lambda w: w.pop(LARGE + ":scale")), f"{LARGE}:scale: expected a scale for each row of int8, .*, got none"),
    (weigh("int8", lambda w: w.update({LARGE + ":scale": w[LARGE + ":scale"][1:]})), f"{LARGE}:scale: expected a scale for each row"),
    (weigh("int8", lambda w: w.update({LARGE + ":scale": w[LARGE + ":scale"][:, None]})), f"{LARGE}:scale: expected a scale for each row"),
    (weigh("int8", lambda w: w.update({LARGE + ":scale": w[LARGE + ":scale"].to(torch.int8)})), f"{LARGE}:scale: expected a scale for each row"),
    (weigh("int8", lambda w: w[LARGE + ":scale"].fill_(float("nan"))), f"{LARGE}:scale: expected finite numbers, not below 0"),
    (weigh("int8", lambda w: w[LARGE + ":scale"].neg_()), f"{LARGE}:scale: expected finite numbers, not below 0"),
    (weigh("int8", lambda w: w.update({LARGE: w[LARGE].to(torch.uint8)})), f"{LARGE}: expected floats, or int8 with scales, got U8 with scales"),
    (weigh("int8", lambda w: w.pop(LARGE)), f"{LARGE}: expected a tensor of that name"),
]  # fmt: skip


@pytest.fixture(scope="session")
def models(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders to edit; the matrices of one are stored as int8."""
    config = json.loads((folders["captioner"] / "config.json").read_text())
    config["head"]["width"], config["stored"] = 64, "int8"
    folder = tmp_path_factory.mktemp("int8")
    save(build(config), config, folder)
    return {**folders, "int8": folder}


@pytest.mark.parametrize("at", range(len(BROKEN)))
def test_an_edited_or_damaged_folder_is_refused_in_one_line(models: dict[str, Path], tmp_path: Path, at: int) -> None:
    (name, damage), message = BROKEN[at]
    shutil.copytree(models[name], tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(InputError, match=message) as refusal:
        load(tmp_path / "copy", device="cpu")
    assert str(refusal.value).startswith(str(tmp_path / "copy"))
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 800


def test_a_card_names_a_method_with_its_settings(models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["captioner"], tmp_path / "copy")
    put("captioner", "method", "rise(count=4, cells=2)")[1](tmp_path / "copy")
    made = explain(load(tmp_path / "copy", device="cpu"), Image.new("RGB", (64, 64)), caption="a red cube", only="red")
    assert made.metadata.method == "rise(count=4, cells=2)"


def test_the_folders_that_are_edited_are_good(models: dict[str, Path], tmp_path: Path) -> None:
    """Before the edit, and with what later versions or people may add."""
    assert len(BROKEN) > 110
    for name, folder in models.items():
        shutil.copytree(folder, tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "note": {"by": ["me"]}}))
        again = load(tmp_path / name, device="cpu")
        assert again.fingerprint() == load(folder, device="cpu").fingerprint()
    weights = load_file(models["int8"] / "model.safetensors")
    assert weights[LARGE].dtype == torch.int8
    scale = weights[LARGE + ":scale"].float()
    torch.testing.assert_close(load(models["int8"]).head.say_word.weight.data, weights[LARGE].float() * scale[:, None])  # type: ignore[attr-defined]


def test_a_model_beyond_memory_is_refused_before_it_is_made(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first build takes no memory, and there is no second."""
    devices: list[str] = []
    real = torch.nn.Linear.__init__

    def record_outputs(self: Any, *args: Any, **settings: Any) -> None:
        real(self, *args, **settings)
        devices.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", record_outputs)
    shutil.copytree(models["captioner"], tmp_path / "copy")
    change(tmp_path / "copy", head={**json.loads((models["captioner"] / "config.json").read_text())["head"], "width": 500_000})
    with pytest.raises(InputError, match="500000"):
        load(tmp_path / "copy")
    assert set(devices) == {"meta"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "x" * 300,
        "a\0b",
        "\udcff",
        "~",
        "/",
        "/dev/null",
        "a\nb",
        "://",
        ":",
        "a:b",
        "x.py:f",
        "/x.py:f",
        "//",
    ],
)
def test_names_of_nothing_are_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refusal:
        load(name, device="cpu")
    assert len(str(refusal.value).splitlines()) == 1
    str(refusal.value).encode()


def test_a_folder_without_permission_is_one_line(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *args: Any, **settings: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(InputError, match=r"config.json: cannot be read .*Permission denied"):
        load(models["captioner"])


@pytest.mark.parametrize("device", ["cuda:77", "nonsense", "meta", "cpu:x", "", "vulkan"])
def test_a_device_that_does_not_exist_is_said(folders: dict[str, Path], device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' cannot be used"):
        load(folders["vqa"], device=device)


@pytest.mark.parametrize(
    "more", [{}, {"config.json": '{"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}'}]
)
def test_an_adapter_alone_says_what_it_is(tmp_path: Path, more: dict[str, str]) -> None:
    described = '{"peft_type": "LORA", "base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}'
    for name, text in {"adapter_config.json": described, "adapter_model.safetensors": "", **more}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"PEFT adapter \(LORA\), not a model: it changes llava-hf/llava-1.5-7b-hf.*merge"):
        load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(InputError, match="PEFT adapter"):
        load(tmp_path)
