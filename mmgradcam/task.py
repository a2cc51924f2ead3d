"""The contract: a `Task` is a model seen as encoder, feature map and head; a `Target` is one scalar it can be asked about."""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError, unicode_text
from mmgradcam.images.pictures import PreparedImage, whole
from mmgradcam.utils.locks import exclusive

Method = Callable[[Tensor, Tensor], Tensor]
"""(K, C, *grid) features and gradients -> (K, *grid) maps."""

Fusion = Callable[[Sequence[Tensor]], Tensor]
"""Maps of the same K targets at several target layers, each (K, *grid) -> one (K, *grid)."""

Query = Mapping[str, Any]


@dataclass(frozen=True)
class TextSpan:
    """A word of the text a target reads, and the tokens it is made of (both ends inclusive)."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class Target:
    """One scalar to explain.

    Attributes:
        label: what people read: a word, an answer, an action.
        value: all that `Task.score` needs to compute the scalar: a class index, a caption's tokens and position, a question.
        probability: the model's probability of it, 0..1, where it has one.
        text: the part of a text that it stands for, the spaces around it included: the parts of a text's targets add up to the
            text. None where the label is all of it.
        input_tokens: the words of the text the model was given besides the picture; see `Task.words`.
        grounding: how much more likely the picture makes it: its log-probability less that without the picture, natural
            logarithm; None where nobody asked.
        hallucination_probability: how likely the picture does not hold what it says, 0..1
            (`mmgradcam.metrics.annotate_hallucination`); None where nobody asked.
        is_hallucinated: that is more than true words or answers mostly reach.
        asserted: the model says it (a word of its caption, its first answer) or the user states it (`caption=`, `answer=`);
            False of answers it ranks below its own and of contrasts, which nobody claims.
    """

    label: str
    value: Any = None
    probability: float | None = field(default=None, kw_only=True)
    text: str | None = field(default=None, kw_only=True)
    input_tokens: tuple[TextSpan, ...] = field(default=(), kw_only=True)
    grounding: float | None = field(default=None, kw_only=True)
    hallucination_probability: float | None = field(default=None, kw_only=True)
    is_hallucinated: bool = field(default=False, kw_only=True)
    asserted: bool = field(default=True, kw_only=True)


def spelled(targets: Sequence[Target]) -> str:
    """The text that neighbouring targets stand for, as it was written but for line breaks.

    >>> spelled([Target("red"), Target("dogs", text=" (dogs"), Target(").", text=").")])
    'red (dogs).'
    """
    return " ".join("".join(f" {one.label}" if one.text is None else one.text for one in targets).split())


class _Derived:
    """The value of an attribute that neither the task nor its class sets: a function of the task."""

    def __init__(self, of: Callable[[Task], Any]) -> None:
        self.of = of

    def __get__(self, task: Task | None, owner: type | None = None) -> Any:
        return self if task is None else self.of(task)


def _derived(of: Callable[[Task], Any]) -> Any:
    return _Derived(of)


def _device(task: Task) -> torch.device:
    return next((p.device for module in task.modules() for p in module.parameters()), torch.device("cpu"))


def _query_types(task: Task) -> frozenset[str]:
    named = {parameter.name for parameter in query_parameters(task) if parameter.kind is not parameter.VAR_KEYWORD}
    return frozenset(named - {"size"})  # the picture's, which `explain` gives


class Task(ABC):
    """A model seen as encoder, feature map and head. Write `encode`, `targets` and `score`; the rest has defaults.

    B is the number of images, K of targets, C of channels. The grid may have any number of dimensions.
    """

    name: str = _derived(lambda task: type(task).__name__)
    """What people call the model; by default the name of its class."""
    query_types: frozenset[str] = _derived(_query_types)
    """The keywords it can be asked with; by default the parameters of `targets` after the features.

    Commands and evaluations ask a task what it supports: "caption" (a sentence to explain), "phrases" (spans of a caption),
    "question", "questions" (several at once), "classes". "observations" says that it plays in an environment, as `Policy`.
    """
    labels: Sequence[str] = ()
    """What it chooses among: names of its classes, answers or actions; () where it writes text of its own."""
    clip_length: int | None = None
    """How many frames it sees of a `Clip`; None where it sees pictures."""
    device: torch.device = _derived(_device)
    """Where its input goes; by default the device of its first parameter, the CPU where there is none."""
    unit: str = "score"
    """What a score is: "log-probability" or "word logit" of a word, "logit" of an answer or class.

    Log-probabilities are best computed by `mmgradcam.log_prob`, whose gradient is exact for any probability. One that was
    computed by subtracting from 1, as by `log_softmax`, is not drawn where 1 - p is less than 8 roundings (1e-6 in float32).
    """
    feature_layer: str = "features"
    """Where the features are taken, in words."""
    method: Method | None = None
    """The method `explain` uses unless told otherwise; None is Grad-CAM."""
    target_layers: Sequence[Any] = ()
    """Layers upstream of the features at which maps are taken instead; see `explain`."""
    fuse: Fusion | None = None
    """How maps of several target layers become one; None is their product."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        """The model's own resizing and normalising of an RGB picture; by default pixels in 0..1 at their own size."""
        return whole(image)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) prepared pictures -> (B, C, *grid) features. Called once per image."""

    @abstractmethod
    def targets(self, features: Tensor, *_: Any, **query: Any) -> Sequence[Target]:  # so typed, any keywords may follow
        """(1, C, *grid) features of one image -> what to explain: what the query names, else what the model predicts."""

    @abstractmethod
    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        """(K, C, *grid) features, one row per target -> (K,) scores; score k depends on row k alone."""

    def targets_of_each(self, features: Tensor, queries: Sequence[Query]) -> list[Sequence[Target]]:
        """`targets` of each of B images; override it where the head predicts for many images together."""
        return [self.targets(features[i : i + 1], **query) for i, query in enumerate(queries)]

    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor] | None:
        """All scores from one forward per image, where the head can: (B, C, *grid) -> tensors (t, B), the t adding up to T.

        T is the most targets of an image; row by row, they hold the score of each image's first target, second, and so on
        (anything finite where an image has fewer). The rows of one tensor get one backward, vmapped: put together what runs
        back through the same parts of the head, and apart what can pass others by, as an early step of a recurrent head can.
        A task that returns None, as by default, gets one row of features per target in `score` instead. It need be
        differentiable only once: maps that stay in the graph are made with `score`.
        """
        return None

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor | None:
        """Log-probabilities (K,) of K targets, where a score is something else and there are any.

        `features` are (1, C, *grid) of all of them, or (K, C, *grid), one row per target.
        """
        return None

    def can_read(self, text: str) -> bool:
        """Whether it knows every word of a question or caption; an evaluation leaves out those that it cannot read."""
        return True

    def target_layer(self, name: str) -> Any:
        """What `target_layers` takes for the layer of that dotted name; override it where its output needs a `Layout`."""
        return name

    def join(self, targets: Sequence[Target]) -> Target:
        """The target whose score is the sum of these targets' scores."""
        raise InputError(f"{self.name}: targets of this task cannot be joined; ask for one of them")

    def remarks(self, targets: Sequence[Target]) -> Sequence[str]:
        """What people should know of these targets, a line each: that a text was cut, for one. Shown beside the maps."""
        return ()

    def words(self) -> nn.Module | None:
        """The layer that embeds the words a target reads, if their importance is wanted.

        `score` must call it once, on tokens (K, L) whose positions `Target.input_tokens` refers to.
        """
        return None

    def modules(self) -> list[nn.Module]:
        """The modules that `explain` must leave as it found them; by default those the task holds as attributes."""
        return [value for value in list(vars(self).values()) if isinstance(value, nn.Module)]

    def fingerprint(self) -> str:
        """SHA-256 of the weights and buffers of `modules`."""
        digest = hashlib.sha256()
        with exclusive(self.modules()):
            for module in self.modules():
                for name, tensor in module.state_dict().items():
                    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def exclusive(self) -> AbstractContextManager[None]:
        """Within, the task and its modules are this thread's alone; see `mmgradcam.utils.locks.exclusive`."""
        return exclusive([self, *self.modules()])


