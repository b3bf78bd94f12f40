"""Packs what the card's machine needs: programs, real HH, a classifier, Python packages."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from places import (
    BINARY,
    PROGRAMS,
    ROOT,
    TEST_PROGRAM,
    TRAVELS,
    mib,
    output,
    sha256,
    size,
    tracked_size,
)

# The packages that TRL needs and a machine with PyTorch may lack; the last may not fit.
WHEELS = [
    "trl==1.16.0",
    "datasets==5.2.0",
    "dill",
    "multiprocess",
    "xxhash",
    "fsspec",
    "python-dateutil",
    "six",
    "pandas",
    "pyarrow",
]
PYTHON = "3.12"
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
# Files of pyarrow and pandas that a trainer never imports.
LEFT_OUT = (
    "pyarrow/include/",
    "pyarrow/src/",
    "pyarrow/tests/",
    "pyarrow/includes/",
    "pandas/tests/",
)
LEFT_OUT_NAMES = (
    "libarrow_flight",
    "libarrow_python_flight",
    "libarrow_s3",
    "_flight",
    "_s3fs",
    "_gcsfs",
    "_azurefs",
    "_pyarrow_cpp_tests",
)
LEFT_OUT_ENDS = (".pyx", ".pxd", ".pxi", ".h", ".cc")
# Limits on real HH: the unpacked bytes of each file, and the packed bytes of all.
HH_BYTES, HH_ALL = 8 << 20, 6 << 20


def built(name: str, *words: str) -> Path:
    """Runs a command of cargo that builds, and returns where the program of a name is."""
    command = ["cargo", *words, "--release", "--quiet", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(
        Path(message["executable"])
        for message in messages
        if message.get("executable") and message["target"]["name"] == name
    )


def build() -> dict[str, Path]:
    """Builds both programs and returns where they are.

    The tests have the profile of ./scripts/test, which lib.sh names. The binary comes last: cargo
    builds it for the tests as well, with that profile, and would leave a slow one in its place.
    """
    profile = os.environ.get("HHALIGN_TEST_PROFILE")
    with_profile = ["--config", profile] if profile else []
    return {
        TEST_PROGRAM: built(
            TEST_PROGRAM, "test", *with_profile, "--no-run", "--test", TEST_PROGRAM
        ),
        BINARY: built(BINARY, "build", "--bin", BINARY),
    }


def pack_tar(folder: Path, archive: Path, level: int) -> None:
    """Packs the files of a folder as a tar, compressed by xz."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as plain:
        with tarfile.open(plain.name, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        with archive.open("wb") as out:
            subprocess.run(["xz", f"-{level}", "-T0", "-c", plain.name], stdout=out, check=True)


def programs(folder: Path, level: int) -> dict[str, str]:
    """Strips and packs the programs; returns their checksums."""
    with tempfile.TemporaryDirectory() as stage:
        for name, path in build().items():
            shutil.copy(path, f"{stage}/{name}")
            if shutil.which("strip"):
                subprocess.run(["strip", f"{stage}/{name}"], check=True)
        pack_tar(Path(stage), folder / "programs.tar.xz", level)
        return {name: sha256(Path(stage) / name) for name in PROGRAMS}


def part_of(source: Path, to: Path) -> int:
    """Copies a file of HH up to the limit; returns the number of lines copied."""
    lines, left = [], HH_BYTES
    with gzip.open(source, "rt", encoding="utf-8") as file:
        for line in file:
            left -= len(line.encode())
            if left < 0:
                break
            lines.append(line)
    with gzip.GzipFile(to, "wb", 9, mtime=0) as out:
        out.write("".join(lines).encode())
    return len(lines)


def real_data(source: Path | None, folder: Path) -> dict[str, int]:
    """Copies the files of HH; returns the number of pairs of each."""
    if source is None or not source.is_dir():
        return {}
    found = {}
    (folder / "data").mkdir()
    for path in sorted(source.rglob("*.jsonl.gz")):
        name = path.name if path.parent == source else f"{path.parent.name}.{path.name}"
        to = folder / "data" / name
        found[name] = part_of(path, to)
        if size(folder / "data") > HH_ALL:
            to.unlink()
            del found[name]
    return found


def wheel(requirement: str, cache: Path) -> Path | None:
    """Returns the wheel of a requirement, from the cache or the package index."""
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version or '*'}-*.whl"
    if not (there := sorted(cache.glob(pattern))):
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ]
        command += [
            "--python-version",
            PYTHON,
            "--implementation",
            "cp",
            *platforms,
            "-d",
            str(cache),
            requirement,
        ]
        if subprocess.run(command, check=False).returncode:
            return None
        there = sorted(cache.glob(pattern))
    return there[-1] if there else None


