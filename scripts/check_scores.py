#!/usr/bin/env python3
"""Does a toxic-bert of the full size score texts as transformers does, and how long do both take?

    cargo build --release --example scores
    python scripts/check_scores.py target/release/examples/scores [--model FOLDER] [--texts FILE.json]

Without FOLDER a bert-base with random weights and a vocabulary of 30,522 pieces is made in a temporary folder. FILE is a
list of texts; without it the awkward texts of the fixtures are scored. Exit status 1: a probability is off by more than
1e-4. Written for transformers==4.56.2, torch==2.8.0.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from awkward_texts import TEXTS
from make_golden_classifier import LABELS, vocabulary

TOLERANCE = 1e-4


def make_model(folder):
    """bert-base with weights wide enough that the six scores of different texts differ."""
    names = dict(enumerate(LABELS))
    config = BertConfig(vocab_size=30522, num_labels=6, id2label=names, label2id={v: k for k, v in names.items()})
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
        # As batches with padding and its mask, where the library has neither.
        for at in range(0, len(texts), 8):
            encoded = tokenizer(texts[at:at + 8], padding=True, truncation=True, max_length=512, return_tensors="pt")
            scores += torch.sigmoid(model(**encoded).logits).tolist()
    print(f"transformers: {len(texts)} texts scored in {time.time() - start:.2f} s, {torch.get_num_threads()} threads")
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
        subprocess.run([args.program, "toxic-bert", model, *files], check=True)
        with open(files[1]) as f:
            ours = torch.tensor(json.load(f))
        expected = torch.tensor(theirs(model, texts))
    worst = (ours - expected).abs().max().item()
    spread = expected.std(0).min().item()
    print(f"probabilities: max abs difference {worst:.1e} over {expected.numel()} values (limit {TOLERANCE:.0e}); "
          f"standard deviation over texts {spread:.2f} at least")
    return 0 if worst <= TOLERANCE else 1  # a NaN fails as well


if __name__ == "__main__":
    sys.exit(main())
