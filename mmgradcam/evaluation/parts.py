"""What is kept of a run so that it can go on: its key, and parts, each believed only if it is whole and of the same records."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from types import CodeType
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.evaluation.rows import from_parquet, plain, to_parquet
from mmgradcam.explaining.trial import example_of
from mmgradcam.task import Task
from mmgradcam.utils.naming import name_of
from mmgradcam.utils.version import __version__
from mmgradcam.utils.writing import to_json, write_file

Part = dict[str, Any]
"""`rows` of a batch of samples, and what else is to be known of it: numbers, texts and lists, as JSON holds them."""

_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def identity_of(function: Any) -> str:
    """The name of a method or metric, and a hash of what makes it what it is, where the package's version does not tell.

    That is the code of a function that is not the package's own, and the values that a function closes over, as the number of
    copies of `smooth(gradcam, 16)`.
    """
    digest = hashlib.sha256()
    return f"{name_of(function)} #{digest.hexdigest()[:8]}" if _defined(function, digest) else name_of(function)


def _defined(value: Any, digest: hashlib._Hash) -> bool:
    """Hashes a function or a value that it uses; whether there is more to it than a name in the package."""
    if isinstance(value, partial):
        found = [_defined(one, digest) for one in (value.func, *value.args, *value.keywords.values())]
        return any(found)
    code = getattr(value, "__code__", None)
    if not isinstance(code, CodeType):
        _hash_content(value, digest)
        return not isinstance(value, (str, int, float, bool, type(None)))
    digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    own = str(value.__module__).startswith("mmgradcam.")
    if not own:
        _hash_code(code, digest)
        _hash_content([value.__defaults__, value.__kwdefaults__], digest)
    for cell in value.__closure__ or ():
        _defined(cell.cell_contents, digest)
    return not own or bool(value.__closure__)


def _hash_code(code: CodeType, digest: hashlib._Hash) -> None:
    digest.update(code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _hash_code(constant, digest)
        else:
            _hash_content(constant, digest)


def key_of(
    task: Task,
    name: str,
    count: int,
    methods: Sequence[Any],
    metrics: Sequence[Any],
    target_layers: Sequence[Any] | None,
    batch: int,
) -> dict[str, Any]:
    """What two runs must have in common for one to go on where the other stopped, but for the records themselves.

    Args:
        task: the model.
        name: of the data set.
        count: of its records.
        methods: of the maps.
        metrics: what is measured.
        target_layers: layers of the maps.
        batch: records a part.
    """
    example: Any = example_of(task)  # a clip where the task takes clips
    said = [getattr(task, each, None) for each in ("labels", "vocabulary", "unit", "feature_layer")]
    return {
        "mmgradcam": __version__,
        "model": task.name,
        "weights": task.fingerprint(),
        "preprocessing": content_of(task.prepare(example)),
        "words": content_of(said),
        "data": name,
        "records": count,  # the lists of a data set have one name
        "metrics": [identity_of(metric) for metric in metrics],
        "methods": [identity_of(method) for method in methods],
        "target_layers": None
        if target_layers is None
        else [str(getattr(target_layer, "name", "") or target_layer) for target_layer in target_layers],
        "batch": batch,
    }


def content_of(value: Any) -> str:
    """SHA-256 of pixels, numbers and texts, and of records and lists of such, as of all that is known of a photo."""
    digest = hashlib.sha256()
    _hash_content(value, digest)
    return digest.hexdigest()


def _hash_content(value: Any, digest: hashlib._Hash) -> None:
    if is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Image.Image):
        value = [value.mode, np.asarray(value)]
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, (list, tuple)):
        digest.update(f"{len(value)} of ".encode())
        for one in value:
            _hash_content(one, digest)
    else:
        told = re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode("utf-8", "backslashreplace")
        digest.update(f"{type(value).__name__} {len(told)} ".encode() + told)


class Parts:
    """The parts of a run, one Parquet file each.

    Args:
        folder: of the run; None keeps them while the run is in use, and no longer.
        key: of the run, as of `key_of`.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        self.folder, self.key = folder, key
        self._files = Path(mkdtemp(prefix="mmgradcam-")) if folder is None else folder / "parts"
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self._files, ignore_errors=True)

    def begin(self) -> None:
        """Sees that the folder holds this run or none, and writes the key if it holds none.

        Raises:
            InputError: it holds another run, or what says which is gone or damaged.
        """
        if self.folder is None:
            return
        path = self.folder / "run.json"
        try:
            before = json.loads(path.read_bytes())
            other = [name for name in self.key if before.get(name) != self.key[name]]
        except FileNotFoundError:
            if any(self._files.glob("*.parquet")):
                raise InputError(
                    f"{self.folder}: expected parts of a run beside its run.json, which is gone; choose another --out"
                ) from None
            write_file(path, to_json(self.key, indent=2).encode())
            return
        except _DAMAGED as error:
            raise InputError(f"{path}: damaged ({_said(error)}); choose another --out, or delete {self.folder}") from None
        if other:
            there, now = before.get(other[0]), self.key[other[0]]
            raise InputError(
                f"{self.folder}: holds a run of other {', '.join(other)} ({there} there, {now} now); "
                "choose another --out, or delete it"
            )

    def kept(self, number: int, content: str) -> Part | None:
        """A part of an earlier run, if it is whole, of this run and of the same records; a warning says why it is not.

        Args:
            number: of the part, from 0.
            content: how many records, and their hash, as of `content_of`.
        """
        if self.folder is None:
            return None
        path = self.path(number)
        try:
            rows, metadata = from_parquet(path.read_bytes())
            read = json.loads(metadata)
            part: Part = {**read["part"], "rows": rows}
            if read["sha256"] != self._seal(part, read["content"]):
                raise ValueError("its hash is that of another run or of other rows")
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            warnings.warn(f"{path}: damaged ({_said(error)}); its records are measured anew", stacklevel=3)
            return None
        if read["content"] != content:
            if read["content"].split()[0] != content.split()[0]:  # a limit cut it at another record
                return None
            warnings.warn(f"{path}: the data set has changed; its records are measured anew", stacklevel=3)
            return None
        return part

    def keep(self, number: int, content: str, part: Part) -> Part:
        """Writes a part; it is given back as it would be read."""
        rows = [plain(row) for row in part["rows"]]
        rest = json.loads(to_json({name: value for name, value in part.items() if name != "rows"}))
        made: Part = {**rest, "rows": rows}
        metadata = to_json({"sha256": self._seal(made, content) if self.folder else "", "content": content, "part": rest})
        path, data = self.path(number), to_parquet(rows, metadata)
        if self.folder is None:
            path.write_bytes(data)
        else:
            write_file(path, data)
        return made

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self._files / f"{number:06}.parquet"

    def _seal(self, part: Part, content: str) -> str:
        return hashlib.sha256(json.dumps([self.key, content, part], sort_keys=True).encode()).hexdigest()


def _said(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:160]
