"""What tasks of one score per class share: which classes are asked for, and their scores."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.task import Target, at_least_one
from mmgradcam.utils.probability import full, log_prob


def targets_of(
    logits: Tensor,
    labels: Sequence[str],
    classes: Sequence[int | str] | None = None,
    top: int | None = None,
    contrast: int | str | None = None,
    several: bool = False,
) -> list[Target]:
    """Targets whose value is (class, None), or (class, other class) of a contrast.

    Args:
        logits: (N,) scores of one picture or clip.
        labels: names of the N classes, or of the first of them.
        classes: by index or label; else the likeliest.
        top: how many of the likeliest; beside `classes`, those of them that are not named there follow.
        contrast: explain also why the first class and not this one, by the difference of their scores.
        several: any number of classes may hold at once: all above a half are explained unless told otherwise.

    Raises:
        InputError: there is no such class.
    """
    count, logits = len(logits), logits.float()
    if classes is not None and (isinstance(classes, str) or not isinstance(classes, Iterable)):
        raise InputError(f"classes: expected a list, such as classes=[{classes!r:.60}], got {classes!r:.60}")
    probabilities = logits.sigmoid() if several else logits.softmax(-1)
    likely = probabilities.topk(min(at_least_one({"top": top}, "top", 1), count)).indices.tolist()
    if classes is None:
        above = probabilities.argsort(descending=True)[: int((probabilities > 0.5).sum())].tolist()
        classes = above if several and top is None and above else likely
        top = None
    indices = [_index(c, labels, count) for c in classes]
    indices += [i for i in likely if top is not None and i not in indices]
    predicted = {i for i in likely[:1] if not several} | {i for i in indices if several and probabilities[i] > 0.5}
    made = [Target(_label(i, labels), (i, None), probability=float(probabilities[i]), asserted=i in predicted) for i in indices]
    if contrast is not None:
        other = _index(contrast, labels, count)
        if other == indices[0]:
            raise InputError(f"against: {_label(other, labels)!r} is the class itself; name another one")
        label = f"{_label(indices[0], labels)} rather than {_label(other, labels)}"
        made.insert(1, Target(label, (indices[0], other), asserted=False))
    return made


def scores_of(logits: Tensor, targets: Sequence[Target]) -> Tensor:
    """(K, N) logits -> (K,), of each row its target's class, less that of the other class of a contrast."""
    rows = torch.arange(len(targets), device=logits.device)
    classes, others = indices(targets, logits.device)
    scores = logits[rows, classes]
    return torch.where(others >= 0, scores - logits[rows, others.clamp(min=0)], scores)


def likelihood_of(logits: Tensor, targets: Sequence[Target], several: bool = False) -> Tensor:
    """(K or 1, N) logits -> (K,) log-probabilities; of a contrast, the difference of both classes'.

    Args:
        logits: a row per target, or one for all.
        targets: as of `targets_of`.
        several: any number of classes may hold at once.
    """
    logits = full(logits).expand(len(targets), -1)
    if several:
        return scores_of(torch.nn.functional.logsigmoid(logits), targets)
    return log_prob(logits, *indices(targets, logits.device))


def indices(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of targets whose value is (class, other class or None): (K,) classes and (K,) others, -1 where there is none."""
    others = [-1 if target.value[1] is None else target.value[1] for target in targets]
    return torch.tensor([target.value[0] for target in targets], device=device), torch.tensor(others, device=device)


def _index(key: int | str, labels: Sequence[str], count: int) -> int:
    if isinstance(key, str):
        if key not in labels and key.isdigit():
            return _index(int(key), labels, count)
        if key not in labels:
            near = difflib.get_close_matches(key, labels, n=5, cutoff=0.4) or labels[:20]
            raise InputError(f"no class is called {key!r}; there are {', '.join(near) or 'no labels'}")
        return labels.index(key)
    try:
        key = operator.index(key)
    except TypeError:
        raise InputError(f"expected a class by index or name, got {key!r:.60}") from None
    if not -count <= key < count:
        raise InputError(f"expected a class in 0..{count - 1}, got {key}")
    return key % count


def _label(index: int, labels: Sequence[str]) -> str:
    return labels[index] if index < len(labels) else f"class {index}"
