"""Finds the libraries that the engine needs for a GPU, and links them into one folder.

usage: find_cuda.py FOLDER [--requirements FILE]

Prints one line: what was found, or why the CPU is used. The engine needs the driver (libcuda),
cuBLAS and NVRTC. The last two come from a CUDA toolkit or from PyTorch's wheels; where there is a
driver but neither of these, FILE is installed by pip.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Container runtimes, WSL2 and Colab install the driver there.
DRIVER_FOLDERS = [
    "",
    "/usr/lib64-nvidia/",
    "/usr/local/nvidia/lib64/",
    "/usr/lib/wsl/lib/",
    "/usr/local/cuda/compat/",
]
LIBRARIES = ["cublas", "cublasLt", "nvrtc"]


def driver() -> tuple[Path, int] | None:
    """Returns the driver's library, and the CUDA version that it supports (12080 is 12.8)."""
    for folder in DRIVER_FOLDERS:
        try:
            library = ctypes.CDLL(f"{folder}libcuda.so.1")
        except OSError:
            continue
        version = ctypes.c_int()
        if library.cuInit(0) == 0 and library.cuDriverGetVersion(ctypes.byref(version)) == 0:
            return loaded("libcuda.so"), version.value
        return None
    return None


def loaded(name: str) -> Path:
    """Returns the path of a library that this process has opened.

    The loader may have found it by rules that do not hold in the kernel's process.
    """
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return Path(next(line.split(maxsplit=5)[5] for line in lines if f"/{name}" in line)).resolve()


def folders(own: Path) -> list[Path]:
    """Returns the usual folders of CUDA's libraries, best first; last those that `own` links to."""
    found = [
        Path(p)
        for p in os.environ.get("LD_LIBRARY_PATH", "").split(":")
        if p and Path(p).resolve() != own.resolve()
    ]
    for root in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(root):
            found.append(Path(os.environ[root]) / "lib64")
    found += sorted(Path("/usr/local").glob("cuda*/lib64"), reverse=True)
    found += [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64")]
    pythons = {sys.executable, shutil.which("python3") or sys.executable}
    for python in sorted(pythons):
        code = (
            "import site, sysconfig\n"
            "print('\\n'.join({*site.getsitepackages(), sysconfig.get_path('purelib')}))"
        )
        listed = subprocess.run([python, "-c", code], capture_output=True, text=True)
        for packages in listed.stdout.split():
            found += sorted(Path(packages).glob("nvidia/*/lib"), reverse=True)
    # The folders in which an earlier run found them.
    found += sorted({path.resolve().parent for path in own.glob("lib*.so*")})
    return [folder for folder in found if folder.is_dir()]


def newest(name: str, major: int, candidates: list[Path]) -> Path | None:
    """Returns the library `name` of a major version of CUDA."""
    for folder in candidates:
        for path in folder.glob(f"lib{name}.so.{major}*"):
            if re.fullmatch(rf"lib{name}\.so\.{major}(\.\d+)*", path.name):
                return path
    return None


def find(version: int, own: Path) -> dict[str, Path] | None:
    """Returns cuBLAS, cuBLASLt and NVRTC of the newest version that the driver supports."""
    candidates = folders(own)
    for major in range(version // 1000, 11, -1):
        found = {name: newest(name, major, candidates) for name in LIBRARIES}
        if all(found.values()):
            return {name: path.resolve() for name, path in found.items() if path}
    return None


def link(folder: Path, found: dict[str, Path], driver_library: Path) -> None:
    """Links the libraries into a folder, under the names by which they are opened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, path in found.items():
        soname = re.match(rf"lib{name}\.so\.\d+", path.name).group()
        for alias in {f"lib{name}.so", soname, path.name}:
            (folder / alias).symlink_to(path)
    # NVRTC opens these by their full names.
    for path in found["nvrtc"].parent.glob("libnvrtc-builtins.so*"):
        (folder / path.name).symlink_to(path.resolve())
    for name in ("libcuda.so.1", "libcuda.so"):
        (folder / name).symlink_to(driver_library)
    # The driver opens these to translate kernels for a card that is newer than NVRTC.
    for part in ("ptxjitcompiler", "nvvm", "gpucomp"):
        for path in driver_library.parent.glob(f"libnvidia-{part}*.so*"):
            (folder / path.name).symlink_to(path.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--requirements", type=Path, help="what to install where cuBLAS or NVRTC is missing"
    )
    args = parser.parse_args()
    there = driver()
    if there is None:
        shutil.rmtree(args.folder, ignore_errors=True)
        print("no GPU: libcuda.so.1 is missing or finds none; CPU is used")
        return
    driver_library, version = there
    text = f"CUDA {version // 1000}.{version % 1000 // 10}"
    found = find(version, args.folder)
    if found is None and args.requirements:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            str(args.requirements),
        ]
        subprocess.run(command, check=False)
        found = find(version, args.folder)
    if found is None:
        shutil.rmtree(args.folder, ignore_errors=True)
        fix = "pip install -r requirements-gpu.txt"
        print(f"a driver for {text}, but no cuBLAS and NVRTC that fit it ({fix}); the CPU is used")
        return
    link(args.folder, found, driver_library)
    print(f"a driver for {text}; cuBLAS and NVRTC from {found['cublas'].parent}")


if __name__ == "__main__":
    main()
