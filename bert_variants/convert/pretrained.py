"""Models in and out: ``from_pretrained``, ``save_pretrained`` and ``convert``.

::

    m = bv.from_pretrained("bert-base-uncased/")     # what bv.load gives for a run
    bv.save_pretrained(m, "export/")                 # or bv.save_pretrained("runs/x", "export/")
    convert("bert-base-uncased/", "runs/published")  # a run to begin from
    convert("runs/x", "export/")                     # a Hugging Face directory
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax

from bert_variants import loaded, registry
from bert_variants.convert import (
    card,
    directory,
    families,
    pairs,
    runs,
    sentences,
    tensorflow_checkpoints,
    tokenizers,
)
from bert_variants.convert.directory import Model
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import heads_of
from bert_variants.convert.files import write_file
from bert_variants.convert.pickled import SUFFIXES
from bert_variants.convert.safetensors_files import SHARD_BYTES
from bert_variants.loaded import Loaded
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.train import checkpoint, leaves
from bert_variants.train.checkpoint import Saved

Kind = Literal["run", "transformers", "pair", "sentences", "tensorflow"]
TENSORFLOW = "tensorflow"  # the form of the original checkpoints
README = "README.md"


@dataclasses.dataclass(frozen=True)
class Source:
    """A model in files, with its tokenizer, and what is to be told of it.

    Attributes:
        model: see there.
        tokenizer: of the model.
        pooling: how a text's vector is made; empty where nothing says it.
        notes: tensors that were not read, for people.
    """

    model: Model
    tokenizer: Tokenizer
    pooling: tuple[str, ...]
    notes: tuple[str, ...]


def kind_of(path: Path) -> Kind:
    """What a path is, by what it holds.

    Raises:
        ConvertError: none of what can be read.
    """
    if not path.exists():
        if tensorflow_checkpoints.is_one(path):
            return "tensorflow"
        raise ConvertError(f"{path} does not exist.")
    if runs.is_one(path):
        return "run"
    if pairs.is_one(path):
        return "pair"
    if sentences.is_one(path):
        return "sentences"
    folder = path if path.is_dir() else path.parent
    if directory.is_one(folder) and (path.is_dir() or path.name.endswith(SUFFIXES)):
        return "transformers"
    if tensorflow_checkpoints.is_one(path):
        return "tensorflow"
    raise ConvertError(
        f"{path} is no model that can be read: a run has a folder {checkpoint.FOLDER}, a directory "
        f"of transformers a {directory.CONFIG} with a model_type and model.safetensors, one of "
        f"Sentence-BERT a {sentences.MODULES}, a pair has {pairs.FIRST}/ and {pairs.SECOND}/, a "
        "checkpoint of TensorFlow PREFIX.index."
    )


def look(path: Path) -> Source:
    """A model that was made elsewhere. Its parameters are read when they are asked for.

    Raises:
        ConvertError: files that cannot be read, or that are no model of ours.
        TokenizerError: a vocabulary that is damaged.
    """
    kind = kind_of(path)
    if kind == "run":
        raise ConvertError(f"{path} is a run of this project: bv.load reads it.")
    if kind == "tensorflow":
        model, tokenizer = tensorflow_checkpoints.look(path)
        return Source(model, _fitting(tokenizer, model), (), _notes(model, tokenizer))
    pooling: tuple[str, ...] = ()
    if kind == "sentences":
        found = sentences.look(path)
        path, pooling = found.encoder, found.pooling
    model = pairs.look(path) if kind == "pair" else directory.look(path)
    place = model.where / pairs.FIRST if kind == "pair" else model.where
    tokenizer = _fitting(tokenizers.read(place), model)
    return Source(model, tokenizer, pooling, _notes(model, tokenizer))


def _fitting(tokenizer: Tokenizer, model: Model) -> Tokenizer:
    """The tokenizer, if the model's table has a row for each of its tokens."""
    if tokenizer.vocab.size > model.vocab_size:
        raise ConvertError(
            f"{model.where}: the tokenizer has {tokenizer.vocab.size:,} tokens, the model's table "
            f"{model.vocab_size:,} rows."
        )
    return tokenizer


def _notes(model: Model, tokenizer: Tokenizer) -> tuple[str, ...]:
    """What of the directory is not in our model."""
    notes = []
    reasons = sorted(set(model.left.values()))
    for why in reasons:
        names = sorted(name for name, reason in model.left.items() if reason == why)
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        notes.append(f"not read: {shown} ({why})")
    if tokenizer.vocab.size < model.vocab_size:
        notes.append(
            f"the table has {model.vocab_size:,} rows, of which {tokenizer.vocab.size:,} are tokens"
        )
    if not model.experiment.objectives:
        notes.append("it has no head: it gives hidden states, and predicts nothing")
    return tuple(notes)


def from_pretrained(path: str | Path) -> Loaded:
    """A published model, ready to use: the same object as ``bv.load`` gives for a run.

    Args:
        path: a directory of Hugging Face's transformers (config.json, safetensors, tokenizer), one
            of Sentence-BERT, a folder with ``generator`` and ``discriminator``, a
            ``pytorch_model.bin`` (read by a reader that admits tensors and nothing else), an
            original TensorFlow checkpoint (``DIR/bert_model.ckpt``); or a run.

    Raises:
        ConvertError: lists everything that is missing, unexpected or of another shape or type.
        TokenizerError: a vocabulary that is damaged.
    """
    path = Path(path)
    if kind_of(path) == "run":
        return loaded.load(path)
    found = look(path)
    # nobody else has these arrays: on a CPU they need not be copied
    flat = {n: jax.device_put(x, may_alias=True) for n, x in found.model.arrays()}
    return loaded.of(
        found.model.experiment,
        leaves.nested(flat),
        found.tokenizer,
        found.model.step,
        pooling=found.pooling,
    )


