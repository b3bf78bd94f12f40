"""Runs a notebook in its kernel: prints progress and the time left, and stops at the first error.

The evcxr kernel replies "ok" to a panic and to a failed `?`; only text on stderr reveals them. The
output of cargo goes elsewhere, so any text on stderr stops the run, except lines that begin with
"warning:". A cell that is meant to fail has the tag "raises-exception".
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from queue import Empty
from typing import Any

if __name__ == "__main__":
    # Ctrl-C during the imports prints no traceback; `run` sets its own handler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import nbformat
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary

ANSI = re.compile(r"\x1b\[[0-9;]*m")
INTERRUPTED = "interrupted"
# The form that evcxr silently falls back to where it could not compile the display.
DEBUG_TYPES = (
    "Figure|Panel|Table|Column|View|History|Outcome|Comparison|WinRate|Estimate|Check|PairLogps"
)
DEBUG_FORM = re.compile(rf"\s*({DEBUG_TYPES}) \{{")
TIME_LEFT = re.compile(r"\bleft\s+~?(?:(\d+):)?(\d+):(\d\d)\b")


def clock(seconds: float) -> str:
    """Formats seconds as 0:07, 12:30 or 1:02:03."""
    minutes, sec = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}" if hours else f"{minutes}:{sec:02d}"


def problem(outputs: list[NotebookNode]) -> str | None:
    """Returns the error that a cell's outputs show, or None."""
    found = []
    for out in outputs:
        if out.output_type == "error":
            found.append("\n".join(out.traceback) or f"{out.ename}: {out.evalue}")
        elif out.output_type == "stream" and out.name == "stderr":
            lines = [
                line
                for line in out.text.splitlines()
                if line.strip() and not line.startswith("warning:")
            ]
            if lines:
                found.append("\n".join(lines))
        elif DEBUG_FORM.match(out.get("data", {}).get("text/plain", "")):
            found.append(
                "the cell's last value was shown as Rust's Debug text\n"
                "  fix: give it a name, and end the cell with that name"
            )
    return "\n".join(found) or None


def skipped(outputs: list[NotebookNode]) -> list[str]:
    """Returns the lines "skipped: ..." that a cell printed."""
    text = "".join(out.text for out in outputs if out.output_type == "stream")
    return [line for line in text.splitlines() if line.startswith("skipped: ")]


def expected_seconds(cell: NotebookNode) -> float:
    """Returns the seconds of a cell when the notebook last ran; 0 where they are not known."""
    times = cell.metadata.get("execution", {})
    try:
        start, end = (
            datetime.fromisoformat(times[k].replace("Z", "+00:00"))
            for k in ("iopub.execute_input", "shell.execute_reply")
        )
    except (KeyError, ValueError):
        return 0.0
    return max((end - start).total_seconds(), 0.0)


def headings(nb: NotebookNode) -> dict[int, str]:
    """Returns a title for each code cell: the heading above it, or its first line."""
    titles: dict[int, str] = {}
    heading = ""
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            found = re.search(r"^#+\s+(.+)$", cell.source, re.MULTILINE)
            heading = found.group(1).strip() if found else heading
        elif cell.cell_type == "code" and cell.source.strip():
            titles[index] = heading or cell.source.strip().splitlines()[0]
            heading = ""
    return titles


