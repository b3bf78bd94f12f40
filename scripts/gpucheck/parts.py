"""The parts of a check, and the programs that each part runs."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Callable

from job import Job
from places import PASS_TESTS, PEERS, ROOT, RUN_TESTS, TEST_PROGRAM

# isort: split
# `places` has put its folder on the path.
import bench

# Sizes for the emulated card; without torch.compile, which would take longer than all the rest.
TINY = bench.Sizes("1 2 16", 64, 2, 64, 3, 4, 8, torch_words="bf16")
CASE = re.compile(r"^(?:test \S+ \.\.\. )?(.+?): (?:values|ends) (\S+), gradients (\S+)")


@dataclass(frozen=True)
class Part:
    """A part: its number, its seconds of the default eight minutes, and what it runs."""

    number: int
    title: str
    share: int
    run: Callable[[Job], None]


def opens(job: Job) -> None:
    """Opens CUDA's libraries, compiles kernels and runs them."""
    if not job.rehearse:
        job.command(
            "find_cuda",
            [job.python, str(ROOT / "scripts/fetch/find_cuda.py"), str(job.work / "cuda")],
            plain=True,
        )
        job.command(
            "libraries",
            [sys.executable, str(ROOT / "scripts/gpucheck/libraries.py"), str(job.work / "cuda")],
        )
    job.ours("card", "card")


def tests(module: str) -> Callable[[Job], None]:
    """Runs the tests of a module, each in its own process: a fault of the card ends one test."""

    def run(job: Job) -> None:
        path = str(job.work / TEST_PROGRAM)
        listing = [path, module, "--list"]
        names = [
            line.removesuffix(": test")
            for line in job.listed(listing)
            if line.startswith(module) and line.endswith(": test")
        ]
        names = [name for name in names if not job.only_tests or name in job.only_tests]
        if not names:
            # The listing is empty as well where the program does not start; its output says why.
            job.command(f"{module} --list", listing, plain=True)
            job.fail(module, "there is no test to run")
        for name in sorted(names, key=lambda name: "compile" in name):
            # Without a C++ compiler there is no emulated card, so a real one is tested alone.
            more = {} if job.rehearse else {"CXX": "/nonexistent"}
            job.command(
                name,
                [path, "--exact", name, "--nocapture", "--test-threads", "1"],
                plain=True,
                read=test_line,
                **more,
            )

    return run


def test_line(line: str) -> dict | None:
    """Parses a line of a test: the distance of a case from the oracle, or why it was skipped."""
    if found := CASE.match(line):
        return {"case": found[1], "values": float(found[2]), "gradients": float(found[3])}
    if "skipped: " in line:
        return {"skipped": line.split("skipped: ", 1)[1]}
    return None


def turns(key: str, rounds: int = 3) -> Callable[[Job], None]:
    """Runs our work and a peer's in turn, up to `rounds` times within the part's time."""

    def run(job: Job) -> None:
        sizes = TINY if job.rehearse else bench.LARGE
        works = bench.gpu_works(sizes, job.pairs_file(), str(job.work / "weights.safetensors"))
        work = next((work for work in works if work.key == key), None)
        if work is None:
            job.fail("pairs", "no real HH pairs were packed; name their folder with --pack --data")
            return
        words = work.peer.split()

        def ours() -> bool:
            return bool(job.ours(work.key, work.ours))

        def peer() -> bool:
            found = job.peer(work.key, [str(PEERS / words[0]), *words[1:]])
            if not found and "compile" in words:
                # torch.compile needs a C compiler and Python's headers; the eager peer does not.
                words.remove("compile")
                found = job.peer(work.key, [str(PEERS / words[0]), *words[1:]])
            return bool(found)

        sides = [ours, peer]
        for _ in range(1 if job.rehearse else rounds):
            before = job.left()
            # A side that failed is not run again; the other continues alone.
            sides = [side for side in sides if side()]
            if not sides or job.left() < 1.2 * (before - job.left()):
                break

    return run


def processor(job: Job) -> None:
    """Times passes on the CPU, on one core and on all."""
    shape = "1 2 16 64 2 16 3" if job.rehearse else f"{bench.MIDDLE} 8 256 4"
    for precision in ("auto", "f32"):
        for threads in (len(os.sched_getaffinity(0)), 1):
            name = f"sft {precision}, {threads} core{'s' if threads > 1 else ''}"
            job.ours(
                name,
                f"sft {shape} {precision} cpu",
                HHALIGN_THREADS=str(threads),
                HHALIGN_DEVICE="cpu",
            )


def pipeline(job: Job) -> None:
    """Runs data, SFT, DPO and metrics with the large model, with as many steps as fit."""
    data = job.folder / "data"
    if not data.is_dir():
        job.fail("pipeline", "no real HH pairs were packed; name their folder with --pack --data")
        return
    seconds = int(0.8 * job.left())
    if job.rehearse:
        sizes = "1 2 16 400 48 2 auto micro 2 pairs 80 prompts 4 tokens 4"
        seconds = min(seconds, 4)
    else:
        sizes = "12 12 768 50257 512 32 auto micro 32 prompts 500 tokens 64"
    job.ours("pipeline", f"pipeline {data} {seconds} {sizes} toxicity {job.folder / 'toxicity'}")


PARTS = [
    Part(0, "CUDA opens, kernels compile and run", 30, opens),
    Part(1, "every pass equals the composed model", 60, tests(PASS_TESTS)),
    Part(2, "runs on the card against runs on the CPU", 30, tests(RUN_TESTS)),
    Part(3, "SFT in turn with PyTorch", 110, turns("gpu_sft_tok_s")),
    Part(4, "DPO on real HH in turn with TRL", 90, turns("gpu_dpo_pairs_s")),
    Part(5, "decoding in turn with transformers", 45, turns("gpu_gen_tok_s")),
    Part(6, "passes on the CPU", 30, processor),
    Part(7, "the pipeline on real HH", 85, pipeline),
]
