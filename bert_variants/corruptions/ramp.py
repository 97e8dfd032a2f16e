"""A schedule of the masking rate, for any corruption that has one."""

from __future__ import annotations

import dataclasses
import math

from bert_variants import registry
from bert_variants.corruptions.stages import by_step
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


def _check(call: Call) -> None:
    (part,) = call.inner() if isinstance(call.argument("part"), str) else (None,)
    if part is None or "rate" not in part.entry.parameters:
        raise RegistryError(
            f"corruption '{call}': part must be one corruption that has a parameter 'rate'."
        )
    if "rate" in part.kwargs:
        raise RegistryError(
            f"corruption '{call}': the rate of '{part}' is set by start and end. Leave it out."
        )
    for name in ("start", "end"):
        if not 0 <= call.argument(name) <= 1:
            raise RegistryError(
                f"corruption '{call}': {name} is {call.argument(name)}, expected 0 <= rate <= 1."
            )
    for name, least in (("steps", 1), ("levels", 2)):
        if call.argument(name) < least:
            raise RegistryError(
                f"corruption '{call}': {name} is {call.argument(name)}, expected at least {least}."
            )


@register("corruption", calls=("part",), check=_check)
def ramp(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    part: str = "tokens()",
    start: float = 0.3,
    end: float = 0.15,
    steps: int = 100_000,
    levels: int = 7,
) -> Corrupted:
    """``part`` with a rate that goes from ``start`` to ``end`` over ``steps`` steps, then stays.

    A rate decides shapes and tables, so it moves on a grid: the nearest of ``levels`` equally
    spaced rates, ends included, and so never further from the straight line than half a distance
    (0.0125 here). P is that of the largest rate; the program holds the corruption ``levels`` times.
    Evaluation uses ``end``. A worked schedule, ``start=0.3, end=0.1, steps=100, levels=3``::

        step   0 .. 24   25 .. 74   75 ..
        rate     0.3        0.2      0.1

    Args:
        keys_B: typed keys, one a row; ``part`` gets them as they are.
        batch: the rows; ``batch.step`` is the step.
        vocab: of the tokenizer.
        part: the call-string of a corruption with a parameter ``rate``, which is left out.
        start, end: the rates.
        steps: how long it takes.
        levels: rates on the way.

    Raises:
        RegistryError: a part that is unknown or has no rate, or numbers out of range.
    """
    call = registry.lookup("corruption", part)
    # rounded, because tables count in double precision: 0.29000000000000004 * 50 is no 14.5
    rates = [round(start + (end - start) * k / (levels - 1), 9) for k in range(levels)]
    until = [math.ceil(steps * (2 * k - 1) / (2 * (levels - 1))) for k in range(1, levels)]
    calls = [dataclasses.replace(call, kwargs={**call.kwargs, "rate": rate}) for rate in rates]
    return by_step(calls, until, keys_B, batch, vocab)
