"""Where things are, what is packed, and how much may travel between the two machines."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "scripts/benchmark/peers"
sys.path.insert(0, str(ROOT / "scripts/benchmark"))

# `hhalign bench` takes the measurements. The test program holds the tests that set process-wide
# state; those of the GPU are in two of its modules, and a module's name selects its tests.
BINARY, TEST_PROGRAM = "hhalign", "process"
PROGRAMS = [BINARY, TEST_PROGRAM]
PASS_TESTS, RUN_TESTS = "gpu::", "gpu_runs::"

# Limits on the repository and the packed folder together, and on the results that come back.
TRAVELS = 64 << 20
BACK_FILES, BACK_BYTES = 8, 16 << 20


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def output(command: list[str], **more) -> str:
    """Returns what a command prints, or "" where it fails or is not installed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, **more
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def size(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tracked_size() -> int:
    """Returns the bytes of the repository's files, without its history."""
    names = output(["git", "-C", str(ROOT), "ls-files", "-z"]).split("\0")
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())


def mib(n: float) -> str:
    """Formats bytes as MiB."""
    return f"{n / 2**20:.1f} MiB"
