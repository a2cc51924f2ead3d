"""Checks the subjects of the commits that a branch adds: at most 72 characters, "part: what it does", no full stop.

    python scripts/commits.py [BASE]

BASE is origin/main, or what is before the last commit where that is not known.
"""

from __future__ import annotations

import re
import subprocess
import sys

LONGEST = 72
SUBJECT = re.compile(r"[a-z][\w/*, .-]*: \S.*[^.\s]$")


def git(*given: str) -> str:
    done = subprocess.run(["git", *given], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def wrong(subject: str) -> str | None:
    """What is wrong with a subject.

    >>> wrong("metrics: rank ties in occlusion correlation"), wrong("wip"), wrong("a: " + 70 * "x"), wrong("Merge a into b")
    (None, 'expected "part: what it does"', 'expected at most 72 characters, got 73', None)
    """
    if subject.startswith("Merge "):
        return None
    if len(subject) > LONGEST:
        return f"expected at most {LONGEST} characters, got {len(subject)}"
    return None if SUBJECT.match(subject) else 'expected "part: what it does"'


def main() -> None:
    base = (
        sys.argv[1] if len(sys.argv) > 1 else "origin/main" if git("rev-parse", "-q", "--verify", "origin/main") else "HEAD~1"
    )
    lines = [line.split(" ", 1) for line in git("log", "--format=%h %s", f"{base}..HEAD").splitlines()]
    bad = [f"{commit}: {subject!r}: {fault}" for commit, subject in lines if (fault := wrong(subject))]
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()