def is_needed(name: str) -> bool:
    """Whether to pack a file of a wheel."""
    last = name.rsplit("/", 1)[-1]
    twin = last in ("libarrow_python.so",) or last.endswith((".1.0", ".0.0")) and ".so." in last
    return not (
        name.startswith(LEFT_OUT)
        or last.startswith(LEFT_OUT_NAMES)
        or last.endswith(LEFT_OUT_ENDS)
        or twin
    )


def repack(path: Path, archive: Path, level: int) -> dict:
    """Packs a wheel as a tar of xz, less than half as large; returns what --run needs of it."""
    with tempfile.TemporaryDirectory() as stage, zipfile.ZipFile(path) as zipped:
        names = [name for name in zipped.namelist() if is_needed(name)]
        zipped.extractall(stage, names)
        pack_tar(Path(stage), archive, level)
    tops = {name.split("/")[0] for name in names if "/" in name} | {
        name for name in names if name.endswith(".py") and "/" not in name
    }
    modules = sorted(
        top.removesuffix(".py")
        for top in tops
        if not top.endswith((".dist-info", ".libs", ".data"))
    )
    tag = path.stem.split("-")[2]
    return {
        "file": archive.name,
        "wheel": path.name,
        "modules": modules[:1] if len(modules) == 1 else modules,
        "python": tag,
    }


def wheels(folder: Path, cache: Path, level: int) -> list[dict]:
    """Downloads and repacks the Python packages."""
    cache.mkdir(parents=True, exist_ok=True)
    (folder / "wheels").mkdir()
    found = []
    for requirement in WHEELS:
        if (path := wheel(requirement, cache)) is None:
            print(f"  left out: {requirement}: pip found no wheel")
            continue
        archive = folder / "wheels" / f"{path.stem.split('-')[0]}.tar.xz"
        found.append(repack(path, archive, level))
        print(f"  {path.name}: {mib(archive.stat().st_size)}", flush=True)
    return found


def fit(folder: Path, packages: list[dict]) -> list[dict]:
    """Removes packages that do not fit, the last first."""
    while packages and tracked_size() + size(folder) > TRAVELS:
        last = packages.pop()
        path = folder / "wheels" / last["file"]
        print(f"  left out: {last['wheel']}: {mib(path.stat().st_size)} do not fit; TRL needs it")
        path.unlink()
    return packages


def commit() -> str:
    """Returns the commit, with a mark where tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    changed = output([*git, "status", "--porcelain", "--untracked-files=no"])
    return output([*git, "rev-parse", "HEAD"]) + ("+changes" if changed else "")


def pack(folder: Path, data: Path | None, toxicity: Path, with_wheels: bool, level: int) -> int:
    """Fills the folder; returns 0 where everything fits the limit."""
    if not output(["git", "-C", str(ROOT), "check-ignore", str(folder / "manifest.json")]):
        print(f"note: git does not ignore {folder}; .cache/gpu_check is ignored")
    if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        print(
            f"gpu_check: {folder} holds files that --pack did not write\n"
            "  fix: name an empty folder, such as .cache/gpu_check",
            file=sys.stderr,
        )
        return 2
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Written first, so that an interrupted --pack can be repeated.
    (folder / "manifest.json").write_text("{}\n", encoding="utf-8")
    manifest: dict = {
        "commit": commit(),
        "rustc": output(["rustc", "--version"]),
        "glibc": os.confstr("CS_GNU_LIBC_VERSION"),
    }
    manifest["programs"] = programs(folder, level)
    print(f"programs: {mib((folder / 'programs.tar.xz').stat().st_size)}", flush=True)
    manifest["data"] = real_data(data, folder)
    print(
        f"real HH: {sum(manifest['data'].values())} pairs of {len(manifest['data'])} files"
        if manifest["data"]
        else "real HH: none, but parts 4 and 7 need it; name its folder with --data"
    )
    if (toxicity / "toxblock.safetensors").is_file():
        shutil.copytree(toxicity, folder / "toxicity")
    else:
        print("toxicity classifier: none; ./scripts/setup fetches one")
    manifest["wheels"] = (
        fit(folder, wheels(folder, ROOT / ".cache/gpu_check_wheels", level)) if with_wheels else []
    )
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    total = tracked_size() + size(folder)
    print(
        f"{folder}: {mib(size(folder))}; with the repository's {mib(tracked_size())}: "
        f"{mib(total)} of {mib(TRAVELS)}"
    )
    return int(total > TRAVELS)
