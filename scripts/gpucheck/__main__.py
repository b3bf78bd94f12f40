"""The command line of ./scripts/gpu_check."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pack
import predict
import tables
from parts import PARTS
from places import BACK_BYTES, BACK_FILES, ROOT
from runner import run

NUMBERS = [part.number for part in PARTS]


def numbers(text: str) -> list[int]:
    """Parses numbers of parts, such as 0,3."""
    found = [int(word) for word in text.split(",")]
    if wrong := [n for n in found if n not in NUMBERS]:
        raise argparse.ArgumentTypeError(
            f"there is no part {wrong[0]}: choose from {NUMBERS[0]} to {NUMBERS[-1]}"
        )
    return found


def limit(text: str) -> tuple[int, float]:
    """Parses PART=SECONDS."""
    part, _, seconds = text.partition("=")
    return numbers(part)[0], float(seconds)


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="./scripts/gpu_check",
        description="Checks and times everything on a real GPU in a few minutes.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--pack", type=Path, metavar="FOLDER", help="build and pack what the GPU's machine needs"
    )
    what.add_argument(
        "--run", type=Path, metavar="FOLDER", help="run every part from a packed folder"
    )
    what.add_argument("--read", type=Path, metavar="OUT", help="print tables of the results")
    what.add_argument("--predict", action="store_true", help="print the predicted time of a step")
    packing = parser.add_argument_group("with --pack")
    packing.add_argument(
        "--data", type=Path, help="folder with real HH, *.jsonl.gz (HHALIGN_TEST_DATA/hh)"
    )
    packing.add_argument("--no-wheels", action="store_true", help="pack no Python packages")
    packing.add_argument(
        "--level", type=int, default=9, help="compression level of xz; 9 is smallest"
    )
    running = parser.add_argument_group("with --run")
    running.add_argument("--out", type=Path, help="folder for the results; required")
    running.add_argument("--minutes", type=float, default=8)
    running.add_argument(
        "--python", default=sys.executable, help="Python with torch and transformers, for the peers"
    )
    running.add_argument(
        "--rehearse",
        action="store_true",
        help="tiny shapes on the emulated card; also with HHALIGN_DEVICE=emulated",
    )
    running.add_argument(
        "--only", type=numbers, default=NUMBERS, metavar="N,...", help="run these parts only"
    )
    running.add_argument(
        "--skip", type=numbers, default=[], metavar="N,...", help="run all but these parts"
    )
    running.add_argument(
        "--limit",
        type=limit,
        action="append",
        default=[],
        metavar="PART=SECONDS",
        help="time limit of a part",
    )
    running.add_argument(
        "--tests",
        default="",
        metavar="NAME,...",
        help="in parts 1 and 2 run these tests only, such as gpu::tf32_stays_near_f32",
    )
    args = parser.parse_args()
    if args.run and not args.out:
        parser.error("--run needs --out OUT")
    if args.run and not (args.run / "manifest.json").is_file():
        parser.error(
            f"--run: {args.run} holds no manifest.json; "
            f"fill it with ./scripts/gpu_check --pack {args.run}"
        )
    if args.run and (args.out / "results.jsonl").exists():
        parser.error(f"--out: {args.out} holds the results of another run; name another folder")
    if args.read and not (args.read / "results.jsonl").is_file():
        parser.error(f"--read: {args.read} holds no results.jsonl")
    return args


def packed(args: argparse.Namespace) -> int:
    """Runs --pack."""
    test_data = os.environ.get("HHALIGN_TEST_DATA")
    data = args.data or (Path(test_data) / "hh" if test_data else None)
    if args.data and not args.data.is_dir():
        sys.exit(f"gpu_check: --data: no such folder: {args.data}")
    toxicity = Path(os.environ.get("HHALIGN_TOXICITY_DIR") or ROOT / ".cache/toxicity")
    return pack.pack(args.pack.resolve(), data, toxicity, not args.no_wheels, args.level)


def ran(args: argparse.Namespace) -> int:
    """Runs --run, and writes its summary."""
    rehearse = args.rehearse or os.environ.get("HHALIGN_DEVICE") == "emulated"
    chosen = [n for n in args.only if n not in args.skip]
    only = [name for name in args.tests.split(",") if name]
    out = args.out.resolve()
    code = run(
        args.run.resolve(), out, args.minutes, args.python, rehearse, chosen, dict(args.limit), only
    )
    (out / "summary.md").write_text(tables.report(out), encoding="utf-8")
    back = [path for path in out.rglob("*") if path.is_file()]
    if len(back) > BACK_FILES or any(path.stat().st_size > BACK_BYTES for path in back):
        print(f"note: {out} exceeds the limits on what comes back: {len(back)} files")
    return code


def main() -> None:
    args = arguments()
    if args.pack:
        sys.exit(packed(args))
    if args.run:
        sys.exit(ran(args))
    print(tables.report(args.read) if args.read else predict.tables())


if __name__ == "__main__":
    main()