class Progress:
    """Prints finished cells and their text; a terminal also gets a status line that counts."""

    def __init__(self, expected: dict[int, float]) -> None:
        self.expected = expected
        self.terminal = sys.stdout.isatty()
        self.start = time.monotonic()
        self.spent = self.spent_expected = 0.0
        self.cell: int | None = None
        self.cell_start = self.start
        # The seconds left that the cell itself has printed, and when it did.
        self.said_left: tuple[float, float] | None = None
        self.title = ""
        self.took: list[float] = []

    def begin(self, index: int, title: str) -> None:
        self.cell, self.title, self.cell_start, self.said_left = (
            index,
            title,
            time.monotonic(),
            None,
        )

    def end(self) -> float:
        took = time.monotonic() - self.cell_start
        assert self.cell is not None
        self.took.append(took)
        self.spent += took
        self.spent_expected += self.expected.pop(self.cell, 0.0)
        self.cell = None
        return took

    def left(self) -> str:
        """Formats the time left: the cells' last times, scaled by how this run compares so far."""
        if not any(self.expected.values()):
            return ""
        # The first seconds are mostly compilation, and predict little.
        ratio = self.spent / self.spent_expected if self.spent_expected > 5 else 1.0
        now = time.monotonic()
        seconds = 0.0
        for index, expected in self.expected.items():
            here = expected * ratio
            if index == self.cell:
                here = max(here - (now - self.cell_start), 0.0)
                if self.said_left:
                    here = max(self.said_left[0] - (now - self.said_left[1]), 0.0)
            seconds += here
        return f"left about {clock(seconds)}"

    def printed(self, text: str) -> None:
        for line in text.splitlines():
            found = TIME_LEFT.search(line)
            if found:
                hours, minutes, sec = (int(g or 0) for g in found.groups())
                self.said_left = (3600 * hours + 60 * minutes + sec, time.monotonic())
            if line.strip():
                self.line(f"         {line}")

    def line(self, text: str) -> None:
        sys.stdout.write(("\r\x1b[K" if self.terminal else "") + text + "\n")
        sys.stdout.flush()
        self.status()

    def status(self) -> None:
        if self.terminal and self.cell is not None:
            text = f"  {clock(time.monotonic() - self.start)} {self.left()}  {self.title}"
            sys.stdout.write("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1])
            sys.stdout.flush()

    async def keep_counting(self) -> None:
        while self.terminal:
            await asyncio.sleep(1)
            self.status()


class Client(NotebookClient):
    """An nbclient that passes on the text that a cell prints while it runs."""

    progress: Progress

    def output(
        self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        if msg["msg_type"] == "stream" and msg["content"]["name"] == "stdout":
            self.progress.printed(msg["content"]["text"])
        return super().output(outs, msg, display_id, cell_index)

    async def late_outputs(
        self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]
    ) -> None:
        """Waits for text on stderr, which has its own channel and may arrive after the reply."""
        assert self.kc is not None
        while True:
            try:
                msg = await ensure_async(self.kc.iopub_channel.get_msg(timeout=0.05))
            except Empty:
                return
            if (
                msg["parent_header"].get("msg_id") == execute_reply["parent_header"]["msg_id"]
                and msg["msg_type"] == "stream"
            ):
                self.process_message(msg, cell, cell_index)


def kill_kernel(client: Client) -> None:
    """Kills the kernel's process group: a cell runs in a child, which would outlive its parent."""
    group = getattr(getattr(client.km, "provisioner", None), "pgid", None)
    if group:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass


async def run(
    nb: NotebookNode, folder: Path, kernel: str, scratch: str, times: Path | None
) -> str | None:
    """Runs all cells, which compile in the folder `scratch`; returns None, or what went wrong."""
    titles = headings(nb)
    progress = Progress({index: expected_seconds(nb.cells[index]) for index in titles})
    for index in titles:
        nb.cells[index].outputs, nb.cells[index].execution_count = [], None
        nb.cells[index].metadata.pop("execution", None)
    client = Client(
        nb,
        kernel_name=kernel,
        resources={"metadata": {"path": str(folder)}},
        timeout=None,
        allow_errors=True,
        coalesce_streams=True,
        startup_timeout=300,
        shutdown_kernel="immediate",
    )
    client.progress = progress
    client.on_cell_executed = client.late_outputs
    counter = asyncio.ensure_future(progress.keep_counting())
    width = min(max((len(t) for t in titles.values()), default=0), 60)
    begin = time.monotonic()
    task = asyncio.current_task()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        if task:
            task.cancel()

    for stop in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(stop, interrupt)
    try:
        client.create_kernel_manager()
        # The kernel's own output, such as cargo's progress, is dropped.
        environment = {**os.environ, "EVCXR_TMPDIR": scratch}
        await client.async_start_new_kernel(
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        await client.async_start_new_kernel_client()
        progress.line(
            f"kernel ready  {time.monotonic() - begin:6.1f} s  {progress.left()}".rstrip()
        )
        for number, (index, title) in enumerate(titles.items(), 1):
            cell = nb.cells[index]
            progress.begin(index, title)
            progress.status()
            await client.async_execute_cell(cell, index)
            took = progress.end()
            line = (
                f"[{number:2}/{len(titles)}] {title[:60]:{width}} {took:6.1f} s  {progress.left()}"
            )
            progress.line(line.rstrip())
            wrong = problem(cell.outputs)
            if wrong and "raises-exception" not in cell.metadata.get("tags", []):
                shown = f"{indent(cell.source)}\n\n{ANSI.sub('', wrong)}"
                return f"cell {number} ({title}) failed:\n\n{shown}"
    except (asyncio.CancelledError, DeadKernelError, RuntimeError) as error:
        progress.cell = None
        if interrupted:
            return INTERRUPTED
        if isinstance(error, DeadKernelError):
            return "the kernel died (out of memory? killed?)\n  fix: free memory, and run again"
        return f"the kernel did not start: {error}\n  fix: ./scripts/verify shows what is missing"
    finally:
        counter.cancel()
        kill_kernel(client)
        await client._async_cleanup_kernel()
    if times:
        with times.open("a", encoding="utf-8") as file:
            file.writelines(f"{t:.3f}\n" for t in progress.took)
    progress.line(f"all {len(titles)} cells ran in {clock(time.monotonic() - begin)}")
    return None


def indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def trust(nb: NotebookNode) -> None:
    """Signs the outputs of this run: JupyterLab removes plots from outputs that are not signed."""
    NotebookNotary().sign(nb)


def write_html(nb: NotebookNode, path: Path) -> None:
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter(template_name="lab").from_notebook_node(
        nb, resources={"metadata": {"name": path.stem}}
    )
    path.write_text(html, encoding="utf-8")


def short(cell: str) -> str:
    """Shortens a number to four significant digits; the file has all of them."""
    return (
        f"{float(cell):.4g}"
        if re.fullmatch(r"-?[0-9]+\.[0-9]{5,}(e-?[0-9]+)?|-?[0-9.]+e-?[0-9]+", cell)
        else cell
    )


def print_table(path: Path) -> None:
    """Prints a CSV file as aligned text, with numbers at the right."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    columns = max((len(row) for row in rows), default=0)
    rows = [[short(cell) for cell in row] + [""] * (columns - len(row)) for row in rows]
    widths = [max(len(row[c]) for row in rows) for c in range(columns)]

    def number(text: str) -> bool:
        return bool(re.fullmatch(r"[-+]?[0-9.,]+(e[-+]?[0-9]+)?%?", text.strip()))

    right = [all(number(row[c]) or not row[c] for row in rows[1:]) for c in range(columns)]
    for r, row in enumerate(rows):
        print(
            "  "
            + "  ".join(
                f"{text:>{w}}" if right[c] else f"{text:<{w}}"
                for c, (text, w) in enumerate(zip(row, widths))
            ).rstrip()
        )
        if r == 0:
            print("  " + "  ".join("-" * w for w in widths))


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a notebook in its kernel.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the executed notebook and its HTML"
    )
    parser.add_argument("--kernel", default="hhalign")
    parser.add_argument(
        "--in-place", action="store_true", help="write the outputs into the notebook itself as well"
    )
    parser.add_argument(
        "--no-report",
        action="store_true",
        help="leave out the HTML, the table and the list of files",
    )
    parser.add_argument("--times", type=Path, help="append the seconds of every cell to this file")
    args = parser.parse_args()

    nb = nbformat.read(args.notebook, as_version=4)
    args.out.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    with tempfile.TemporaryDirectory(prefix="hhalign-", ignore_cleanup_errors=True) as scratch:
        wrong = asyncio.run(
            run(nb, args.notebook.resolve().parent, args.kernel, scratch, args.times)
        )
    # A failed run does not overwrite the notebook of the last good one.
    executed = args.out / (f"{args.notebook.stem}.failed.ipynb" if wrong else args.notebook.name)
    nbformat.write(nb, executed)
    trust(nb)
    if wrong:
        print(f"\n{wrong}\n\nthe cells that ran are in {executed}", file=sys.stderr)
        return 130 if wrong == INTERRUPTED else 1
    if args.in_place:
        nbformat.write(nb, args.notebook)
        trust(nb)
    for line in [
        line for cell in nb.cells if cell.cell_type == "code" for line in skipped(cell.outputs)
    ]:
        print(line)
    if args.no_report:
        return 0

    html = executed.with_suffix(".html")
    write_html(nb, html)
    # The tables of this run; a notebook may have a results folder of its own in the given one.
    tables = [args.out / "model_comparison.csv", *sorted(args.out.glob("*/model_comparison.csv"))]
    for table in (path for path in tables if path.exists() and path.stat().st_mtime >= begin - 2):
        print()
        print_table(table)
    print(f"\nfiles in {args.out}:")
    written = [
        path
        for path in sorted(args.out.rglob("*"))
        if path.is_file() and path.stat().st_mtime >= begin - 2
    ]
    for path in written:
        if path.relative_to(args.out).parts[0] not in ("runs", "cache"):
            print(f"  {path.relative_to(args.out)}  ({path.stat().st_size / 1e6:.1f} MB)")
    kept = [path for path in written if path.relative_to(args.out).parts[0] in ("runs", "cache")]
    if kept:
        size = sum(path.stat().st_size for path in kept) / 1e6
        print(
            f"  runs/, cache/  ({size:.1f} MB: trainings that runs with the same settings resume)"
        )
    print(f"\nread it in a browser: {html.resolve().as_uri()}")
    print(f"run it yourself: ./scripts/lab {args.notebook.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
