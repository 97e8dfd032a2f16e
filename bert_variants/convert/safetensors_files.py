"""The safetensors format, read and written: one file, or several with an index.

::

    8 bytes     length n of the header, least significant first
    n bytes     JSON: {"__metadata__": {str: str},
                       name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    the rest    the tensors' bytes, one after another; offsets count from here

Nothing of it needs the ``safetensors`` package, which keeps a file mapped, has no bfloat16 for
numpy, and takes the last of two tensors of one name. What is written is byte for byte what that
package writes (huggingface/safetensors:safetensors/src/tensor.rs has the order and the padding).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants.convert import json_files
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.files import (
    Source,
    Stage,
    check_absent,
    check_room,
    make_folder,
    staged,
)
from bert_variants.convert.paths import inside, plain
from bert_variants.convert.tensors import (
    Stored,
    Tensors,
    as_bytes,
    in_file,
    shape_problem,
)

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
METADATA = "__metadata__"
SHARD_BYTES = 5_000_000_000
MOST_HEADER = 4 << 20  # bytes: room for 30,000 tensors
MOST_SHARDS = 99_999  # they are numbered with five digits

# The format's names, in the order of the official writer: last ones first in the file, so that
# every tensor is aligned.
NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_RANK = {dtype: rank for rank, dtype in enumerate(NAMES.values())}
_WRITTEN = {dtype: name for name, dtype in NAMES.items()}


def read_safetensors(path: str | Path) -> dict[str, Stored]:
    """The tensors of a file, or of a directory with ``model.safetensors`` or its index.

    Only headers are read. In the file's order.

    Raises:
        ConvertError: no such file, or a header that is not what the format says: lists everything
            that is wrong with it.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_shards(path) if path.name.endswith(".index.json") else _read_file(path)
    whole, index = path / FILE, path / INDEX
    if whole.exists() and index.exists():
        raise ConvertError(f"{path} holds {FILE} and {INDEX}. Name the one that is meant.")
    if index.exists():
        return _read_shards(inside(path, INDEX))
    if not whole.exists():
        raise ConvertError(f"{path} holds neither {FILE} nor {INDEX}.")
    return _read_file(inside(path, FILE))


def read_metadata(path: str | Path) -> dict[str, str]:
    """What the ``__metadata__`` of one file says; {} where it has none.

    Raises:
        ConvertError: as ``read_safetensors``.
    """
    source = Source.of(Path(path))
    header, _ = _header(source)
    return _metadata(header, source)


# ---- reading


def _read_file(path: Path) -> dict[str, Stored]:
    source = Source.of(path)
    header, start = _header(source)
    _metadata(header, source)
    said = {name: entry for name, entry in header.items() if name != METADATA}
    problems = [f"{_short(name)} {p}" for name, e in said.items() if (p := _entry_problem(e))]
    check(f"{path} is no safetensors file", problems)
    check(f"{path} is no safetensors file", _gaps(said, source.size - start))
    return {
        name: in_file(
            source,
            start + entry["data_offsets"][0],
            name,
            tuple(entry["shape"]),
            NAMES[entry["dtype"]],
        )
        for name, entry in said.items()
    }


def _header(source: Source) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes begin."""
    if source.size < 8:
        raise ConvertError(f"{source.path} is no safetensors file: it has {source.size} bytes.")
    length = int.from_bytes(source.read(0, 8).tobytes(), "little")
    if length > source.size - 8:
        raise ConvertError(
            f"{source.path} is no safetensors file, or is cut short: it has {source.size:,} bytes, "
            f"and says that its header has {length:,}."
        )
    if length > MOST_HEADER:
        raise ConvertError(
            f"{source.path} has a header of {length:,} bytes, expected at most {MOST_HEADER:,}."
        )
    header = source.read(8, length).tobytes()
    return json_files.parse(header, f"the header of {source.path}"), 8 + length


def _metadata(header: Mapping[str, Any], source: Source) -> dict[str, str]:
    if METADATA not in header:
        return {}
    said = header[METADATA]
    if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
        raise ConvertError(f"{source.path}: {METADATA} is no object of strings.")
    return said


def _entry_problem(entry: Any) -> str | None:
    """What is wrong with what the header says of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "is not said as {dtype, shape, data_offsets}."
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NAMES:
        return f"has the dtype {str(dtype)[:40]!r}, expected one of {', '.join(NAMES)}."
    if not isinstance(shape, list):
        return "has a shape that is no list."
    wrong = shape_problem(shape)
    if wrong:
        return f"has no shape: {wrong}."
    if not _is_range(offsets):
        return "has data_offsets that are not [begin, end]."
    needed = Stored("", tuple(shape), NAMES[dtype], "", lambda: None).nbytes
    if offsets[1] - offsets[0] != needed:
        return f"has {offsets[1] - offsets[0]:,} bytes, {dtype}{shape} needs {needed:,}."
    return None


def _is_range(offsets: Any) -> bool:
    return isinstance(offsets, list) and [type(x) for x in offsets] == [int, int]


