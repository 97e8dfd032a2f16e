"""A model of two networks: two directories side by side, one model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_variants.config import Experiment
from bert_variants.convert import directory, families
from bert_variants.convert.directory import Arrays, Model, Written
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import Part, shapes_of
from bert_variants.types import Vocab

FIRST, SECOND = "discriminator", "generator"  # a shared array is read from the first


def is_one(folder: Path) -> bool:
    """Whether a folder holds two such directories."""
    return all(directory.is_one(folder / name) for name in (FIRST, SECOND))


def look(folder: Path) -> Model:
    """The one model that two directories are. Only headers are read, and the tables to compare.

    Raises:
        ConvertError: as ``directory.look`` of each; or two that do not make one model.
    """
    models = {name: directory.look(folder / name) for name in (FIRST, SECOND)}
    family = families.families()[models[FIRST].model_type]
    if family.join is None or models[SECOND].model_type != family.model_type:
        raise ConvertError(
            f"{folder} holds a {models[FIRST].model_type} as {FIRST} and a "
            f"{models[SECOND].model_type} as {SECOND}: no model of ours is made of these. Name one."
        )
    rows = {model.vocab_size for model in models.values()}
    if len(rows) > 1:
        raise ConvertError(
            f"{folder}: the two have tables of {sorted(rows)} rows, expected one size."
        )
    step = max(model.step for model in models.values())
    if (folder / directory.OURS).is_file():
        experiment, step = directory.ours(folder)
    else:
        experiments = {name: model.experiment for name, model in models.items()}
        experiment = family.join(experiments, _same_tables(models))
    parts = family.split(experiment)
    left = {f"{name}/{t}": why for name, m in models.items() for t, why in m.left.items()}
    shapes = shapes_of(experiment, rows.pop())
    return Model(
        folder,
        family.model_type,
        experiment,
        models[FIRST].vocab_size,
        step,
        lambda: _arrays(models, parts, set(shapes), folder),
        left,
    )


def _same_tables(models: Mapping[str, Model]) -> bool:
    """Whether both have the same embeddings, number for number."""
    first, second = (_tables(models[name]) for name in (FIRST, SECOND))
    return set(first) == set(second) and all(
        np.array_equal(array, second[path]) for path, array in first.items()
    )


def _tables(model: Model) -> dict[str, np.ndarray]:
    return {path: array for path, array in model.arrays() if path.startswith("embeddings/")}


def _arrays(
    models: Mapping[str, Model], parts: Mapping[str, Part], wanted: set[str], folder: Path
) -> Arrays:
    """Ours, from both; an array that both have must be the same."""
    shared = {
        path
        for path in wanted
        if all(_has(models[name], parts[name], path) for name in (FIRST, SECOND))
    }
    kept: dict[str, np.ndarray] = {}
    for name in (FIRST, SECOND):
        for path, array in models[name].arrays():
            (whole,) = parts[name].whole(path)
            if whole in kept:
                if not np.array_equal(kept.pop(whole), array):
                    raise ConvertError(
                        f"{folder}: {whole} is shared by {FIRST} and {SECOND}, but they hold other "
                        f"numbers for it. Delete {directory.OURS} to read them as two networks."
                    )
                continue
            if whole in shared and name == FIRST:
                kept[whole] = array
            yield whole, array


def _has(model: Model, part: Part, whole: str) -> bool:
    shapes = shapes_of(model.experiment, model.vocab_size)
    return any(part.whole(path) == (whole,) for path in shapes)


def write(
    folder: Path,
    experiment: Experiment,
    parts: Mapping[str, Part],
    params: Mapping[str, Any],
    vocab: Vocab,
    *,
    step: int = 0,
    **options: Any,
) -> dict[str, Written]:
    """Write each part as a directory by itself.

    Args:
        folder: of both.
        experiment: of the whole.
        parts: folder -> part, from ``Family.split``.
        params: of the whole, our path -> array.
        vocab, step, options: as ``directory.write``'s.

    Raises:
        ConvertError: as ``directory.write``; parameters that belong to no part.
    """
    rows = directory.rows_of({path: tuple(x.shape) for path, x in params.items()})
    written, used = {}, set()
    for name, part in parts.items():
        mine = {}
        for path in shapes_of(part.experiment, rows):
            whole = part.whole(path)
            used |= set(whole)
            mine[path] = params[whole[0]]
            for more in whole[1:]:
                mine[path] = np.asarray(mine[path]) + np.asarray(params[more])
        written[name] = directory.write(
            folder / name, part.experiment, mine, vocab, step=step, **options
        )
    if set(params) - used:
        raise ConvertError.of(
            "these parameters belong to neither network", sorted(set(params) - used)
        )
    directory.write_ours(folder, experiment, step)
    return written
