"""Kills the kernel in the middle of a training, again and again: a fresh one must end with the very same bits.

usage: test_lost.py [--kills 5] [--idle SECONDS]
--idle: at last let a training go on for so long with no cell running (600 was asked for once; 20 is the default).
HHALIGN_SLOW=2 doubles the time limits.
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

from run_notebook import problem
from test_kernel import Checks, Kernel, Result

SLOW = float(os.environ.get("HHALIGN_SLOW", "1"))
START_LIMIT = 1.0  # a cell that starts a training
CELL_LIMIT = 0.6  # median of the cells beside a training

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
dpo.train.seed = SEED;
let run = dpo.start(&model.fork()?, &model, &train, &watch)?;"""
LONG = START.replace("= (120, 7, 3)", "= (10000000, 1000, 3)")
HASH = 'println!("{} {} {}", run.phase(), run.step(), run.model()?.hash()?);'


def run(kernel: Kernel, code: str) -> Result:
    result = kernel.run(code)
    if wrong := problem(result.outputs):
        raise SystemExit(f"a cell failed:\n{code}\n{wrong}")
    return result


def fresh(scratch: str, *, setup: bool = True) -> Kernel:
    kernel = Kernel(scratch)
    for code in SETUP if setup else SETUP[:1]:
        run(kernel, code)
    return kernel


def end(kernel: Kernel) -> str:
    """Waits for the run's end and returns its state and the hash of its weights."""
    run(kernel, "run.wait(300.0);")
    return run(kernel, HASH).text().strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20.0)
    args = parser.parse_args()
    check, dice = Checks(), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="hhalign-", ignore_cleanup_errors=True) as scratch:
        os.environ["HHALIGN_RESULTS"] = str(Path(scratch) / "whole")
        kernel = fresh(scratch)
        started = run(kernel, START.replace("SEED", "1"))
        check("a cell that starts a training returns", started.seconds <= START_LIMIT * SLOW, f"{started.seconds:.2f} s (at most {START_LIMIT:g} s)")
        begin = time.monotonic()
        whole = end(kernel)
        took = time.monotonic() - begin
        kernel.stop()
        check("the whole run", bool(re.fullmatch(r"finished 120 [0-9a-f]{16}", whole)), f"{whole}, {took:.1f} s")

        kill = tries = 0
        while kill < args.kills and tries < 3 * args.kills:
            tries += 1
            os.environ["HHALIGN_RESULTS"] = str(Path(scratch) / f"killed{tries}")
            kernel = fresh(scratch)
            run(kernel, START.replace("SEED", "1"))
            name = run(kernel, 'println!("{}", run.name());').text().strip()
            moment = dice.uniform(0.0, 0.7 * took)
            time.sleep(moment)
            kernel.stop()  # SIGKILL to the whole process group
            # Half of the times by its name alone, half by running the training's cell again.
            by_name = kill % 2 == 0
            kernel = fresh(scratch, setup=not by_name)
            try:
                run(kernel, f'let run = Run::resume("{name}")?;' if by_name else START.replace("SEED", "1"))
            except SystemExit as error:
                if not by_name or "before its first checkpoint" not in str(error):
                    raise
                kernel.stop()
                kernel = fresh(scratch)
                run(kernel, START.replace("SEED", "1"))
            note = run(kernel, 'println!("{}", run.note());').text().strip()
            resumed = end(kernel)
            kernel.stop()
            if "finished" in note:  # the kill came after the end, and proves nothing
                took *= 0.7
                continue
            kill += 1
            check(f"killed after {moment:.1f} s, {note or 'begun anew'}", resumed == whole, resumed.split()[-1])

        check("kernels killed in mid-training", kill == args.kills, kill)
        os.environ["HHALIGN_RESULTS"] = str(Path(scratch) / "idle")
        kernel = fresh(scratch)
        run(kernel, LONG.replace("SEED", "2"))
        cells = [f"let x{i} = {i};" for i in range(6)] + ["run.phase()", "run.step()", 'println!("{}", run.progress_line());', "run.status()?", "run.plot()"]
        times = [run(kernel, code).seconds for code in cells]
        median = statistics.median(times)
        check("median of the cells beside a training", median <= CELL_LIMIT * SLOW, f"{median:.2f} s (at most {CELL_LIMIT:g} s)")
        first = int(run(kernel, 'println!("{}", run.step());').text())
        stray = kernel.listen(args.idle)
        last = int(run(kernel, 'println!("{}", run.step());').text())
        check(f"{args.idle:.0f} s of training with no cell running went on", last > first + args.idle / 5, f"{first} -> {last} steps")
        check("and printed nothing", not stray, stray[:1] or "")
        run(kernel, "run.stop();")
        kernel.stop()
    print(f"lost: {check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
