"""Makes the fixtures of GPT-2, its trainings and the losses by PyTorch and transformers.

    python scripts/golden/make_gpt2.py hhalign-lib/tests/golden

Made with Python 3.11, torch==2.8.0, transformers==4.56.2, safetensors==0.8.0, numpy==2.4.6 (CPU).
Everything is computed in float64 from weights rounded to float32, and stored as f32 (scalars as f64
of shape [1]); ids are i64. Weights and ids come from numpy's PCG64 with fixed seeds.

<model>/model.safetensors, config.json
    gpt2_l2, gpt2_l2_ref (the DPO reference) and gpt2_l12 in the Hugging Face layout
<model>_expected.safetensors
    input_ids (B,T), completion_mask (B,T), logits (B,T,V), token_logps (B,T-1), sft_loss [1],
    grad_norm [1], grad.<parameter>
dpo_expected.safetensors
    {chosen,rejected}_{ids,mask,policy_logps,ref_logps}, losses (B,), loss [1], grad_norm [1],
    grad.<parameter>
reward_expected.safetensors
    a scalar head on gpt2_l2: head (1,C), {chosen,rejected}_rewards (B,), loss [1] with its
    language-model term, grad_norm [1], grad.<parameter>, grad.score.weight
reward_run.json, .safetensors
    six AdamW steps of a reward model on gpt2_l2, whose head is zero at first
trajectories.json, .safetensors
    ten AdamW steps of SFT and of DPO on gpt2_l2; final weights <run>.<parameter>
losses.json
    every preference loss on fixed points, with its gradients

No attention mask is passed: rows are padded on the right with id 0, and with a causal mask the
padding never reaches a counted token. mask[b,t]=1: token t counts, and its log-probability is read
from the logits at t-1; mask[:,0] is 0.
"""

import copy
import json
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

torch.set_num_threads(1)
BETA = 0.1
FINAL = ["transformer.wpe.weight", "transformer.h.0.attn.c_attn.weight", "transformer.ln_f.bias"]


