"""Runs typical cells in the real kernel: what they show, what they keep, how errors look, and how long all that takes.

HHALIGN_SLOW=2 doubles the limits, for machines that are slow or busy.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg

from run_notebook import ANSI, problem

ROOT = Path(__file__).resolve().parent.parent
READY_LIMIT = 9.0  # kernel ready, :dep and the first inferred let, together
CELL_LIMIT = 0.6  # median of the cells after that


@dataclass
class Cell:
    """A cell and what must hold after it: text that it shows, or text in its error."""

    code: str
    shows: str = ""
    fails: str = ""


@dataclass
class Result:
    seconds: float
    outputs: list[NotebookNode] = field(default_factory=list)

    def text(self) -> str:
        parts = [out.text if out.output_type == "stream" else out.get("data", {}).get("text/plain", "") for out in self.outputs]
        return "".join(parts)


START = [
    Cell(':dep hhalign = { path = "../hhalign-lib/kernel" }'),
    Cell('use hhalign::error::{Error, Result};\nlet oops = Error::new("no such preset", "huge", "choose toy");'),
]
CELLS = [
    Cell("oops.what()", shows="no such preset"),
    Cell("let text = oops.to_string();"),
    Cell("text.lines().count()", shows="3"),
    Cell("println!(\"count {}\", hhalign::kernel_probe());", shows="count 1"),
    Cell("println!(\"count {}\", hhalign::kernel_probe());", shows="count 2"),
    Cell("fn twice(x: f64) -> f64 {\n    2.0 * x\n}"),
    Cell("let beta = twice(0.05);"),
    Cell("println!(\"beta {beta:.2}\");", shows="beta 0.10"),
    Cell("fn refuse(what: &str) -> Result<u64> {\n    Err(Error::new(what, \"-1\", \"choose 0.1\"))\n}"),
    Cell("let never = refuse(\"beta must be positive\")?;", fails="beta must be positive\n  got: -1\n  fix: choose 0.1"),
    Cell("beta", shows="0.1"),
    Cell("let never: u64 = panic!(\"a panic in a cell\");", fails="a panic in a cell"),
    Cell("println!(\"{} {}\", beta, oops.got());", shows="0.1 huge"),
    Cell("let never = no_such_function();", fails="cannot find function"),
    Cell("let handle = std::thread::spawn(|| hhalign::kernel_probe());"),
    Cell("println!(\"count {}\", handle.join().unwrap());", shows="count 3"),
    Cell("struct Row { name: String, value: f64 }\nlet rows = vec![Row { name: \"ln 2\".into(), value: 2f64.ln() }];"),
    Cell("println!(\"{} {:.4}\", rows[0].name, rows[0].value);", shows="ln 2 0.6931"),
    Cell("println!(\"EVCXR_BEGIN_CONTENT text/html\\n<b>bold</b>\\nEVCXR_END_CONTENT\");"),
    Cell("println!(\"count {}\", hhalign::kernel_probe());", shows="count 4"),
    Cell("use hhalign::loss::Values;\nlet a = Values::new(&[1.0, 2.0]);\nlet b = Values::new(&[0.5, 4.0]);"),
    Cell("let d = a - b;\nlet by_hand = -(beta * d).log_sigmoid()?;"),
    Cell("let rest = 1.0 - d;"),
    Cell("by_hand", shows="0.6685\n0.7981"),
    Cell("a - Values::new(&[1.0])", shows="values of two lengths cannot be subtracted\n  got: 2 and 1\n  fix: "),
    Cell("let never = (a - Values::new(&[1.0])).mean()?;", fails="values of two lengths cannot be subtracted"),
    # Formulas took `a` and `d` by value; both are still there.
    Cell("println!(\"{:?} {:?} {:?}\", a.to_vec()?, d.to_vec()?, rest.to_vec()?);", shows="[1.0, 2.0] [0.5, -2.0] [0.5, 3.0]"),
]


class Checks:
    """Counts what held, and says what did not."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def __call__(self, what: str, ok: bool, seen: object = "") -> None:
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(f"  {'ok    ' if ok else 'FAILED'} {what}{f': {seen}' if seen != '' else ''}", flush=True)


