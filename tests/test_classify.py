"""Classifiers people have: where their map is taken, what part of the picture they see, and training them further."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import complaints, data
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from mmgradcam import InputError, cli, explain, gradcam, hirescam
from mmgradcam.checking.check import check
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import NOWHERE, PreparedImage, Preprocess, TracedPreprocess, whole
from mmgradcam.tasks import Layer, load
from mmgradcam.tasks.hub.classifiers import (
    from_folder,
    from_timm,
    from_torchvision,
    of_model,
    save,
    with_classes,
    with_fresh_head,
)
from mmgradcam.tasks.hub.tracing import last_grid


def noise(width: int = 80, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(640, 480), (300, 900), (224, 224)])
def test_what_a_preprocessing_shows_is_found_without_being_told(how: str, size: tuple[int, int]) -> None:
    fit = Preprocess((224, 224), how=how)
    found = TracedPreprocess(lambda image: fit(image).pixels)(Image.new("RGB", size))
    assert found.box == pytest.approx(fit(Image.new("RGB", size)).box, abs=0.01)


def test_torchvisions_own_preprocessing_is_a_crop() -> None:
    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    box = TracedPreprocess(transform)(Image.new("RGB", (512, 256))).box
    assert box == pytest.approx((0.5 - 224 / 1024, 16 / 256, 0.5 + 224 / 1024, 240 / 256), abs=0.01)


def test_tiles_each_know_their_place_and_empty_ones_are_nowhere() -> None:
    def cut(image: Image.Image) -> torch.Tensor:
        small = torch.from_numpy(np.array(image.resize((64, 32)))).permute(2, 0, 1).float() - 100
        return torch.stack([small[:, :, :32], small[:, :, 32:], torch.full((3, 32, 32), 7.0)])

    left, right, none = TracedPreprocess(cut)(Image.new("RGB", (300, 120))).box
    assert left == pytest.approx((0, 0, 0.5, 1), abs=0.01)
    assert right == pytest.approx((0.5, 0, 1, 1), abs=0.01)
    assert none == NOWHERE


def test_a_preprocessing_that_moves_parts_about_is_refused() -> None:
    def swapped(image: Image.Image) -> torch.Tensor:
        plane = torch.from_numpy(np.array(image.resize((64, 64)))).permute(2, 0, 1).float()
        return torch.cat([plane[:, :, 32:], plane[:, :, :32]], 2)

    with pytest.raises(InputError, match="moves parts of the picture about"):
        TracedPreprocess(swapped)(Image.new("RGB", (64, 64)))


def turned(image: Image.Image) -> torch.Tensor:
    return v2.functional.to_dtype(v2.functional.to_image(image.resize((64, 64)).rotate(90)), scale=True)


def standardized(image: Image.Image) -> torch.Tensor:
    plane = v2.functional.to_dtype(v2.functional.to_image(image.resize((64, 64))), scale=True)
    return (plane - plane.mean()) / (plane.std() + 1e-6)


def of_its_own_generator() -> Any:
    draw = np.random.default_rng(0)

    def cropped(image: Image.Image) -> torch.Tensor:
        x, y = (int(draw.integers(0, side - 40)) for side in image.size)
        return v2.functional.to_dtype(v2.functional.to_image(image.crop((x, y, x + 40, y + 40))), scale=True)

    return cropped


TRAINING = v2.Compose([v2.Resize(48), v2.RandomHorizontalFlip(0.3), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
UNKNOWN: dict[str, tuple[Any, str]] = {
    "flips at random": (TRAINING, "the preprocessing is random"),
    "crops at random": (of_its_own_generator(), "the preprocessing is random"),
    "turned": (turned, "moves parts of the picture about or turns it"),
    "standardized": (standardized, "the same of a black and of a white picture"),
    "nothing of it": (lambda image: torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), "the same of a black"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_where_the_geometry_stays_unknown_nothing_is_drawn_and_check_says_so(name: str) -> None:
    prepare, says = UNKNOWN[name]
    task = Layer(Brightness(), "cells", prepare=prepare)
    with pytest.raises(InputError, match=says):
        explain(task, noise())
    (found,) = [f for f in check(task, noise()) if f.ok is False]
    assert found.name == "prepare"
    assert says in found.said
    told = Layer(Brightness(), "cells", prepare=lambda image: PreparedImage(prepare(image), (0.0, 0.0, 1.0, 1.0)))
    assert explain(told, noise()).maps.shape[0] == 1, "who says what is shown is taken at their word"


class Brightness(nn.Module):
    """One score, the light of the picture, by way of cells of 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.AvgPool2d(16, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 5:
            return self.cells(x.flatten(1, 2)).relu().mean((1, 2, 3))[:, None]
        return self.cells(x).mean((1, 2, 3))[:, None]


def test_a_prepare_that_crops_is_drawn_where_it_looked() -> None:
    """The docstring's own example: torchvision's transforms show the middle square of a wide picture."""
    picture = Image.new("RGB", (500, 120))
    picture.paste((255, 255, 255), (200, 40, 240, 80))
    weights = models.ResNet18_Weights.DEFAULT
    made = explain(Layer(Brightness(), "cells", prepare=weights.transforms()), picture, method=gradcam)
    x0, y0, x1, y1 = made.boxes(threshold=0.5)[0]
    assert (x0, y0, x1, y1) == pytest.approx((200, 40, 240, 80), abs=6)
    assert made.box == pytest.approx(((250 - 52.5) / 500, 7.5 / 120, (250 + 52.5) / 500, 112.5 / 120), abs=0.01)


def test_a_prepare_of_clips_that_crops_is_drawn_where_it_looked() -> None:
    def middle(clip: Clip) -> torch.Tensor:
        frames = [v2.functional.to_dtype(v2.functional.to_image(f.crop((100, 0, 200, 100))), scale=True) for f in clip.frames]
        return torch.stack(frames, 1)

    task = Layer(Brightness(), "cells", prepare=middle, layout=lambda x: x.unflatten(1, (3, -1)))
    for length in (2, 3):
        assert task.prepare(Clip((noise(300, 100),) * length)).box == pytest.approx((1 / 3, 0, 2 / 3, 1), abs=0.01)  # type: ignore[arg-type]


def test_a_model_of_torchvision_gets_what_its_weights_were_trained_with() -> None:
    picture, weights = noise(300, 200), models.ResNet18_Weights.DEFAULT
    task = Layer(models.resnet18(), "layer4")
    assert task.preparing is None
    torch.testing.assert_close(task.prepare(picture).pixels, weights.transforms()(picture))
    assert task.prepare(picture).box == pytest.approx((0.5 - 0.29167, 0.0625, 0.5 + 0.29167, 0.9375), abs=0.01)


@pytest.mark.parametrize(
    ("make", "says", "taken"),
    [
        (models.mobilenet_v2, "several weights.*IMAGENET1K_V1.*IMAGENET1K_V2", models.MobileNet_V2_Weights.IMAGENET1K_V2),
        (lambda: models.resnet18(num_classes=7), "its 7 classes", models.ResNet18_Weights.DEFAULT),
        (lambda: models.squeezenet1_1(num_classes=7), "its 7 classes", models.SqueezeNet1_1_Weights.DEFAULT),
        (lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1]), "preprocessing is not known.*0..1", None),
        (Brightness, "preprocessing is not known.*0..1", None),
    ],
)
def test_where_the_preprocessing_is_a_guess_it_is_said(make: Any, says: str, taken: Any) -> None:
    task = Layer(make().eval(), next(iter(make()._modules)))
    with pytest.warns(UserWarning, match=says) as warned:
        made = task.prepare(noise())
    assert "pass " in str(warned[0].message)
    assert "prepare=" in str(warned[0].message)
    torch.testing.assert_close(made.pixels, taken.transforms()(noise()) if taken else whole(noise()).pixels)
    task.prepare(noise())  # said once