def make_model(seed, n_layer, n_head, n_embd, vocab, n_positions):
    """Returns a tied GPT-2 with random parameters, biases and LayerNorm included."""
    config = GPT2Config(
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        vocab_size=vocab,
        n_positions=n_positions,
        activation_function="gelu_new",
        layer_norm_epsilon=1e-5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    return randomise(
        GPT2LMHeadModel(config),
        seed,
        0.2,
        lambda name, p: float(".ln_" in name and ".weight" in name),
    )


def randomise(model, seed, std, centre):
    """Sets every parameter to centre(name, parameter) plus normal noise, rounded to float32."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(centre(name, p) + torch.from_numpy(rng.normal(0.0, std, tuple(p.shape))))
    return model.eval()


def save_model(model, folder):
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "generation_config.json"))
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)


def fresh(model):
    """Returns a float64 copy of the float32 weights."""
    return copy.deepcopy(model).double()


def make_batch(seed, vocab, length, spans, prompts=None):
    """Returns ids and mask; spans: (prompt length, end) of each row; prompts: its first ids."""
    rng = np.random.default_rng(seed)
    ids, mask = np.zeros((len(spans), length), np.int64), np.zeros((len(spans), length), np.float64)
    for row, (start, end) in enumerate(spans):
        ids[row, :end] = rng.integers(1, vocab, end)
        if prompts is not None:
            ids[row, :start] = prompts[row, :start]
        mask[row, start:end] = 1.0
    return torch.from_numpy(ids), torch.from_numpy(mask)


def token_logps(logits, ids):
    """Returns the log-probabilities of ids[:, 1:], (B, T-1)."""
    return logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def sft_loss(model, batch):
    ids, mask = batch
    return -(token_logps(model(ids).logits, ids) * mask[:, 1:]).sum() / mask[:, 1:].sum()


def seq_logps(model, batch):
    ids, mask = batch
    return (token_logps(model(ids).logits, ids) * mask[:, 1:]).sum(-1)


def dpo_losses(model, ref_logps, chosen, rejected):
    margin = (seq_logps(model, chosen) - ref_logps[0]) - (seq_logps(model, rejected) - ref_logps[1])
    return -F.logsigmoid(BETA * margin)


def reward_model(policy, head):
    """The policy's transformer with transformers' head on the last token that is not padding."""
    config = copy.deepcopy(policy.config)
    config.num_labels, config.pad_token_id = 1, 0
    model = GPT2ForSequenceClassification(config).eval().double()
    model.transformer = fresh(policy).transformer
    with torch.no_grad():
        model.score.weight.copy_(head)
    return model


def rewards(model, batch):
    return model(batch[0]).logits.squeeze(-1)


def reward_loss(model, chosen, rejected, lm_weight=0.3):
    """The Bradley-Terry loss plus the weighted language-model loss on the chosen replies."""
    pairs = -F.logsigmoid(rewards(model, chosen) - rewards(model, rejected)).mean()
    ids, mask = chosen
    logits = model.transformer(ids).last_hidden_state @ model.transformer.wte.weight.T
    return pairs + lm_weight * -(token_logps(logits, ids) * mask[:, 1:]).sum() / mask[:, 1:].sum()


def gradients(model):
    """Returns grad.<parameter> and the global L2 norm."""
    grads = {"grad." + n: p.grad for n, p in model.named_parameters()}
    return grads | {
        "grad_norm": torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads.values()]))
    }


def write_tensors(path, tensors):
    out = {}
    for name, t in tensors.items():
        t = t.detach()
        out[name] = t.reshape(1) if t.dim() == 0 else t.float() if t.is_floating_point() else t
        out[name] = out[name].contiguous().clone()
    save_file(out, path)
    os.chmod(path, 0o644)


def schedule(step, peak=1e-3, warmup=3, total=10):
    """Linear warm-up, then cosine to 10% of the peak; steps counted from 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    low = 0.1 * peak
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def trajectory(model, loss_fn, lrs, final=FINAL):
    """Trains with AdamW: decay on tensors of at least two dimensions, gradients clipped at 1."""
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lrs[0], betas=(0.9, 0.95), eps=1e-8)
    log = {"lrs": lrs, "losses": [], "grad_norms": []}
    for lr in lrs:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss = loss_fn(model)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)  # the norm before clipping
        log["grad_norms"].append(norm.item())
        log["losses"].append(loss.item())
        optimizer.step()
    with torch.no_grad():
        log["final_loss"] = loss_fn(model).item()
    named = dict(model.named_parameters())
    return log, {name: named[name] for name in final}


