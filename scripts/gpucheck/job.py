"""What a part works with: the results it writes, and commands that end with its time limit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

from places import BACK_BYTES, BINARY

OVER = "over its time limit"
# The log keeps the first bytes; results are never cut.
LOG_BYTES = BACK_BYTES // 2
ERROR_LINES = 6


class OverLimit(Exception):
    """The time of the part is over."""


class Results:
    """The file of results: one line of JSON each, synced to disk before the next step."""

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
        """Writes a line of a program's output to the log."""
        with self.lock:
            if self.logged < LOG_BYTES:
                self.logged += self.log.write(text[:4000] + "\n")
                self.log.flush()


def first_error(lines: list[str], code: int) -> str:
    """Returns why a program failed: a panic, the end of a traceback, or the first error."""
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
    said = lines[-1] if lines else "it printed nothing"
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return f"{how}; {said}"


class Job:
    """What a part works with: the packed programs, its time, and the results."""

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
        """Returns the seconds that the part still has."""
        return self.until - time.monotonic()

    def fail(self, name: str, error: str, side: str = "ours") -> None:
        """Records a failure."""
        self.failed = True
        self.results.write(part=self.part, name=name, side=side, error=error)

    def ours(self, name: str, words: str, **environment: str) -> list[dict]:
        """Runs `hhalign bench` with some words."""
        return self.command(
            name,
            [str(self.work / BINARY), "bench", *words.split()],
            RAYON_NUM_THREADS="1",
            **environment,
        )

    def peer(self, name: str, command: list[str]) -> list[dict]:
        """Runs a peer's program, without our libraries and settings in its environment."""
        return self.command(name, [self.python, *command], side="peer")

    def listed(self, command: list[str]) -> list[str]:
        """Returns the lines that a program prints."""
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
        """Returns the environment of our programs or of a peer."""
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
        """Runs a program in its own process group; its lines become results as it prints them.

        A `plain` program prints no JSON: `read` makes results of its lines.
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
        # Children of the program end with it.
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
        """Returns one file of real pairs."""
        found = sorted((self.folder / "data").glob("*.jsonl.gz"))
        helpful = [path for path in found if path.name.startswith("helpful-base")]
        return (helpful or found or [None])[0]


def json_line(line: str) -> dict | None:
    """Parses a line of JSON, or returns None."""
    try:
        return json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
