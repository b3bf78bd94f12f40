"""Computes log-probabilities of replies under a Llama in a GGUF file, by transformers.

    python scripts/golden/make_language_model.py hhalign-lib/tests/golden [--real FILE]

Without FILE it makes a small model with random weights: small.gguf (three layers, 32 wide, two
groups of keys; Q4_1, Q8_0, F16 and F32) with small_tokenizer.json and small_lm.json. FILE is
SmolLM2-135M-Instruct.Q4_1.gguf, and the result smollm2.json.

Each case has prompt, reply, the ids of both and ln p of each reply token. The ids are llama.cpp's,
without matching special tokens. The gguf package dequantises the weights, and LlamaForCausalLM
computes in float64, one case at a time. An empty prompt is the beginning of text. Where a case
exceeds the context (64 in the small model), its prompt is cut at the front.

Made with Python 3.11, torch==2.8.0, transformers==4.56.2, gguf==0.19.0, xllamacpp==2026.10.11549
(CPU).
"""

import argparse
import hashlib
import json
import os
import urllib.request

import gguf
import numpy as np
import torch
import xllamacpp
from gguf import GGMLQuantizationType as Q
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM

from awkward_texts import TEXTS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PROMPT = "\n\nHuman: How do I kill a process?\n\nAssistant:"
TALK = (
    "\n\nHuman: My neighbour's dog barks all night.\n\nAssistant: I'm sorry!"
    "\n\nHuman: What can I do about it?\n\nAssistant:"
)
CASES = [
    (PROMPT, " First, list what is running with `ps aux`, then use `kill 1234`."),
    (PROMPT, " I'm sorry, but I can't help with that."),
    (PROMPT, " sorry that, can't but with I'm help I."),
    (PROMPT, ""),
    (TALK, " You could talk to your neighbour first: they may not know about it."),
    (TALK, " You could talk to your neighbour first: they may not know about it. " * 6),
    ("", "The quick brown fox jumps over the lazy dog."),
    (PROMPT * 12, " Use the task manager."),
] + [(PROMPT, text) for text in TEXTS]


def write_small(path, json_path):
    """Writes a random Llama as a GGUF file; its random queries and keys need no reordering."""
    rng = np.random.default_rng(7)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([p + r for p, r in CASES], trainer)
    tokenizer.save(json_path, pretty=False)
    bpe = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)

    layers, c, wide, heads, groups, d = 3, 32, 64, 4, 2, 8
    out = gguf.GGUFWriter(path, "llama")
    out.add_block_count(layers)
    out.add_context_length(64)
    out.add_embedding_length(c)
    out.add_feed_forward_length(wide)
    out.add_head_count(heads)
    out.add_head_count_kv(groups)
    out.add_rope_dimension_count(d)
    out.add_rope_freq_base(100.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    out.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(False)

    def add(name, shape, kind, centre=0.0, std=0.3):
        values = (centre + rng.normal(0.0, std, shape)).astype(np.float32)
        out.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", (len(tokens), c), Q.Q8_0, std=0.6)
    add("output.weight", (len(tokens), c), Q.Q4_1)
    add("output_norm.weight", (c,), Q.F32, centre=1.0)
    for i, kind in enumerate((Q.Q4_1, Q.Q8_0, Q.F16)):
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{i}.{name}.weight", (c,), Q.F32, centre=1.0)
        for name, shape in (
            ("attn_q", (heads * d, c)),
            ("attn_k", (groups * d, c)),
            ("attn_v", (groups * d, c)),
            ("attn_output", (c, heads * d)),
            ("ffn_gate", (wide, c)),
            ("ffn_up", (wide, c)),
            ("ffn_down", (c, wide)),
        ):
            add(f"blk.{i}.{name}.weight", shape, kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def tokenise(path, texts):
    """Returns llama.cpp's ids of each text."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.warmup = False
    params.n_ctx = 64
    server = xllamacpp.Server(params)
    ids = {}
    for text in texts:
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        request = urllib.request.Request(
            server.listening_address + "/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            ids[text] = json.load(answer)["tokens"]
    return ids


def logps(model, prompt, reply, context):
    ids = (prompt + reply)[-context:]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    start = len(ids) - len(reply)
    return [logits[i - 1, ids[i]].item() for i in range(start, len(ids))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("--real", metavar="FILE")
    args = parser.parse_args()
    path = args.real or os.path.join(args.target, "small.gguf")
    if not args.real:
        write_small(path, os.path.join(args.target, "small_tokenizer.json"))
    folder, name = os.path.split(os.path.abspath(path))
    ids = tokenise(path, dict.fromkeys(text for case in CASES for text in case))
    model = (
        LlamaForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
        .double()
        .eval()
    )
    context = model.config.max_position_embeddings
    cases = []
    for prompt, reply in CASES:
        before, after = ids[prompt] or [model.config.bos_token_id], ids[reply][: context - 1]
        cases.append(
            {
                "prompt": prompt,
                "reply": reply,
                "prompt_ids": ids[prompt],
                "reply_ids": ids[reply],
                "logps": logps(model, before, after, context) if after else [],
            }
        )
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()[:12]
    target = os.path.join(args.target, "smollm2.json" if args.real else "small_lm.json")
    with open(target, "w") as f:
        json.dump({"sha256": digest, "cases": cases}, f, allow_nan=False)
        f.write("\n")


if __name__ == "__main__":
    main()
