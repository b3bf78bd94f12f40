"""Holds a results_summary.json to its schema, and the schema to what it promises.

A schema that lets everything pass would be of no use: each required field is taken away from the real summary in turn, and
each object gets a field that nobody knows; all of these must be refused.

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

SCHEMA = Path(__file__).resolve().parent.parent / "docs" / "results_summary.schema.json"

# What every figure must carry, whatever the schema says that it requires.
PROMISED = ("metric", "model", "model/name", "model/hash", "value", "low", "high", "n", "method", "seed", "data_hash", "instrument", "instrument/kind", "instrument/identity")

Steps = tuple[str | int, ...]


def objects(schema: dict[str, Any], part: dict[str, Any], value: Any, at: Steps) -> Iterator[tuple[Steps, dict[str, Any]]]:
    """Every place of a summary where an object stands, with the part of the schema for it; of a list the first entry."""
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
    """A copy of a summary in which the object at a place was changed."""
    broken = copy.deepcopy(summary)
    place = broken
    for step in at:
        place = place[step]
    change(place)
    return broken


def let_through(validator: Draft202012Validator, summary: dict[str, Any]) -> tuple[list[str], int]:
    """The broken copies of a valid summary that its schema accepts, and how many were tried."""
    accepted, tried = [], 0
    # The first figure stands for all: so each kind of figure is the first one once.
    kinds = (lambda f: "identity" in f["instrument"], lambda f: "against" in f, lambda f: f["value"] is None)
    found = [next((f for f in summary["figures"] if kind(f)), None) for kind in kinds]
    for variant in (summary, *({**summary, "figures": [figure]} for figure in found if figure)):
        places = {(at, name) for at, part in objects(validator.schema, validator.schema, variant, ()) for name in part["required"]}
        for path in PROMISED:
            *parents, name = path.split("/")
            if name != "identity" or "identity" in variant["figures"][0]["instrument"]:
                places.add((("figures", 0, *parents), name))
        changes = [(at, f"without {name}", lambda o, name=name: o.pop(name)) for at, name in sorted(places, key=str)]
        changes += [(at, "with a field that nobody knows", lambda o: o.update({"typed in": 1})) for at in sorted({at for at, _ in places}, key=str)]
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
        print(f"summary: no such file: {path}\n  fix: ./scripts/run --out {path.parent} writes it", file=sys.stderr)
        return 1
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    summary = json.loads(path.read_text(encoding="utf-8"))
    errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in validator.iter_errors(summary)]
    accepted, tried = ([], 0) if errors else let_through(validator, summary)
    for line in errors:
        print(f"FAILED  {path.name} is not as its schema says: {line}")
    for line in accepted:
        print(f"FAILED  the schema accepts {line}")
    failed = len(errors) + len(accepted)
    print(f"summary: {0 if errors else 1 + tried - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
