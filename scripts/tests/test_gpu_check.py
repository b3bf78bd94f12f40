"""Tests ./scripts/gpu_check: its runner with fake programs, its cheap parts on the emulated card.

usage: test_gpu_check.py [--full] [--peers PYTHON]

--full, or HHALIGN_FULL=1, rehearses every part, skips each and runs each over its limit, in about a
quarter of an hour. PYTHON has torch, transformers and trl.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from harness import FULL, ROOT

OVER = "over its time limit"
PARTS = range(8)
COUNTS = {"passed": 0, "failed": 0}
# Two tests that take the emulated card a second, and the one test of whole runs.
QUICK_TESTS = ",".join(
    [
        "gpu::decoding_continues_as_the_whole_sequence_would",
        "gpu::full_memory_is_an_error_that_says_what_to_lower",
    ]
)
RUN_TEST = "gpu_runs::runs_on_a_gpu_follow_those_on_the_cpu"
# SFT on a card prints a result and hangs with a child; DPO panics; the rest prints a result.
FAKE_HHALIGN = """#!/bin/sh
[ "$1" = bench ] || exit 2
case "$*" in
  "bench sft "*cpu*) echo '{"tok_s": 7, "precision": "f32"}' ;;
  "bench sft "*)
    echo '{"tok_s": 5}'
    sleep 987 &
    echo $! >"$FAKE_PID"
    wait ;;
  "bench pairs "*)
    echo "thread 'main' panicked at src/lib.rs:1:2:"
    echo "the card burns"
    exit 101 ;;
  "bench generate "*) echo '{"tok_s": 10, "ids": [[1, 2]]}' ;;
  *) echo '{"stage": "data", "at_seconds": 1.0, "pairs": 3}' ;;
esac
"""
# The module `gpu` has a test that passes and one that is killed by a signal, and another module's
# test matches its filter. Listing `gpu_runs` fails as where the loader refuses the program.
FAKE_TESTS = """#!/bin/sh
case "$*" in
  "gpu:: --list")
    echo "gpu::good: test"
    echo "gpu::bad: test"
    echo "other_gpu::stray: test" ;;
  *--list)
    echo "error: version GLIBC_2.99 not found" >&2
    exit 1 ;;
  *gpu::good*)
    echo "test gpu::good ... a card F16 C 8: values 1.0e-3, gradients 2.0e-3 (wte)"
    echo "skipped: the rest" ;;
  *) kill -SEGV $$ ;;
esac
"""


def check(what: str, good: bool, more: object = "") -> None:
    """Counts and prints an expectation, with details where it fails."""
    COUNTS["passed" if good else "failed"] += 1
    print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good else f': {more}'}", flush=True)


def gpu_check(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the command in a copy of the repository, without cargo on the path."""
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"} | environment
    # The interpreter of this test, in case the system has none.
    env["PATH"] += f":{Path(sys.executable).resolve().parent}"
    return subprocess.run(
        [root / "scripts/gpu_check", *words], capture_output=True, text=True, env=env, check=False
    )


