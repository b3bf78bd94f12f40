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

from places import PROGRAMS, ROOT, TRAVELS, mib, output, sha256, size, tracked_size

# What TRL needs and a machine with PyTorch may lack; the largest, which may not fit, last.
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
# Of pyarrow and pandas: what a trainer never imports.
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
# Real HH, of each file at most so many bytes unpacked, and so many packed in all.
HH_BYTES, HH_ALL = 8 << 20, 6 << 20


def build() -> dict[str, Path]:
    """Builds the bench and both test programs, and says where they are."""
    found = {"bench": ROOT / "target/release/examples/bench"}
    cargo = ["cargo", "--quiet"]
    subprocess.run([*cargo, "build", "--release", "--example", "bench"], cwd=ROOT, check=True)
    command = [
        *cargo,
        "test",
        "--release",
        "--no-run",
        "--test",
        "gpu",
        "--test",
        "gpu_runs",
        "--message-format=json",
    ]
    lines = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    for message in (json.loads(line) for line in lines if line.startswith("{")):
        if message.get("executable") and message["target"]["name"] in PROGRAMS:
            found[message["target"]["name"]] = Path(message["executable"])
    return found


def pack_tar(folder: Path, archive: Path, level: int) -> None:
    """A tar of a folder's files, packed by xz."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as plain:
        with tarfile.open(plain.name, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        with archive.open("wb") as out:
            subprocess.run(["xz", f"-{level}", "-T0", "-c", plain.name], stdout=out, check=True)


def programs(folder: Path, level: int) -> dict[str, str]:
    """Strips and packs the programs; their checksums."""
    with tempfile.TemporaryDirectory() as stage:
        for name, path in build().items():
            shutil.copy(path, f"{stage}/{name}")
            if shutil.which("strip"):
                subprocess.run(["strip", f"{stage}/{name}"], check=True)
        pack_tar(Path(stage), folder / "programs.tar.xz", level)
        return {name: sha256(Path(stage) / name) for name in PROGRAMS}


def part_of(source: Path, to: Path) -> int:
    """Copies a file of HH, or as many of its first lines as are allowed; how many there are."""
    lines, room = [], HH_BYTES
    with gzip.open(source, "rt", encoding="utf-8") as file:
        for line in file:
            room -= len(line.encode())
            if room < 0:
                break
            lines.append(line)
    with gzip.GzipFile(to, "wb", 9, mtime=0) as out:
        out.write("".join(lines).encode())
    return len(lines)


def real_data(source: Path | None, folder: Path) -> dict[str, int]:
    """Copies the files of HH; how many pairs of each."""
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
    """The wheel of a requirement for the card's Python, from the cache or the package index."""
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
    """Whether a file of a wheel travels."""
    last = name.rsplit("/", 1)[-1]
    twin = last in ("libarrow_python.so",) or last.endswith((".1.0", ".0.0")) and ".so." in last
    return not (
        name.startswith(LEFT_OUT)
        or last.startswith(LEFT_OUT_NAMES)
        or last.endswith(LEFT_OUT_ENDS)
        or twin
    )


def repack(path: Path, archive: Path, level: int) -> dict:
    """Packs a wheel as a tar of xz, less than half as large; returns what --run needs."""
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
            print(f"  not in: {requirement}: no wheel could be had")
            continue
        archive = folder / "wheels" / f"{path.stem.split('-')[0]}.tar.xz"
        found.append(repack(path, archive, level))
        print(f"  {path.name}: {mib(archive.stat().st_size)}", flush=True)
    return found


def fit(folder: Path, packages: list[dict]) -> list[dict]:
    """Leaves out the packages that do not fit, the last first."""
    while packages and tracked_size() + size(folder) > TRAVELS:
        last = packages.pop()
        path = folder / "wheels" / last["file"]
        print(f"  not in: {last['wheel']}: {mib(path.stat().st_size)} do not fit; TRL needs it")
        path.unlink()
    return packages


def commit() -> str:
    """The commit, and whether tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    changed = output([*git, "status", "--porcelain", "--untracked-files=no"])
    return output([*git, "rev-parse", "HEAD"]) + ("+changes" if changed else "")


def pack(folder: Path, data: Path | None, toxicity: Path, with_wheels: bool, level: int) -> int:
    """Fills the folder; 0 where everything may travel."""
    if not output(["git", "-C", str(ROOT), "check-ignore", str(folder / "manifest.json")]):
        print(f"note: git does not ignore {folder}; .cache/gpu_check is ignored")
    if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        print(
            f"gpu_check: {folder} holds something that no earlier --pack wrote\n"
            "  fix: name an empty folder, such as .cache/gpu_check",
            file=sys.stderr,
        )
        return 2
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # First, so that a pack that was broken off can be made again.
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
        else "real HH: none, and parts 4 and 7 need it; name its folder with --data"
    )
    if (toxicity / "toxblock.safetensors").is_file():
        shutil.copytree(toxicity, folder / "toxicity")
    else:
        print("classifier of toxicity: none; ./scripts/setup fetches one")
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
