"""Tensors in files: what every reader returns and every writer takes.

A reader returns names, shapes and types at once, and each tensor's numbers when they are asked for.
A writer takes the same, so that it can lay out a file before it holds a single number, and then
holds one tensor at a time. Converting is a mapping from one to the other::

    found = read_safetensors(folder)                      # reads headers only
    wanted = {new: found[old].renamed(new) for new, old in names.items()}
    wanted["head/kernel"] = found["head.weight"].mapped("head/kernel", (4, 2), np.transpose)
    write_bundle(prefix, wanted)                          # reads, changes and writes one by one
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np

from bert_variants.convert.errors import ConvertError

# Every type that a tensor here may have: the numbers that weights are made of, no strings.
DTYPES: dict[str, np.dtype] = {
    name: np.dtype(name)
    for name in (
        *("float64", "float32", "float16"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
        "bool",
    )
}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor somewhere: what it is, and how to get it.

    Attributes:
        name: as the file says it.
        shape: () for a scalar.
        dtype: a name of ``DTYPES``.
        where: the file, for messages.
        load: reads this one tensor and keeps nothing: a C-contiguous array of this shape and type
            in the machine's byte order. Raises ConvertError if the file has changed or, in formats
            with checksums, is damaged.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    where: str
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return self.size * DTYPES[self.dtype].itemsize

    def renamed(self, name: str) -> Stored:
        """The same tensor under another name."""
        return dataclasses.replace(self, name=name)

    def mapped(
        self,
        name: str,
        shape: tuple[int, ...],
        change: Callable[[np.ndarray], np.ndarray],
        dtype: str | None = None,
    ) -> Stored:
        """What ``change`` makes of the tensor, made when it is loaded.

        Args:
            name: of the result.
            shape: of the result; what ``change`` returns must have it.
            change: from the loaded array to the result.
            dtype: of the result, to which it is cast; None: as this tensor.
        """
        into = dtype or self.dtype

        def load() -> np.ndarray:
            made = np.asarray(change(self.load()), DTYPES[into], order="C")
            if made.shape != shape:
                raise ConvertError(
                    f"{name}: made of {self.name} {list(self.shape)} in {self.where}, it has shape "
                    f"{list(made.shape)}, expected {list(shape)}."
                )
            return made

        return Stored(name, shape, into, self.where, load)

    def cast(self, dtype: str) -> Stored:
        """The same numbers in another type, rounded to nearest."""
        if dtype == self.dtype:
            return self
        return self.mapped(self.name, self.shape, lambda array: array, dtype)


Tensors = Mapping[str, Stored]


def in_memory(name: str, array: np.ndarray, where: str = "memory") -> Stored:
    """An array that is there already, as a tensor to write.

    Raises:
        ConvertError: of a type that is none of ``DTYPES``.
    """
    if array.dtype.name not in DTYPES:
        raise ConvertError(f"{name} is of type {array.dtype}, expected one of {sorted(DTYPES)}.")
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    ready = np.asarray(native, order="C")
    return Stored(name, array.shape, array.dtype.name, where, lambda: ready)


def of_arrays(arrays: Mapping[str, np.ndarray], where: str = "memory") -> dict[str, Stored]:
    """Arrays that are there already, as tensors to write."""
    return {name: in_memory(name, array, where) for name, array in arrays.items()}


def as_bytes(tensor: Stored) -> np.ndarray:
    """Load a tensor for a writer: its bytes, row by row, least significant first.

    Returns:
        uint8 [nbytes], a view of the loaded array where that is possible.

    Raises:
        ConvertError: what was loaded is not of the shape or type that the tensor says.
    """
    array = tensor.load()
    if array.shape != tensor.shape or array.dtype.name != tensor.dtype:
        raise ConvertError(
            f"{tensor.name} from {tensor.where} was loaded as {array.dtype}{list(array.shape)}, "
            f"it said {tensor.dtype}{list(tensor.shape)}."
        )
    flat = np.asarray(array, order="C").reshape(-1)
    if sys.byteorder == "big":
        flat = flat.byteswap()
    return flat.view(np.uint8)


def of_bytes(data: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array whose bytes, row by row and least significant first, are ``data`` (uint8)."""
    flat = data.view(DTYPES[dtype])
    if sys.byteorder == "big":
        flat = flat.byteswap()
    return flat.reshape(shape)