def query_parameters(task: Task) -> list[inspect.Parameter]:
    """The keyword parameters of a task's `targets`, `**query` included."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    after = list(inspect.signature(task.targets).parameters.values())[1:]
    return [parameter for parameter in after if parameter.kind not in positional]


def at_least_one(query: Query, name: str, default: int) -> int:
    """A number of a query that must be 1 or more.

    Raises:
        InputError: it is not.
    """
    found = query.get(name)
    if found is None:
        return default
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InputError(f"{name}: expected a whole number of 1 or more, got {found!r}")
    return found


def hidden_by(task: Task) -> list[str]:
    """Methods of `Task` that cannot be called any more because an attribute of the task has their name.

    >>> class Price(Task):
    ...     def __init__(self):
    ...         self.words = ["old", "red"]
    ...     encode = targets = score = None
    >>> hidden_by(Price.__new__(Price)), hidden_by(Price())
    ([], ['words'])
    """
    return [name for name, value in list(vars(task).items()) if callable(getattr(Task, name, None)) and not callable(value)]


LONGEST_TEXT = 100_000
"""Characters of a text in a query."""


def check_texts(query: Any, key: str = "") -> None:
    """Raises InputError where a query holds a text that no tokenizer reads: of megabytes, or with halves of characters.

    Args:
        query: texts in mappings and lists, however deep; other values are passed over.
        key: what an error calls it; by default that of the outermost mapping.
    """
    if isinstance(query, str):
        if len(query) > LONGEST_TEXT:
            raise InputError(f"{key}: expected a text of at most {LONGEST_TEXT:,} characters, got {len(query):,}")
        if query != unicode_text(query):
            raise InputError(f"{key}: expected Unicode text, got {query!r} with bytes that are none; write it in UTF-8")
    elif isinstance(query, Mapping):
        for name, value in query.items():
            check_texts(value, key or str(name))
    elif isinstance(query, (list, tuple)):
        for value in query:
            check_texts(value, key)