# fmt: off
# (pi_w, pi_l, ref_w, ref_l, Lw, Ll); exact in float32, so a float32 reader has the same inputs.
POINTS = [
    (-40.5, -52.25, -40.5, -52.25, 20, 25),            # policy equals reference
    (-30.0, -45.0, -33.5, -48.5, 18, 30),              # a = b = 3.5
    (-20.125, -35.5, -24.25, -33.0, 12, 17),
    (-61.75, -48.5, -57.5, -55.25, 40, 31),
    (-2.5, -7.0, -3.125, -6.25, 1, 3),                 # very short replies
    (-0.125, -90.5, -1.0, -80.0, 64, 7),               # chosen nearly certain
    (-100.0, -220.0, -130.0, -175.0, 80, 120),         # D = 75
    (-180.5, -95.25, -120.5, -140.25, 90, 60),         # D = -105
    (-55.0, -54.875, -55.125, -54.625, 33, 33),        # D = 0.375
    (-400.0, -430.0, -100.0, -110.0, 150, 150),        # both fell far: a = -300, b = -320
    (-500.0, -2301.0, -1500.0, -1301.0, 256, 300),     # D = 2000, both sides
    (-2301.5, -501.0, -1301.0, -1500.5, 300, 256),     # D = -2000, both sides
    (-100.0, -1902.0, -2099.0, -1901.0, 200, 250),     # D = 2000, chosen only
    (-2048.0, -300.0, -50.5, -302.5, 220, 180),        # D = -2000, chosen only
]
# fmt: on
EXP_LIMIT = 80.0  # points where a definition needs exp(x) with x > 80 are left out (null)
B2 = [{"beta": 0.1}, {"beta": 0.5}]
KTO = {"beta": 0.1, "kl": 0.0, "desirable": 1.0, "undesirable": 1.0}
SMOOTH = [{"beta": 0.1, "eps": 0.1}, {"beta": 0.5, "eps": 0.3}]
AOT = [{"beta": 0.1, "eps": 0.0}, {"beta": 0.1, "eps": 0.1}]
LEGEND = (
    "a = pi_w - ref_w; b = pi_l - ref_l; D = a - b; ls = logsigmoid; s = sigmoid; sort: "
    "ascending over the\n"
    "batch; log1mexp(x) = ln(1 - e^x); cdpo(x, eps) = -(1-eps) ls(x) - eps ls(-x). Each "
    "definition is the very expression\n"
    "that was evaluated, per pair, in float64; 1 - s(x) is written s(-x), and ln 2 in the js "
    "score cancels. discopop is\n"
    "-ls(x)(1-m) + e^(-x) m, x = beta D, m = s(x/tau), with e^(-x) m formed in the exponent. "
    "d_pi_w, d_pi_l: derivative\n"
    "of each pair's own loss, but for aot and aot_unpaired of the mean over the batch, their "
    "loss listed by sorted\n"
    "position. batch: mean of loss; batch_token_mean: the same with the NLL term as "
    "-sum(pi_w)/sum(Lw). null: left out,\n"
    "the definition needs e^x with x > 80."
)
# fmt: off
LOSSES = [  # name, parameter sets, definition
    ("sigmoid", B2, "-ls(beta*D)"),
    ("cdpo", SMOOTH, "-(1-eps)*ls(beta*D) - eps*ls(-beta*D)"),
    ("robust", SMOOTH, "(-(1-eps)*ls(beta*D) + eps*ls(-beta*D)) / (1-2*eps)"),
    ("hinge", B2, "relu(1 - beta*D)"),
    ("ipo", B2, "(D - 1/(2*beta))**2"),
    ("ipo_per_token", B2, "(a/Lw - b/Ll - 1/(2*beta))**2"),
    ("exo_pair", [q | {"eps": 1e-3} for q in B2],
     "s(beta*D)*(ls(beta*D) - log(1-eps)) + s(-beta*D)*(ls(-beta*D) - log(eps))"),
    ("nca_pair", B2, "-ls(beta*a) - ls(-beta*a)/2 - ls(-beta*b)/2"),
    ("bco_pair", B2, "-ls(beta*a) - ls(-beta*b)"),
    ("sppo_hard", B2, "(a - 1/(2*beta))**2 + (b + 1/(2*beta))**2"),
    ("aot", AOT, "cdpo(beta*(sort(pi_w - pi_l) - sort(ref_w - ref_l)), eps)"),
    ("aot_unpaired", AOT, "cdpo(beta*(sort(a) - sort(b)), eps)"),
    ("apo_zero", B2, "s(-beta*a) + s(beta*b)"),
    ("apo_down", B2, "s(beta*a) + s(-beta*D)"),
    ("discopop", [q | {"tau": 0.05} for q in B2],
     "-ls(beta*D)*s(-beta*D/tau) + exp(ls(beta*D/tau) - beta*D)"),
    ("sigmoid_norm", [{"beta": 0.1}, {"beta": 2.0}], "-ls(beta*(a/Lw - b/Ll))"),
    ("forward_kl", B2, "-ls(beta*((1 - exp(-a)) - (1 - exp(-b))))"),
    ("js_divergence", B2, "-ls(beta*(ls(a) - ls(b)))"),
    ("alpha_divergence", [{"beta": 0.1, "alpha": x} for x in (0.5, 2.0, 0.0)],
     "-ls(beta*((exp((alpha-1)*a) - 1)/(alpha-1) - (exp((alpha-1)*b) - 1)/(alpha-1)))"),
    ("simpo", [{"beta": 2.0, "gamma": 1.0}, {"beta": 10.0, "gamma": 3.0}],
     "-ls(beta*(pi_w/Lw - pi_l/Ll) - gamma)"),
    ("cpo", [{"beta": 0.1, "alpha": 1.0}, {"beta": 0.1, "alpha": 0.0}],
     "-ls(beta*(pi_w - pi_l)) + alpha*(-pi_w/Lw)"),
    ("orpo", [{"lam": 0.1}, {"lam": 1.0}],
     "-pi_w/Lw - lam*ls((pi_w/Lw - pi_l/Ll) - (log1mexp(pi_w/Lw) - log1mexp(pi_l/Ll)))"),
    # The mean of the two halves; kl is a constant.
    ("kto", [KTO, KTO | {"kl": 1.5, "undesirable": 1.33}],
     "(desirable*s(-beta*(a - kl)) + undesirable*s(-beta*(kl - b)))/2"),
]
# fmt: on


