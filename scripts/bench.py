"""Runs the bench example and its peers in turn (A B A B ...) and prints medians and ratios; called by ./scripts/bench."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "target/release/examples/bench"
PEERS = ROOT / "scripts/peers"
MIDDLE = "6 6 384 4096"


@dataclass
class Work:
    """One line of the table: our command, the peer's, and the figure that both print."""

    key: str
    title: str
    ours: str
    figure: str = "tok_s"
    peer: str = ""


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is compared on a GPU, and the words that only the peers get."""

    model: str
    vocabulary: int
    batch: int
    length: int
    steps: int
    replies: int
    new_tokens: int
    torch_words: str = ""
    device_word: str = ""


LARGE = Sizes("12 12 768", 50257, 32, 512, 20, 64, 128, torch_words="bf16 compile", device_word="gpu")


def gpu_works(sizes: Sizes, pairs: Path | None, weights: str) -> list[Work]:
    """SFT, its memory, decoding and, with real pairs, DPO: both sides find the GPU by themselves."""
    shape = f"{sizes.model} {sizes.vocabulary} {sizes.batch} {sizes.length} {sizes.steps}"
    name = f"L{sizes.model.split()[0]} D{sizes.model.split()[2]}"
    micro = f"auto micro {sizes.batch}"
    sft = (f"sft {shape} {micro}", f"torch_gpt.py sft {shape} {sizes.torch_words}")
    decoded = f"{weights} {sizes.model} {sizes.vocabulary} {sizes.replies} {sizes.new_tokens}"
    found = [
        Work("gpu_sft_tok_s", f"SFT fastest, {name} V{sizes.vocabulary} B{sizes.batch} T{sizes.length}, on a GPU", sft[0], "tok_s", sft[1]),
        Work("gpu_peak_mb", "peak GPU memory of that step, MB", sft[0], "peak_mb", sft[1]),
        Work("gpu_gen_tok_s", f"greedy generation, batch {sizes.replies}, {sizes.new_tokens} new tokens, f32, on a GPU",
             f"generate {decoded}", "tok_s", f"generate.py {decoded} {sizes.device_word}"),
    ]
    if pairs:
        ours = f"pairs {pairs} {sizes.model} {sizes.batch} {sizes.length} {sizes.steps} {micro}"
        peer = f"trl_dpo.py {pairs} {sizes.model} {sizes.length} {sizes.batch} {sizes.steps}"
        half = f"bf16 {sizes.device_word}" if sizes.device_word else ""
        found.append(Work("gpu_dpo_pairs_s", f"DPO on HH pairs, {name} V4096, on a GPU", ours, "pairs_s", f"{peer} {half}".strip()))
    return found


def works(pairs: Path | None, weights: str) -> dict[str, list[Work]]:
    steps = 6
    train = [
        Work("sft_f32_tok_s", "SFT f32, L6 D384 V4096 B8 T256", f"sft {MIDDLE} 8 256 {steps}", "tok_s",
             f"torch_gpt.py sft {MIDDLE} 8 256 {steps}"),
        Work("sft_small_f32_tok_s", "SFT f32, L4 D256 V2048 B16 T256", f"sft 4 4 256 2048 16 256 {steps}", "tok_s",
             f"torch_gpt.py sft 4 4 256 2048 16 256 {steps}"),
        Work("sft_large_f32_tok_s", "SFT f32, L12 D768 V50257 B2 T256", "sft 12 12 768 50257 2 256 4", "tok_s",
             "torch_gpt.py sft 12 12 768 50257 2 256 4"),
        Work("sft_best_tok_s", "SFT fastest, L6 D384 V4096 B8 T256", f"sft {MIDDLE} 8 256 {steps} auto", "tok_s",
             f"torch_gpt.py sft {MIDDLE} 8 256 {steps} bf16 compile"),
        Work("peak_mb", "peak memory of the SFT step, MB", f"sft {MIDDLE} 8 256 {steps}", "peak_mb",
             f"torch_gpt.py sft {MIDDLE} 8 256 {steps}"),
    ]
    dpo = [
        Work("dpo_plain_tok_s", "DPO f32, nothing shared or cached", f"dpo {MIDDLE} 8 256 {steps}", "tok_s",
             f"torch_gpt.py dpo {MIDDLE} 8 256 {steps}"),
    ]
    if pairs:
        dpo += [
            Work("dpo_pairs_s", "DPO on HH pairs, everything on", f"pairs {pairs} 6 6 384 8 512 20 auto", "pairs_s",
                 f"trl_dpo.py {pairs} 6 6 384 512 8 20"),
            Work("dpo_pairs_precomputed_s", "the same, peer precomputes", f"pairs {pairs} 6 6 384 8 512 20 auto",
                 "pairs_s", f"trl_dpo.py {pairs} 6 6 384 512 8 20 precompute"),
        ]
    generate = [
        Work("gen_tok_s", "greedy generation, batch 8, 128 new tokens", f"generate {weights} {MIDDLE} 8 128", "tok_s",
             f"generate.py {weights} {MIDDLE} 8 128"),
    ]
    gpu = gpu_works(LARGE, pairs, weights)
    return {"train": train, "dpo": dpo, "generate": generate, "gpu": gpu}


def run(command: list[str], **environment: str) -> dict:
    """The last line of JSON that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def ours(arguments: str, **environment: str) -> dict:
    return run([str(BENCH), *arguments.split()], RAYON_NUM_THREADS="1", **environment)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def measure(work: Work, peer: str | None, rounds: int) -> dict:
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ours(work.ours)[work.figure])
        if peer:
            script, *rest = work.peer.split()
            theirs.append(run([peer, str(PEERS / script), *rest])[work.figure])
    result = {"ours": median(mine), "rounds": rounds}
    if theirs:
        result |= {"peer": median(theirs), "ratio": median(mine) / median(theirs)}
    return result