def _gaps(said: Mapping[str, Any], size: int) -> list[str]:
    """Where the tensors do not cover the bytes behind the header, each once and all of them."""
    problems, at = [], 0
    for begin, end, name in sorted((*e["data_offsets"], n) for n, e in said.items()):
        if begin != at:
            what = "a hole" if begin > at else "an overlap"
            problems.append(f"{_short(name)} begins at {begin:,}, expected {at:,}: {what}.")
        at = max(at, end)
    if at != size:
        problems.append(f"the tensors end at byte {at:,}, the file at {size:,}.")
    return problems


def _read_shards(index: Path) -> dict[str, Stored]:
    said = json_files.Fields.read(index)
    places = dict(said.fields("weight_map").values)
    wrong = [f"{_short(n)} lies in {str(f)[:100]!r}" for n, f in places.items() if not _is_file(f)]
    check(f"{index}: the weight_map names what is no file beside it", wrong)
    found: dict[str, Stored] = {}
    problems = []
    for file in sorted(set(places.values())):
        tensors = _read_file(inside(index.parent, file, str(index)))
        for name, tensor in tensors.items():
            if name in found:
                problems.append(f"{_short(name)} is in {Path(found[name].where).name} and {file}.")
            elif name not in places:
                problems.append(f"{_short(name)} is in {file}, but not in the weight_map.")
            elif places[name] != file:
                problems.append(f"{_short(name)} is in {file}, not in {places[name]}.")
            found[name] = tensor
    problems += [f"{_short(n)} is not in {f}." for n, f in places.items() if n not in found]
    check(f"{index} and its files do not agree", problems)
    return {name: found[name] for name in places}


def _is_file(name: Any) -> bool:
    return isinstance(name, str) and plain(name) is None


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:200]}..."


# ---- writing


def write_safetensors(
    folder: str | Path,
    tensors: Tensors,
    *,
    metadata: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write ``model.safetensors``, or several files and their index if that is too large for one.

    One tensor is in memory at a time. The same tensors give the same bytes. Files appear when all
    of them are whole, the index last.

    Args:
        folder: is made if it is not there.
        tensors: name -> tensor; the name in the mapping is the one that is written.
        metadata: of every file; None: {"format": "pt"}, without which some readers refuse a file.
        shard_bytes: at most so many bytes of tensors a file; a larger tensor has one to itself.

    Returns:
        The files, the index last.

    Raises:
        ConvertError: there are weights in the folder already, there is no room, a name or a type
            that the format does not have, or a tensor that is not what it says.
    """
    folder = Path(folder)
    metadata = {"format": "pt"} if metadata is None else dict(metadata)
    _check_writable(tensors, metadata)
    shards = _split(tensors, shard_bytes)
    if len(shards) > MOST_SHARDS:
        raise ConvertError(f"shard_bytes={shard_bytes} makes {len(shards):,} files.")
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = [FILE] if len(shards) == 1 else names
    paths = [folder / name for name in names]
    make_folder(folder)
    check_absent([folder / FILE, folder / INDEX, *paths])
    headers = [_header_bytes(shard, metadata) for shard in shards]
    if max(map(len, headers)) > MOST_HEADER:
        raise ConvertError(
            f"{len(tensors):,} tensors need a header of more than {MOST_HEADER:,} bytes."
        )
    total = sum(tensor.nbytes for tensor in tensors.values())
    check_room(folder, total + sum(map(len, headers)))
    with staged() as stage:
        for path, shard, header in zip(paths, shards, headers, strict=True):
            _write_file(stage, path, shard, header)
        if len(shards) > 1:
            places = {n: name for name, shard in zip(names, shards, strict=True) for n in shard}
            index = {
                "metadata": {"total_size": total},
                "weight_map": dict(sorted(places.items())),
            }
            paths.append(folder / INDEX)
            with stage.new(paths[-1]) as file:
                file.write((json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode())
    return paths


def _check_writable(tensors: Tensors, metadata: Mapping[str, str]) -> None:
    problems = [
        f"{_short(name)} is of type {tensor.dtype}, which the format does not have."
        for name, tensor in tensors.items()
        if tensor.dtype not in _WRITTEN
    ]
    texts = [*tensors, *metadata, *metadata.values()]
    problems += [f"{text!r} is half a character." for text in texts if not _is_text(text)]
    problems += [f"a tensor is named {METADATA}."] * (METADATA in tensors)
    check("these tensors cannot be written as safetensors", problems)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(tensors: Tensors, shard_bytes: int) -> list[dict[str, Stored]]:
    """The tensors of each file. In the order of the mapping, so that layers stay together."""
    shards: list[dict[str, Stored]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return [_ordered(shard) for shard in shards]


def _ordered(shard: Mapping[str, Stored]) -> dict[str, Stored]:
    names = sorted(shard, key=lambda name: (-_RANK[shard[name].dtype], name.encode()))
    return {name: shard[name] for name in names}


def _header_bytes(shard: Mapping[str, Stored], metadata: Mapping[str, str]) -> bytes:
    """The length and the header, padded with spaces to a multiple of eight bytes."""
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for name, tensor in shard.items():
        header[name] = {
            "dtype": _WRITTEN[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written


def _write_file(stage: Stage, path: Path, shard: Mapping[str, Stored], header: bytes) -> None:
    with stage.new(path) as file:
        file.write(header)
        for tensor in shard.values():
            file.write(as_bytes(tensor))
