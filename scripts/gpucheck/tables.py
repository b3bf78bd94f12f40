"""Makes tables of a run's results: machine, parts, comparisons with ratios, failures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median

import predict

HEADS = {
    3: ("gpu_sft_tok_s", "SFT, tokens/s", "tok_s"),
    4: ("gpu_dpo_pairs_s", "DPO on real HH, pairs/s", "pairs_s"),
    5: ("gpu_gen_tok_s", "greedy decoding, f32, tokens/s", "tok_s"),
}
PEERS = {3: "PyTorch, bf16", 4: "TRL", 5: "transformers"}


def read(out: Path) -> list[dict]:
    """Reads the results; skips a last line that is not whole."""
    lines = []
    for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def table(head: list[str], rows: list[list[object]]) -> str:
    """Formats a table as Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def number(value: float | None) -> str:
    """Formats a number with three digits, or as an integer."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def values(lines: list[dict], part: int, name: str, side: str, key: str) -> list[float]:
    """Returns a value of each round of one side."""
    found = [
        line["value"]
        for line in lines
        if line.get("part") == part
        and line.get("name") == name
        and line.get("side") == side
        and "value" in line
    ]
    return [value[key] for value in found if isinstance(value.get(key), (int, float))]


def machine(lines: list[dict]) -> str:
    """Describes in one paragraph what ran where."""
    info = next((line for line in lines if line.get("event") == "machine"), None)
    if info is None:
        return "The results do not describe the machine."
    card = next(
        (
            line["value"]["device"]
            for line in lines
            if line.get("name") == "card"
            and line.get("value", {}).get("step") == "open"
            and "device" in line["value"]
        ),
        "no GPU opened",
    )
    packages = ", ".join(
        f"{name} {version}" for name, version in info["packages"].items() if version
    )
    libraries = ", ".join(
        f"{line['value']['library']} {line['value'].get('version', '?')}"
        for line in lines
        if line.get("name") == "libraries" and "value" in line
    )
    note = (
        "**A rehearsal on the emulated card: its times mean nothing.** "
        if info["rehearsal"]
        else ""
    )
    memory = info["memory_mb"] or 0
    computer = f"{info['cpu']}, {info['cores']} cores, {memory >> 10} GiB"
    known = [
        f"{card} ({info['card'] or 'nvidia-smi printed nothing'})",
        computer,
        packages,
        libraries,
    ]
    text = "; ".join(part for part in known if part)
    return f"{note}{text}. Commit {info['commit'][:12]}, {info['time']}."


def parts(lines: list[dict]) -> str:
    """Makes the table of how each part ended."""
    rows = [
        [line["part"], line["title"], line["status"], line["seconds"]]
        for line in lines
        if line.get("event") == "part"
    ]
    return table(["part", "what", "ended", "seconds"], rows)


def cases(lines: list[dict]) -> str:
    """Makes the table of the largest differences from the composed model, by precision."""
    worst: dict[str, list[float]] = {}
    for line in lines:
        value = line.get("value") or {}
        if "case" in value:
            found = re.search(r"\b(F32|Tf32|Bf16|F16)\b", value["case"])
            kind = found[1].lower() if found else "f32"
            old = worst.get(kind, [0, 0.0, 0.0])
            worst[kind] = [
                old[0] + 1,
                max(old[1], value["values"]),
                max(old[2], value["gradients"]),
            ]
    rows = [[kind, n, f"{a:.1e}", f"{b:.1e}"] for kind, (n, a, b) in worst.items()]
    return (
        table(["precision", "cases", "largest difference of values", "of gradients"], rows)
        if rows
        else ""
    )


def tests(lines: list[dict]) -> str:
    """Makes the table of tests by part: passed, failed, skipped."""
    rows = []
    for part in (1, 2):
        ended = [
            line
            for line in lines
            if line.get("part") == part and "name" in line and ("ok" in line or "error" in line)
        ]
        skipped = {
            line["name"]
            for line in lines
            if line.get("part") == part and "skipped" in (line.get("value") or {})
        }
        good = [line for line in ended if line.get("ok") and line["name"] not in skipped]
        rows.append([part, len(good), sum("error" in line for line in ended), len(skipped)])
    return table(["part", "tests passed", "failed", "skipped"], rows)


def comparisons(lines: list[dict]) -> str:
    """Makes the table of our medians, a peer's, and their ratios."""
    rows = []
    for part, (name, title, key) in HEADS.items():
        metrics = [(title, key)] + (
            [("peak memory of that step, MB", "peak_mb")] if part == 3 else []
        )
        for text, key in metrics:
            mine, theirs = (
                values(lines, part, name, "ours", key),
                values(lines, part, name, "peer", key),
            )
            if not mine and not theirs:
                continue
            a, b = median(mine) if mine else None, median(theirs) if theirs else None
            label = peer_label(lines, part)
            ratio = f"{a / b:.2f}" if a is not None and b else "–"
            rows.append(
                [text, number(a), f"{label}: {number(b)}", ratio, f"{len(mine)} and {len(theirs)}"]
            )
    return table(["work", "ours", "peer", "ratio", "runs"], rows) if rows else ""