def origin(path: Path) -> Saved:
    """What ``run.init_from`` names: a run, or a published model.

    Raises:
        CheckpointError, ConvertError: see ``checkpoint.load`` and ``look``.
    """
    if kind_of(path) == "run":
        return checkpoint.load(path)
    found = look(path)
    params = leaves.nested(dict(found.model.arrays()))
    return Saved(found.model.experiment, params, found.tokenizer, found.model.step)


def save_pretrained(
    model: Loaded | str | Path,
    path: str | Path,
    *,
    dtype: str = "float32",
    form: str = "",
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[str, ...]:
    """Write a model as a directory that Hugging Face's transformers loads, or as a checkpoint that
    the original TensorFlow code loads.

    Args:
        model: from ``load`` or ``from_pretrained``; or a run's directory.
        path: the directory; made whole or not at all.
        dtype: float32, bfloat16 or float16.
        form: the type of model to write it as (``ernie``); ``tensorflow`` for the original
            checkpoints of BERT, ALBERT, ELECTRA and XLNet; empty: the type that fits.
        force: replace a model that is there.
        shard_bytes: at most so many bytes a file.

    Returns:
        What is to be told: the class that reads it, and heads that it has no place for.

    Raises:
        ConvertError: a model that has no form in transformers, numbers too large for the type, or
            something in the way.
    """
    run_dir = None if isinstance(model, Loaded) else Path(model)
    made = model if isinstance(model, Loaded) else loaded.load(run_dir, host=True)
    with _made_whole(Path(path), force) as folder:
        notes = _write(made, folder, dtype=dtype, form=form, shard_bytes=shard_bytes)
        write_file(folder / README, card.card(made, run_dir).encode())
    return notes


def _write(made: Loaded, folder: Path, **options: Any) -> tuple[str, ...]:
    """Weights, configuration and tokenizer of a model."""
    if options["form"] == TENSORFLOW:
        if options["dtype"] != "float32":
            raise ConvertError("checkpoints of TensorFlow are float32: leave out dtype.")
        return tensorflow_checkpoints.write(made, folder)
    params, _ = leaves.flatten(made.params)
    shapes = {name: tuple(array.shape) for name, array in params.items()}
    family = families.of_model(made.config.model, heads_of(shapes), options["form"])
    parts = family.split(made.config)
    common = {"step": made.step, **options}
    vocab, length = made.tokenizer.vocab, made.model.positions
    if parts:
        written = pairs.write(folder, family.again(made.config), parts, params, vocab, **common)
        folders = {name: folder / name for name in parts}
    else:
        written = {"": directory.write(folder, made.config, params, vocab, **common)}
        folders = {"": folder}
    notes = []
    for name, one in written.items():
        tokenizers.write(made.tokenizer, folders[name], family=one.model_type, length=length)
        at = f"{name}/: " if name else ""
        notes.append(f"{at}read by transformers.{one.architecture}")
        if one.apart:
            notes.append(
                f"{at}{', '.join(one.apart)}: heads that {one.architecture} has not, in "
                f"{directory.EXTRA}/ for this project"
            )
    if made.pooling:
        width = registry.lookup("model", made.config.model).argument("width")
        sentences.write(folder, made.pooling, width, length)
        notes.append(f"a Sentence-BERT directory, pooling {', '.join(made.pooling)}")
    return tuple(notes)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: str = "float32",
    form: str = "",
    force: bool = False,
) -> tuple[str, ...]:
    """Move a model: a run becomes a directory of transformers, anything else a run.

    Args:
        source: what it is, is recognised from what it holds.
        target: the directory; made whole or not at all.
        dtype, form: as ``save_pretrained``'s; for a run as the target nothing but float32.
        force: replace a model that is there.

    Returns:
        What is to be told.

    Raises:
        ConvertError, TokenizerError, CheckpointError: see ``look``, ``save_pretrained``.
    """
    source, target = Path(source), Path(target)
    if kind_of(source) == "run":
        return save_pretrained(source, target, dtype=dtype, form=form, force=force)
    if dtype != "float32" or form:
        raise ConvertError(
            f"{source} becomes a run, whose parameters are float32 and have one form: leave out "
            "dtype and form."
        )
    found = look(source)
    with _made_whole(target, force) as folder:
        runs.write(
            folder,
            found.model.experiment,
            found.model.arrays(),
            found.tokenizer,
            step=found.model.step,
            pooling=found.pooling,
            name=target,
        )
    return (f"a run at step {found.model.step}: {found.model.experiment.model}", *found.notes)


@contextlib.contextmanager
def _made_whole(target: Path, force: bool) -> Iterator[Path]:
    """A folder to write into, that takes the place of ``target`` when all of it is written.

    What was there is whole until then, and if the names cannot be changed it has its own again.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        replaceable = target.is_dir() and (runs.is_one(target) or _is_model(target))
        if not force or not replaceable:
            advice = "Give another, or --force." if replaceable else "It is no model: give another."
            raise ConvertError(f"{target} is there already. {advice}")
    part, old = (target.parent / f".{target.name}.{os.getpid()}.{x}" for x in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_model(folder: Path) -> bool:
    known = (directory, pairs, sentences, tensorflow_checkpoints)
    return any(kind.is_one(folder) for kind in known)
