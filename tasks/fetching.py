"""Models of the hub or of a folder laid out as the hub's: fetched safely, with one clear line where that fails."""

from __future__ import annotations

import functools
import importlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from mmgradcam.errors import InputError
from mmgradcam.utils.files import exists, is_folder


@dataclass(frozen=True)
class Source:
    """Where a model comes from, and where it is to be.

    Attributes:
        name: a hub id ("org/name") or a folder.
        architecture: the class its config names, as "BlipForConditionalGeneration".
        device: on a GPU its weights stay in the precision they were saved in, on a CPU they become float32.
        device_map: how the model is spread over devices, as `from_pretrained` takes it; None is all of it on one.
    """

    name: str
    architecture: str = ""
    device: str = "cpu"
    device_map: Any = None

    def model(self, kind: Any, **how: Any) -> Any:
        """`kind.from_pretrained` of this source: no remote code, weights from safetensors or by a `weights_only` load.

        Raises:
            InputError: a file is missing or damaged, or the hub is out of reach.
        """
        spread = {} if self.device_map is None else {"device_map": self.device_map}
        return self.fetch(kind, dtype="auto" if spread or self.device.startswith("cuda") else torch.float32, **spread, **how)

    def fetch(self, kind: Any, **how: Any) -> Any:
        """`kind.from_pretrained` of this source, for what is no model: processors and tokenizers. Raises as `model` does."""
        with fetched(self.name), _quiet():
            return kind.from_pretrained(self.name, trust_remote_code=False, local_files_only=_only_local(self.name), **how)


def source(name: str, device: str, device_map: Any = None) -> Source:
    """Reads a model's config.

    Raises:
        InputError: there is no such model, the hub is out of reach, or the model needs code of its own.
    """
    config = config_of(name)
    named = getattr(config, "architectures", None)
    if not named:
        raise InputError(f"{name}: its config names no architecture, so what it does is not known")
    return Source(name, named[0], device, device_map)


def config_of(name: str) -> Any:
    """The config of a hub model or folder.

    Raises:
        InputError: there is no such model, the hub is out of reach, or the model needs code of its own.
    """
    from transformers import AutoConfig

    return Source(name).fetch(AutoConfig)


ADAPTER = "adapter_config.json"


def refuse_adapter(folder: Path) -> None:
    """Nothing, unless a folder holds a PEFT adapter alone.

    Raises:
        InputError: it does; the line names the model that the adapter is for.
    """
    if (
        not is_folder(folder)
        or not exists(folder / ADAPTER)
        or any(folder.glob("model*.safetensors"))
        or any(folder.glob("pytorch_model*.bin"))
    ):
        return
    try:
        found = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        base, kind = found.get("base_model_name_or_path"), found.get("peft_type")
    except (OSError, ValueError, AttributeError):
        base = kind = None
    raise InputError(
        f"{folder}: a PEFT adapter ({kind or 'of unknown kind'}), not a model: it changes {base or 'a model unnamed'}, "
        "which is not in the folder; merge the two with peft (PeftModel.from_pretrained(model, adapter).merge_and_unload()), "
        "save_pretrained the result and its processor to a folder, and name that"
    )


def _only_local(name: str) -> bool:
    """Whether to look for a model on this machine alone: a folder, or a hub that does not answer."""
    return Path(name).is_dir() or not _hub_answers()


@functools.cache
def _hub_answers() -> bool:
    """One look, so that nobody waits for all the retries of the hub's library where there is no network."""
    from huggingface_hub import constants

    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    hub = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)), timeout=10).close()
    except OSError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, transformers draws no bars for files that are here already, and does not tell of its retries."""
    from transformers.utils import logging as own_logging

    logging: Any = own_logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = getLogger("huggingface_hub")
    own = hub.level
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub.setLevel(ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub.setLevel(own)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def fetched(name: str, instead: str = "") -> Iterator[None]:
    """Within, what goes wrong while a model is fetched becomes one line; `instead` says what to do without a network."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every library below fails in its own way
        reason = " ".join(str(error).split())
        if isinstance(error, ImportError):
            raise InputError(f"{name}: {reason[:200]}") from None
        if "trust_remote_code" in reason:
            raise InputError(f"{name}: needs code of its own, which mmgradcam never runs; take another model") from None
        if Path(name).is_dir():
            raise InputError(f"{name}: the folder is incomplete or damaged ({reason[:200]}); fetch it again") from None
        if "connect" in reason or "offline" in reason.lower():
            reason = ABSENT
        raise _unfetched(name, reason, instead) from None


ABSENT = "the hub is out of reach, and the model was not fetched before"


def _unfetched(name: str, reason: str, instead: str = "") -> InputError:
    instead = instead or f"download the model's repository, as by `hf download {name} --local-dir FOLDER`"
    return InputError(f"{name}: cannot be fetched ({reason[:160]}); where there is a network, {instead} and name that")


def refuse_absent(name: str) -> None:
    """Nothing, unless a hub model is not on this machine and cannot be fetched either.

    Told without transformers, whose import alone takes a second.

    Raises:
        InputError: it is not here.
    """
    from huggingface_hub import try_to_load_from_cache

    if _only_local(name) and not Path(name).is_dir() and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise _unfetched(name, ABSENT)


def timm() -> Any:
    """The library timm.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise InputError("timm is not installed, and the model is one of it; pip install timm") from None
