"""Floating-point operations of a step, counted in the traced program itself.

No formula for each architecture: the program is traced on shapes and every matrix product in it is
counted, 2 m n k for an (m, k) by (k, n) product, once for each turn of a loop. For BERT that gives,
a row of T tokens with P predictions::

    layers     L (8 T D^2 + 4 T D F)     query, key, value, out; the two of the feed-forward
    attention  L (4 T^2 D)               scores, context
    heads      2 P D^2 + 2 P D V         transform, vocabulary; a pooler adds 2 D^2 + 2 D C
    training   3 x forward               each product has two more in the backward pass

Element-wise work (softmax, GELU, LayerNorm, dropout, the optimizer) is not counted: it is bound by
memory, and model-FLOPs utilisation is by custom about matrix products.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from bert_variants.ops.precision import SUM
from bert_variants.plan.abstract import Abstract

FORMULA = (
    "2 m n k for every matrix product of the traced program; BERT: a row of T tokens takes "
    "L(8TD^2 + 4TDF + 4T^2D) + 2PD^2 + 2PDV forward and 3 times that in training"
)


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations of the matrix products of one step over the global batch.

    Attributes:
        forward: of the forward pass.
        training: forward and backward, nothing recomputed: what utilisation is measured by.
        executed: what the devices really run: ``training``, and what ``run.remat`` recomputes.
        parts: of the forward pass, by the name of the part: attention products, attention
            projections, ffn, heads/tokens, ...
        tokens: of the batch, padding included.
    """

    forward: int
    training: int
    executed: int
    parts: dict[str, int]
    tokens: int

    @property
    def forward_per_token(self) -> float:
        """Forward operations for each of the batch's tokens."""
        return self.forward / self.tokens

    @property
    def training_per_token(self) -> float:
        """Training operations for each of the batch's tokens."""
        return self.training / self.tokens


def of(abstract: Abstract) -> Flops:
    """Count a step of an experiment. Nothing is compiled; a second or two for any size."""
    # one traced layer and plain products, whatever the run uses: the counts are the same
    plain = abstract.with_run(scan="on", precision="float32", remat=False)
    parts = by_part(plain.apply, plain.state.params, plain.rows)
    training = count(plain.step, plain.state, plain.batch)
    executed = training
    if abstract.experiment.run.remat:
        again = plain.with_run(remat=True)
        executed = count(again.step, again.state, again.batch)
    return Flops(
        forward=sum(parts.values()),
        training=training,
        executed=executed,
        parts=parts,
        tokens=math.prod(abstract.batch.tokens_BT.shape),
    )


def count(function: Callable[..., Any], *arguments: Any) -> int:
    """Operations of all matrix products in ``function`` traced on ``arguments`` (shapes do)."""
    return sum(flops for _, flops in _products(jax.make_jaxpr(function)(*arguments).jaxpr))


def by_part(function: Callable[..., Any], *arguments: Any) -> dict[str, int]:
    """The same, added up by the part of the network that a product stands in."""
    found: Counter[str] = Counter()
    for stack, flops in _products(jax.make_jaxpr(function)(*arguments).jaxpr):
        found[_part(stack)] += flops
    return dict(found)


# Inside of a layer, the module that a product belongs to; elsewhere the path as it is.
_INSIDE = ("attention", "ffn")
_PROJECTIONS = ("query", "key", "value", "out")


def _part(stack: str) -> str:
    """``.../layers/attention/query/md,df->mf`` is "attention projections"."""
    path = stack.split("/")[:-1]  # the last is einsum's own name
    for module in _INSIDE:
        if module in path:
            inner = path[path.index(module) + 1 :]
            if module == "attention":
                return f"attention {'projections' if inner else 'products'}"
            return module
    return "/".join(path[2:4]) or "other"


def _products(jaxpr: Jaxpr, times: int = 1, stack: str = "") -> Iterator[tuple[str, int]]:
    """(name stack, operations) of every product, inner programs included.

    A loop counts as often as it turns; of a branch the most expensive side counts; a while loop
    of unknown length counts once.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        here = f"{stack}/{equation.source_info.name_stack}"
        if name == "dot_general" and SUM not in here:
            yield here, times * _dot(equation)
        elif name == "conv_general_dilated":
            yield here, times * _convolution(equation)
        inner = list(_inner(equation.params))
        turns = equation.params["length"] if name == "scan" else 1
        if name == "cond":
            sides = [list(_products(side, times, here)) for side in inner]
            yield from max(sides, key=lambda side: sum(flops for _, flops in side))
        else:
            for program in inner:
                yield from _products(program, times * turns, here)


def _inner(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one


def _dot(equation: Any) -> int:
    left, _ = (v.aval.shape for v in equation.invars)
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // features
