"""Options that commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def writable(folder: Path | None) -> Path | None:
    """The folder of --out, seen to be one that can be written into, before any model runs."""
    if folder is not None:
        from mmgradcam.utils.writing import check_writable

        check_writable(folder)
    return folder


Images = Annotated[list[Path], typer.Argument(help="Pictures: PNG, JPEG, WebP, ...", metavar="IMAGE...")]
Model = Annotated[
    str | None,
    typer.Option(
        help="A bundled model (see `mmgradcam models`), a hub id (org/name), a folder or FILE.py:NAME; else a photo model."
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(help="gradcam, layercam, 'rise(count=500)', ...; `mmgradcam methods` lists all and their settings."),
]
SmoothGrad = Annotated[int, typer.Option(help="Average the maps over that many noisy copies (SmoothGrad); 0 is none.", min=0)]
Layers = Annotated[
    list[str] | None,
    typer.Option(help="Layer to take the map at; repeat it to fuse several. `none` takes it at the feature layer."),
]
Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Explain this class, by name or index; repeat it for several.")
]
Top = Annotated[int | None, typer.Option(help="Explain that many of the likeliest classes.", min=1)]
Longest = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens", help="Let a hub model write that many tokens; 40 by default, and what is cut says so.", min=1
    ),
]
Contrast = Annotated[str | None, typer.Option(help="Also explain why the class is not this one.")]
AnimationFormat = Annotated[str, typer.Option(help="What to animate as: gif, webp or mp4 (which needs PyAV).")]
Out = Annotated[
    Path, typer.Option(help="Folder to write into, one folder per picture; none that is there is changed.", callback=writable)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Grounding = Annotated[
    bool, typer.Option(help="Say how much more likely each word or answer is with the picture than with a grey one.")
]
Checked = Annotated[
    bool,
    typer.Option(
        "--sanity-check", help="Say of each map whether it passes a check: random weights, noise, hiding what is hot."
    ),
]
Encoder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the hub's image encoder that a photo model stands on, where the hub is out of reach.",
        envvar="MMGRADCAM_ENCODER",
    ),
]
