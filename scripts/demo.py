"""What `make demo` runs: three commands of the command line, in one process, so that torch is loaded once.

The photo is Grace Hopper's official portrait, in the public domain, as matplotlib brings it along.
"""

from __future__ import annotations

import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

from mmgradcam.cli import app


def main() -> None:
    """Prints each command before it runs."""
    spec = find_spec("matplotlib")
    photo = str(Path(str(spec and spec.origin)).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg")
    scene, question = "mmgradcam/scenes/example.png", "what color is the large cube?"
    commands = (
        ["caption", photo, "--model", "photo-captioner-small", "--out", "demo"],
        ["caption", scene, "--model", "scenes-captioner", "--out", "demo"],
        ["vqa", scene, "--model", "scenes-vqa", "--question", question, "--out", "demo/question"],
    )
    shutil.rmtree("demo", ignore_errors=True)
    for command in commands:
        shown = [Path(part).name if part == photo else part for part in command]
        print(f"\n$ mmgradcam {shlex.join(shown)}", flush=True)
        app(command, standalone_mode=False)


if __name__ == "__main__":
    main()
