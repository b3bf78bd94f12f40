import argparse
import hashlib
import json
import math
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cpu", action="store_true", help="train on the CPU even if there is a GPU"
    )
    parser.add_argument("--out", default=str(HERE / "trained"), metavar="FOLDER")
    parser.add_argument("--stop-at", type=int, default=MAX_STEPS, metavar="STEP")
    parser.add_argument(
        "--resume", action="store_true", help="resume from the last checkpoint in FOLDER"
    )
    return parser.parse_args()


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        HERE / folder, dtype=torch.float32, local_files_only=True
    )


def rows(name, tokenizer):
    """Tokenise a file's pairs. A reply takes at most half of MAX_LENGTH. A prompt that does not fit
    is cut at the start, by the same amount for both replies. The text of a special token stays
    text."""

    def ids(text):
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    pairs, digest = [], hashlib.sha256()
    with open(HERE / name, encoding="utf-8") as file:
        for line in file:
            pair = json.loads(line)
            chosen, rejected = (
                (ids(pair[side]) + [tokenizer.eos_token_id])[: MAX_LENGTH // 2]
                for side in ("chosen", "rejected")
            )
            prompt = ids(pair["prompt"])[-(MAX_LENGTH - max(len(chosen), len(rejected))) :]
            pair_ids = (prompt, chosen, rejected)
            names = ("prompt_input_ids", "chosen_input_ids", "rejected_input_ids")
            pairs.append(dict(zip(names, pair_ids)))
            for part in pair_ids:
                digest.update(b"".join(i.to_bytes(4, "little") for i in part) + b"\xff" * 4)
    found = digest.hexdigest()[:16]
    if found != IDS[name]:
        sys.exit(
            f"{name}: the ids are not those of the export\n"
            f"  got: {found} instead of {IDS[name]}\n"
            "  fix: take texts, tokenizer and MAX_LENGTH from one export, "
            "and the versions in requirements.txt"
        )
    return Dataset.from_list(pairs)


def division():
    """Return the pairs in one pass of one process, and the passes in a step."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    share = BATCH_SIZE // world
    if share * world != BATCH_SIZE:
        sys.exit(
            "a step cannot be divided between the processes\n"
            f"  got: {BATCH_SIZE} pairs for {world} processes\n"
            f"  fix: start a number of processes that divides {BATCH_SIZE}"
        )
    per_pass = max(n for n in range(1, min(PAIRS_PER_PASS, share) + 1) if share % n == 0)
    return per_pass, share // per_pass


def common_settings(args):
    per_pass, passes = division()
    return dict(
        output_dir=args.out,
        use_cpu=args.cpu or not torch.cuda.is_available(),
        seed=SEED,
        bf16=False,
        fp16=False,
        per_device_train_batch_size=per_pass,
        per_device_eval_batch_size=per_pass,
        gradient_accumulation_steps=passes,
        max_steps=min(args.stop_at, MAX_STEPS),
        learning_rate=LEARNING_RATE,
        max_grad_norm=MAX_GRAD_NORM,
        gradient_checkpointing=GRADIENT_CHECKPOINTING,
        eval_strategy="steps",
        eval_steps=EVAL_EVERY,
        eval_on_start=True,
        logging_strategy="steps",
        logging_steps=LOG_EVERY,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=SAVE_EVERY,
        save_total_limit=2,
        report_to=[],
        ddp_find_unused_parameters=False,
    )


class ExportedSteps:
    """The exported run's order of pairs, AdamW groups and schedule, for a Trainer."""

    def _get_train_sampler(self, *_):
        # Processes take turns at passes of per_device_train_batch_size pairs, so a step's pairs are
        # one batch of the list.
        batches = json.loads((HERE / "batches.json").read_text())
        return [i for batch in batches for i in batch]

    def create_optimizer_and_scheduler(self, num_training_steps):
        weights = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=LEARNING_RATE, betas=tuple(ADAM_BETAS), eps=ADAM_EPSILON
        )
        self.lr_scheduler = LambdaLR(self.optimizer, share_of_peak)


def share_of_peak(step):
    """Return the learning rate as a share of its peak: linear warm-up with a first step above zero,
    then a cosine to MIN_LR_RATIO at MAX_STEPS."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = min((step - WARMUP_STEPS) / max(MAX_STEPS - WARMUP_STEPS, 1), 1.0)
    return MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * progress))


class Patience(TrainerCallback):
    """Stop the run after PATIENCE evaluations without a better held-out loss."""

    best, without_gain = math.inf, 0

    def on_evaluate(self, args, state, control, metrics=None, **_):
        better = metrics["eval_loss"] < self.best
        self.best = min(self.best, metrics["eval_loss"])
        self.without_gain = 0 if better else self.without_gain + 1
        if PATIENCE is not None and self.without_gain >= PATIENCE:
            control.should_training_stop = True


def run(trainer, args):
    # Processes without a GPU name their device cpu:0, which torch cannot restore from a checkpoint.
    torch.serialization.register_package(
        0,
        lambda _: None,
        lambda storage, device: storage if device.startswith("cpu:") else None,
    )
    if trainer.is_world_process_zero():
        print(
            f"{trainer.args.world_size} processes, "
            f"{trainer.args.per_device_train_batch_size} pairs in a pass, "
            f"{trainer.args.gradient_accumulation_steps} passes in a step",
            flush=True,
        )
    trainer.train(resume_from_checkpoint=args.resume or None)
    trainer.save_model()
    trainer.save_state()
