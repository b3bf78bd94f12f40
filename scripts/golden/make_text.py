"""Computes self-BLEU and distinct-n of some short texts by NLTK, for the tests.

    python scripts/golden/make_text.py hhalign-lib/tests/golden

Made with Python 3.11, nltk==3.10.4. Words are split by str.split() and in lower case. self_bleu_N:
sentence_bleu of each text against all others, uniform weights over 1..N-grams,
SmoothingFunction().method1. distinct_N: distinct n-grams over all n-grams of all texts.
"""

import json
import os
import sys

from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.util import ngrams

SETS = {
    "replies": [
        "I'm sorry, but I can't help with that.",
        "I'm sorry, but I can't help you with that request.",
        "I'm sorry, I can't help with that.",
        "I'm sorry, but I can't help with that.",
        "Sure! First, list what is running, and then stop the process that you do not need.",
        "Sure, here is how: first list what is running, then stop the one that you do not need.",
        "the the the the the the the the",
        "the cat the cat the cat sat",
        "The CAT sat on the mat, and the cat sat on the mat again.",
        "",
        "Yes.",
        "Yes. No.",
        "Yes. No. Maybe so.",
        "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
        "\t spaces   and\nlines\u2003count as one \u00a0 gap ",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "b c d e f g h i j k l m n o p q r s t u v w x y z a",
    ],
    "equal": ["the same five words here"] * 3,
    "two": ["one two three four five six", "one two three four seven"],
    "apart": ["alpha beta gamma delta", "epsilon zeta eta theta iota", "kappa"],
}


def bleu(tokens, i, n):
    others = tokens[:i] + tokens[i + 1 :]
    return float(
        sentence_bleu(
            others, tokens[i], weights=(1 / n,) * n, smoothing_function=SmoothingFunction().method1
        )
    )


def distinct(tokens, n):
    grams = [gram for text in tokens for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams)


def main(target):
    out = []
    for name, texts in SETS.items():
        tokens = [text.lower().split() for text in texts]
        entry = {"name": name, "texts": texts}
        for n in (2, 4):
            entry[f"self_bleu_{n}"] = [bleu(tokens, i, n) for i in range(len(texts))]
        for n in (1, 2):
            entry[f"distinct_{n}"] = distinct(tokens, n)
        out.append(entry)
    with open(os.path.join(target, "text_quality.json"), "w") as f:
        json.dump(out, f, indent=1, allow_nan=False)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
