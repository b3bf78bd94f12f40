"""Runs the parts one after another, each within its time, and writes each result immediately."""

from __future__ import annotations

import json
import os
import re
import sys
import tarfile
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from job import OVER, Job, OverLimit, Results
from parts import PARTS
from places import PROGRAMS, output, sha256


def versions(python: str) -> dict:
    """Returns the versions of Python and of the packages that peers use."""
    names = [
        "torch",
        "transformers",
        "trl",
        "datasets",
        "accelerate",
        "pyarrow",
        "pandas",
        "numpy",
        "triton",
        "tokenizers",
    ]
    code = (
        "import importlib.metadata as m, json, sys\n"
        "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return None\n"
        f"print(json.dumps({{'python': sys.version.split()[0]}} | {{n: v(n) for n in {names}}}))"
    )
    return json.loads(output([python, "-c", code]) or "{}")


def machine(python: str) -> dict:
    """Describes processor, memory, card and versions."""
    cpu = re.search(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    memory = re.search(
        r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    query = "name,memory.total,driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    return {
        "cpu": cpu[1] if cpu else None,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory[1]) >> 10 if memory else None,
        "glibc": os.confstr("CS_GNU_LIBC_VERSION"),
        "card": output(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]) or None,
        "nvcc": (output(["nvcc", "--version"]).splitlines() or [None])[-1],
        "cxx": (output(["c++", "--version"]).splitlines() or [None])[0],
        "load": os.getloadavg()[0],
        "packages": versions(python),
    }


def lacking(python: str, packages: list[dict]) -> list[dict]:
    """Returns the packed packages that the peers' Python lacks and can use."""
    code = (
        "import importlib.util as u, json, sys\n"
        "tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'\n"
        "print(json.dumps([tag, [m for m in sys.argv[1:] if u.find_spec(m) is None]]))"
    )
    modules = sorted({module for package in packages for module in package["modules"]})
    tag, missing = json.loads(output([python, "-c", code, *modules]) or '["", []]')
    usable = [
        package
        for package in packages
        if package["python"] in (tag, tag.replace("cp", "py"), "py3", "py2.py3")
    ]
    return [
        package for package in usable if any(module in missing for module in package["modules"])
    ]


def unpack(archive: Path, to: Path) -> None:
    """Unpacks a tar of xz."""
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(to, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(to)


def prepare(job: Job, manifest: dict) -> None:
    """Unpacks programs and packages, and describes the machine in the first result."""
    (job.work / "tmp").mkdir()
    unpack(job.folder / "programs.tar.xz", job.work)
    wrong = [name for name in PROGRAMS if sha256(job.work / name) != manifest["programs"][name]]
    line = {
        "event": "machine",
        "commit": manifest["commit"],
        "programs": manifest["programs"],
        "packed_on": manifest["glibc"],
    }
    line |= {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rehearsal": job.rehearse,
        **machine(job.python),
    }
    job.results.write(**line, damaged=wrong)
    if wrong:
        sys.exit(f"gpu_check: the packed programs are damaged: {', '.join(wrong)}; pack them again")
    needed = lacking(job.python, manifest["wheels"])
    for package in needed:
        unpack(job.folder / "wheels" / package["file"], job.work / "packages")
    if needed:
        job.packages = [str(job.work / "packages")]
    job.results.write(event="packages", unpacked=[package["wheel"] for package in needed])


def run(
    folder: Path,
    out: Path,
    minutes: float,
    python: str,
    rehearse: bool,
    chosen: list[int],
    limits: dict[int, float],
    only_tests: list[str],
) -> int:
    """Runs the chosen parts; returns 0 where all are done."""
    results, bad = Results(out), 0
    total, begin = 60 * minutes, time.monotonic()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(
        prefix="hhalign-gpu-check-", ignore_cleanup_errors=True
    ) as work:
        job = Job(results, folder, Path(work), python, rehearse, only_tests)
        prepare(job, manifest)
        for part in PARTS:
            if part.number not in chosen:
                results.write(
                    event="part", part=part.number, title=part.title, status="skipped", seconds=0.0
                )
                continue
            start = time.monotonic()
            limit = limits.get(part.number, total * part.share / sum(p.share for p in PARTS))
            # The last part has all the time that is left; no part exceeds the total.
            rest = total - (start - begin)
            limit = rest if part is PARTS[-1] and part.number not in limits else min(limit, rest)
            job.part, job.until, job.failed = part.number, start + limit, False
            try:
                part.run(job)
                status = "failed" if job.failed else "done"
            except OverLimit:
                status = OVER
            except Exception as error:  # noqa: BLE001 - the next part must run in any case
                status = "failed"
                job.fail("gpu_check", f"{type(error).__name__}: {error}")
            bad += status != "done"
            seconds = round(time.monotonic() - start, 2)
            results.write(
                event="part",
                part=part.number,
                title=part.title,
                status=status,
                seconds=seconds,
                limit=round(limit, 2),
            )
            print(
                f"part {part.number} {part.title:<42} {status:<20} {seconds:7.1f} of {limit:.0f} s",
                flush=True,
            )
    results.write(event="end", seconds=round(time.monotonic() - begin, 2))
    return int(bad > 0)
