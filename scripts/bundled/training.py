"""What the scripts that train share: the course of the rate, a curve on file, and going on where it was stopped."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def rate_at(step: int, steps: int, rate: float, warm: int) -> float:
    """Up from 0 within `warm` steps, and down to 1% along half a cosine."""
    return rate * min(1.0, (step + 1) / warm) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))


def resumed(out: Path, **parts: Any) -> int:
    """Loads what `keep` wrote last into the parts; the step it was at, 0 if nothing was kept."""
    last = out / "last.pt"
    if not last.exists():
        return 0
    kept = torch.load(last, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return int(kept["step"])


def keep(out: Path, row: Mapping[str, Any], **parts: Any) -> None:
    """Adds a row, with its "step", to the curve, prints it, and writes last.pt, whole or not at all."""
    print(json.dumps(row), flush=True)
    with (out / "log.csv").open("a", newline="") as file:
        csv.writer(file).writerow(row.values())
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": row["step"]}, out / "part.pt")
    (out / "part.pt").replace(out / "last.pt")


def autocast(device: str | torch.device) -> torch.autocast:
    """Bfloat16 where the device computes in it; a CPU that only emulates it would take several times as long."""
    kind = torch.device(device).type
    native = kind != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast(kind, torch.bfloat16, enabled=native)
