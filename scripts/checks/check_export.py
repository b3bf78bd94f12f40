"""Runs exports with accelerate in two processes, and compares every step with the library's.

    python scripts/checks/check_export.py [--work FOLDER] [--only NAME ...]

The fixture `export` trains a small model, exports it for SFT and for DPO with every loss that can
be exported, and makes each run itself. The check starts every export as its README.md says, in two
processes without a GPU, and compares the metrics of every step: the loss (which the Trainer rounds
to 4 digits), rewards, log-probabilities, the norm of the gradients, the learning rate. At the end
it compares the logits of both trained models in transformers, and the library loads the trained
model of an export. One more export has a reference of its own and an epoch with a short batch.

The Python that runs this needs the packages of the exports' requirements.txt. Exit status 1: a
difference above its limit.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
# The Trainer rounds losses to 0.5e-4. The rest is rounding of sums, which grows during training.
# Values above 1 are compared relative to their size.
LIMITS = {
    "loss": 3e-4,
    "eval_loss": 2e-4,
    "rewards/chosen": 1e-4,
    "rewards/rejected": 1e-4,
    "rewards/margins": 1e-4,
    "logps/chosen": 1e-4,
    "logps/rejected": 1e-4,
    "learning_rate": 1e-12,
}
failures = []


def library(fixture, *arguments):
    """Runs a fixture of the example `parity`."""
    command = ["cargo", "run", "--release", "--quiet", "--example", "parity", "--", fixture]
    subprocess.run([*command, *map(str, arguments)], cwd=ROOT, check=True)


def launch(folder, processes, *more):
    program = next(folder.glob("train_*.py")).name
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        "accelerate.yaml",
        "--num_processes",
        str(processes),
        "--main_process_port",
        "29511",
        program,
        "--cpu",
        *more,
    ]
    clock = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return done, time.perf_counter() - clock


def steps_there(folder, out="trained"):
    steps = {}
    for entry in json.loads((folder / out / "trainer_state.json").read_text())["log_history"]:
        steps.setdefault(entry["step"], {}).update(entry)
    return steps


def steps_here(place):
    steps = {}
    for entry in json.loads((place / "ours.json").read_text()):
        steps.setdefault(entry["step"], {}).update(entry["metrics"])
    return steps


def compare(name, place):
    done, seconds = launch(place / "export", 2)
    if done.returncode:
        failures.append(f"{name}: the launch ended with {done.returncode}")
        print(done.stdout[-2000:], done.stderr[-4000:])
        return
    divided = next(
        (line for line in done.stdout.splitlines() if " in a pass, " in line),
        "it does not say how many processes",
    )
    if not divided.startswith("2 processes"):
        failures.append(f"{name}: {divided}")
    ours, theirs = steps_here(place), steps_there(place / "export")
    worst, norm = {}, 0.0
    for step, metrics in ours.items():
        for key, value in metrics.items():
            if key in LIMITS and key in theirs.get(step, {}):
                # Where a loss is per token, so are TRL's rewards and log-probabilities; a held-out
                # loss is a mean over batches.
                if key in ("loss", "learning_rate") or (
                    name != "sft" and (name != "ipo_per_token" or key == "eval_loss")
                ):
                    worst[key] = max(
                        worst.get(key, 0.0), abs(value - theirs[step][key]) / max(1, abs(value))
                    )
        if "grad_norm" in metrics:
            norm = max(norm, abs(metrics["grad_norm"] / theirs[step]["grad_norm"] - 1))
    missing = [s for s in ours if s > 0 and "loss" not in theirs.get(s, {})]
    if missing:
        failures.append(f"{name}: steps {missing} are missing")
    losses = " ".join(
        f"{ours[s]['loss']:.4f}/{theirs[s]['loss']:.4f}"
        for s in sorted(ours)
        if "loss" in ours[s] and "loss" in theirs.get(s, {})
    )
    print(f"{name}: {divided}, {seconds:.0f} s; our/their loss by step: {losses}")
    print(
        "   largest differences: "
        + ", ".join(f"{k} {v:.1e}" for k, v in worst.items())
        + f", grad_norm {norm:.1e} (relative)"
    )
    failures.extend(f"{name}: {k} differs by {v}" for k, v in worst.items() if not v <= LIMITS[k])
    if not norm <= 1e-2:
        failures.append(f"{name}: grad_norm")
    if name == "sigmoid" and abs(theirs[1]["loss"] - math.log(2)) > 1e-4:
        failures.append(f"the first loss is {theirs[1]['loss']}, not ln 2")
    logits(name, place)


@torch.no_grad()
def logits(name, place):
    """Compares the trained models of both runs on the held-out texts."""
    tokenizer = AutoTokenizer.from_pretrained(place / "ours", local_files_only=True)
    rows = [json.loads(line) for line in (place / "export" / "eval.jsonl").read_text().splitlines()]
    ids = [torch.tensor([tokenizer(r["prompt"] + r["chosen"])["input_ids"][:96]]) for r in rows]

    def out(folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
        return torch.cat([model(i).logits.flatten() for i in ids])

    ours, theirs, before = (out(place / f) for f in ("ours", "export/trained", "export/model"))
    apart, moved = (ours - theirs).abs().max().item(), (ours - before).abs().max().item()
    print(
        f"   logits of both trained models: max abs difference {apart:.1e}; "
        f"training moved them by up to {moved:.1e}"
    )
    if not apart <= 0.02 * moved:
        failures.append(f"{name}: the trained models differ by {apart}, moved {moved}")


def resumed(folder):
    """Stops a run after three steps and resumes it; it must equal the uninterrupted one."""
    for more in (["--stop-at", "3"], ["--resume"]):
        done, _ = launch(folder, 2, "--out", "halves", *more)
        if done.returncode:
            failures.append("the resumed run failed")
            print(done.stderr[-3000:])
            return
    whole, halves = steps_there(folder), steps_there(folder, "halves")
    apart = max(abs(whole[s]["logps/chosen"] - halves[s]["logps/chosen"]) for s in range(1, 7))
    print(f"stopped after 3 steps and resumed: log-probabilities differ by up to {apart:.1e}")
    if not apart <= 1e-4:
        failures.append(f"a resumed run differs by {apart}")


def back(folder):
    """Loads a trained export in the library, and compares its logits with transformers'."""
    library("logits", folder / "trained", folder / "parity.json")
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts/checks/check_transformers.py",
            folder / "trained",
            "--parity",
            folder / "parity.json",
        ]
    )
    if done.returncode:
        failures.append("a trained export loaded in the library")


