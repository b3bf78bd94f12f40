"""Validates a results_summary.json against its schema, and tests the schema.

The schema must refuse wrong summaries. So each required field of a real summary is removed in turn,
and each object gets an unknown field; the schema must refuse every such copy.

usage: check_summary.py RESULTS_FOLDER
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).resolve().parents[2] / "docs/results_summary.schema.json"

# Fields that every value of the summary must have, whatever the schema requires.
PROMISED = (
    "metric model model/name model/hash value low high n method seed data_hash "
    "instrument instrument/kind instrument/identity"
).split()

Steps = tuple[str | int, ...]


def objects(
    schema: dict[str, Any], part: dict[str, Any], value: Any, at: Steps
) -> Iterator[tuple[Steps, dict[str, Any]]]:
    """Yields every object of a summary with its part of the schema; of a list the first entry."""
    if "$ref" in part:
        yield from objects(schema, schema["$defs"][part["$ref"].rpartition("/")[2]], value, at)
    if isinstance(value, list) and value and "items" in part:
        yield from objects(schema, part["items"], value[0], (*at, 0))
    if not isinstance(value, dict):
        return
    if "required" in part:
        yield at, part
    for choice in part.get("oneOf", []):
        if set(choice["required"]) == set(value):
            yield from objects(schema, choice, value, at)
    for key, child in part.get("properties", {}).items():
        if key in value and isinstance(child, dict):
            yield from objects(schema, child, value[key], (*at, key))
    if isinstance(part.get("additionalProperties"), dict) and value:
        key = next(iter(value))
        yield from objects(schema, part["additionalProperties"], value[key], (*at, key))


def changed(summary: Any, at: Steps, change: Any) -> Any:
    """Returns a copy of a summary with a change to the object at a position."""
    broken = copy.deepcopy(summary)
    target = broken
    for step in at:
        target = target[step]
    change(target)
    return broken


def let_through(validator: Draft202012Validator, summary: dict[str, Any]) -> tuple[list[str], int]:
    """Returns the broken copies of a summary that its schema accepts, and the number tried."""
    accepted, tried = [], 0
    # Only the first value of a list is changed, so each kind of value comes first once.
    kinds = (
        lambda f: "identity" in f["instrument"],
        lambda f: "against" in f,
        lambda f: f["value"] is None,
    )
    found = [next((f for f in summary["figures"] if kind(f)), None) for kind in kinds]
    for variant in (summary, *({**summary, "figures": [figure]} for figure in found if figure)):
        fields = {
            (at, name)
            for at, part in objects(validator.schema, validator.schema, variant, ())
            for name in part["required"]
        }
        for path in PROMISED:
            *parents, name = path.split("/")
            if name != "identity" or "identity" in variant["figures"][0]["instrument"]:
                fields.add((("figures", 0, *parents), name))
        changes = [
            (at, f"without {name}", lambda o, name=name: o.pop(name))
            for at, name in sorted(fields, key=str)
        ]
        changes += [
            (at, "with an unknown field", lambda o: o.update({"unknown": 1}))
            for at in sorted({at for at, _ in fields}, key=str)
        ]
        for at, words, change in changes:
            tried += 1
            if validator.is_valid(changed(variant, at, change)):
                accepted.append(f"{'/'.join(map(str, at)) or 'the whole'} {words}")
    return accepted, tried


def main() -> int:
    if len(sys.argv) != 2:
        print((__doc__ or "").strip().splitlines()[-1], file=sys.stderr)
        return 2
    path = Path(sys.argv[1]) / "results_summary.json"
    if not path.is_file():
        print(
            f"summary: no such file: {path}\n  fix: ./scripts/run --out {path.parent} writes it",
            file=sys.stderr,
        )
        return 1
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    summary = json.loads(path.read_text(encoding="utf-8"))
    errors = [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
        for e in validator.iter_errors(summary)
    ]
    accepted, tried = ([], 0) if errors else let_through(validator, summary)
    for line in errors:
        print(f"FAILED  {path.name} violates its schema: {line}")
    for line in accepted:
        print(f"FAILED  the schema accepts {line}")
    failed = len(errors) + len(accepted)
    print(f"summary: {0 if errors else 1 + tried - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
