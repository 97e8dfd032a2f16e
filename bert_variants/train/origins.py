"""Starting from the parameters of another run, also where they have other names there."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_variants import config, registry
from bert_variants.train import leaves, resume, vocabulary
from bert_variants.train.errors import ResumeRefusedError
from bert_variants.train.setup import Setup

# Arguments of models that change no shape and every number.
COMPUTES = ("heads", "activation", "eps", "first_position", "relative")


def origins(names: Collection[str], entries: Sequence[str]) -> dict[str, str | None]:
    """This run's parameter -> its name in the other run, or None: it starts at random.

    ``run.init_map``'s entries, the first that finds something in a name counts. The second stage of
    two-stage ELECTRA, ``("^discriminator/ <- generator/", "^heads/replaced/")``::

        discriminator/encoder/layers/...   from generator/encoder/layers/...
        heads/replaced/dense/kernel        at random
        heads/tokens/bias                  from heads/tokens/bias

    Raises:
        ConfigError: an entry that finds nothing.
    """
    parsed = [config.init_map_entry(entry) for entry in entries]
    found: dict[str, str | None] = {}
    for name in names:
        found[name] = name
        for here, there in parsed:
            if re.search(here, name):
                found[name] = None if there is None else re.sub(here, there, name, count=1)
                break
    for entry, (here, _) in zip(entries, parsed, strict=True):
        if not any(re.search(here, name) for name in names):
            raise config.ConfigError(
                f"run.init_map: {entry!r} finds none of this run's parameters. They are: "
                f"{', '.join(sorted(names)[:8])}, ..."
            )
    return found


def params_of(setup: Setup, fresh: Any, note: Callable[[str], None]) -> Any:
    """The parameters of ``run.init_from``, on the mesh as this run's lie.

    Args:
        setup: of this run.
        fresh: its own parameters as they would start without, for those that ``run.init_map``
            leaves at random, for heads that a published model has not, and for new tokens.
        note: told where they come from, and what is left there.

    Raises:
        ResumeRefusedError: another tokenizer, or arrays that do not fit.
        ConfigError: an entry of ``run.init_map`` that finds nothing.
        CheckpointError: no such run, or none of its checkpoints is valid.
        ConvertError: a directory of another project that cannot be read (see ``Setup.origin``).
    """
    run = setup.experiment.run
    other = Path(run.init_from)
    found = setup.origin(other)
    here = vocabulary.places(found.tokenizer, setup.tokenizer)
    if here is None and resume.TOKENIZER not in run.allow_change:
        raise ResumeRefusedError(
            f"run.init_from {other} was trained with another tokenizer "
            f"({found.tokenizer.fingerprint[:12]}, here {setup.tokenizer.fingerprint[:12]}): its "
            "embeddings mean other tokens. Take its vocabulary, or that with more tokens behind it "
            "(--data.tokenizer 'saved(dir=..., more=...)'). To take them all the same: "
            "--run.allow-change tokenizer"
        )
    theirs, _ = leaves.flatten(found.params)
    mine, structure = leaves.flatten(fresh)
    if here is not None:
        theirs = vocabulary.moved(theirs, mine, here, note)
    source = origins(mine, run.init_map)
    published = found.step == 0  # trained elsewhere: its heads are not this run's
    if published:
        source |= dict.fromkeys(_other_heads(theirs, mine, source))
    left = sorted(set(theirs) - set(source.values()))
    _check_fit(
        setup,
        {n: (x.shape, x.dtype) for n, x in theirs.items()},
        mine,
        source,
        [name for name in left if not (published and name.startswith("heads/"))],
    )
    note(f"parameters come from {other}, step {found.step}")
    for difference in _other_arguments(found.experiment.model, setup.experiment.model):
        note(f"the model there computes otherwise: {difference}")
    if run.init_map or published:
        told = {"start at random": [n for n in mine if source[n] is None], "are left there": left}
        for what, names in told.items():
            if names:
                note(f"{len(names)} arrays {what}: {_some(names)}")
    placed = [
        x if source[n] is None else jax.device_put(np.asarray(theirs[source[n]]), x.sharding)
        for n, x in mine.items()
    ]
    return jax.tree_util.tree_unflatten(structure, placed)


def _other_heads(
    theirs: dict[str, Any], mine: dict[str, Any], source: dict[str, str | None]
) -> list[str]:
    """Parameters of heads that are not there, or are there for another number of classes."""
    return [
        name
        for name, there in source.items()
        if name.startswith("heads/")
        and there is not None
        and (there not in theirs or theirs[there].shape != mine[name].shape)
    ]


def _other_arguments(theirs: str, mine: str) -> list[str]:
    """Arguments that change what a model computes from the same parameters."""
    there, here = registry.lookup("model", theirs), registry.lookup("model", mine)
    if there.name != here.name:
        return [f"it is {there.name} there, {here.name} here"]
    told = []
    for name in COMPUTES:
        if name in here.entry.parameters and there.argument(name) != here.argument(name):
            told.append(f"{name} is {there.argument(name)!r} there, {here.argument(name)!r} here")
    return told


def _check_fit(
    setup: Setup,
    theirs: dict[str, tuple[Any, Any]],
    mine: dict[str, Any],
    source: dict[str, str | None],
    left: Sequence[str],
) -> None:
    """Every array that is taken is there, of the same shape and type; none is left without a map.

    Raises:
        ResumeRefusedError: names one that is not, and how many there are.
    """
    run = setup.experiment.run
    wrong = {
        name: f"{there} is {theirs.get(there, 'missing')} there, {mine[name].shape} here"
        for name, there in source.items()
        if there is not None and theirs.get(there) != (mine[name].shape, mine[name].dtype)
    }
    if not run.init_map:
        wrong |= {name: f"{name} is {theirs[name]} there, not wanted here" for name in left}
    if wrong:
        raise ResumeRefusedError(
            f"run.init_from {run.init_from} does not fit model {setup.experiment.model}: "
            f"{wrong[min(wrong)]} ({len(wrong)} arrays differ). Where names or heads differ on "
            "purpose, say so in run.init_map."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
