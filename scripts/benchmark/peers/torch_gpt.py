"""Times an optimiser step of SFT or DPO in PyTorch on a GPT; prints one line of JSON.

usage: torch_gpt.py sft|dpo LAYERS HEADS WIDTH VOCABULARY BATCH LENGTH STEPS [compile] [bf16] [cpu]

The step runs on a GPU where PyTorch finds one, unless `cpu` is given; the peak memory is then the
GPU's.
"""

import json
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

mode = sys.argv[1]
n_layer, n_head, width, vocabulary, batch, length, steps = map(int, sys.argv[2:9])
compiled, bf16 = "compile" in sys.argv[9:], "bf16" in sys.argv[9:]
device = "cuda" if torch.cuda.is_available() and "cpu" not in sys.argv[9:] else "cpu"
# A T4 has no bf16, so both sides use f16. Only time counts here, so gradients are not scaled.
has_bf16 = device == "cpu" or torch.cuda.get_device_capability()[0] >= 8
half = torch.bfloat16 if has_bf16 else torch.float16
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.attn_c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (
            p.view(b, t, n_head, c // n_head).transpose(1, 2)
            for p in self.c_attn(self.ln_1(x)).split(c, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_c_proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp_c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(max(length, 1024), width)
        self.h, self.ln_f = nn.ModuleList(Block() for _ in range(n_layer)), nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.02)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


policy = Gpt().to(device)
optimizer = torch.optim.AdamW(
    policy.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=device == "cuda"
)
reference = None
if mode == "dpo":
    reference = Gpt().to(device)
    reference.load_state_dict(policy.state_dict())
    reference.requires_grad_(False)
if compiled:
    policy, reference = torch.compile(policy), reference and torch.compile(reference)


def logps(model, ids):
    logits = model(ids[:, :-1])
    tokens = torch.gather(F.log_softmax(logits, -1), 2, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return tokens[:, length // 2 :].sum(-1)


def loss_of(ids):
    if mode == "sft":
        return F.cross_entropy(policy(ids[:, :-1]).reshape(-1, vocabulary), ids[:, 1:].reshape(-1))
    with torch.no_grad():
        before = logps(reference, ids)
    chosen, rejected = (logps(policy, ids) - before).chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def step(ids):
    with torch.autocast(device, half, enabled=bf16):
        loss = loss_of(ids)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    return loss.item()


seconds = []
for _ in range(steps + 2):
    ids = torch.randint(0, vocabulary, (batch, length + 1)).to(device)
    start = time.perf_counter()
    loss = step(ids)  # its .item() waits for the GPU
    seconds.append(time.perf_counter() - start)
median = sorted(seconds[2:])[steps // 2]
if device == "cuda":
    name, peak_mb = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
else:
    name, peak_mb = device, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(
    json.dumps(
        {
            "torch": torch.__version__,
            "compiled": compiled,
            "tok_s": batch * length / median,
            "step_ms": median * 1e3,
            "loss": loss,
            "peak_mb": peak_mb,
            "device": name,
            "threads": torch.get_num_threads(),
        }
    )
)
