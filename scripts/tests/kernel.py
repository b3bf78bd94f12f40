"""A kernel that the test programs of this folder run cells in."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from queue import Empty

from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg

from harness import ROOT


@dataclass
class Result:
    """The outputs of a cell, and the seconds that it took."""

    seconds: float
    outputs: list[NotebookNode] = field(default_factory=list)

    def text(self) -> str:
        """Joins the printed text and the text of the displayed values."""
        parts = [
            out.text if out.output_type == "stream" else out.get("data", {}).get("text/plain", "")
            for out in self.outputs
        ]
        return "".join(parts)


class Kernel:
    """The real kernel, started in the folder of the notebooks; cells compile in `scratch`."""

    def __init__(self, scratch: str) -> None:
        start = time.monotonic()
        self.manager = KernelManager(kernel_name="hhalign")
        environment = {**os.environ, "EVCXR_TMPDIR": scratch}
        self.manager.start_kernel(
            cwd=str(ROOT / "notebooks"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=300)
        self.ready = time.monotonic() - start

    def run(self, code: str) -> Result:
        """Runs a cell and collects its outputs."""
        start = time.monotonic()
        outputs: list[NotebookNode] = []

        def collect(msg: dict) -> None:
            if msg["msg_type"] in ("stream", "execute_result", "display_data", "error"):
                outputs.append(output_from_msg(msg))

        self.client.execute_interactive(code, output_hook=collect, timeout=300)
        seconds = time.monotonic() - start
        # stderr has a channel of its own, and may arrive after the reply.
        while True:
            try:
                collect(self.client.get_iopub_msg(timeout=0.05))
            except Empty:
                return Result(seconds, outputs)

    def listen(self, seconds: float) -> list[str]:
        """Returns the messages that arrive while no cell runs."""
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
        """Kills the kernel's whole process group with SIGKILL."""
        self.client.stop_channels()
        group = getattr(self.manager.provisioner, "pgid", None)
        if group:
            os.killpg(group, signal.SIGKILL)
        self.manager.cleanup_resources()
