"""Kills kernels during a training; a resumed run must end with the bits of an uninterrupted one.

usage: test_lost.py [--kills N] [--many] [--idle SECONDS]

At the end a training runs for SECONDS while no cell does. HHALIGN_SLOW=2 doubles the time limits.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from harness import FULL, SLOW, Checks
from kernel import Kernel, Result
from run_notebook import problem

START_LIMIT = 1.0  # a cell that starts a training
CELL_LIMIT = 0.6  # median of the cells that run during a training
FEW, MANY = 5, 25  # kills

SETUP = [
    ':dep hhalign = { path = "../hhalign-lib/kernel" }\nuse hhalign::prelude::*;',
    """let split = Dataset::embedded(0, 300)?.split(0.1)?;
let tokenizer = Tokenizer::train(&split.train, 600)?;
let train = TokenizedPairs::new(&split.train, &tokenizer, 256)?;
let watch = TokenizedPairs::new(&split.held_out, &tokenizer, 256)?;
let model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 0)?.freeze()?;""",
]
START = """let mut dpo = Dpo::default();
(dpo.train.max_steps, dpo.train.eval_every, dpo.train.log_every) = (120, 7, 3);
(dpo.train.batch_size, dpo.train.micro_batch_size, dpo.train.checkpoint_every) = (8, 4, 5);
dpo.train.seed = 1;
let run = dpo.start(&model.fork()?, &model, &train, &watch)?;"""
LONG = START.replace("= (120, 7, 3)", "= (10000000, 1000, 3)").replace("seed = 1", "seed = 2")
HASH = 'println!("{} {} {}", run.phase(), run.step(), run.model()?.hash()?);'
STEP = 'println!("{}", run.step());'
DURING = [f"let x{i} = {i};" for i in range(6)] + [
    "run.phase()",
    "run.step()",
    'println!("{}", run.progress_line());',
    "run.status()?",
    "run.plot()",
]


def run(kernel: Kernel, code: str) -> Result:
    """Runs a cell that must not fail."""
    result = kernel.run(code)
    if wrong := problem(result.outputs):
        raise SystemExit(f"a cell failed:\n{code}\n{wrong}")
    return result


def printed(kernel: Kernel, code: str) -> str:
    """Returns the text that a cell prints."""
    return run(kernel, code).text().strip()


def fresh(scratch: str, *, setup: bool = True) -> Kernel:
    """Starts a kernel that has loaded the library and, with `setup`, the data and the model."""
    kernel = Kernel(scratch)
    for code in SETUP if setup else SETUP[:1]:
        run(kernel, code)
    return kernel


def end(kernel: Kernel) -> str:
    """Waits until the run ends; returns its phase, step and hash of weights."""
    run(kernel, "run.wait(300.0);")
    return printed(kernel, HASH)


def uninterrupted(scratch: str, check: Checks) -> tuple[str, float]:
    """Returns how an uninterrupted run ends, and the seconds that it takes."""
    os.environ["HHALIGN_RESULTS"] = str(Path(scratch) / "whole")
    kernel = fresh(scratch)
    started = run(kernel, START).seconds
    check(
        "a cell that starts a training returns",
        started <= START_LIMIT * SLOW,
        f"{started:.2f} s (at most {START_LIMIT * SLOW:g} s)",
    )
    begin = time.monotonic()
    whole = end(kernel)
    took = time.monotonic() - begin
    kernel.stop()
    good = bool(re.fullmatch(r"finished 120 [0-9a-f]{16}", whole))
    check("the uninterrupted run", good, f"{whole}, {took:.1f} s")
    return whole, took


def killed(scratch: str, results: str, moment: float, by_name: bool) -> tuple[str, str]:
    """Kills a run after `moment` seconds and resumes it; returns its note and how it ends.

    It is resumed by its name alone, or by running the cell of the training again.
    """
    os.environ["HHALIGN_RESULTS"] = str(Path(scratch) / results)
    kernel = fresh(scratch)
    run(kernel, START)
    name = printed(kernel, 'println!("{}", run.name());')
    time.sleep(moment)
    kernel.stop()
    kernel = fresh(scratch, setup=not by_name)
    try:
        run(kernel, f'let run = Run::resume("{name}")?;' if by_name else START)
    except SystemExit as error:
        if not by_name or "before its first checkpoint" not in str(error):
            raise
        kernel.stop()
        kernel = fresh(scratch)
        run(kernel, START)
    note = printed(kernel, 'println!("{}", run.note());')
    resumed = end(kernel)
    kernel.stop()
    return note, resumed


def idle(scratch: str, seconds: float, check: Checks) -> None:
    """Checks that cells stay quick during a training, and that it continues without cells."""
    os.environ["HHALIGN_RESULTS"] = str(Path(scratch) / "idle")
    kernel = fresh(scratch)
    run(kernel, LONG)
    median = statistics.median(run(kernel, code).seconds for code in DURING)
    check(
        "median of the cells during a training",
        median <= CELL_LIMIT * SLOW,
        f"{median:.2f} s (at most {CELL_LIMIT * SLOW:g} s)",
    )
    first = int(printed(kernel, STEP))
    stray = kernel.listen(seconds)
    last = int(printed(kernel, STEP))
    check(
        f"a training continues for {seconds:.0f} s while no cell runs",
        last > first + seconds / 5,
        f"{first} -> {last} steps",
    )
    check("and prints nothing", not stray, stray[:1] or "")
    run(kernel, "run.stop();")
    kernel.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help=f"kernels to kill (default: {FEW})")
    parser.add_argument(
        "--many", action="store_true", default=FULL, help=f"{MANY} kills; also with HHALIGN_FULL=1"
    )
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS")
    args = parser.parse_args()
    kills = args.kills if args.kills is not None else MANY if args.many else FEW
    check, dice = Checks(), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="hhalign-", ignore_cleanup_errors=True) as scratch:
        whole, took = uninterrupted(scratch, check)
        done = tries = 0
        while done < kills and tries < 3 * kills:
            tries += 1
            moment = dice.uniform(0.0, 0.7 * took)
            note, resumed = killed(scratch, f"killed{tries}", moment, by_name=done % 2 == 0)
            if "finished" in note:  # the kill came after the end, and proves nothing
                took *= 0.7
                continue
            done += 1
            what = f"killed after {moment:.1f} s, {note or 'started again'}"
            check(what, resumed == whole, resumed.split()[-1])
        check("kernels killed during a training", done == kills, done)
        idle(scratch, args.idle, check)
    print(f"lost: {check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
