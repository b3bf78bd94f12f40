"""Times TRL's DPOTrainer on real HH pairs with a random GPT-2; prints one line of JSON.

usage: trl_dpo.py HH.jsonl.gz LAYERS HEADS WIDTH MAX_LENGTH BATCH STEPS [precompute] [bf16] [gpu]
"""

import dataclasses
import gzip
import json
import os
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

path, (n_layer, n_head, width, max_length, batch, steps) = sys.argv[1], map(int, sys.argv[2:8])
precompute, half, gpu = "precompute" in sys.argv[8:], "bf16" in sys.argv[8:], "gpu" in sys.argv[8:]
# A T4 has no bf16, so both sides use f16.
bf16 = half and not (gpu and torch.cuda.get_device_capability()[0] < 8)
ASSISTANT, END = "\n\nAssistant:", "<|endoftext|>"


def pair(row):
    at = row["chosen"].rfind(ASSISTANT) + len(ASSISTANT)
    return {
        "prompt": row["chosen"][:at],
        "chosen": row["chosen"][at:],
        "rejected": row["rejected"][at:],
    }


with gzip.open(path, "rt") as file:
    pairs = [pair(json.loads(line)) for line in file]
pairs = [p for p in pairs if p["chosen"].strip() and p["rejected"].strip()][: batch * steps]
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=4096, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
)
bpe.train_from_iterator((p["prompt"] + p["chosen"] for p in pairs), trainer)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=bpe, eos_token=END, pad_token=END, bos_token=END
)
torch.manual_seed(0)


def model():
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=1024,
            n_embd=width,
            n_layer=n_layer,
            n_head=n_head,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    )


policy, reference = model(), model()
reference.load_state_dict(policy.state_dict())
wanted = {
    "output_dir": tempfile.mkdtemp(),
    "per_device_train_batch_size": batch,
    "max_length": max_length,
    "max_steps": steps,
    "logging_steps": 10**9,
    "save_strategy": "no",
    "report_to": [],
    "bf16": bf16,
    "fp16": half and not bf16,
    "use_cpu": not gpu,
    "beta": 0.1,
    "learning_rate": 1e-4,
    "gradient_checkpointing": False,
    "precompute_ref_log_probs": precompute,
    "disable_tqdm": True,
}
# Versions of TRL and transformers have different arguments; those that affect the time must exist.
known = {field.name for field in dataclasses.fields(DPOConfig)}
must = {
    "per_device_train_batch_size",
    "max_length",
    "max_steps",
    "beta",
    "bf16",
    "gradient_checkpointing",
}
assert must <= known, f"this TRL does not know {sorted(must - known)}"
config = DPOConfig(**{name: value for name, value in wanted.items() if name in known})
dpo = DPOTrainer(
    model=policy,
    ref_model=reference,
    args=config,
    train_dataset=Dataset.from_list(pairs),
    processing_class=tokenizer,
)
start = time.perf_counter()
dpo.train()
seconds = time.perf_counter() - start
print(
    json.dumps(
        {
            "torch": torch.__version__,
            "trl": trl.__version__,
            "transformers": transformers.__version__,
            "pairs_s": len(pairs) / seconds,
            "seconds": seconds,
            "pairs": len(pairs),
            # Newer versions drop a pair whose prompt alone fills max_length.
            "kept": len(dpo.train_dataset),
            "left_out": sorted(wanted.keys() - known),
        }
    )
)