def test_a_model_of_timm_or_the_hub_gets_its_own_preprocessing(folder: Path) -> None:
    timm = pytest.importorskip("timm")
    from transformers import AutoImageProcessor, ResNetConfig, ResNetForImageClassification

    model = timm.create_model("test_resnet", pretrained=False)
    own = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    torch.testing.assert_close(Layer(model, "layer4").prepare(noise()).pixels, own(noise()))
    hub = ResNetForImageClassification.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder)(noise(), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(Layer(hub, "resnet.encoder").prepare(noise()).pixels, pixels)
    with pytest.warns(UserWarning, match=r"no prepare= was given.*processor\(image"):
        Layer(ResNetForImageClassification(ResNetConfig(depths=[1, 1, 1, 1])), "resnet.encoder").prepare(noise())


def test_a_model_of_clips_without_a_prepare_is_said() -> None:
    with pytest.raises(InputError, match=r"pass prepare=, which makes \(3, T, h, w\) of a Clip"):
        explain(Layer(Brightness(), "cells"), Clip((noise(),) * 2))


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("resnet18", "layer4", (2, 2)),
        ("mobilenet_v3_small", "features", (2, 2)),
        ("swin_t", "features", (2, 2)),
        ("vit_b_32", "encoder.layers.encoder_layer_10", (2, 2)),
    ],
)
def test_the_last_layer_with_a_grid_that_counts_is_found(name: str, layer: str, grid: tuple[int, int]) -> None:
    """Of a ViT it is not the last block: only its class token is read, so that the patches that leave it change nothing."""
    torch.manual_seed(0)
    more = {"image_size": 64} if name.startswith("vit") else {}
    model = models.get_model(name, weights=None, **more).eval()
    if name.startswith("vit"):
        torch.nn.init.normal_(model.heads.head.weight)
    target_layer = last_grid(model, torch.rand(3, 64, 64))
    assert target_layer.name == layer
    task = of_model(model, lambda image: v2.functional.to_dtype(v2.functional.to_image(image.resize((64, 64))), scale=True))
    assert explain(task, noise(), method=gradcam, top=2).maps.shape == (2, *grid)


