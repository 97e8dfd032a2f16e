"""Process-wide settings that must be made before jax is imported."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from pathlib import Path

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
OFF = "BERT_VARIANTS_MALLOC"  # "off" leaves the allocator alone
CACHE_OFF = "BERT_VARIANTS_CACHE"  # "off" keeps no compiled programs


def tune() -> list[str]:
    """Make the settings of this process; returns them as lines for a log.

    On Linux with glibc the allocator keeps large blocks instead of returning them to the kernel:
    XLA's CPU client allocates its temporaries anew on each call and otherwise spends 15 to 50 % of
    a step on page faults. ``BERT_VARIANTS_MALLOC=off`` leaves the allocator alone.

    Compiled programs are kept in the user's cache folder, so that the second start of a run does
    not compile again (jax's persistent cache; a damaged entry is a warning and is compiled anew).
    ``JAX_COMPILATION_CACHE_DIR`` names another folder; ``BERT_VARIANTS_CACHE=off`` keeps none.
    """
    made = []
    # TensorFlow, where something imports it, and XLA's own start-up chatter
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if os.environ.get(OFF) != "off" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        settings = {
            _M_MMAP_MAX: 0,
            _M_TRIM_THRESHOLD: -1,
            _M_TOP_PAD: 64 << 20,
            _M_ARENA_MAX: 1,
        }
        if all(libc.mallopt(key, value) == 1 for key, value in settings.items()):
            made.append("malloc: blocks are kept (no mmap, no trim, 64 MiB top pad, one arena)")
    folder = _cache_folder()
    if folder is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        made.append(f"compiled programs are kept in {folder}")
    return made


def _cache_folder() -> Path | None:
    """Where this machine's programs are kept; None: nowhere, or where the user said.

    jax's own key knows its version, the program and the options, but not the instructions of the
    CPU: a home directory may be shared by machines that lack each other's. So the folder's name
    knows them.
    """
    if os.environ.get(CACHE_OFF) == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "bert-variants" / f"compiled-{_instructions()}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or no home
        return None
    return folder if os.access(folder, os.W_OK) else None


def _instructions() -> str:
    """A short name for the kind of CPU and the instructions that it has."""
    about = f"{platform.machine()} {platform.processor()}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    about += "".join(sorted({x for x in lines if x.startswith(("flags", "Features", "model"))}))
    return hashlib.sha256(about.encode()).hexdigest()[:12]
