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
from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np

from bert_variants.convert.errors import ConvertError
from bert_variants.convert.files import Source

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

MOST_DIMENSIONS = 32
MOST_NUMBERS = 2**56


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


def of_bytes(data: np.ndarray, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array whose bytes, row by row and least significant first, are ``data`` (uint8).

    Raises:
        ConvertError: truth values that are neither 0 nor 1.
    """
    if dtype == "bool" and data.size and data.max() > 1:
        raise ConvertError(f"{name} is of type bool, but holds the byte {data.max()}.")
    flat = data.view(DTYPES[dtype])
    if sys.byteorder == "big":
        flat = flat.byteswap()
    return flat.reshape(shape)


def in_file(
    source: Source,
    offset: int,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    check: Callable[[np.ndarray], None] | None = None,
) -> Stored:
    """A tensor whose bytes, as of ``of_bytes``, lie in a file from ``offset`` on.

    Args:
        source, offset: where.
        name, shape, dtype: what; the caller has seen that it lies within the file.
        check: is given the bytes when they are read, to raise ConvertError if they are damaged.
    """

    def load() -> np.ndarray:
        data = source.read(offset, math.prod(shape) * DTYPES[dtype].itemsize)
        if check is not None:
            check(data)
        return of_bytes(data, f"{name} in {source.path}", shape, dtype)

    return Stored(name, shape, dtype, str(source.path), load)


def shape_problem(shape: Sequence[object]) -> str | None:
    """Why sizes that a file says are no shape of a tensor, or None if they are.

    ``[2, 3]``, ``[]`` and ``[0, 3]`` are shapes; ``[-1]``, ``[True]``, ``[2.0]``, ``["2"]``,
    ``[2**62, 4]`` and ``[0, 2**62, 4]`` are not.
    """
    if len(shape) > MOST_DIMENSIONS:
        return f"it has {len(shape)} dimensions, expected at most {MOST_DIMENSIONS}"
    wrong = next((d for d in shape if type(d) is not int or d < 0), None)
    if wrong is not None:
        return f"the size {str(wrong)[:40]} is no whole number from 0 on"
    # the other sizes of an empty tensor count too: numpy multiplies them
    if math.prod(d for d in shape if d) >= MOST_NUMBERS:
        return "it has more numbers than any machine could hold"
    return None