def refuse(what, done, words):
    said = done.stdout + done.stderr
    print(f"{what}: {'stops' if done.returncode and words in said else 'DOES NOT STOP'}")
    if not done.returncode or words not in said:
        failures.append(what)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", metavar="FOLDER", help="keep the exports in this new folder")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="losses to compare, and sft")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or Path(temporary) / "exports").resolve()
        library("export", work)
        refused = json.loads((work / "refused.json").read_text())
        print(f"not exported: {', '.join(sorted(refused))}")
        names = sorted(p.parent.name for p in work.glob("*/ours.json"))
        names = sorted(names, key=lambda n: n != "sigmoid")
        for name in names:
            if not args.only or name in args.only:
                compare(name, work / name)
        if (work / "sigmoid/export/trained").exists():
            back(work / "sigmoid/export")
            resumed(work / "sigmoid/export")
        done, _ = launch(work / "apart/export", 2, "--stop-at", "5")
        if done.returncode:
            failures.append("a reference of its own: the launch failed")
            print(done.stderr[-3000:])
        else:
            first = steps_there(work / "apart/export")[1]
            print(
                f"a reference of its own: first loss {first['loss']:.4f}, "
                f"reward of chosen replies {first['rewards/chosen']:.4f} (not 0)"
            )
            if abs(first["rewards/chosen"]) < 1e-3:
                failures.append("the reference of its own was not used")
        refuse(
            "three processes for sixteen pairs", launch(work / "apart/export", 3)[0], "divides 16"
        )
        texts = work / "apart/export/train.jsonl"
        texts.write_text(texts.read_text().replace("the", "teh", 1))
        refuse(
            "a changed text", launch(work / "apart/export", 1)[0], "ids are not those of the export"
        )
    for failure in failures:
        print("FAILED", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
