"""Shared by the test programs of this folder: where things are, limits, and counting."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/jupyter"))

# Time limits are multiplied by this, for machines that are slow or busy.
SLOW = float(os.environ.get("HHALIGN_SLOW", "1"))
# Whether to run what takes too long for continuous integration; ./scripts/test --full sets it.
FULL = os.environ.get("HHALIGN_FULL") == "1"


class Checks:
    """Counts what held, and prints each check with what was seen."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def __call__(self, what: str, ok: bool, seen: object = "") -> None:
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(
            f"  {'ok    ' if ok else 'FAILED'} {what}{f': {seen}' if seen != '' else ''}",
            flush=True,
        )