class Kernel:
    def __init__(self, scratch: str) -> None:
        start = time.monotonic()
        self.manager = KernelManager(kernel_name="hhalign")
        environment = {**os.environ, "EVCXR_TMPDIR": scratch}
        self.manager.start_kernel(cwd=str(ROOT / "notebooks"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=300)
        self.ready = time.monotonic() - start

    def run(self, code: str) -> Result:
        start = time.monotonic()
        outputs: list[NotebookNode] = []

        def collect(msg: dict) -> None:
            if msg["msg_type"] in ("stream", "execute_result", "display_data", "error"):
                outputs.append(output_from_msg(msg))

        self.client.execute_interactive(code, output_hook=collect, timeout=300)
        seconds = time.monotonic() - start
        # stderr travels beside the reply, and may come after it.
        while True:
            try:
                collect(self.client.get_iopub_msg(timeout=0.05))
            except Empty:
                return Result(seconds, outputs)

    def listen(self, seconds: float) -> list[str]:
        """What comes while no cell runs."""
        end, heard = time.monotonic() + seconds, []
        while (left := end - time.monotonic()) > 0:
            try:
                msg = self.client.get_iopub_msg(timeout=left)
            except Empty:
                break
            if msg["msg_type"] != "status":
                heard.append(str(msg["content"]))
        return heard

    def stop(self) -> None:
        self.client.stop_channels()
        group = getattr(self.manager.provisioner, "pgid", None)
        if group:
            os.killpg(group, signal.SIGKILL)
        self.manager.cleanup_resources()


def check(cell: Cell, result: Result) -> str | None:
    """What is wrong with a cell's result, or None."""
    error = ANSI.sub("", problem(result.outputs) or "")
    if cell.fails:
        return None if cell.fails in error else f"should have failed with {cell.fails!r}, got {error or result.text()!r}"
    if error:
        return f"failed: {error}"
    if cell.shows and cell.shows not in result.text():
        return f"should have shown {cell.shows!r}, showed {result.text()!r}"
    return None


def start_again() -> float:
    """Seconds of one more start, up to the first inferred let."""
    with tempfile.TemporaryDirectory(prefix="hhalign-", ignore_cleanup_errors=True) as scratch:
        kernel = Kernel(scratch)
        try:
            return kernel.ready + sum(kernel.run(cell.code).seconds for cell in START)
        finally:
            kernel.stop()


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    slow = float(os.environ.get("HHALIGN_SLOW", "1"))
    passed, failed, times = 0, 0, []
    with tempfile.TemporaryDirectory(prefix="hhalign-", ignore_cleanup_errors=True) as scratch:
        kernel = Kernel(scratch)
        start_seconds = kernel.ready
        try:
            print(f"  kernel ready {kernel.ready:.2f} s")
            for number, cell in enumerate(START + CELLS, 1):
                result = kernel.run(cell.code)
                if number <= len(START):
                    start_seconds += result.seconds
                else:
                    times.append(result.seconds)
                wrong = check(cell, result)
                passed, failed = passed + (wrong is None), failed + (wrong is not None)
                print(f"  {'ok    ' if wrong is None else 'FAILED'} {result.seconds:5.2f} s  {cell.code.splitlines()[-1][:90]}")
                if wrong:
                    print(f"         {wrong}")
        finally:
            kernel.stop()
    if start_seconds > READY_LIMIT * slow:
        # The first start after other work reads kernel, engine and compiler from the disk; the limit is about one that need not.
        print(f"  start: {start_seconds:.2f} s, over the limit; once more")
        start_seconds = min(start_seconds, start_again())
    for what, seconds, limit in (
        ("kernel ready, :dep and first let", start_seconds, READY_LIMIT * slow),
        ("median of the later cells", statistics.median(times), CELL_LIMIT * slow),
    ):
        ok = seconds <= limit
        passed, failed = passed + ok, failed + (not ok)
        print(f"  {'ok    ' if ok else 'FAILED'} {what}: {seconds:.2f} s (at most {limit:g} s)")
    print(f"kernel cells: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