def log1mexp(x):
    return torch.where(x < -math.log(2), torch.log1p(-torch.exp(x)), torch.log(-torch.expm1(x)))


def make_losses():
    functions = {
        "ls": F.logsigmoid,
        "s": torch.sigmoid,
        "relu": torch.relu,
        "exp": torch.exp,
        "log": math.log,
        "log1mexp": log1mexp,
        "sort": lambda x: x.sort().values,
        "cdpo": lambda x, eps: -(1 - eps) * F.logsigmoid(x) - eps * F.logsigmoid(-x),
    }
    keys, out = ("pi_w", "pi_l", "ref_w", "ref_l", "Lw", "Ll"), []
    for name, sets, definition in LOSSES:
        for q in sets:
            p = {
                k: column.clone()
                for k, column in zip(keys, torch.tensor(POINTS, dtype=torch.float64).T)
            }
            pi_w, pi_l = p["pi_w"].requires_grad_(), p["pi_l"].requires_grad_()
            p |= {"a": pi_w - p["ref_w"], "b": pi_l - p["ref_l"]}
            p["D"] = p["a"] - p["b"]
            for column in (p["a"], p["b"], pi_w - pi_l, p["ref_w"] - p["ref_l"]):
                assert len(set(column.tolist())) == len(POINTS), (
                    "a tie would leave the aot gradients undefined"
                )
            loss = eval(definition, functions | p | q)  # our own table above
            (loss.mean() if name.startswith("aot") else loss.sum()).backward()
            rate = {"forward_kl": -1.0, "alpha_divergence": q.get("alpha", 1.0) - 1}.get(name, 0.0)
            keep = (torch.maximum(rate * p["a"], rate * p["b"]) <= EXP_LIMIT).tolist()
            entry = {"name": name, "params": q, "definition": definition}
            for key, column in (("loss", loss), ("d_pi_w", pi_w.grad), ("d_pi_l", pi_l.grad)):
                entry[key] = [x if ok else None for x, ok in zip(column.tolist(), keep)]
                assert all(x is None or math.isfinite(x) for x in entry[key]), name
            if all(keep):
                entry["batch"] = loss.mean().item()
            if name in ("cpo", "orpo"):
                weight = q.get("alpha", 1.0)
                rest = (loss + weight * pi_w / p["Lw"]).mean()
                entry["batch_token_mean"] = (rest - weight * pi_w.sum() / p["Lw"].sum()).item()
            out.append(entry)
    return {"legend": LEGEND, "points": [dict(zip(keys, point)) for point in POINTS], "losses": out}


