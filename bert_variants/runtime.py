"""Process-wide settings that must be made before jax is imported."""

from __future__ import annotations

import ctypes
import os
import platform

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
OFF = "BERT_VARIANTS_MALLOC"  # "off" leaves the allocator alone


def tune() -> list[str]:
    """Make the settings of this process; returns them as lines for a log.

    On Linux with glibc the allocator keeps large blocks instead of returning them to the kernel:
    XLA's CPU client allocates its temporaries anew on each call and otherwise spends 15 to 50 % of
    a step on page faults. ``BERT_VARIANTS_MALLOC=off`` leaves the allocator alone.
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
    return made