def test_a_layer_that_does_not_exist_or_has_no_grid_is_said() -> None:
    model = models.resnet18(weights=None).eval()
    with pytest.raises(InputError, match="did you mean layer4"):
        last_grid(model, torch.rand(3, 64, 64), "layer5")
    with pytest.raises(InputError, match=r"layer fc puts out no grid"):
        last_grid(model, torch.rand(3, 64, 64), "fc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier of the hub's layout."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("classifier") / "tiny"
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label={0: "cat", 1: "dog", 2: "car"})
    ResNetForImageClassification(config).eval().save_pretrained(where)
    ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875).save_pretrained(where)
    return where


def test_classify_prints_and_writes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise().save(tmp_path / "photo.png")
    args = ["classify", str(tmp_path / "photo.png"), "--model", str(folder), "--class", "dog", "--contrast", "cat"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmgradcam", *args, "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    said = capsys.readouterr().out
    assert ended.value.code in (0, None)
    assert "dog rather than cat" in said
    assert "resnet.encoder" in said
    described = json.loads((tmp_path / "out" / "photo" / "explanation.json").read_text())
    assert [t["label"] for t in described["targets"]] == ["dog", "dog rather than cat"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--model", "{folder}", "--class", "dgo"], "there are dog"),
        (["--model", "{folder}", "--class", "9"], r"expected a class in 0\.\.2, got 9"),
        (["--model", "{folder}", "--layer", "resnet.encodr"], "resnet.encoder"),
        (["--model", "torchvision:resnet19"], "did you mean resnet18|did you mean .*resnet"),
        (["--model", "nobody/nothing"], "cannot be fetched"),
        (["--model", "scenes-vqa"], "expected one asked with classes="),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, tmp_path: Path, args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    noise().save(tmp_path / "photo.png")
    argv = ["mmgradcam", "classify", str(tmp_path / "photo.png"), *(a.format(folder=folder) for a in args)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr(sys, "argv", [*argv, "--out", str(tmp_path / "out")])
        cli.main()
    said = complaints(capsys.readouterr().err)
    assert ended.value.code == 1
    assert len(said) == 1
    assert re.search(says, said[0])
    assert not (tmp_path / "out").exists()


def test_several_labels_at_once_explain_all_that_hold(folder: Path) -> None:
    from transformers import AutoConfig, AutoImageProcessor, ResNetForImageClassification

    config = AutoConfig.from_pretrained(folder, problem_type="multi_label_classification")
    model: Any = ResNetForImageClassification.from_pretrained(folder, config=config).eval()
    model.classifier[1].bias.data.copy_(torch.tensor([9.0, 9.0, -9.0]))
    where = folder.parent / "several"
    model.save_pretrained(where)
    AutoImageProcessor.from_pretrained(folder).save_pretrained(where)
    assert set(explain(load(where), noise()).labels) == {"cat", "dog"}


def test_a_classifier_with_classes_of_its_own_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = models.get_model_weights("mobilenet_v3_small").DEFAULT
    task = with_classes(of_model(models.mobilenet_v3_small(weights=None), weights.transforms()), ["sound", "cracked"])
    assert [n for n, p in task.model.named_parameters() if p.requires_grad] == ["classifier.3.weight", "classifier.3.bias"]
    task.model.eval()
    save(task, "torchvision:mobilenet_v3_small", tmp_path / "mine")
    again: Any = load(tmp_path / "mine")
    own, loaded = explain(task, noise(), classes=["cracked"]), explain(again, noise(), classes=["cracked"])
    torch.testing.assert_close(own.maps, loaded.maps)
    assert again.labels == ["sound", "cracked"]
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="damaged"):
        from_folder(tmp_path / "mine")


TIMM: dict[str, tuple[dict[str, Any], str]] = {
    "vit_little_patch16_reg4_gap_256": ({"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 64}, "blocks"),
    "levit_128s": ({}, "stages"),
    "eva02_tiny_patch14_224": ({"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 56}, "blocks.1"),
    "vit_small_patch16_dinov3": ({"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 64}, "blocks.1"),
    "vit_base_patch16_siglip_224": ({"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 64}, "blocks"),
    "efficientformer_l1": ({}, "stages"),
    "repvit_m0_9": ({}, "stages"),
    "test_vit": ({}, "blocks.4"),
    "test_resnet": ({}, "layer4"),
}
"""Models of timm, made small: with registers and no class token, with keys of another grid, born without a head, with two
heads.
"""


@pytest.mark.parametrize("name", TIMM)
def test_classes_of_ones_own_replace_the_heads_of_a_model_of_timm(name: str) -> None:
    """By timm's own means: all of the head, and nothing else, is fresh and learns; the map is taken where patches leave."""
    timm = pytest.importorskip("timm")
    more, layer = TIMM[name]
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **more)
    before = {id(p): n for n, p in model.named_parameters()}
    kept = list(model.parameters())  # so that no fresh one gets the id of an old one
    size = more.get("img_size", model.pretrained_cfg["input_size"][-1])
    task = with_fresh_head(model, Preprocess((size, size), how="stretch"), ["a", "b", "c"])
    with torch.no_grad():
        assert model(torch.rand(1, 3, size, size)).shape == (1, 3)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {n for n, p in model.named_parameters() if id(p) not in before}
    assert 0 < len(learning) < len(kept)
    heads = model.get_classifier()
    for head in heads if isinstance(heads, (tuple, list)) else [heads]:
        assert all(p.requires_grad for p in head.parameters())
    assert [target_layer.name for target_layer in task.target_layers] == [layer]
    made = explain(task, noise(), classes=["a", "b"])
    assert made.labels == ["a", "b"]
    assert made.maps.shape[-1] == made.maps.shape[-2] > 1


def test_an_encoder_of_timm_without_classes_is_said(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="is an encoder without classes"):
        from_timm("eva02_tiny_patch14_224", pretrained=False)


def test_a_folder_of_timm_as_the_hub_has_it_is_loaded_trained_further_and_saved(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=3).eval()
    timm.models.save_for_hf(model, tmp_path / "hub", {"label_names": ["ant", "bee", "cat"]}, safe_serialization=True)
    task: Any = load(tmp_path / "hub", device="cpu")
    assert task.labels == ["ant", "bee", "cat"]
    pixels = task.prepare(noise()).pixels[None]
    torch.testing.assert_close(task.model(pixels), model(pixels))
    assert explain(task, noise(), method=hirescam, classes=["bee"]).maps.any()
    mine = with_classes(task, ["sound", "cracked"])
    mine.model.eval()
    save(mine, str(tmp_path / "hub"), tmp_path / "mine")
    again: Any = load(tmp_path / "mine", device="cpu")
    assert again.labels == ["sound", "cracked"]
    torch.testing.assert_close(again.model(pixels), mine.model(pixels))
    (tmp_path / "hub" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="incomplete or damaged"):
        load(tmp_path / "hub", device="cpu")


def test_a_torchvision_vit_with_classes_of_its_own_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head is born as zeros, with which no score depends on any layer."""
    own = models.get_model

    def small(name: str, **more: Any) -> nn.Module:
        more |= {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 32, "patch_size": 32, "image_size": 224}
        return (
            models.VisionTransformer(**{k: v for k, v in more.items() if k != "weights"})
            if name == "vit_b_32"
            else own(name, **more)
        )

    monkeypatch.setattr(models, "get_model", small)
    task = from_torchvision("vit_b_32", ["sound", "cracked"])
    assert task.target_layers[0].name == "encoder.layers.encoder_layer_0"
    save(task, "torchvision:vit_b_32", tmp_path / "mine")
    again = load(tmp_path / "mine", device="cpu")
    torch.testing.assert_close(*(explain(one, noise(), method=hirescam, classes=[1]).maps for one in (again, task)))


@pytest.mark.parametrize("kind", ["Deit", "Levit"])
def test_a_classifier_with_a_teacher_is_loaded_and_both_its_heads_are_replaced(kind: str, tmp_path: Path) -> None:
    import transformers

    small = {"image_size": 32, "num_labels": 3}
    if kind == "Deit":
        config: Any = transformers.DeiTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, patch_size=8, **small
        )
        model = transformers.DeiTForImageClassificationWithTeacher(config)
    else:
        config = transformers.LevitConfig(
            hidden_sizes=[16, 32, 48],
            num_attention_heads=[1, 2, 3],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8],
            **{**small, "image_size": 64},
        )
        model = transformers.LevitForImageClassificationWithTeacher(config)
    model.eval().save_pretrained(tmp_path / "hub")
    side = config.image_size
    processor = transformers.ViTImageProcessor(size={"height": side, "width": side})
    processor.save_pretrained(tmp_path / "hub")
    task: Any = load(tmp_path / "hub", device="cpu")
    assert type(task.model) is type(model)
    assert explain(task, noise(), method=hirescam, classes=[1]).maps.any()
    mine = with_classes(task, ["sound", "cracked"])
    learning = [n for n, p in mine.model.named_parameters() if p.requires_grad and n.endswith("weight")]
    assert len(learning) == 2
    assert all("classifier" in n for n in learning)
    mine.model.eval()
    save(mine, str(tmp_path / "hub"), tmp_path / "mine")
    again = load(tmp_path / "mine", device="cpu")
    torch.testing.assert_close(*(explain(one, noise(), method=hirescam, classes=["cracked"]).maps for one in (again, mine)))


@pytest.mark.slow
def test_fine_tuning_learns_resumes_and_writes_its_page(folder: Path, tmp_path: Path) -> None:
    """Red or green pictures, which a tiny net tells apart in a few epochs."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8), ("test", 8)):
        for label, color in (("red", (200, 30, 30)), ("green", (30, 200, 30))):
            where = tmp_path / "photos" / split / label
            where.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(color) + draw.normal(0, 30, (48, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(where / f"{i}.png")
    (tmp_path / "photos" / "boxes.json").write_text(json.dumps({f"test/red/{i}.png": [0, 0, 64, 48] for i in range(8)}))
    script = Path(__file__).parents[1] / "scripts" / "bundled" / "finetune_classifier.py"
    command = [
        sys.executable, str(script), "--model", str(folder), "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "mine"),
        "--frozen", "1", "--batch", "8", "--rate", "0.02", "--device", "cpu", "--defect", "red",
    ]  # fmt: skip
    first = subprocess.run([*command, "--epochs", "2"], capture_output=True, text=True, timeout=240)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([*command, "--epochs", "4"], capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert "epoch 3" not in again.stdout
    assert "epoch 4" in again.stdout or "epoch" not in again.stdout
    figures = json.loads((tmp_path / "mine" / "figures.json").read_text())
    assert figures["accuracy"] > 0.9
    assert figures["classes"]["red"]["pictures"] == figures["maps"]["pictures"] == 8
    assert 0 <= figures["maps"]["box_iou_half"] <= figures["maps"]["peak_inside"] == 1
    page = (tmp_path / "mine" / "page.html").read_text()
    assert "red, right" in page
    assert 'src="data:image/webp;base64,' in page
    assert "http" not in page.replace("http-equiv", "")
    assert explain(load(tmp_path / "mine"), noise()).labels[0] in ("red", "green")


DOGS = range(152, 270)
"""ImageNet's breeds, counted from 1 as this model counts."""


@pytest.mark.data
def test_a_real_mobilenet_sees_real_dogs_where_they_are() -> None:
    """Photos in which somebody boxed a dog: the likeliest class is a breed, and its map peaks in the box."""
    import datasets

    task: Any = load(data() / "mobilenet_v2_1.0_224")
    rows = datasets.load_dataset("parquet", data_files=str(data() / "flickr8k" / "val.parquet"), split="train")
    breeds, inside, seen = 0, 0, 0
    for row in rows:
        boxes = [b for p in row["phrases"] if "dog" in p["text"].split() for b in p["boxes"]]
        if not boxes or seen == 40:
            continue
        seen += 1
        photo = row["image"].convert("RGB").resize((row["width"], row["height"]))
        made = explain(task, photo)
        breeds += task.labels.index(made.labels[0]) in DOGS
        x, y = made.peak or (-1, -1)
        inside += any(b[0] <= x / photo.width <= b[2] and b[1] <= y / photo.height <= b[3] for b in boxes)
    assert seen == 40
    assert breeds >= 26
    assert inside >= 26
