"""Where things are, and what travels between the two machines."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "scripts/peers"
sys.path.insert(0, str(ROOT / "scripts"))

# The repository and the packed folder together, and what may come back.
TRAVELS = 64 << 20
BACK_FILES, BACK_BYTES = 8, 16 << 20

PROGRAMS = ["bench", "gpu", "gpu_runs"]


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def output(command: list[str], **more) -> str:
    """What a command prints, or nothing where it fails or is not there."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, **more
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tracked_size() -> int:
    """Bytes of the repository's files, without its history."""
    names = output(["git", "-C", str(ROOT), "ls-files", "-z"]).split("\0")
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())


def mib(n: float) -> str:
    """Bytes as MiB."""
    return f"{n / 2**20:.1f} MiB"
