"""A model in a directory: Hugging Face's files, and what this project writes beside them.

::

    config.json                  the architecture, for both sides
    model.safetensors            what transformers has a place for; or shards and their index
    bert_variants.json           the whole experiment and the number of steps: ours alone
    bert_variants/               heads that transformers has no class for, under our names
    tokenizer files, README.md

A model of two networks (ELECTRA) is two such directories, ``generator`` and ``discriminator``, in
one that holds ``bert_variants.json``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_variants import config, registry
from bert_variants.config import Experiment
from bert_variants.convert import families, pickled
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.family import Family, head_of, heads_of, shapes_of
from bert_variants.convert.fields import CHANGES_NOTHING, Settings
from bert_variants.convert.files import write_file
from bert_variants.convert.json_files import Fields, read_json
from bert_variants.convert.matching import Plan, export, match
from bert_variants.convert.rules import Shape
from bert_variants.convert.safetensors_files import (
    FILE,
    INDEX,
    SHARD_BYTES,
    read_safetensors,
    write_safetensors,
)
from bert_variants.convert.tensors import Stored, in_memory
from bert_variants.types import Vocab

CONFIG, OURS, EXTRA = "config.json", "bert_variants.json", "bert_variants"
FORMAT = 1
Arrays = Iterator[tuple[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model in files: what it is, and its parameters when they are asked for.

    Attributes:
        where: its directory.
        model_type: its family's name in transformers.
        experiment: whose model computes the same.
        vocab_size: rows of its table of words.
        step: how many steps it was trained for; 0 where nothing says it.
        arrays: yields our parameters, path and float32 array, one after the other.
        left: tensor that is not read -> why.
    """

    where: Path
    model_type: str
    experiment: Experiment
    vocab_size: int
    step: int
    arrays: Callable[[], Arrays]
    left: Mapping[str, str]


def is_one(folder: Path) -> bool:
    """Whether a folder looks like one of these: a config.json that names a type of model."""
    try:
        return "model_type" in read_json(folder / CONFIG)
    except ConvertError:
        return False


def look(path: Path) -> Model:
    """A model in a directory. Only headers are read.

    Args:
        path: the directory; or a ``pytorch_model.bin`` in it, which is then read by a reader that
            admits tensors and nothing else.

    Raises:
        ConvertError: files that cannot be read, or that are no model of ours; lists everything.
    """
    folder = path if path.is_dir() else path.parent
    found = tensors(path)
    settings = Settings(read_json(folder / CONFIG), str(folder / CONFIG))
    family = families.of_model_type(settings.said_or("model_type", None), settings.where)
    rows = settings.said_or("vocab_size", None)
    if not isinstance(rows, int) or isinstance(rows, bool) or not 0 < rows < 2**31:
        raise ConvertError(f"{settings.where}: vocab_size is {rows!r}, expected a number of rows.")
    read = family.experiment_of(settings, found)
    experiment, step = ours(folder) if (folder / OURS).is_file() else (read, 0)
    if experiment is not read:
        _agree(family, experiment, read, settings, rows, folder)
    shapes = shapes_of(experiment, rows)
    extra = read_safetensors(folder / EXTRA) if (folder / EXTRA).is_dir() else {}
    extra = {path: stored for path, stored in extra.items() if path in shapes}
    problems = [
        f"{path} has shape {list(stored.shape)}, expected {list(shapes[path])}."
        for path, stored in extra.items()
        if stored.shape != shapes[path] or stored.dtype != "float32"
    ]
    check(f"{folder / EXTRA} does not fit the model", problems)
    inside = {path: shape for path, shape in shapes.items() if path not in extra}
    plan = match(family.table_of(experiment), inside, found, str(folder))
    return Model(
        folder,
        family.model_type,
        experiment,
        rows,
        step,
        lambda: _arrays(plan, extra),
        plan.left,
    )


def _arrays(plan: Plan, extra: Mapping[str, Stored]) -> Arrays:
    yield from plan.arrays()
    for path, stored in extra.items():
        yield path, stored.load()


def tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a directory, or of a pickle that is named itself.

    Raises:
        ConvertError: none there; a pickle that is not named itself, with the one line that converts
            it.
    """
    if not path.is_dir():
        return pickled.read_pickled(path)
    if not (path / FILE).is_file() and not (path / INDEX).is_file():
        for found in sorted(path.iterdir()):
            if found.name.endswith(pickled.SUFFIXES):
                raise pickled.refuse(found)
    return read_safetensors(path)


def ours(folder: Path) -> tuple[Experiment, int]:
    """The experiment and the number of steps that stand in ``bert_variants.json``.

    Raises:
        ConvertError: it is damaged, or of a version of this project that is not this one.
    """
    said = Fields.read(folder / OURS)
    if said.integer("format") != FORMAT:
        raise ConvertError(f"{said.where}: format is {said.any('format')}, expected {FORMAT}.")
    try:
        experiment = config.from_dict(said.fields("experiment").values)
    except config.ConfigError as error:
        raise ConvertError(f"{said.where}: {error}") from None
    return experiment, said.integer("step", least=0)


def _agree(
    family: Family,
    experiment: Experiment,
    read: Experiment,
    settings: Settings,
    rows: int,
    folder: Path,
) -> None:
    """See that config.json describes the model of ``bert_variants.json``."""
    model = registry.parse(experiment.model)[0]
    if model != family.model:
        raise ConvertError(
            f"{settings.where} is of type {family.model_type}, our {family.model}, and {OURS} "
            f"beside it says {model}. Delete {OURS} to read the directory as it is."
        )
    pad = settings.said_or("pad_token_id", 0)
    vocab = Vocab(size=rows, pad=pad if isinstance(pad, int) else 0, unk=0, cls=0, sep=0, mask=0)
    said, found = (family.hf_config_of(one, vocab, ()) for one in (experiment, read))
    differ = sorted(k for k in set(said) - CHANGES_NOTHING if said[k] != found[k])
    check(
        f"{folder / CONFIG} and {OURS} beside it describe two models. Delete {OURS} to read the "
        "directory as it is",
        [f"{k} is {found[k]!r} in {CONFIG}, {said[k]!r} in {OURS}." for k in differ],
    )


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a model that was written.

    Attributes:
        model_type: the form that it was written in.
        architecture: the class of transformers that reads it.
        apart: heads that this class has not, in the folder ``bert_variants``.
    """

    model_type: str
    architecture: str
    apart: tuple[str, ...]


def write(
    folder: Path,
    experiment: Experiment,
    params: Mapping[str, Any],
    vocab: Vocab,
    *,
    step: int = 0,
    dtype: str = "float32",
    form: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Write a model of one network, without its tokenizer. One tensor is made at a time.

    Args:
        folder: is made if it is not there.
        experiment: whose model it is.
        params: our path -> array.
        vocab: special ids.
        step: how many steps it was trained for.
        dtype: of ``model.safetensors``; the heads beside it are float32.
        form: the model_type to write; empty: the one that fits.
        shard_bytes: at most so many bytes a file.

    Raises:
        ConvertError: a model that has no form in transformers; files in the way.
    """
    shapes: dict[str, Shape] = {path: tuple(x.shape) for path, x in params.items()}
    heads = heads_of(shapes)
    family = families.of_model(experiment.model, heads, form)
    architecture = family.architecture(heads)
    apart = {p: x for p, x in params.items() if head_of(p, shapes) not in ("", *architecture.heads)}
    inside = {path: x for path, x in params.items() if path not in apart}
    vocab = dataclasses.replace(vocab, size=rows_of(shapes))
    said = family.hf_config_of(experiment, vocab, heads) | {"dtype": dtype}
    made = export(family.table_of(experiment), inside, dtype)
    write_safetensors(folder, made, shard_bytes=shard_bytes)
    write_file(folder / CONFIG, _json(dict(sorted(said.items()))))
    write_ours(folder, experiment, step)
    if apart:
        write_safetensors(
            folder / EXTRA,
            {path: in_memory(path, np.asarray(x, np.float32)) for path, x in apart.items()},
            metadata={"format": "bert_variants"},
        )
    return Written(family.model_type, architecture.name, tuple(sorted(heads_of_paths(apart))))


def heads_of_paths(paths: Mapping[str, Any]) -> set[str]:
    """The names of the heads among paths of parameters."""
    return {path.split("/")[1] for path in paths}


def rows_of(shapes: Mapping[str, Shape]) -> int:
    """The rows of a model's table of words.

    Raises:
        ConvertError: it has none.
    """
    for path, shape in shapes.items():
        if path.endswith("word/embedding"):
            return shape[0]
    raise ConvertError(f"no table of words among {', '.join(sorted(shapes)[:5])}, ...")


def write_ours(folder: Path, experiment: Experiment, step: int) -> None:
    """Write ``bert_variants.json``."""
    values = {"format": FORMAT, "experiment": config.to_dict(experiment), "step": step}
    write_file(folder / OURS, _json(values))


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
