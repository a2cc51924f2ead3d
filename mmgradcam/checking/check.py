"""Is a task of yours written as `explain` needs it? Tries it on one picture and says in plain words what is right and wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from mmgradcam.engine import Encoded, encode, gradients_of
from mmgradcam.errors import InputError, ModelError, UnknownGeometry
from mmgradcam.explaining.arguments import queries_of, task_of
from mmgradcam.explaining.trial import alike, example_of, kind_of, learns, lit, state_of, times_of
from mmgradcam.images.clips import Clip, open_clip
from mmgradcam.images.pictures import open_picture
from mmgradcam.layers import find_target_layer, kept_bytes, preserve_state, record_calls
from mmgradcam.probe import activations_of
from mmgradcam.task import Target, Task, hidden_by


@dataclass(frozen=True)
class Finding:
    """What one look at a task found.

    Attributes:
        name: what was looked at.
        ok: whether it is as it should be; None where that is for you to judge.
        said: what was found and, where it is wrong, what to change.
    """

    name: str
    ok: bool | None
    said: str

    def __str__(self) -> str:
        mark = {True: "right", False: "WRONG", None: "note"}[self.ok]
        return f"{mark:5}  {self.name}: {self.said}"


def check(task: Task | str, picture: Any = None, **query: Any) -> list[Finding]:
    """Tries a task on one picture.

    What is looked at: the features' shape; that the same picture gives the same features and scores; that the encoder does not
    run again when a target is scored; that a score depends on its own row of features alone, and on all that its target says;
    that gradients reach the features; which way round the grid lies; memory per row; that the model is left as it was.

    Args:
        task: any task, or the name of a bundled model.
        picture: what to try it on, as for `explain`; by default a picture, or a clip, that is made up.
        **query: what to ask, as for `explain`.

    Returns:
        What was found, in the order in which it was looked at. It ends early where nothing more can be looked at.

    Raises:
        InputError: the picture or the query is not what the task can be asked; that is no finding about the task.

    >>> from mmgradcam import Target, Task
    >>> class Bright(Task):
    ...     def encode(self, images):
    ...         return images.mean((2, 3))
    ...     def targets(self, features):
    ...         return [Target("bright")]
    ...     def score(self, features, targets):
    ...         return features.sum(1)
    >>> [finding.name for finding in check(Bright()) if finding.ok is False]
    ['encode']
    """
    task = task_of(task)
    with task.exclusive():
        tried = _Trial(task, query)
        with suppress(_Stop):
            tried.run(picture)
        tried.left()
    return tried.findings


class _Stop(Exception):
    """Nothing more can be looked at."""


@dataclass
class _Trial:
    task: Task
    query: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = state_of(self.task)

    def say(self, name: str, ok: bool | None, said: str) -> None:
        self.findings.append(Finding(name, ok, said))

    def stop(self, name: str, said: str) -> NoReturn:
        self.say(name, False, said)
        raise _Stop

    def tried(self, name: str, gets: str, work: Callable[[], Any]) -> Any:
        """What the user's function makes; what it raises is a finding."""
        try:
            return work()
        except UnknownGeometry as error:
            self.stop(name, str(error))
        except InputError:
            raise
        except ModelError as error:
            self.stop(name, f"{error}; {gets}")
        except Exception as error:
            self.stop(name, f"raised {type(error).__name__} ({' '.join(str(error).split())[:200]}); {gets}")

    def run(self, picture: Any) -> None:
        if hidden := hidden_by(self.task):
            self.stop(
                "names", f"the attribute {hidden[0]!r} hides Task.{hidden[0]}, which explain calls; call it something else"
            )
        queries_of(self.task, self.query, None, 1)
        if not self.task.modules():
            self.say(
                "modules",
                None,
                "no attribute of the task is an nn.Module; if it has a model, keep it as one, so that explain leaves it as "
                "it was",
            )
        with preserve_state(self.task.modules()):
            picture = self.opened(picture)
            pixels = self.prepared(picture)
            encoded = self.encoded(pixels)
            targets = self.asked(encoded.features.detach())
            self.scored(pixels, encoded.features.detach(), targets)
            self.apart(encoded.features.detach(), targets)
            self.reached(encoded, targets)
            self.upright(picture)
            self.heavy(encoded.features.detach(), targets)

    def opened(self, given: Any) -> Any:
        """A picture, a `Clip` or pixels."""
        if given is None:
            return example_of(self.task)
        if isinstance(given, (Clip, Tensor)):
            return given
        return open_picture(given) if self.task.clip_length is None else open_clip(given)

    def prepared(self, picture: Any) -> Tensor:
        """(1, 3, h, w) on the model's device."""
        if isinstance(picture, Tensor):
            return picture.detach()[None].to(self.device())
        made = self.tried("prepare", "it gets an RGB Pillow image, or a Clip", lambda: self.task.prepare(picture))
        pixels = getattr(made, "pixels", None)
        if not isinstance(pixels, Tensor) or pixels.dim() not in (3, 4) or not pixels.is_floating_point():
            got = made if pixels is None else pixels
            self.stop("prepare", f"returned {kind_of(got)}; return PreparedImage(pixels, box) with pixels of floats, (3, h, w)")
        if 3 not in (pixels.shape[-3], pixels.shape[0]) and pixels.shape[-1] == 3:
            self.stop(
                "prepare", f"returned pixels {tuple(pixels.shape)}, channels last; return (3, h, w): pixels.permute(2, 0, 1)"
            )
        return pixels[None].to(self.device())

    def device(self) -> torch.device:
        return self.task.device

    def encode(self, pixels: Tensor) -> tuple[Encoded, Tensor]:
        """A batch encoded, and the grid that maps are taken at: the first target layer's, or the features."""
        target_layers = [find_target_layer(target_layer, self.task.modules()) for target_layer in self.task.target_layers]
        made = encode(self.task, pixels, target_layers)
        return made, activations_of(made)[0]

    def encoded(self, pixels: Tensor) -> Encoded:
        gets = "it gets (B, 3, h, w) and returns (B, C, rows, columns), one row per picture"
        pair = torch.cat([pixels, pixels.flip(-1)])
        made: Encoded
        made, grid = self.tried("encode", gets, lambda: self.encode(pixels))
        again = self.tried("encode", gets, lambda: self.encode(pixels))[1]
        pairs = self.tried("encode", gets, lambda: self.encode(pair))[1]
        if grid.dim() < 4:
            self.stop(
                "encode",
                f"returned {kind_of(grid)}, which has no grid: return the features before they are pooled or flattened, (B, "
                "C, rows, columns); mmgradcam.layouts.tokens makes a grid of tokens",
            )
        size = times_of(grid.shape[2:])
        if min(grid.shape[2:]) < 2:
            self.say(
                "encode",
                False,
                f"the grid is {size}: a map of it shows no place; return the features of an earlier layer, before pooling",
            )
        else:
            self.say("encode", True, f"{times_of(pixels.shape[1:])} pixels become {grid.shape[1]} channels on a grid of {size}")
        if not torch.isfinite(grid).all():
            self.stop(
                "encode", "the features are not finite; look for a wrong scale of the pixels, or half precision that overflows"
            )
        if not alike(grid, again):
            self.say(
                "encode twice",
                False,
                "the same picture gave other features: something in encode is random; switch dropout and noise off, or "
                "seed them",
            )
        if not alike(pairs[:1], grid):
            self.say(
                "pictures apart",
                False,
                "a picture's features change with the other pictures of its batch; look for a mean over the batch, or "
                "batch norm in train mode",
            )
        return made

    def asked(self, features: Tensor) -> Sequence[Target]:
        gets = "it gets features (1, C, *grid) and what is asked as keywords, and returns a list of Target"
        targets = self.tried("targets", gets, lambda: self.task.targets(features, **self.query))
        if not isinstance(targets, (list, tuple)) or not targets or not all(isinstance(t, Target) for t in targets):
            self.stop("targets", f"returned {kind_of(targets)}; return a list of at least one Target")
        unnamed = [t for t in targets if not isinstance(t.label, str) or not t.label]
        if unnamed:
            self.stop("targets", f"a Target has the label {unnamed[0].label!r}; give each a name that people read, a str")
        more = "" if len(targets) <= 6 else f" and {len(targets) - 6} more"
        self.say("targets", True, ", ".join(repr(t.label) for t in targets[:6]) + more)
        return list(targets)

    def scored(self, pixels: Tensor, features: Tensor, targets: Sequence[Target]) -> None:
        rows = features.expand(len(targets), *features.shape[1:])
        gets = "it gets features (K, C, *grid), one row per target, and K targets, and returns (K,) scores"
        with record_calls(self.task.modules()) as encoding:
            self.encode(pixels)
        with record_calls(self.task.modules()) as scoring:
            made = self.tried("score", gets, lambda: self.task.score(rows, targets))
        if not isinstance(made, Tensor) or made.shape != (len(targets),):
            self.stop(
                "score", f"returned {kind_of(made)} for {len(targets)} targets; return one score per target, ({len(targets)},)"
            )
        wrong = (~torch.isfinite(made)).nonzero().flatten().tolist()
        if wrong:
            self.stop(
                "score",
                f"the score of {targets[wrong[0]].label!r} is {float(made[wrong[0]])}; look for the log of 0 or a division "
                "by 0",
            )
        twice = {id(m) for m in encoding if learns(m)} & {id(m) for m in scoring if learns(m)}
        if twice:
            names = dict.fromkeys(type(m).__name__ for m in encoding if id(m) in twice)
            self.say(
                "one encode",
                False,
                f"score runs layers that encode ran already ({', '.join(names)}): let it begin at the features it is given",
            )
        else:
            self.say("one encode", True, "score begins at the features: the encoder runs once per picture")
        if not alike(made, self.task.score(rows, targets)):
            self.say(
                "score twice",
                False,
                "the same features gave other scores: something in the head is random; switch dropout off, or seed it",
            )

    def apart(self, features: Tensor, targets: Sequence[Target]) -> None:
        """Whether each score depends on its own row and target, whatever stands beside it."""
        asked = list(targets[:3]) if len(targets) > 1 else [targets[0], targets[0]]
        rows = features.expand(len(asked), *features.shape[1:]).clone()
        scores = self.task.score(rows, asked)
        changed = rows.clone()
        changed[-1] = changed[-1].flip(-1) * 0.5
        moved = (self.task.score(changed, asked) - scores).detach().abs()
        if float(moved[:-1].max()) > 0.01 * float(moved[-1]) and not alike(scores[:-1], scores[:-1] + moved[:-1], 0.01):
            self.say(
                "rows apart",
                False,
                "a score changed with the features of another row: score k may depend on features[k] alone; look for a "
                "mean over the batch, or batch norm in train mode",
            )
            return
        turned = self.task.score(rows, asked[::-1]).flip(0)
        alone = torch.cat([self.task.score(rows[i : i + 1], [t]) for i, t in enumerate(asked)])
        if not alike(scores, turned) or not alike(scores, alone):
            self.say(
                "rows apart",
                False,
                "a target's score depends on the targets beside it: let a Target's value hold all that its score needs (a "
                "caption, a question, a class), and read it row by row",
            )
            return
        self.say("rows apart", True, "each score depends on its own row and target")
        together = self.task.scores(features, [targets])
        if together is not None:
            found = torch.cat([part[:, 0] for part in together])[: len(targets)]
            same = alike(found, self.task.score(features.expand(len(targets), *features.shape[1:]), targets))
            wrong = "gives other values than score does: both must be the same scalars, in the order of the targets"
            self.say("scores", same, "agrees with score" if same else wrong)

    def reached(self, encoded: Encoded, targets: Sequence[Target]) -> None:
        why = "look for .item(), .detach(), numpy, no_grad or argmax in it"
        parts = self.tried("gradient", why, lambda: list(gradients_of(self.task, encoded, [targets])))
        size, flat = {}, True
        for part in parts:
            gradients = part.activations[0][1].detach()
            size.update({t: float(g.abs().max()) for (_, t), g in zip(part.rows, gradients, strict=True)})
            cells = gradients.flatten(2)
            flat = flat and alike(cells, cells.mean(2, keepdim=True).expand_as(cells))
        silent = [targets[t].label for t, most in sorted(size.items()) if most == 0]
        if len(silent) == len(targets):
            self.stop(
                "gradient",
                "is 0 everywhere, for every target: the score does not depend on the features, or only by way of rounding, "
                f"argmax or a ReLU that is off; {why}",
            )
        if silent:
            self.say("gradient", None, f"is 0 for {', '.join(map(repr, silent[:6]))}: their maps will be empty")
        else:
            self.say("gradient", True, "reaches the features for every target")
        if flat:
            self.say(
                "place",
                None,
                "the gradient is the same in every cell, as of a head that pools the grid: gradcam, hirescam and cam will "
                "draw the same map",
            )

    def upright(self, picture: Any) -> None:
        """Puts noise into one corner after another and looks for where the features change."""
        seen = []
        for x, y in ((0, 0), (1, 0), (0, 1)):
            change = None if isinstance(picture, Clip) else self.changed(x, y)
            if change is None:
                self.say(
                    "orientation",
                    None,
                    "could not be told: of a clip, a grid that is no plane, or one that did not change where the picture did",
                )
                return
            rows, columns = change.shape
            down = (change.sum(1) * torch.arange(rows)).sum() / change.sum() / max(rows - 1, 1)
            across = (change.sum(0) * torch.arange(columns)).sum() / change.sum() / max(columns - 1, 1)
            seen.append((float(across), float(down)))
        (x0, y0), (x1, y1), (x2, y2) = seen
        right, low = (x1 - x0, y1 - y0), (x2 - x0, y2 - y0)
        if right[0] > 0.1 and low[1] > 0.1 and right[0] > abs(right[1]) and low[1] > abs(low[0]):
            self.say("orientation", True, "a change at the top left of the picture is a change at the top left of the grid")
        elif right[1] > 0.1 and low[0] > 0.1:
            self.say(
                "orientation",
                False,
                "rows and columns are swapped: return (B, C, rows, columns), rows from top to bottom; look for a transpose "
                "or permute",
            )
        elif right[1] > 0.1 and abs(low[0]) < 0.1 and abs(low[1]) < 0.1:
            self.say(
                "orientation",
                False,
                "the grid's second axis does not follow the picture, the first follows its columns: the features have "
                "their channels last; return features.permute(0, 3, 1, 2)",
            )
        elif right[0] < -0.1 or low[1] < -0.1:
            turned = " and ".join(["left and right"] * (right[0] < -0.1) + ["top and bottom"] * (low[1] < -0.1))
            self.say(
                "orientation", False, f"{turned} are swapped in the grid: look for a flip, or tokens read in another order"
            )
        else:
            self.say(
                "orientation",
                None,
                "can hardly be told: every cell answers to nearly all of the picture, or tokens are out of order; maps "
                "will say little of place",
            )

    def changed(self, x: int, y: int) -> Tensor | None:
        """(rows, columns), how much the grid changes when the corner (x, y) of an empty picture fills with noise."""
        both = torch.stack([torch.as_tensor(self.task.prepare(p).pixels) for p in (lit(), lit((x, y)))]).to(self.device())
        grid = self.encode(both)[1].float().cpu()
        change = (grid[1] - grid[0]).norm(dim=0)
        return change if change.dim() == 2 and min(change.shape) > 1 and bool(change.any()) else None

    def heavy(self, features: Tensor, targets: Sequence[Target]) -> None:
        sizes = []
        for rows in (1, 2):
            leaf = features.expand(rows, *features.shape[1:]).clone().requires_grad_()
            with kept_bytes() as kept:
                self.task.score(leaf, [targets[0]] * rows)
            sizes.append(sum(kept.values()) + leaf.numel() * leaf.element_size())
        row = max(sizes[1] - sizes[0], 0) / 2**20
        self.say(
            "memory",
            None,
            f"a row takes {row:.2f} MiB until its backward is done; {len(targets)} targets together about "
            f"{len(targets) * row:.1f} MiB (explain splits what does not fit)",
        )

    def left(self) -> None:
        after = state_of(self.task)
        changed = [name for name in {**self.before, **after} if self.before.get(name) != after.get(name)]
        if changed:
            self.say(
                "left as it was",
                False,
                f"{', '.join(changed[:4])} changed while the task ran: it must not train, switch modes, or keep hooks",
            )
        else:
            self.say("left as it was", True, "weights, statistics, modes and hooks are as they were")
