"""What an explanation costs, counted: floating-point operations, encoder calls, bytes. Nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50

from mmgradcam import explain, gradcam, hirescam
from mmgradcam.images.pictures import Preprocess
from mmgradcam.tasks import Captioning, Layer
from mmgradcam.tasks.nets.captioners import LSTMCaptioner
from mmgradcam.tasks.vocabulary import END, START, Vocabulary

WORDS = tuple(f"w{'abcdefghij'[i % 10]}{i}" for i in range(9996))
CAPTION = " ".join(WORDS[100:112])
PIXELS = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))


class ResNet(nn.Module):
    """ResNet-50 up to its last features, brought to 512 channels; notes how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(resnet50().children())[:-2])
        self.neck = nn.Sequential(nn.Conv2d(2048, 512, 1), nn.ReLU())
        self.runs = 0

    def forward(self, images: Tensor) -> Tensor:
        self.runs += len(images)
        return self.neck(self.trunk(images))


@pytest.fixture(scope="module")
def encoder() -> ResNet:
    return ResNet().eval()


def captioner(encoder: ResNet, attention: bool) -> Captioning:
    vocabulary = Vocabulary(WORDS)
    assert len(vocabulary) == 10_000
    head = LSTMCaptioner(len(vocabulary), 512, width=512, attention=attention)
    return Captioning(encoder, head, vocabulary, Preprocess((224, 224)))


def caption_once(task: Captioning) -> None:
    """Encode and decode under teacher forcing: every word's probability, once."""
    tokens = torch.tensor([[START, *task.vocabulary.encode(CAPTION.split()), END]])
    with torch.no_grad():
        features = task.encode(PIXELS[None])
        for step in task.head.steps(features, tokens[:, :12]):
            task.head.out(step).log_softmax(-1)


def flops(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("attention", [False, True])
def test_twelve_words_cost_at_most_a_twentieth_more_than_captioning(encoder: ResNet, attention: bool) -> None:
    task = captioner(encoder, attention)
    once = flops(lambda: caption_once(task))
    encoder.runs = 0
    explained = flops(lambda: explain(task, PIXELS, method=hirescam, caption=CAPTION))
    assert encoder.runs == 1
    assert once > 8e9
    assert 1.0 < explained / once <= 1.05


def test_generating_and_explaining_share_one_encode(encoder: ResNet) -> None:
    task = captioner(encoder, attention=True)
    encoder.runs = 0
    made = explain(task, PIXELS)
    assert len(made) >= 1
    assert encoder.runs == 1


def test_twelve_classes_cost_no_more_than_the_plain_forward() -> None:
    model = resnet50().eval()
    with torch.no_grad():
        plain = flops(lambda: model(PIXELS[None]))
    task = Layer(model, model.layer4)
    assert flops(lambda: explain(task, PIXELS, method=gradcam, classes=list(range(12)))) / plain <= 1.01


MEASURED = """
import resource, sys
sys.path.insert(0, {folder!r})
import torch
from test_cost import CAPTION, PIXELS, ResNet, caption_once, captioner, explain, hirescam

torch.set_num_threads(2)
task = captioner(ResNet().eval(), attention={attention})
if {explained}:
    explain(task, PIXELS, method=hirescam, caption=CAPTION)
else:
    caption_once(task)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak_memory(explained: bool, attention: bool) -> int:
    """Bytes of resident memory at the peak of a process of its own that does the work once."""
    code = MEASURED.format(folder=str(Path(__file__).parent), attention=attention, explained=explained)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
@pytest.mark.parametrize("attention", [False, True])
def test_twelve_words_need_little_memory_above_captioning(attention: bool) -> None:
    assert peak_memory(True, attention) - peak_memory(False, attention) <= 60 * 2**20
