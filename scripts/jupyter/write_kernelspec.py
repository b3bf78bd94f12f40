"""Writes the Jupyter kernelspec: the evcxr kernel, with the environment its cells need."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--evcxr", required=True)
    parser.add_argument("--library-path", required=True)
    parser.add_argument("--config", required=True, help="folder of evcxr.toml")
    parser.add_argument("--toolchain", default="")
    args = parser.parse_args()
    env = {
        "LD_LIBRARY_PATH": args.library_path,
        "EVCXR_CONFIG_DIR": args.config,
        # evcxr enables backtraces. This limits them to panics: in error values they cost time and
        # hide the message.
        "RUST_LIB_BACKTRACE": "0",
        # As in .cargo/config.toml: one pass on each core, and one thread inside an operation.
        "RAYON_NUM_THREADS": "1",
    }
    if args.toolchain:
        env["RUSTUP_TOOLCHAIN"] = args.toolchain
    spec = {
        "argv": [args.evcxr, "--control_file", "{connection_file}"],
        "display_name": "Rust (hhalign)",
        "language": "rust",
        "interrupt_mode": "message",
        "env": env,
    }
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "kernel.json").write_text(json.dumps(spec, indent=2) + "\n")


if __name__ == "__main__":
    main()