def peer_label(lines: list[dict], part: int) -> str:
    """Returns the name of a part's peer; PyTorch's says whether it was compiled."""
    found = [line["value"] for line in lines if line.get("part") == part and "value" in line]
    compiled = {value["compiled"] for value in found if "compiled" in value}
    return PEERS[part] + "".join(", compiled" if one else ", eager" for one in sorted(compiled))


def alike(lines: list[dict]) -> str:
    """Says how many greedy tokens of both sides are the same."""
    ids = [values_of(lines, 5, side) for side in ("ours", "peer")]
    if not all(ids):
        return ""
    pairs = [(a, b) for mine, theirs in zip(*ids) for a, b in zip(mine, theirs)]
    same = sum(a == b for a, b in pairs)
    share = same / max(1, len(pairs))
    return f"Of {len(pairs)} greedy tokens {same} are the same on both sides ({share:.1%})."


def values_of(lines: list[dict], part: int, side: str) -> list[list[int]]:
    """Returns the ids that a side has decoded."""
    found = [
        line["value"]["ids"]
        for line in lines
        if line.get("part") == part
        and line.get("side") == side
        and "ids" in (line.get("value") or {})
    ]
    return found[0] if found else []


def against_prediction(lines: list[dict]) -> str:
    """Compares the measured time of a step with the predicted one."""
    info = next((line for line in lines if line.get("event") == "machine"), {})
    took = values(lines, 3, "gpu_sft_tok_s", "ours", "step_ms")
    if not took or info.get("rehearsal"):
        return ""
    card = predict.T4 if "T4" in (info.get("card") or "") else predict.H200
    expected = 1e3 * predict.seconds(predict.Step(), card)
    return (
        f"SFT step: {median(took):.1f} ms; predicted from the peak of the {card.name}: "
        f"{expected:.1f} ms, which is "
        f"{expected / median(took):.0%} of the measured time."
    )


def processor(lines: list[dict]) -> str:
    """Makes the table of tokens per second on the CPU."""
    rows = [
        [line["name"], line["value"].get("precision"), number(line["value"]["tok_s"])]
        for line in lines
        if line.get("part") == 6 and "tok_s" in (line.get("value") or {})
    ]
    return table(["on the CPU", "precision", "tokens/s"], rows) if rows else ""


def estimate(value: dict | None) -> str:
    """Formats a value with its interval."""
    if not value or value.get("value") is None:
        return "not enough data"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}], n = {value['n']}"


def pipeline(lines: list[dict]) -> str:
    """Makes the table of the pipeline's stages."""
    rows = []
    for value in (
        line["value"]
        for line in lines
        if line.get("part") == 7 and "stage" in (line.get("value") or {})
    ):
        if "skipped" in value:
            text = f"skipped: {value['skipped']}"
        elif "difference" in value:
            sides = ("SFT", "sft"), ("DPO", "dpo"), ("difference", "difference")
            text = "; ".join(f"{name} {estimate(value[key])}" for name, key in sides)
        elif "interval" in value:
            text = estimate(value)
        elif "accuracy" in value:
            text = f"{value['steps']} steps; accuracy {estimate(value['accuracy'])}"
        else:
            kept = {k: v for k, v in value.items() if k not in ("work", "stage", "at_seconds")}
            text = ", ".join(
                f"{k} {number(v) if isinstance(v, float) else v}" for k, v in kept.items()
            )
        rows.append([value["stage"], text, f"{value['at_seconds']:.1f}"])
    return table(["stage", "result", "seconds since the start"], rows) if rows else ""


def failures(lines: list[dict]) -> str:
    """Makes the table of failures, each with its first error."""
    rows = [
        [line["part"], f"{line.get('name', '')}, {line.get('side', '')}", cell(line["error"])]
        for line in lines
        if "error" in line
    ]
    rows += [
        [
            line["part"],
            f"{line['name']}, {line['value'].get('step', line['value'].get('library', ''))}",
            cell(line["value"]["error"]),
        ]
        for line in lines
        if isinstance(line.get("value"), dict) and "error" in line["value"]
    ]
    return table(["part", "what failed", "first error"], rows) if rows else "Nothing failed."


def cell(text: str) -> str:
    """Shortens a text so that it fits into a cell."""
    return re.sub(r"\s*\n\s*", " / ", text.strip()).replace("|", "\\|")[:400]


def report(out: Path) -> str:
    """Makes all tables, as Markdown."""
    lines = read(out)
    sections = [
        ("The machine", [machine(lines)]),
        ("The parts", [parts(lines)]),
        ("What failed", [failures(lines)]),
        (
            "For docs/PERFORMANCE.md",
            [comparisons(lines), alike(lines), against_prediction(lines), processor(lines)],
        ),
        ("Correctness", [tests(lines), cases(lines)]),
        ("For docs/REPRODUCTION.md", [pipeline(lines)]),
    ]
    texts = [
        f"## {title}\n\n" + ("\n\n".join(part for part in body if part) or "There are no results.")
        for title, body in sections
    ]
    return "# GPU check\n\n" + "\n\n".join(texts) + "\n"
