"""Loads a saved model of hhalign in transformers, and compares logits or scores.

    python scripts/checks/check_transformers.py FOLDER [--parity FILE]

FOLDER holds model.safetensors, config.json and tokenizer.json in the Hugging Face layout. FILE, as
given or inside FOLDER, is {"input_ids": [[..]], "logits": [[[..]]]}: rows of equal length and the
float32 logits that hhalign computed for them. For a reward model it is {"input_ids": [[..]],
"scores": [..]}: rows of any length, which this check pads, and a reward for each.

Exit status 1: a tensor is missing or unknown, the tokenizer does not fit the model, or a logit
differs by more than 1e-4. Written for transformers==4.56.2, torch==2.8.0.
"""

import argparse
import json
import os
import sys

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

TOLERANCE = 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--parity", metavar="FILE")
    args = parser.parse_args()
    failures = []

    architecture = AutoConfig.from_pretrained(args.folder, local_files_only=True).architectures[0]
    auto = (
        AutoModelForSequenceClassification
        if architecture.endswith("SequenceClassification")
        else AutoModelForCausalLM
    )
    model, info = auto.from_pretrained(
        args.folder,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        output_loading_info=True,
    )
    model.eval()
    size = sum(p.numel() for p in model.parameters())
    print(f"model: {type(model).__name__}, {size} parameters, vocabulary {model.config.vocab_size}")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            failures.append(f"{kind}: {sorted(info[kind])}")

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(args.folder, "tokenizer.json"))
    text = (
        "Human: What's the capital of France?\n\n"
        "Assistant: Paris, naturally – “la Ville Lumière” 🙂"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    same = tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    exact = "exact" if same else "NOT exact"
    print(f"tokenizer: {len(tokenizer)} tokens; sample of {len(ids)} ids, round trip {exact}")
    if len(tokenizer) > model.config.vocab_size:
        failures.append("the tokenizer has more tokens than the model")

    if args.parity:
        path = (
            args.parity if os.path.exists(args.parity) else os.path.join(args.folder, args.parity)
        )
        with open(path) as f:
            parity = json.load(f)
        what = "scores" if "scores" in parity else "logits"
        expected = torch.tensor(parity[what], dtype=torch.float32)
        rows = [torch.tensor(row) for row in parity["input_ids"]]
        ids = torch.nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=model.config.pad_token_id
        )
        with torch.no_grad():
            logits = model(ids).logits
        if what == "scores":
            logits = logits.squeeze(-1)
        if logits.shape != expected.shape:
            failures.append(
                f"{what} have shape {tuple(logits.shape)}, the file's {tuple(expected.shape)}"
            )
        else:
            worst = (logits - expected).abs().max().item()
            over = f"{logits.numel()} values (limit {TOLERANCE:.0e})"
            print(f"{what}: max abs difference {worst:.3e} over {over}")
            if not worst <= TOLERANCE:  # also catches NaN
                failures.append(f"{what} differ")

    for failure in failures:
        print("FAILED", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