def results(out: Path) -> list[dict]:
    """Reads the results of a run."""
    return [
        json.loads(line)
        for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def statuses(lines: list[dict]) -> dict[int, str]:
    """Returns how each part ended."""
    return {line["part"]: line["status"] for line in lines if line.get("event") == "part"}


def measured(lines: list[dict]) -> set[int]:
    """Returns the parts in which a program of ours succeeded or printed a result."""
    return {
        line["part"]
        for line in lines
        if line.get("side") == "ours" and ("value" in line or line.get("ok"))
    }


def copy_of_scripts(to: Path) -> Path:
    """Copies the scripts alone to a folder of another name, as on the machine with the card."""
    shutil.copytree(ROOT / "scripts", to / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return to


def rows(n: int) -> list[str]:
    """Makes rows in the form of HH."""

    def ask(i: int) -> str:
        return f"\n\nHuman: What is {i} plus {i}?\n\nAssistant:"

    return [
        json.dumps(
            {
                "chosen": f"{ask(i)} It is {2 * i}.",
                "rejected": f"{ask(i)} I do not know that, sorry.",
            }
        )
        for i in range(n)
    ]


def data_folder(to: Path) -> Path:
    """Returns a folder with real HH if there is one, or with rows of the same form."""
    test_data = os.environ.get("HHALIGN_TEST_DATA")
    if test_data and (Path(test_data) / "hh").is_dir():
        return Path(test_data) / "hh"
    to.mkdir()
    with gzip.open(to / "helpful-base.test.jsonl.gz", "wt") as file:
        file.write("\n".join(rows(200)) + "\n")
    return to


def fake_folder(to: Path) -> Path:
    """Fills a packed folder whose programs are shell scripts."""
    stage = to / "stage"
    stage.mkdir(parents=True)
    sums = {}
    for name, text in {"hhalign": FAKE_HHALIGN, "process": FAKE_TESTS}.items():
        (stage / name).write_text(text, encoding="utf-8")
        (stage / name).chmod(0o755)
        sums[name] = hashlib.sha256(text.encode()).hexdigest()
    with tarfile.open(to / "programs.tar.xz", "w:xz") as tar:
        for name in sums:
            tar.add(stage / name, name)
    if (source := data_folder(to / "data")) != to / "data":
        shutil.copytree(source, to / "data")
    manifest = {"commit": "0" * 40, "programs": sums, "glibc": "glibc 2.36", "wheels": []}
    (to / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return to


def is_alive(pid: int) -> bool:
    """Returns whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def runner(temp: Path, root: Path) -> None:
    """Tests the runner with programs that hang, panic, are killed, or are damaged."""
    folder, out, pid = fake_folder(temp / "fake"), temp / "fake-out", temp / "pid"
    limits = ["--limit", "3=1"]
    done = gpu_check(
        root,
        "--run",
        str(folder),
        "--out",
        str(out),
        "--minutes",
        "1",
        "--rehearse",
        "--python",
        "/nonexistent",
        *limits,
        FAKE_PID=str(pid),
    )
    lines = results(out)
    found = statuses(lines)
    check(
        "a part over its limit does not stop the next",
        found.get(3) == OVER and found.get(6) == "done",
        found,
    )
    check("a run with failures ends with exit status 1", done.returncode == 1, done)
    three = [line for line in lines if line.get("part") == 3 and "name" in line]
    check(
        "results printed before the limit are kept",
        any(line.get("value", {}).get("tok_s") == 5 for line in three),
        three,
    )
    check(
        "the limit is recorded as the reason",
        any(line.get("error") == OVER and line.get("printed") == 1 for line in three),
        three,
    )
    child = int(pid.read_text())
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    check("the whole process group was killed", not is_alive(child), child)
    errors = {
        line["part"]: line["error"]
        for line in lines
        if line.get("side") == "ours" and "error" in line
    }
    check("a panic's text is the first error", "the card burns" in errors.get(4, ""), errors)
    check(
        "a test program that does not start is a failure",
        found[2] == "failed" and any("GLIBC_2.99" in line.get("error", "") for line in lines),
        found,
    )
    check(
        "an error names the signal", "SIGSEGV" in errors.get(1, "") and found[1] == "failed", errors
    )
    tested = {line["name"] for line in lines if line.get("part") == 1 and "name" in line}
    check("only the tests of a module run", tested == {"gpu::good", "gpu::bad"}, tested)
    check(
        "a case of a test becomes a result",
        any(line.get("value", {}).get("gradients") == 2e-3 for line in lines),
        lines,
    )
    check(
        "a peer that does not start is a failure of its own",
        any(
            line.get("side") == "peer" and "nonexistent" in line.get("error", "") for line in lines
        ),
        lines,
    )
    first = lines[0]
    check(
        "the first line names commit, programs and machine",
        first.get("event") == "machine" and len(first["programs"]) == 2 and first["cores"] >= 1,
        first,
    )
    back = [path for path in out.rglob("*") if path.is_file()]
    check("a run leaves at most 8 files", 0 < len(back) <= 8, back)
    text = gpu_check(root, "--read", str(out)).stdout
    check(
        "--read lists what failed with its first error",
        "the card burns" in text and OVER in text and "SIGSEGV" in text,
        text,
    )
    check("--read prints the results", "greedy decoding" in text and "| sft f32" in text, text)
    with (out / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"part": 7, "na')
    check(
        "--read skips a line that is not whole", gpu_check(root, "--read", str(out)).stdout == text
    )
    for words, why in [
        (["--run", str(folder)], "needs --out"),
        (["--run", str(temp), "--out", str(out)], "manifest.json"),
        (["--read", str(temp)], "results.jsonl"),
    ]:
        wrong = gpu_check(root, *words)
        check(
            f"a wrong call is refused: {why}", wrong.returncode == 2 and why in wrong.stderr, wrong
        )
    (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"hhalign": "', '"hhalign": "0'),
        encoding="utf-8",
    )
    damaged = gpu_check(root, "--run", str(folder), "--out", str(temp / "damaged"), "--rehearse")
    check(
        "damaged programs are refused",
        damaged.returncode == 1 and "damaged" in damaged.stderr,
        damaged,
    )


def prediction(root: Path) -> None:
    """Compares docs/GPU_CHECK.md with the prediction that the command prints."""
    text = gpu_check(root, "--predict").stdout.strip()
    check(
        "--predict prints a step", "shortest step" in text and "attention_tensor_64" in text, text
    )
    page = (ROOT / "docs/GPU_CHECK.md").read_text(encoding="utf-8")
    check(
        "docs/GPU_CHECK.md contains the prediction",
        text in page,
        "paste what ./scripts/gpu_check --predict prints",
    )
    sources = (ROOT / "hhalign-lib/src").rglob("*.cu")
    kernels = set(
        re.findall(r"KERNEL[^(]* void (\w+)", "".join(path.read_text() for path in sources))
    )
    rows = re.findall(r"^\| ([a-z]\w*(?:, [a-z]\w*)*) \| [^|]*\| \d+ \|", text, flags=re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")} - {"product", "clear"}
    check("its kernels exist", len(named) > 12 and named <= kernels, named - kernels)


def rehearse(temp: Path, root: Path, folder: Path, full: bool, peers: str) -> None:
    """Runs the parts on the emulated card."""

    def run(out: str, *words: str) -> subprocess.CompletedProcess:
        base = ["--run", str(folder), "--out", str(temp / out), "--rehearse", "--python", peers]
        return gpu_check(root, *base, *words, **torch_path())

    if full:
        # The emulated card takes minutes for the tests of parts 1 and 2.
        words = ["--minutes", "30", "--limit", "1=420", "--limit", "2=600"]
    else:
        words = [
            "--minutes",
            "8",
            "--skip",
            "2",
            "--tests",
            QUICK_TESTS,
            "--limit",
            "6=0.01",
            "--limit",
            "0=120",
        ]
    done = run("rehearsal", *words)
    print(done.stdout, done.stderr, sep="", end="")
    lines = results(temp / "rehearsal")
    found = statuses(lines)
    has_torch = (
        subprocess.run(
            [peers, "-c", "import torch; from trl import DPOTrainer"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    with_peer = "done" if has_torch else "failed"
    wanted = {
        0: "done",
        1: "done",
        2: "done" if full else "skipped",
        3: with_peer,
        4: with_peer,
        5: with_peer,
        6: "done" if full else OVER,
        7: "done",
    }
    check(
        "each part ended as it should",
        found == wanted,
        {n: found.get(n) for n in PARTS if found.get(n) != wanted[n]},
    )
    ours = measured(lines)
    check("our side is measured in every part that ran", ours >= {0, 1, 3, 4, 5, 7}, ours)
    passes = [
        line["value"]["step"]
        for line in lines
        if line.get("part") == 0 and "apart" in line.get("value", {})
    ]
    check("the card runs passes in four precisions", len(passes) == 4, passes)
    stages = [
        line["value"]["stage"]
        for line in lines
        if line.get("part") == 7 and "stage" in line.get("value", {})
    ]
    check(
        "the pipeline trains and measures", {"sft", "dpo", "reward accuracy"} <= set(stages), stages
    )
    text = gpu_check(root, "--read", str(temp / "rehearsal")).stdout
    check(
        "--read makes tables of the rehearsal",
        "DPO on real HH" in text and "reward accuracy" in text and "emulated" in text,
        text,
    )
    if full:
        shutil.copy(temp / "rehearsal/summary.md", ROOT / ".cache/gpu_check_rehearsal.md")
        skipped_and_late(temp, run)


def skipped_and_late(temp: Path, run) -> None:
    """Skips each part, and runs each over its limit: the others must have their results."""
    # Without peers, and with limits that let the slow parts print something.
    quick = [
        "--minutes",
        "8",
        "--tests",
        f"{QUICK_TESTS},{RUN_TEST}",
        "--python",
        "/nonexistent",
        "--limit",
        "2=0.05",
        "--limit",
        "0=9",
        "--limit",
        "7=9",
    ]
    for part in PARTS:
        out = f"skip-{part}"
        run(out, *quick, "--skip", str(part))
        found = statuses(results(temp / out))
        others = {n: s for n, s in found.items() if n != part}
        allowed = {"done", "failed", OVER}
        check(
            f"part {part} skipped, the others ran",
            found[part] == "skipped"
            and set(others.values()) <= allowed
            and measured(results(temp / out)) >= set(PARTS) - {part, 2},
            found,
        )
    for part in PARTS:
        out = f"late-{part}"
        run(out, *quick, "--limit", f"{part}=0.02")
        lines = results(temp / out)
        found = statuses(lines)
        others = measured(lines)
        check(
            f"part {part} over its limit, the others ran",
            found[part] == OVER and others >= set(PARTS) - {part, 2},
            (found, others),
        )


def torch_path() -> dict[str, str]:
    """Returns the caller's PYTHONPATH, which may name packages for the peers."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": path} if path else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", default=FULL)
    parser.add_argument("--peers", default=sys.executable)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hhalign-test-gpu-check-") as name:
        temp = Path(name)
        root = copy_of_scripts(temp / "elsewhere")
        runner(temp, root)
        prediction(root)
        if shutil.which(os.environ.get("CXX", "c++")) is None:
            print("skipped: the emulated card needs a C++ compiler, and none was found")
        else:
            folder = ROOT / ".cache/gpu_check_test"
            command = [
                ROOT / "scripts/gpu_check",
                "--pack",
                folder,
                "--data",
                data_folder(temp / "rows"),
                "--no-wheels",
                "--level",
                "0",
            ]
            packed = subprocess.run(command, capture_output=True, text=True, check=False)
            check(
                "--pack fills a folder within the limit",
                packed.returncode == 0 and "MiB of 64.0 MiB" in packed.stdout,
                packed,
            )
            if packed.returncode == 0:
                rehearse(temp, root, folder, args.full, args.peers)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"gpu check: {COUNTS['passed']} passed, {COUNTS['failed']} failed")
    sys.exit(COUNTS["failed"] > 0)


if __name__ == "__main__":
    main()
