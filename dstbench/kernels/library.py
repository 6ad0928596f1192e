"""The compiled kernels: made from C++ at their first use on a machine, and kept in the cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from dstbench.errors import DstbenchError

SOURCE = Path(__file__).parent / "source"
PREBUILT = Path(__file__).parent / "prebuilt"
"""Kernels that a wheel may bring, by architecture, for machines without a compiler."""
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-ffp-contract=fast", "-fPIC")
_ARCHITECTURE = "DSTBENCH_KERNELS_ARCH"
"""Environment variable with an architecture to compile for, instead of this machine's."""


class NoKernelsError(DstbenchError):
    """There are no sparse kernels here; the message says why, in a line."""


Long = ctypes.c_int64

_COUNTING = ("lanes", "shared_group", "attention_floats", "largest_floats", "largest_integers")
"""Kernels that return a number."""


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """The address of a tensor's first element."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@functools.cache
def load() -> ctypes.CDLL:
    """The kernels of this machine, compiled if they are not there yet.

    Raises:
        NoKernelsError: if they cannot be compiled or loaded.
    """
    try:
        path = _compiled()
    except NoKernelsError:
        prebuilt = _prebuilt()
        if prebuilt is None:
            raise
        path = prebuilt
    try:
        if _openmp():
            ctypes.CDLL(_openmp(), mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernelsError(f"the compiled kernels do not load: {error}") from None
    for name in _COUNTING:
        getattr(library, name).restype = Long
    return library


def loaded() -> ctypes.CDLL | None:
    """The kernels, if they are in use already."""
    return load() if load.cache_info().currsize else None


@functools.cache
def why_not() -> str | None:
    """Why there are no sparse kernels on this machine, in a line; ``None`` if there are."""
    try:
        load()
    except NoKernelsError as error:
        return str(error)
    return None


def describe() -> str:
    """What kernels there are on this machine, in a line."""
    try:
        library = load()
    except NoKernelsError as error:
        return f"masked dense kernels only: {error}"
    origin = f"compiled for {architecture()}"
    if PREBUILT in Path(library._name).parents:
        origin = "as this package brings them"
    return f"sparse kernels of {library.lanes()} lanes, {origin}"


def architecture() -> str:
    """The architecture that kernels are compiled for, as the compiler is told."""
    return os.environ.get(_ARCHITECTURE, "native")


def processor() -> str:
    """What distinguishes this machine's processor from those that its code may not run on."""
    facts = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        kinds = ("model name", "flags", "Features")
        facts += sorted({line for line in lines if line.startswith(kinds)})
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def compiler() -> str:
    """The C++ compiler: ``$CXX``, else the first of c++, g++ and clang++ on the path.

    Raises:
        NoKernelsError: if there is none.
    """
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    raise NoKernelsError("there is no C++ compiler (c++, g++ or clang++) on the path")


def compile_to(path: Path, architecture: str, *, threads: bool) -> None:
    """Compile the kernels for an architecture ("native", "x86-64-v3", …) into a shared library.

    Raises:
        NoKernelsError: if the compiler fails.
    """
    target = "-mcpu=" if platform.machine() in ("aarch64", "arm64") else "-march="
    flags = [*_FLAGS, target + architecture, *(["-fopenmp"] if threads else [])]
    with tempfile.TemporaryDirectory() as folder:
        objects = {str(each): f"{folder}/{each.stem}.o" for each in sorted(SOURCE.glob("*.cpp"))}
        with ThreadPoolExecutor() as pool:
            compiled = [
                pool.submit(_run, [compiler(), *flags, "-c", source, "-o", made])
                for source, made in objects.items()
            ]
        for each in compiled:
            each.result()
        # Linked without OpenMP: its functions are found in the library that torch has loaded.
        _run([compiler(), "-shared", *objects.values(), "-o", str(path)])


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        first = next(iter(error.stderr.splitlines()), "no message")
        raise NoKernelsError(f"{command[0]} cannot compile them: {first}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelsError(f"{command[0]} cannot be run: {error}") from None


def _compiled() -> Path:
    try:  # the engine does not need what the cache is made of; the harness does
        from dstbench.cache import Cache, digest
        from dstbench.errors import StoreError
    except ImportError as error:
        raise NoKernelsError(f"there is no cache to keep them in: {error}") from None
    found = compiler()
    version = _output([found, "--version"]).splitlines()[:1]
    threads = _openmp() is not None
    key = {
        "source": source_digest(),
        "compiler": [found, *version],
        "flags": [*_FLAGS, architecture(), threads],
        "processor": processor(),
    }
    name = "kernels.so"

    def make(folder: Path) -> None:
        compile_to(folder / name, architecture(), threads=threads)

    try:
        return Cache().folder("kernels", {"digest": digest(key)}, make) / name
    except (OSError, StoreError) as error:
        raise NoKernelsError(f"the cache cannot be written: {error}") from None


def _prebuilt() -> Path | None:
    """The kernels that came with this package for a processor like this one, if any did."""
    capability = torch.backends.cpu.get_cpu_capability()
    fitting = {"AVX512": ("x86-64-v4", "x86-64-v3"), "AVX2": ("x86-64-v3",)}
    names = fitting.get(capability, ("generic",) if platform.machine() != "x86_64" else ())
    found = (PREBUILT / f"{name}.so" for name in names)
    return next((path for path in found if path.exists()), None)


def source_digest() -> str:
    """SHA-256 (hex) of the kernels' source."""
    texts = [path.read_bytes() for path in sorted(SOURCE.iterdir()) if path.is_file()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


@functools.cache
def _openmp() -> str | None:
    """The OpenMP library whose threads torch computes with, if it brings one."""
    folder = Path(torch.__file__).parent / "lib"
    found = sorted(folder.glob("libgomp*")) + sorted(folder.glob("lib*omp*"))
    return str(found[0]) if found else None


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
