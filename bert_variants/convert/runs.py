"""A model that was made elsewhere as a run of this project, at step 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from bert_variants import config, loaded, registry
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.train import checkpoint, record, resume
from bert_variants.train.meta import Meta, tokenizer_entry


def is_one(folder: Path) -> bool:
    """Whether a folder is a run's directory."""
    return (folder / checkpoint.FOLDER).is_dir()


def write(
    folder: Path,
    experiment: config.Experiment,
    arrays: Iterator[tuple[str, np.ndarray]],
    tokenizer: Tokenizer,
    *,
    step: int = 0,
    pooling: tuple[str, ...] = (),
    name: Path | None = None,
) -> None:
    """Write config.json, tokenizer/ and one checkpoint, which ``load`` and ``run.init_from`` read.

    It holds parameters and no state of an optimizer: it is what a run begins from, and not one to
    go on with.

    Args:
        folder: of the run.
        experiment: its model and objectives; the directory and the tokenizer are set here.
        arrays: our parameters, path and float32 array.
        tokenizer: of the model.
        step: how many steps it was trained for, elsewhere.
        pooling: how a text's vector is made; see ``sentences.Sentences``.
        name: where the folder will lie; None: where it is.
    """
    place = name or folder
    call = registry.write("saved", {"dir": str(place / "tokenizer")})
    experiment = dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, tokenizer=call),
        run=dataclasses.replace(experiment.run, dir=str(place), init_from="", init_map=()),
    )
    record.write_json(folder / "config.json", config.to_dict(experiment))
    for file, data in tokenizer.files().items():
        record.write_bytes(folder / "tokenizer" / file, data)
    if pooling:
        record.write_json(folder / loaded.POOLING, {"pooling": list(pooling)})
    meta = Meta(
        step=step,
        position=0,
        tokens=0,
        branch=0,
        config=config.to_dict(experiment),
        tokenizer=tokenizer_entry(tokenizer),
        store="",
        versions=resume.versions(),
        held_out={},
    )
    host = jax.devices("cpu")[0]
    params = {path: jax.device_put(array, host, may_alias=True) for path, array in arrays}
    checkpoint.write(folder, params, meta)
