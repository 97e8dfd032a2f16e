"""Files written out by hand, that more than one test needs: no library has a part in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

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
