"""Tiny seeded models that the tests' oracles are worked out on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam import Target, Task


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {
        "gpu": None if torch.cuda.is_available() else "no CUDA device here",
        "browser": None if chromium() else "no Chromium here",
        "data": None if data().is_dir() else f"no real data at {data()}; set MMGRADCAM_DATA to where it lies",
    }
    for item in items:
        for mark, reason in reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def data() -> Path:
    return Path(os.environ.get("MMGRADCAM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of the hub, tiny and random, as a folder."""
    from transformers import MobileNetV2Config, MobileNetV2ImageProcessor, MobileNetV2Model

    folder = tmp_path_factory.mktemp("hub") / "mobilenet"
    torch.manual_seed(0)
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.35, image_size=64)).save_pretrained(folder)
    MobileNetV2ImageProcessor().save_pretrained(folder)
    return folder


class Linear(nn.Module):
    """Features that are what a convolution and a ReLU make of the picture; a head of pooling and one linear layer."""

    def __init__(self, classes: int = 4, channels: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Bent(nn.Module):
    """A head that is not linear and depends on place, so that no two methods agree by accident."""

    def __init__(self, channels: int = 5, cells: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.inner = nn.Linear(channels * cells, 7)
        self.outer = nn.Linear(7, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(features.flatten(1))))


class Classes(Task):
    """The contract written out: an encoder, a head, one target per class."""

    def __init__(self, encoder: nn.Module, head: nn.Module, classes: Sequence[int] = (0, 1, 2)) -> None:
        self.encoder, self.head, self.classes = encoder, head, classes
        self.encodes: list[int] = []
        self.scored: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        self.encodes.append(len(images))
        return self.encoder(images)

    def targets(self, features: Tensor, classes: Sequence[int] | None = None) -> list[Target]:
        return [Target(f"class {c}", c) for c in (self.classes if classes is None else classes)]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        self.scored.append(len(targets))
        scores = self.head(features)
        return scores[torch.arange(len(targets)), torch.tensor([t.value for t in targets])]


class Encoder(nn.Module):
    """Two convolutions with an in-place ReLU after each: 8 x 8 pictures -> (B, 5, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.bend = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 5, 2, stride=2)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.norm(self.second(self.bend(self.first(x)))))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def classes() -> Classes:
    task = Classes(Encoder().double(), Bent().double())
    task.encoder.eval(), task.head.eval()
    return task


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def tiny_captioner(head: str = "lstm", **settings: Any) -> Any:
    """The project's own captioner, small, untrained, float64, over 16 x 16 pictures."""
    from mmgradcam.images.pictures import Preprocess
    from mmgradcam.tasks import Captioning
    from mmgradcam.tasks.nets.captioners import LSTMCaptioner, TransformerCaptioner
    from mmgradcam.tasks.nets.encoder import Encoder
    from mmgradcam.tasks.vocabulary import Vocabulary

    torch.manual_seed(3)
    vocabulary = Vocabulary(("a", "ball", "cube", "red", "blue", "and"))
    kind = LSTMCaptioner if head == "lstm" else TransformerCaptioner
    made = kind(len(vocabulary), 6, width=8, **(settings if head == "lstm" else {"heads": 2, **settings}))
    task = Captioning(Encoder((4, 6, 8), (1, 1), 6, 0), made, vocabulary, Preprocess((16, 16)), longest=8)
    task.name = f"tiny-{head}"
    for module in task.modules():
        module.double().eval()
    return task


def tiny_vqa(head: str = "lstm", **settings: Any) -> Any:
    """The project's own VQA model, small, untrained, float64, over 16 x 16 pictures."""
    from mmgradcam.images.pictures import Preprocess
    from mmgradcam.tasks import VQA
    from mmgradcam.tasks.nets.answerers import LSTMAnswerer, TransformerAnswerer
    from mmgradcam.tasks.nets.encoder import Encoder
    from mmgradcam.tasks.vocabulary import Vocabulary

    torch.manual_seed(4)
    vocabulary = Vocabulary(("what", "color", "is", "the", "ball", "cube", "how", "many"))
    kind = LSTMAnswerer if head == "lstm" else TransformerAnswerer
    made = kind(len(vocabulary), 4, 6, width=8, **{"heads": 2, **settings})
    task = VQA(Encoder((4, 6, 8), (1, 1), 6, 0), made, vocabulary, ["red", "blue", "1", "2"], Preprocess((16, 16)))
    task.name = f"tiny-{head}"
    for module in task.modules():
        module.double().eval()
    return task


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny captioner and a tiny VQA model of scenes, untrained, saved as model folders."""
    from mmgradcam.scenes.captions import caption_words
    from mmgradcam.scenes.questions import ANSWERS, question_words
    from mmgradcam.tasks.loading import build, save

    nets = "mmgradcam.tasks.nets"
    shared = {
        "encoder": {"class": f"{nets}.encoder:Encoder", "widths": [4, 6, 8], "depths": [1, 1], "channels": 6, "level": 0},
        "fit": {"size": [64, 64], "how": "pad"},
        "feature_layer": "the encoder's features, stride 4",
        "method": "layercam",
        "target_layers": [],
        "fuse": "product",
        "summary": "tiny",
        "headline": "untrained",
    }
    heads = {
        "captioner": {
            "task": "mmgradcam.tasks.captioning:Captioning",
            "head": {"class": f"{nets}.captioners:LSTMCaptioner", "channels": 6, "width": 8},
            "words": caption_words(),
        },
        "vqa": {
            "task": "mmgradcam.tasks.vqa:VQA",
            "head": {"class": f"{nets}.answerers:LSTMAnswerer", "channels": 6, "width": 8, "heads": 2, "answers": len(ANSWERS)},
            "words": question_words(),
            "answers": list(ANSWERS),
        },
    }
    made = {}
    for name, config in heads.items():
        config["head"]["vocabulary"] = len(config["words"]) + 4
        torch.manual_seed(5)
        made[name] = tmp_path_factory.mktemp(name)
        save(build({**shared, **config}), {**shared, **config}, made[name])
    return made


def complaints(stderr: str) -> list[str]:
    """Lines on stderr that do not merely say what is under way."""
    under_way = ("loading ", "explaining ", "writing into ", "playing ")
    return [line for line in stderr.splitlines() if line.strip() and not line.startswith(under_way)]
