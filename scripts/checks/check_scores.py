"""Compares the scores of a toxic-bert of the full size with those of transformers, and their time.

    cargo build --release --example parity
    python scripts/checks/check_scores.py target/release/examples/parity [--model FOLDER]
                                          [--texts FILE.json]

Without FOLDER the check makes a bert-base with random weights and a vocabulary of 30,522 pieces.
FILE is a list of texts; without it the awkward texts of the fixtures are scored. Exit status 1: a
probability differs by more than 1e-4. Written for transformers==4.56.2, torch==2.8.0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from awkward_texts import TEXTS
from make_classifier import LABELS, vocabulary

TOLERANCE = 1e-4


def make_model(folder):
    """Saves a bert-base with weights wide enough that the six scores differ between texts."""
    names = dict(enumerate(LABELS))
    config = BertConfig(
        vocab_size=30522, num_labels=6, id2label=names, label2id={v: k for k, v in names.items()}
    )
    torch.manual_seed(3)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            wide = 0.1 if name.startswith("classifier") else 0.06
            p.normal_(float("LayerNorm.weight" in name), wide)
    model.save_pretrained(folder)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as f:
        f.writelines(piece + "\n" for piece in vocabulary(config.vocab_size))


def theirs(folder, texts):
    tokenizer = BertTokenizer(os.path.join(folder, "vocab.txt"), do_lower_case=True)
    model = BertForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    start, scores = time.time(), []
    with torch.no_grad():
        # Batches with padding and its mask, which the library has not.
        for at in range(0, len(texts), 8):
            encoded = tokenizer(
                texts[at : at + 8],
                padding=True,
                truncation=True,
                max_length=512,
                return_tensors="pt",
            )
            scores += torch.sigmoid(model(**encoded).logits).tolist()
    seconds, threads = time.time() - start, torch.get_num_threads()
    print(f"transformers: {len(texts)} texts scored in {seconds:.2f} s, {threads} threads")
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--model", metavar="FOLDER")
    parser.add_argument("--texts", metavar="FILE")
    args = parser.parse_args()
    texts = TEXTS
    if args.texts:
        with open(args.texts) as f:
            texts = json.load(f)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or os.path.join(folder, "model")
        if not args.model:
            make_model(model)
        files = [os.path.join(folder, name) for name in ("texts.json", "scores.json")]
        with open(files[0], "w") as f:
            json.dump(texts, f)
        subprocess.run([args.program, "scores", "toxic-bert", model, *files], check=True)
        with open(files[1]) as f:
            ours = torch.tensor(json.load(f))
        expected = torch.tensor(theirs(model, texts))
    worst = (ours - expected).abs().max().item()
    spread = expected.std(0).min().item()
    print(
        f"probabilities: max abs difference {worst:.1e} over {expected.numel()} values "
        f"(limit {TOLERANCE:.0e}); standard deviation over texts at least {spread:.2f}"
    )
    return 0 if worst <= TOLERANCE else 1  # a NaN fails as well


if __name__ == "__main__":
    sys.exit(main())
