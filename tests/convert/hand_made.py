"""Files written out by hand, that more than one test needs: no library has a part in them."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

STORAGE = {
    "float64": b"Double",
    "float32": b"Float",
    "float16": b"Half",
    "bfloat16": b"BFloat16",
    "int64": b"Long",
    "int32": b"Int",
    "int16": b"Short",
    "int8": b"Char",
    "uint8": b"Byte",
    "bool": b"Bool",
}


def text(value: str) -> bytes:
    """Push text."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    """Push a whole number."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if 0 <= value < 65_536:
        return b"M" + value.to_bytes(2, "little")
    if -(2**31) <= value < 2**31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def sizes(values: tuple[int, ...]) -> bytes:
    """Push a tuple of whole numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    dtype: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    key: str = "0",
    count: int = 6,
    offset: int = 0,
) -> bytes:
    """Push a tensor."""
    storage = (
        b"(" + text("storage") + b"ctorch\n" + STORAGE[dtype] + b"Storage\n"
        + text(key) + text("cpu") + number(count) + b"tQ"
    )  # fmt: skip
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = storage + number(offset) + sizes(shape) + sizes(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def program(items: Mapping[str, bytes]) -> bytes:
    """A dictionary of what is pushed."""
    pairs = b"".join(text(name) + pushed for name, pushed in items.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + pairs + b"u."


def archive(
    data: bytes, storages: Mapping[str, bytes], *, root: str = "model", compress: bool = False
) -> bytes:
    """A file as torch lays it out, of a program and storages."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as file:
        for name, content in {
            "data.pkl": data,
            "byteorder": b"little",
            **{f"data/{key}": value for key, value in storages.items()},
            "version": b"3\n",
        }.items():
            info = zipfile.ZipInfo(f"{root}/{name}")
            info.compress_type = kind
            file.writestr(info, content)
    return out.getvalue()


def six(dtype: str = "float32") -> np.ndarray:
    """The numbers of the storage ``0``."""
    return np.arange(6).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a piece of code took, and the ConvertError that ended it ("" if none did)."""

    seconds: float
    bytes: int
    error: str


def measured(cases: Sequence[tuple[str, str]]) -> list[Measured]:
    """Seconds and peak memory of each case, in a process of its own.

    The test process checks every call's types, which takes far longer than the call.

    Args:
        cases: Python that prepares, and Python that is measured (twice: allocations are traced in
            the first run only, time is taken in the second).
    """
    lines = [
        "import json, time, tracemalloc",
        "from bert_variants.convert.errors import ConvertError",
    ]
    for prepare, run in cases:
        body = "\n".join(f"    {line}" for line in run.split("\n"))
        lines += [
            prepare,
            "def case():",
            body,
            "error = ''",
            "tracemalloc.start()",
            "try: case()",
            "except ConvertError as caught: error = str(caught)",
            "peak = tracemalloc.get_traced_memory()[1]",
            "tracemalloc.stop()",
            "begun = time.process_time()",
            "try: case()",
            "except ConvertError: pass",
            "print(json.dumps([time.process_time() - begun, peak, error]))",
        ]
    done = subprocess.run(
        [sys.executable, "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Measured(*json.loads(line)) for line in done.stdout.strip().split("\n")]
