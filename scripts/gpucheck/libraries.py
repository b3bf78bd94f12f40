"""Opens CUDA's libraries by ctypes; prints their versions and missing functions as JSON.

usage: libraries.py FOLDER     a folder as scripts/fetch/find_cuda.py fills it
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

# The functions that the library's gpu/cuda.rs calls, by cudarc's names (those of CUDA 12.4).
NEEDED = {
    "libcuda.so.1": [
        "cuInit",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetAttribute",
        "cuDeviceGetName",
        "cuDevicePrimaryCtxRetain",
        "cuDevicePrimaryCtxRelease_v2",
        "cuCtxSetCurrent",
        "cuStreamCreate",
        "cuStreamSynchronize",
        "cuStreamDestroy_v2",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemGetInfo_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuMemsetD8Async",
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuModuleUnload",
        "cuFuncSetAttribute",
        "cuLaunchKernel",
        "cuGetErrorName",
        "cuGetErrorString",
    ],
    "libcublas.so": [
        "cublasCreate_v2",
        "cublasDestroy_v2",
        "cublasSetStream_v2",
        "cublasSetMathMode",
        "cublasSetWorkspace_v2",
        "cublasGemmEx",
    ],
    "libnvrtc.so": [
        "nvrtcCreateProgram",
        "nvrtcDestroyProgram",
        "nvrtcCompileProgram",
        "nvrtcGetProgramLogSize",
        "nvrtcGetProgramLog",
        "nvrtcGetCUBINSize",
        "nvrtcGetCUBIN",
        "nvrtcGetPTXSize",
        "nvrtcGetPTX",
        "nvrtcGetNumSupportedArchs",
        "nvrtcGetSupportedArchs",
    ],
}


def version(name: str, library: ctypes.CDLL) -> str:
    """Returns the version that a library reports."""
    major, minor, patch = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if "cuda" in name:
        library.cuInit(0)
        library.cuDriverGetVersion(ctypes.byref(major))
        return f"CUDA {major.value // 1000}.{major.value % 1000 // 10}"
    if "cublas" in name:
        for i, number in enumerate((major, minor, patch)):
            library.cublasGetProperty(i, ctypes.byref(number))
        return f"{major.value}.{minor.value}.{patch.value}"
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def main() -> None:
    folder, bad = Path(sys.argv[1]), 0
    for name, needed in NEEDED.items():
        try:
            library = ctypes.CDLL(str(folder / name) if (folder / name).exists() else name)
            lacks = [symbol for symbol in needed if not hasattr(library, symbol)]
            line = {"library": name, "version": version(name, library), "lacks": lacks}
            bad += bool(lacks)
        except OSError as error:
            line, bad = {"library": name, "error": str(error)}, bad + 1
        print(json.dumps(line), flush=True)
    sys.exit(f"Error: {bad} of CUDA's libraries cannot be used" if bad else 0)


if __name__ == "__main__":
    main()
