"""The archive that arrays are kept in."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA = "mmgradcam/explanation"
VERSION = 2


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as a compressed .npz."""
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **dict(arrays))
    return data.getvalue()
