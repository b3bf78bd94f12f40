"""Runs the parts one after another, each within its time, and writes each result immediately."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

from places import BACK_BYTES, PROGRAMS, output, sha256

OVER = "over its time limit"
# The log keeps the beginning; results are never cut.
LOG_BYTES = BACK_BYTES // 2
ERROR_LINES = 6


class OverLimit(Exception):
    """The part's time is over."""


class Results:
    """The file of results: a line of JSON each, on the disk before anything else happens."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "results.jsonl").open("w", encoding="utf-8")
        self.log = (out / "log.txt").open("w", encoding="utf-8")
        self.lock, self.logged, self.start = threading.Lock(), 0, time.monotonic()

    def write(self, **line) -> None:
        """Writes one result."""
        with self.lock:
            self.file.write(
                json.dumps({"at": round(time.monotonic() - self.start, 2), **line}) + "\n"
            )
            self.file.flush()
            os.fsync(self.file.fileno())

    def say(self, text: str) -> None:
        """Keeps a line of a program's output."""
        with self.lock:
            if self.logged < LOG_BYTES:
                self.logged += self.log.write(text[:4000] + "\n")
                self.log.flush()


def first_error(lines: list[str], code: int) -> str:
    """The lines that say why a program failed: a panic, a traceback's end, or the first error."""
    for i, line in enumerate(lines):
        if "panicked at" in line:
            return "\n".join(lines[i : i + ERROR_LINES])
    if any(line.startswith("Traceback") for line in lines):
        last = [
            i
            for i, line in enumerate(lines)
            if re.match(r"^[\w.]*(Error|Exception|Exit|Interrupt)\b", line)
        ]
        return "\n".join(lines[last[-1] :][:3]) if last else lines[-1]
    for i, line in enumerate(lines):
        if re.search(r"\berror\b", line, re.IGNORECASE):
            return "\n".join(lines[i : i + 3])
    said = lines[-1] if lines else "it said nothing"
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return f"{how}; {said}"


class Job:
    """What a part may use: its programs, its time, and where results go."""

    def __init__(
        self,
        results: Results,
        folder: Path,
        work: Path,
        python: str,
        rehearse: bool,
        only_tests: list[str],
    ) -> None:
        self.results, self.folder, self.work, self.python = results, folder, work, python
        self.rehearse, self.only_tests = rehearse, only_tests
        self.part, self.until, self.failed = -1, 0.0, False
        self.packages: list[str] = []

    def left(self) -> float:
        """Seconds that the part still has."""
        return self.until - time.monotonic()

    def fail(self, name: str, error: str, side: str = "ours") -> None:
        """Notes a failure."""
        self.failed = True
        self.results.write(part=self.part, name=name, side=side, error=error)

    def ours(self, name: str, words: str, **environment: str) -> list[dict]:
        """Runs the bench program."""
        return self.command(
            name, [str(self.work / "bench"), *words.split()], RAYON_NUM_THREADS="1", **environment
        )

    def peer(self, name: str, command: list[str]) -> list[dict]:
        """Runs a peer's program, which sees neither our libraries nor our settings."""
        return self.command(name, [self.python, *command], side="peer")

    def listed(self, command: list[str]) -> list[str]:
        """The lines that a program prints."""
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=max(1.0, self.left()),
                env=self.environment("ours"),
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise OverLimit from late
        return done.stdout.splitlines()

    def environment(self, side: str) -> dict[str, str]:
        """The environment of ours or of a peer."""
        env = dict(os.environ)
        # The emulated card keeps its compiled kernels in the temporary folder from run to run.
        if side == "peer" or not self.rehearse:
            env["TMPDIR"] = str(self.work / "tmp")
        if side == "peer":
            env.pop("HHALIGN_DEVICE", None)
            env["PYTHONPATH"] = ":".join([*self.packages, env.get("PYTHONPATH", "")]).strip(":")
            env |= {
                "HF_HUB_OFFLINE": "1",
                "HF_HOME": str(self.work / "hf"),
                "TORCHINDUCTOR_CACHE_DIR": str(self.work / "inductor"),
            }
            return env | {"TRITON_CACHE_DIR": str(self.work / "triton")}
        env["HHALIGN_DEVICE"] = "emulated" if self.rehearse else "cuda"
        env["LD_LIBRARY_PATH"] = f"{self.work / 'cuda'}:{env.get('LD_LIBRARY_PATH', '')}".strip(":")
        return env

    def command(
        self,
        name: str,
        command: list[str],
        side: str = "ours",
        plain: bool = False,
        read: Callable[[str], dict | None] | None = None,
        **more: str,
    ) -> list[dict]:
        """Runs a program in its own process group; what it prints becomes results as it comes.

        `plain` programs print no JSON: `read` makes results of their lines.
        """
        if self.left() <= 0:
            raise OverLimit
        start, found, lines = time.monotonic(), [], []
        read = read or ((lambda line: {"text": line}) if plain else json_line)
        self.results.say(f"== part {self.part}, {name}, {side}: {' '.join(command)}")

        def follow(stream) -> None:
            for line in stream:
                line = line.rstrip("\n")
                lines.append(line)
                self.results.say(line)
                if value := read(line):
                    found.append(value)
                    self.results.write(part=self.part, name=name, side=side, value=value)

        env = self.environment(side) | more
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "errors": "replace",
        }
        try:
            process = subprocess.Popen(
                command, env=env, cwd=self.work, start_new_session=True, **pipes
            )
        except OSError as error:
            self.fail(name, f"{command[0]} does not start: {error}", side)
            return []
        reader = threading.Thread(target=follow, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            code = process.wait(timeout=max(0.0, self.left()))
        except subprocess.TimeoutExpired:
            code = None
        # Whatever the program has started ends with it.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        reader.join(timeout=5)
        seconds = round(time.monotonic() - start, 2)
        if code is None:
            self.results.write(
                part=self.part,
                name=name,
                side=side,
                error=OVER,
                seconds=seconds,
                printed=len(found),
            )
            raise OverLimit
        if code != 0:
            self.failed = True
            tail = "\n".join(lines[-40:])[-4000:]
            self.results.write(
                part=self.part,
                name=name,
                side=side,
                error=first_error(lines, code),
                code=code,
                seconds=seconds,
                tail=tail,
            )
            return []
        self.results.write(part=self.part, name=name, side=side, ok=True, seconds=seconds)
        return found or [{}]

    def pairs_file(self) -> Path | None:
        """One file of real pairs."""
        found = sorted((self.folder / "data").glob("*.jsonl.gz"))
        helpful = [path for path in found if path.name.startswith("helpful-base")]
        return (helpful or found or [None])[0]


def json_line(line: str) -> dict | None:
    """The object that a line of JSON is, if it is one."""
    try:
        return json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None


def versions(python: str) -> dict:
    """Versions of Python and of the packages that peers use."""
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
    """Processor, memory, card and versions."""
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
    """Of the packed packages, those that the peers' Python does not have and can use."""
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
    """Unpacks programs and packages; the first line of the results says what runs where."""
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
    """Runs the chosen parts; 0 where none failed."""
    from parts import PARTS

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
            # What others left over is for the last; nothing runs past the end of it all.
            rest = total - (start - begin)
            limit = rest if part is PARTS[-1] and part.number not in limits else min(limit, rest)
            job.part, job.until, job.failed = part.number, start + limit, False
            try:
                part.run(job)
                status = "failed" if job.failed else "done"
            except OverLimit:
                status = OVER
            except Exception as error:  # noqa: BLE001 - the next part must run whatever this one did
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