def main(target):
    os.makedirs(target, exist_ok=True)

    def at(name):
        return os.path.join(target, name)

    policy = make_model(1, 2, 4, 32, 97, 40)
    sft_batch = make_batch(11, 97, 17, [(4, 17), (7, 12), (2, 15)])
    deep_batch = make_batch(12, 61, 17, [(3, 11), (6, 17), (10, 14)])
    for name, model, batch in (
        ("gpt2_l2", policy, sft_batch),
        ("gpt2_l12", make_model(2, 12, 4, 24, 61, 32), deep_batch),
    ):
        save_model(model, at(name))
        model = fresh(model)
        loss = sft_loss(model, batch)
        loss.backward()
        logits = model(batch[0]).logits
        write_tensors(
            at(name + "_expected.safetensors"),
            {
                "input_ids": batch[0],
                "completion_mask": batch[1],
                "logits": logits,
                "sft_loss": loss,
                "token_logps": token_logps(logits, batch[0]),
            }
            | gradients(model),
        )

    reference = randomise(copy.deepcopy(policy), 3, 0.02, lambda name, p: p.double())
    save_model(reference, at("gpt2_l2_ref"))
    chosen = make_batch(13, 97, 17, [(5, 17), (3, 9), (6, 14)])
    rejected = make_batch(14, 97, 14, [(5, 10), (3, 14), (6, 13)], prompts=chosen[0])
    with torch.no_grad():
        ref_logps = [seq_logps(fresh(reference), batch) for batch in (chosen, rejected)]
    model = fresh(policy)
    losses = dpo_losses(model, ref_logps, chosen, rejected)
    losses.mean().backward()
    tensors = {"losses": losses, "loss": losses.mean()} | gradients(model)
    for i, (name, batch) in enumerate((("chosen", chosen), ("rejected", rejected))):
        tensors |= {
            name + "_ids": batch[0],
            name + "_mask": batch[1],
            name + "_policy_logps": seq_logps(model, batch),
            name + "_ref_logps": ref_logps[i],
        }
    write_tensors(at("dpo_expected.safetensors"), tensors)

    head = torch.from_numpy(np.random.default_rng(15).normal(0.0, 0.3, (1, 32))).float()
    model = reward_model(policy, head)
    loss = reward_loss(model, chosen, rejected)
    loss.backward()
    write_tensors(
        at("reward_expected.safetensors"),
        {
            "head": head,
            "chosen_rewards": rewards(model, chosen),
            "rejected_rewards": rewards(model, rejected),
            "loss": loss,
        }
        | gradients(model),
    )
    log, weights = trajectory(
        reward_model(policy, torch.zeros(1, 32)),
        lambda m: reward_loss(m, chosen, rejected),
        [1e-3] * 6,
        FINAL + ["score.weight"],
    )
    write_tensors(at("reward_run.safetensors"), weights)
    with open(at("reward_run.json"), "w") as f:
        json.dump(log, f, indent=1, allow_nan=False)
        f.write("\n")

    runs = {
        "sft": (lambda m: sft_loss(m, sft_batch), [schedule(i) for i in range(10)]),
        "dpo": (lambda m: dpo_losses(m, ref_logps, chosen, rejected).mean(), [1e-3] * 10),
    }
    logs, finals = {}, {}
    for run, (loss_fn, lrs) in runs.items():
        logs[run], weights = trajectory(fresh(policy), loss_fn, lrs)
        finals |= {f"{run}.{name}": w for name, w in weights.items()}
    logs["settings"] = {
        "model": "gpt2_l2",
        "beta": BETA,
        "adam_betas": [0.9, 0.95],
        "adam_eps": 1e-8,
        "weight_decay": 0.1,
        "decayed": "dim >= 2",
        "clip_norm": 1.0,
    }
    write_tensors(at("trajectories.safetensors"), finals)
    for name, value in (("trajectories.json", logs), ("losses.json", make_losses())):
        with open(at(name), "w") as f:
            json.dump(value, f, indent=1, allow_nan=False)
            f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
