"""Times our work and a peer's in turn (A B A B ...); prints medians and ratios.

./scripts/bench calls it. Our work is `hhalign bench WORDS`, a peer's is a program in peers/.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

ROOT = Path(__file__).resolve().parents[2]
BENCH = [str(ROOT / "target/release/hhalign"), "bench"]
PEERS = ROOT / "scripts/benchmark/peers"
MIDDLE = "6 6 384 4096"


@dataclass
class Work:
    """A row of the table: the words of both commands, and the metric that both print."""

    key: str
    title: str
    metric: str
    ours: str
    peer: str


@dataclass(frozen=True)
class Sizes:
    """Sizes of the work on a GPU, and words for the peers alone."""

    model: str
    vocabulary: int
    batch: int
    length: int
    steps: int
    replies: int
    new_tokens: int
    torch_words: str = ""
    device_word: str = ""


LARGE = Sizes(
    "12 12 768", 50257, 32, 512, 20, 64, 128, torch_words="bf16 compile", device_word="gpu"
)


def gpu_works(sizes: Sizes, pairs: Path | None, weights: str) -> list[Work]:
    """SFT, its memory, decoding and, with real pairs, DPO; both sides find the GPU themselves."""
    shape = f"{sizes.model} {sizes.vocabulary} {sizes.batch} {sizes.length} {sizes.steps}"
    layers, _, width = sizes.model.split()
    name = f"L{layers} D{width}"
    micro = f"auto micro {sizes.batch}"
    sft = (f"sft {shape} {micro}", f"torch_gpt.py sft {shape} {sizes.torch_words}")
    sft_title = f"SFT fastest, {name} V{sizes.vocabulary} B{sizes.batch} T{sizes.length}, on a GPU"
    decoded = f"{weights} {sizes.model} {sizes.vocabulary} {sizes.replies} {sizes.new_tokens}"
    decoded_title = f"greedy generation, batch {sizes.replies}, {sizes.new_tokens} new tokens, f32"
    found = [
        Work("gpu_sft_tok_s", sft_title, "tok_s", *sft),
        Work("gpu_peak_mb", "peak GPU memory of that step, MB", "peak_mb", *sft),
        Work(
            "gpu_gen_tok_s",
            f"{decoded_title}, on a GPU",
            "tok_s",
            f"generate {decoded}",
            f"generate.py {decoded} {sizes.device_word}",
        ),
    ]
    if pairs:
        ours = f"pairs {pairs} {sizes.model} {sizes.batch} {sizes.length} {sizes.steps} {micro}"
        peer = f"trl_dpo.py {pairs} {sizes.model} {sizes.length} {sizes.batch} {sizes.steps}"
        half = f" bf16 {sizes.device_word}" if sizes.device_word else ""
        title = f"DPO on HH pairs, {name} V4096, on a GPU"
        found.append(Work("gpu_dpo_pairs_s", title, "pairs_s", ours, peer + half))
    return found


def works(pairs: Path | None, weights: str) -> dict[str, list[Work]]:
    """All rows by the word that asks for them."""
    middle, small = f"{MIDDLE} 8 256 6", "4 4 256 2048 16 256 6"
    large = "12 12 768 50257 2 256 4"

    def sft(key: str, title: str, shape: str, ours: str = "", peer: str = "", metric="tok_s"):
        words = f"sft {shape} {ours}".strip(), f"torch_gpt.py sft {shape} {peer}".strip()
        return Work(key, title, metric, *words)

    train = [
        sft("sft_f32_tok_s", "SFT f32, L6 D384 V4096 B8 T256", middle),
        sft("sft_small_f32_tok_s", "SFT f32, L4 D256 V2048 B16 T256", small),
        sft("sft_large_f32_tok_s", "SFT f32, L12 D768 V50257 B2 T256", large),
        sft("sft_best_tok_s", "SFT fastest, L6 D384 V4096 B8 T256", middle, "auto", "bf16 compile"),
        sft("peak_mb", "peak memory of the SFT step, MB", middle, metric="peak_mb"),
    ]
    dpo = [
        Work(
            "dpo_plain_tok_s",
            "DPO f32, nothing shared or cached",
            "tok_s",
            f"dpo {middle}",
            f"torch_gpt.py dpo {middle}",
        )
    ]
    if pairs:
        ours = f"pairs {pairs} 6 6 384 8 512 20 auto"
        peer = f"trl_dpo.py {pairs} 6 6 384 512 8 20"
        again = "the same, peer precomputes"
        dpo += [
            Work("dpo_pairs_s", "DPO on HH pairs, everything on", "pairs_s", ours, peer),
            Work("dpo_pairs_precomputed_s", again, "pairs_s", ours, f"{peer} precompute"),
        ]
    decoded = f"{weights} {MIDDLE} 8 128"
    generate = [
        Work(
            "gen_tok_s",
            "greedy generation, batch 8, 128 new tokens",
            "tok_s",
            f"generate {decoded}",
            f"generate.py {decoded}",
        )
    ]
    gpu = gpu_works(LARGE, pairs, weights)
    return {"train": train, "dpo": dpo, "generate": generate, "gpu": gpu}


def run(command: list[str], **environment: str) -> dict:
    """Runs a command and parses the last line of JSON that it prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def ours(arguments: str, **environment: str) -> dict:
    """Runs `hhalign bench` with some words."""
    return run([*BENCH, *arguments.split()], RAYON_NUM_THREADS="1", **environment)


