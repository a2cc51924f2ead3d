"""The work that is timed in benchmark.py: the same models and questions, put to mmgradcam and to the libraries beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from mmgradcam import explain, gradcam
from mmgradcam.images.pictures import Preprocess
from mmgradcam.tasks import VQA, Captioning, Layer
from mmgradcam.tasks.nets.answerers import TransformerAnswerer
from mmgradcam.tasks.nets.captioners import LSTMCaptioner, TransformerCaptioner
from mmgradcam.tasks.vocabulary import END, START, Vocabulary

WORDS = tuple(f"w{'abcdefghij'[i % 10]}{i}" for i in range(9996))
CAPTION = WORDS[100:112]
QUESTION = WORDS[200:208]
CLASSES = list(range(100, 112))
LIBRARIES = ("mmgradcam", "pytorch-grad-cam", "captum", "torchcam")


class Trunk(nn.Module):
    """ResNet-50 up to its last features, brought to 512 channels by a neck that ends in a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(resnet50().children())[:-2])
        self.neck = nn.Sequential(nn.Conv2d(2048, 512, 1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.neck(self.trunk(images))
        return features


class Whole(nn.Module):
    """A captioner as the other libraries need it: pictures in, the log-probability of each word of one caption out."""

    def __init__(self, encoder: nn.Module, head: nn.Module, tokens: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("tokens", torch.tensor([list(tokens)]))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.tokens.expand(len(images), -1)
        steps = self.head.steps(self.encoder(images), tokens[:, :-1])[: len(CAPTION)]
        logp = [self.head.out(step).log_softmax(-1) for step in steps]
        return torch.stack([p.gather(1, t[:, None])[:, 0] for p, t in zip(logp, tokens[:, 1:].unbind(1), strict=False)], 1)


class Asked(nn.Module):
    """A VQA model with its question built in; the embedding of the question's words can be hooked."""

    def __init__(self, encoder: nn.Module, head: nn.Module, question: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("question", torch.tensor([list(question)]))

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.head(self.encoder(images), self.question.expand(len(images), -1))
        return answers


@dataclass
class Case:
    """One piece of work.

    Attributes:
        title: what people read.
        images: B pictures.
        model: the whole model; (B, 3, h, w) -> (B, N).
        layer: where maps are taken.
        targets: columns of the model's output to explain, each of all pictures.
        ours: the same with mmgradcam -> (B, K, h, w) maps at the layer's resolution.
        words: importances of the question's words are wanted too.
    """

    title: str
    images: Tensor
    model: nn.Module
    layer: nn.Module
    targets: list[int]
    ours: Callable[[], Tensor]
    words: bool = False


def pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def case(name: str, device: str) -> Case:
    torch.manual_seed(0)
    kind, _, more = name.partition("-")
    if kind in ("class", "classes"):
        count = int(more or 1)
        model, images = resnet50().eval().to(device), pictures(count).to(device)
        targets = CLASSES if kind == "classes" else CLASSES[:1]
        task = Layer(model, model.layer4)
        title = f"{len(targets)} class{'es' if len(targets) > 1 else ''}, batch {count}"
        return Case(
            title,
            images,
            model,
            model.layer4,
            targets,
            lambda: _stack(explain(task, images, method=gradcam, classes=targets, batch=64)),
        )
    encoder = Trunk().eval().to(device)
    vocabulary = Vocabulary(WORDS)
    if kind == "answer":
        head = TransformerAnswerer(len(vocabulary), 1000, 512, width=256, layers=3).eval().to(device)
        vqa = VQA(encoder, head, vocabulary, [f"answer {i}" for i in range(1000)], Preprocess((224, 224)))
        images = pictures(1).to(device)
        whole = Asked(encoder, head, vocabulary.encode(QUESTION)).eval().to(device)
        query = {"question": " ".join(QUESTION), "answer": "answer 7"}
        return Case(
            "an answer and the words of its question",
            images,
            whole,
            encoder.neck,
            [7],
            lambda: _stack(explain(vqa, images, method=gradcam, **query)),
            words=True,
        )
    head_kind, count = more.split("-")[0], int(more.split("-")[1])
    captioner: Any = (
        LSTMCaptioner(len(vocabulary), 512, width=512, attention=head_kind == "attention")
        if head_kind in ("lstm", "attention")
        else TransformerCaptioner(len(vocabulary), 512, width=256, layers=2, heads=4)
    )
    captioner = captioner.eval().to(device)
    tokens = [START, *vocabulary.encode(CAPTION), END]
    task = Captioning(encoder, captioner, vocabulary, Preprocess((224, 224)))
    images = pictures(count).to(device)
    names = {"lstm": "an LSTM", "attention": "an LSTM with attention", "transformer": "a transformer"}
    title = f"12 words of a caption under {names[head_kind]}, batch {count}"
    whole_captioner = Whole(encoder, captioner, tokens).eval().to(device)
    ours = lambda: _stack(explain(task, images, method=gradcam, caption=" ".join(CAPTION), batch=64))  # noqa: E731
    return Case(title, images, whole_captioner, encoder.neck, list(range(len(CAPTION))), ours)


CASES = (
    "class-1", "class-8", "classes-1", "words-lstm-1", "words-attention-1", "words-transformer-1", "answer", "words-lstm-32",
)  # fmt: skip


def _stack(made: Any) -> Tensor:
    return torch.stack([one.maps for one in (made if isinstance(made, list) else [made])])


def plain(work: Case) -> None:
    with torch.no_grad():
        work.model(work.images)


def explained(library: str, work: Case) -> Callable[[], Tensor]:
    """The work as a library's own documentation does it; gives (B, K, h, w) maps."""
    if library == "mmgradcam":
        return work.ours
    return {"pytorch-grad-cam": _pytorch_grad_cam, "captum": _captum, "torchcam": _torchcam}[library](work)


def _pytorch_grad_cam(work: Case) -> Callable[[], Tensor]:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def run() -> Tensor:
        with GradCAM(model=work.model, target_layers=[work.layer]) as cam:
            asked = ([ClassifierOutputTarget(t)] * len(work.images) for t in work.targets)
            maps = [torch.from_numpy(cam(input_tensor=work.images, targets=some)) for some in asked]
        return torch.stack(maps, 1)

    return run


def _captum(work: Case) -> Callable[[], Tensor]:
    from captum.attr import LayerGradCam, LayerGradientXActivation

    def run() -> Tensor:
        cam = LayerGradCam(work.model, work.layer)
        maps = [cam.attribute(work.images, target=t, relu_attributions=True)[:, 0].detach() for t in work.targets]
        if work.words:
            LayerGradientXActivation(work.model, work.model.head.words).attribute(work.images, target=work.targets[0])
        return torch.stack(maps, 1)

    return run


def _torchcam(work: Case) -> Callable[[], Tensor]:
    from torchcam.methods import GradCAM

    def run() -> Tensor:
        with GradCAM(work.model, target_layer=work.layer) as cam:
            scores = work.model(work.images)
            last = work.targets[-1]
            found = [cam([t] * len(work.images), scores, retain_graph=t != last)[0].detach() for t in work.targets]
        return torch.stack(found, 1)

    return run


def agreement(ours: Tensor, theirs: Tensor) -> float:
    """Lowest correlation over the maps, both brought to the larger grid."""
    size = max(ours.shape[-2:], theirs.shape[-2:])
    both = [F.interpolate(m.float().cpu(), size=size, mode="bilinear", align_corners=False) for m in (ours, theirs)]
    pairs = zip(*(m.flatten(0, 1).flatten(1).numpy() for m in both), strict=True)
    return min(float(np.corrcoef(a, b)[0, 1]) for a, b in pairs if a.std() > 0 and b.std() > 0)


class Trap(nn.Module):
    """A convolution whose output the in-place ReLU after it overwrites, under a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.bend, self.out = nn.Conv2d(3, 8, 5, stride=8), nn.ReLU(inplace=True), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.out(self.bend(self.conv(images)).square().mean((2, 3)))
        return scores


def trap() -> tuple[Case, Tensor]:
    """A case whose layer is overwritten in place, and its true Grad-CAM maps from a forward without in-place operations."""
    model, images = Trap().eval(), pictures(2)
    features = model.conv(images).detach().requires_grad_()
    scores = model.out(torch.relu(features).square().mean((2, 3)))
    targets, true = [0, 1, 2], []
    for t in targets:
        (gradient,) = torch.autograd.grad(scores[:, t].sum(), features, retain_graph=True)
        true.append(torch.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1)).detach())
    task = Layer(model, model.conv)
    work = Case(
        "in-place trap",
        images,
        model,
        model.conv,
        targets,
        lambda: _stack(explain(task, images, method=gradcam, classes=targets)),
    )
    return work, torch.stack(true, 1)
