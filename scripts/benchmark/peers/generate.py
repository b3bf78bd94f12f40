"""Times greedy generation in transformers, with weights from `hhalign bench`; prints JSON.

usage: generate.py WEIGHTS LAYERS HEADS WIDTH VOCABULARY BATCH NEW_TOKENS [gpu]
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

path, (n_layer, n_head, width, vocabulary, batch, new_tokens) = sys.argv[1], map(int, sys.argv[2:8])
device = "cuda" if "gpu" in sys.argv[8:] else "cpu"
config = GPT2Config(
    vocab_size=vocabulary,
    n_positions=1024,
    n_embd=width,
    n_layer=n_layer,
    n_head=n_head,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)
model = GPT2LMHeadModel(config).eval()
missing, unexpected = model.load_state_dict(load_file(path), strict=False)
assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
model.tie_weights()
model.to(device)
prompts = torch.tensor(
    [[(b * 977 + i * 131 + 7) % vocabulary for i in range(32)] for b in range(batch)], device=device
)
seconds = []
with torch.inference_mode():
    for _ in range(4):
        start = time.perf_counter()
        ids = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )
        seconds.append(time.perf_counter() - start)
median = sorted(seconds[1:])[1]
print(
    json.dumps(
        {
            "torch": torch.__version__,
            "tok_s": batch * new_tokens / median,
            "device": device,
            "ids": ids[:, 32:].tolist(),
        }
    )
)
