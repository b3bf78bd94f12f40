"""Makes a small toxic-bert with random weights and its scores by transformers, for the tests.

    python scripts/golden/make_classifier.py hhalign-lib/tests/golden

Made with Python 3.11, torch==2.8.0, transformers==4.56.2 (CPU). Writes toxic_bert/: config.json,
vocab.txt, the same weights as model.safetensors and as pytorch_model.bin, and expected.json. That
file has for each text the ids of BertTokenizer(vocab.txt, do_lower_case=True), cut to the model's
positions, and the six probabilities of BertForSequenceClassification in float64, computed one text
at a time and checked against a padded batch with its mask.
"""

import json
import os
import sys

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from awkward_texts import TEXTS

torch.set_num_threads(1)
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary(size):
    """Returns special pieces, letters and digits (also inside words), some words, unused pieces."""
    pieces = dict.fromkeys(SPECIAL)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces |= dict.fromkeys(letters) | dict.fromkeys("##" + c for c in letters)
    words = (
        "the you ##ing ##able un ##ly no don will help idiot hope best times ##ss worst fool "
        "strasse creme cafe istanbul human ##iev σισυφος русскии елка 日 本 中 ##한 ﬁ fine "
        "½ ı ##ı i̇ oeuvre"
    ).split()
    pieces |= dict.fromkeys(words) | dict.fromkeys(".,;:!?'\"()-[]/#@…“”’—«»$<|>=_")
    pieces |= {f"[unused{i}]": None for i in range(size - len(pieces))}
    assert len(pieces) == size
    return list(pieces)


def make(folder, config, seed, std):
    """Saves a model with random weights, LayerNorms and biases included, and its vocabulary."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(float("LayerNorm.weight" in name), std)
    model.save_pretrained(folder)
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as f:
        f.writelines(piece + "\n" for piece in vocabulary(config.vocab_size))
    return model


def expected(folder, model, dtype):
    tokenizer = BertTokenizer(os.path.join(folder, "vocab.txt"), do_lower_case=True)
    options = {
        "truncation": True,
        "max_length": model.config.max_position_embeddings,
        "return_tensors": "pt",
    }
    model = model.to(dtype)
    out = []
    with torch.no_grad():
        for text in TEXTS:
            encoded = tokenizer(text, **options)
            scores = torch.sigmoid(model(**encoded).logits)[0]
            out.append(
                {"text": text, "ids": encoded["input_ids"][0].tolist(), "scores": scores.tolist()}
            )
        padded = torch.sigmoid(model(**tokenizer(TEXTS, padding=True, **options)).logits)
    for case, scores in zip(out, padded.tolist()):
        assert max(abs(a - b) for a, b in zip(case["scores"], scores)) < 1e-6, (
            "padding changed a score"
        )
    return out


def config(**sizes):
    return BertConfig(
        num_labels=6,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        problem_type="multi_label_classification",
        **sizes,
    )


def main(target):
    folder = os.path.join(target, "toxic_bert")
    os.makedirs(folder, exist_ok=True)
    small = config(
        vocab_size=260,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=64,
    )
    model = make(folder, small, 5, 0.3)
    torch.save(model.state_dict(), os.path.join(folder, "pytorch_model.bin"))
    with open(os.path.join(folder, "expected.json"), "w") as f:
        json.dump(expected(folder, model, torch.float64), f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