def measure(work: Work, peer: str | None, rounds: int) -> dict:
    """Runs both sides in turn; returns the medians and their ratio."""
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ours(work.ours)[work.metric])
        if peer:
            script, *rest = work.peer.split()
            theirs.append(run([peer, str(PEERS / script), *rest])[work.metric])
    result = {"ours": median_high(mine), "rounds": rounds}
    if theirs:
        result |= {"peer": median_high(theirs), "ratio": median_high(mine) / median_high(theirs)}
    return result


def scaling() -> list[dict]:
    """Measures tokens per second by length and number of threads, 2,048 tokens a step."""
    rows = []
    for length in (128, 256, 512, 1024):
        row = {"length": length}
        for threads in ("1", "2"):
            for precision in ("f32", "auto"):
                result = ours(
                    f"sft {MIDDLE} {2048 // length} {length} 4 {precision}", HHALIGN_THREADS=threads
                )
                row[f"{result['precision']}_{threads}_threads"] = result["tok_s"]
        rows.append(row)
    return rows


def kernel() -> dict:
    """Measures the seconds to the first value and of a later cell, by the kernel test."""
    python = ROOT / ".venv/bin/python"
    done = subprocess.run(
        [python, ROOT / "scripts/tests/test_kernel.py"], capture_output=True, text=True, check=False
    )
    return {"ours": done.returncode == 0, "text": done.stdout.strip().splitlines()[-6:]}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./scripts/bench", description="Times our work, and a peer's in turn with it."
    )
    parser.add_argument(
        "what",
        nargs="*",
        help="train, dpo, generate, kernel (the default four), scaling, ceiling, gpu",
    )
    parser.add_argument("--peer", help="a Python with torch, transformers and trl")
    parser.add_argument(
        "--pairs", type=Path, help="a file of real HH pairs, for DPO's pairs per second"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    args = parser.parse_args()
    known = ["train", "dpo", "generate", "kernel", "scaling", "ceiling", "gpu"]
    if wrong := [w for w in args.what if w not in known]:
        parser.error(f"no such work: {wrong[0]} (choose from {', '.join(known)})")
    if args.pairs and not args.pairs.is_file():
        parser.error(f"--pairs: no such file: {args.pairs}")
    say = (lambda *_: None) if args.json else (lambda text: print(text, flush=True))
    load, cores = os.getloadavg()[0], os.cpu_count()
    say(f"load before: {load:.2f}; {cores} cores; rounds: {args.rounds}, medians shown")
    results: dict = {"load_before": load, "cores": cores}
    with tempfile.TemporaryDirectory(prefix="hhalign-bench-") as folder:
        table = works(args.pairs and args.pairs.resolve(), f"{folder}/model.safetensors")
        for what in args.what or known[:4]:
            for work in table.get(what, []):
                result = results[work.key] = measure(work, args.peer, args.rounds)
                versus = (
                    f"   peer {result['peer']:>9.1f}   ratio {result['ratio']:.2f}"
                    if "peer" in result
                    else ""
                )
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
