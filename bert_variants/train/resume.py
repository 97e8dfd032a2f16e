"""What may change between two starts of a run, and what may not.

A run is its config, its text and its tokenizer. Starting it again with others would go on with
something else under the same name, so each difference is refused unless it is harmless or named in
``run.allow_change``. A field that is in no table below is refused: new fields are safe by default.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax

from bert_variants import config, registry
from bert_variants.train.errors import ResumeRefusedError
from bert_variants.train.meta import Meta

# Do not touch what is computed. Where the text comes from is judged by the store's fingerprint.
HARMLESS = frozenset(
    {
        "name",
        "data.source",
        "data.held_out_source",
        "data.held_out",
        "data.tokenizer",
        "data.units",
        "data.dir",
        "data.workers",
        "run.dir",
        "run.log_every",
        "run.eval_every",
        "run.save_every",
        "run.keep",
        "run.keep_every",
        "run.allow_change",
        "evals.example",
        "evals.masks",
        "evals.pll",
        "evals.rows",
        "evals.batch",
    }
)
# Change the order of floating-point operations and nothing else.
LAST_BITS = frozenset(
    {"mesh.data", "mesh.fsdp", "mesh.tensor", "run.precision", "run.scan", "run.remat"}
)
# After one of these a position in the old order of rows means nothing in the new one.
ORDER = frozenset({"store", "data.example", "data.length", "data.copies", "run.seed"})
# Of streams, whose lanes are the places of a batch, this is another order too.
LANES = frozenset({"run.batch"})

STORE, TOKENIZER = "store", "tokenizer"
_PACKAGES = ("bert-variants", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Versions and kind of device of what computes; the same ones give the same bits."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    devices = jax.devices()
    return {**found, "devices": f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}"}


def changes(
    meta: Meta, experiment: config.Experiment, store: str, tokenizer: str
) -> dict[str, tuple[Any, Any]]:
    """Dotted path (or ``store``, ``tokenizer``) -> (in the checkpoint, now), for what differs.

    Call-strings are compared by what they mean: ``nsp_pairs`` equals ``nsp_pairs()``.

    Args:
        meta: of the checkpoint.
        experiment: given now.
        store, tokenizer: fingerprints of now.
    """
    as_written = config.differences(meta.experiment, experiment)
    found = {
        path: as_written[path]
        for path in config.differences(_canonical(meta.experiment), _canonical(experiment))
    }
    for name, old, new in (
        (STORE, meta.store, store),
        (TOKENIZER, meta.tokenizer["fingerprint"], tokenizer),
    ):
        if old != new:
            found[name] = (old, new)
    return found


def accept(
    experiment: config.Experiment, store: str, tokenizer: str, note: Callable[[str], None]
) -> Callable[[Meta], None]:
    """The judge of a checkpoint's metadata: says what changed, or refuses.

    Raises (the judge):
        ResumeRefusedError: names every field that may not differ, its old and its new value.
    """

    def judge(meta: Meta) -> None:
        found = changes(meta, experiment, store, tokenizer)
        if LANES & set(found) and any(name.split("/")[0] == "carry" for name in meta.leaves):
            raise ResumeRefusedError(_of_other_rows(experiment, meta))
        allowed = {*HARMLESS, *LAST_BITS, *experiment.run.allow_change}
        refused = {path: values for path, values in found.items() if path not in allowed}
        if refused:
            raise ResumeRefusedError(_refusal(experiment, meta, refused))
        for path, (old, new) in found.items():
            note(f"changed since step {meta.step}: {path} from {_short(old)} to {_short(new)}")
        if LAST_BITS & set(found):
            note("the numbers will agree to rounding with an unchanged run, not bit for bit")
        if dict(meta.versions) != versions():
            said, now = meta.versions, versions()
            different = {k: (said.get(k), now.get(k)) for k in now if said.get(k) != now.get(k)}
            text = ", ".join(f"{k} {old} -> {new}" for k, (old, new) in different.items())
            note(f"other software or devices than at step {meta.step}: {text}")

    return judge


def order_changed(found: Mapping[str, tuple[Any, Any]], experiment: config.Experiment) -> bool:
    """Whether the checkpoint's position is one of another order of rows."""
    example = registry.lookup("example", experiment.data.example)
    order = ORDER if example.traits["order"] == "random" else ORDER | LANES
    return bool(order & set(found))


def _refusal(experiment: config.Experiment, meta: Meta, refused: Mapping[str, Any]) -> str:
    lines = [f"{experiment.run.dir} (step {meta.step}) was made with other settings:"]
    lines += [
        f"  {path}: {_short(old)} there, {_short(new)} now" for path, (old, new) in refused.items()
    ]
    fields = " ".join(refused)
    return "\n".join(
        [
            *lines,
            "Give the old ones, or another --run.dir for a new run. To go on with the new ones "
            f"in this run: --run.allow-change {fields}",
        ]
    )


def _of_other_rows(experiment: config.Experiment, meta: Meta) -> str:
    run = experiment.run
    return (
        f"{run.dir} (step {meta.step}) holds a memory for each of its {meta.experiment.run.batch} "
        f"rows of a batch; run.batch is {run.batch} now, and other rows go on from nothing in it. "
        "Give the old run.batch, or begin a new run with these parameters: "
        f"--run.init-from {run.dir} and another --run.dir."
    )


def _canonical(experiment: config.Experiment) -> config.Experiment:
    """The experiment with every call-string in its one normal form."""
    for path, family in config.call_fields().items():
        value = config.get_field(experiment, path)
        if isinstance(value, tuple):
            new: Any = tuple(str(registry.lookup(family, call)) for call in value)
        else:
            new = str(registry.lookup(family, value)) if value else value
        experiment = config.set_field(experiment, path, new)
    terms = config.objective_terms(experiment.objectives)
    text = " + ".join(f"{weight}*{call}" for weight, call in terms)
    return config.set_field(experiment, "objectives", text)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