def scaling() -> list[dict]:
    """Tokens per second by length and number of threads, 2,048 tokens a step."""
    rows = []
    for length in (128, 256, 512, 1024):
        row = {"length": length}
        for threads in ("1", "2"):
            for precision in ("f32", "auto"):
                result = ours(f"sft {MIDDLE} {2048 // length} {length} 4 {precision}", HHALIGN_THREADS=threads)
                row[f"{result['precision']}_{threads}_threads"] = result["tok_s"]
        rows.append(row)
    return rows


def kernel() -> dict:
    """Seconds to the first value and of a later cell, by the kernel test."""
    python = ROOT / ".venv/bin/python"
    done = subprocess.run([python, ROOT / "scripts/test_kernel.py"], capture_output=True, text=True, check=False)
    return {"ours": done.returncode == 0, "text": done.stdout.strip().splitlines()[-6:]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description="Times our work, and a peer's in turn with it.")
    parser.add_argument("what", nargs="*", help="train, dpo, generate, kernel (the default), scaling, ceiling, gpu")
    parser.add_argument("--peer", help="a Python with torch, transformers and trl")
    parser.add_argument("--pairs", type=Path, help="a file of real HH pairs, for DPO's pairs per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    known = ["train", "dpo", "generate", "kernel", "scaling", "ceiling", "gpu"]
    if wrong := [w for w in args.what if w not in known]:
        parser.error(f"no such work: {wrong[0]} (choose from {', '.join(known)})")
    if args.pairs and not args.pairs.is_file():
        parser.error(f"--pairs: no such file: {args.pairs}")
    say = (lambda *_: None) if args.json else (lambda text: print(text, flush=True))
    say(f"load before: {os.getloadavg()[0]:.2f}; {os.cpu_count()} cores; rounds: {args.rounds}, medians shown")
    results: dict = {"load_before": os.getloadavg()[0], "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="hhalign-bench-") as folder:
        table = works(args.pairs and args.pairs.resolve(), f"{folder}/model.safetensors")
        for what in args.what or known[:4]:
            for work in table.get(what, []):
                result = results[work.key] = measure(work, args.peer, args.rounds)
                versus = f"   peer {result['peer']:>9.1f}   ratio {result['ratio']:.2f}" if "peer" in result else ""
                say(f"{work.key:<24} {work.title:<44} {result['ours']:>9.1f}{versus}")
    if "ceiling" in args.what:
        results["ceiling"] = ours("ceiling")
        say(json.dumps(results["ceiling"]))
    if "scaling" in args.what:
        results["scaling"] = scaling()
        for row in results["scaling"]:
            say("   ".join(f"{k} {v:.0f}" for k, v in row.items()))
    if not args.what or "kernel" in args.what:
        results["kernel"] = kernel()
        say("\n".join(results["kernel"]["text"]))
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
