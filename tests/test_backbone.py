"""Encoders of others under the project's own heads: their features as they are, and a task that is saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import data
from PIL import Image
from transformers import AutoConfig, AutoModel

from mmgradcam import InputError, explain, layercam, product
from mmgradcam.tasks import load
from mmgradcam.tasks.captioning import Captioning
from mmgradcam.tasks.loading import save
from mmgradcam.tasks.nets.backbone import Backbone, _Depthwise
from mmgradcam.tasks.nets.captioners import LSTMCaptioner
from mmgradcam.tasks.vocabulary import Vocabulary

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {"depth_multiplier": 0.35, "image_size": 64},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "swin": {"image_size": 64, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "dinov2": {**SMALL, "image_size": 56, "patch_size": 14},
    "vit": {**SMALL, "image_size": 64, "patch_size": 16},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_features_are_the_hub_models_own(kind: str) -> None:
    backbone = Backbone("org/tiny", {"model_type": kind, **CONFIGS[kind]}).eval()
    side = CONFIGS[kind].get("image_size", 64)
    pictures = torch.rand(2, 3, side, side)
    with torch.no_grad():
        features, own = backbone(pictures), backbone.model(pictures).last_hidden_state
    cells = own.flatten(2).transpose(1, 2) if own.dim() == 4 else own
    assert features.shape[:2] == (2, backbone.channels)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), cells[:, cells.shape[1] - features[0, 0].numel() :])


def test_a_mobilenet_that_pads_within_its_convolutions_is_the_hub_s() -> None:
    kept = {"model_type": "mobilenet_v2", **CONFIGS["mobilenet_v2"], "output_stride": 16}
    backbone = Backbone("org/tiny", kept).eval()
    config = AutoConfig.for_model(**kept)
    own = AutoModel.from_config(config).eval()
    own.load_state_dict(backbone.model.state_dict())
    assert own.config.tf_padding
    assert own.config.to_diff_dict() | {"model_type": "mobilenet_v2"} == backbone.config
    depthwise = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    within = [m.padding == m.dilation for m in depthwise if m.stride == (1, 1)]
    assert len(within) > 10
    assert all(within)
    dilated = [(m, name) for name, m in backbone.model.named_modules() if getattr(m, "dilation", 1) == (2, 2)]
    assert len(dilated) == 3
    for side in ((64, 64), (65, 47)):
        pictures = torch.rand(2, 3, *side, requires_grad=True)
        found = []
        for model, features in ((backbone.model, backbone(pictures)), (own, own(pictures).last_hidden_state)):
            weights = [model.get_submodule(name).weight for _, name in dilated]
            found.append((features, *torch.autograd.grad(features.square().sum(), [pictures, *weights])))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_dilated_depthwise_convolution_can_be_differentiated() -> None:
    plain = torch.nn.Conv2d(3, 3, (3, 5), padding=(2, 4), dilation=2, groups=3).double()
    x = torch.rand(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    turned = _Depthwise(plain)
    torch.testing.assert_close(turned(x), plain(x))
    assert torch.autograd.gradcheck(turned, x)
    assert torch.autograd.gradgradcheck(turned, x)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "torchvision:resnet18", "torchvision:swin_t"])
def test_classifiers_of_torchvision_lose_their_head(name: str) -> None:
    backbone = Backbone(name).eval()
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 64, 96)).shape == (1, backbone.channels, 2, 3)


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"])
def test_classifiers_of_timm_lose_their_head(name: str) -> None:
    timm = pytest.importorskip("timm")
    backbone = Backbone(name).eval()
    pictures = torch.rand(1, 3, 224, 224)
    side = 14 if "vit" in name else 7
    with torch.no_grad():
        features = backbone(pictures)
        pooled = timm.create_model(name[5:], num_classes=0).eval()
        pooled.load_state_dict(backbone.model.state_dict())
        whole = pooled(pictures)
    assert features.shape == (1, backbone.channels, side, side)
    if "vit" not in name:
        torch.testing.assert_close(features.mean((2, 3)), whole, atol=1e-5, rtol=1e-4)


def test_a_captioner_on_it_is_saved_loaded_and_explained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary(("a", "dog", "red", "ball"))
    backbone = Backbone("org/tiny", {"model_type": "mobilenet_v2", **CONFIGS["mobilenet_v2"]})
    head = LSTMCaptioner(len(vocabulary), backbone.channels, 32)
    fit = {"size": [64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "how": "pad"}
    task = Captioning(backbone.eval(), head.eval(), vocabulary, None)  # type: ignore[arg-type]
    nets = "mmgradcam.tasks.nets"
    config = {
        "task": "mmgradcam.tasks.captioning:Captioning", "encoder": {"class": f"{nets}.backbone:Backbone", **backbone.describe()},
        "head": {"class": f"{nets}.captioners:LSTMCaptioner", "vocabulary": len(vocabulary), "channels": backbone.channels, "width": 32},
        "fit": fit, "words": list(vocabulary.words), "feature_layer": "features", "method": "layercam",
        "target_layers": ["model.layer.6"], "fuse": "product",
    }  # fmt: skip
    save(task, config, tmp_path / "own")
    loaded = load(tmp_path / "own", device="cpu")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8))
    fused = explain(loaded, picture, caption="a red ball", method=layercam, target_layers=["grid", "model.layer.6"])
    feature_layer, layer = (
        explain(loaded, picture, caption="a red ball", method=layercam, target_layers=t).maps for t in ([], ["model.layer.6"])
    )
    torch.testing.assert_close(fused.maps, product([feature_layer, layer]), atol=1e-4, rtol=1e-3)
    made = explain(loaded, picture, caption="a red ball", method=layercam)
    assert made.labels == ["a", "red", "ball"]
    assert made.maps.shape == (3, 4, 4)
    pixels = loaded.prepare(picture).pixels[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(pixels), task.encode(pixels), atol=1e-2, rtol=1e-2)


def test_layers_are_stacked_on_the_grid_of_the_last() -> None:
    config = {"model_type": "mobilenet_v2", **CONFIGS["mobilenet_v2"]}
    torch.manual_seed(0)
    backbone = Backbone("org/tiny", config, layers=["layer.2", "layer.6", "layer.9"]).eval()
    pixels, put = torch.randn(2, 3, 64, 64), []
    hooks = [backbone.model.layer[i].register_forward_hook(lambda _m, _i, out: put.append(out)) for i in (2, 6, 9)]
    with torch.no_grad():
        features = backbone(pixels)
    for hook in hooks:
        hook.remove()
    assert [tuple(p.shape[2:]) for p in put] == [(8, 8), (4, 4), (4, 4)]
    assert backbone.channels == features.shape[1] == sum(p.shape[1] for p in put)
    fine = torch.nn.functional.avg_pool2d(put[0], 2)
    torch.testing.assert_close(features, torch.cat([fine, put[1], put[2]], 1))
    assert not any(module._forward_hooks for module in backbone.modules())
    coarse_last = Backbone("org/tiny", config, layers=["layer.6", "layer.2"]).eval()
    with torch.no_grad():
        assert coarse_last(pixels).shape[2:] == (8, 8)
    with pytest.raises(InputError, match=r"expected layers of the model, got layer\.99"):
        Backbone("org/tiny", config, layers=["layer.2", "layer.99"])


def test_a_name_that_does_not_exist_is_said() -> None:
    with pytest.raises(InputError, match="torchvision:resnet19"):
        Backbone("torchvision:resnet19")


@pytest.mark.data
def test_a_real_encoder_with_its_weights_sees_what_its_classifier_sees() -> None:
    """The hub model's own classifier, put on the mean of the features, gives the whole classifier's logits."""
    from transformers import MobileNetV2ForImageClassification

    where = data() / "mobilenet_v2_1.0_224"
    backbone = Backbone(str(where), weights=True).eval()
    whole = MobileNetV2ForImageClassification.from_pretrained(where, dtype=torch.float32).eval()
    assert (backbone.channels, backbone.fit().size) == (1280, (224, 224))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8))
    pixels = backbone.fit("crop")(picture).pixels[None]
    with torch.no_grad():
        features = backbone(pixels)
        assert features.shape == (1, 1280, 7, 7)
        torch.testing.assert_close(whole.classifier(features.mean((2, 3))), whole(pixels).logits, atol=1e-4, rtol=1e-4)
