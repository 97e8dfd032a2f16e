"""In which number format the matrix products run. Parameters, sums and losses stay float32.

=============== ============== ==============  =======================================
name            activations    product inputs  where it pays
=============== ============== ==============  =======================================
float32         float32        float32         everywhere; the reference
bfloat16        bfloat16       bfloat16        GPU, TPU
bfloat16_dots   float32        bfloat16        CPUs with bfloat16 instructions
=============== ============== ==============  =======================================

Every product accumulates in float32.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bert_variants.ops.placement import on_one_device
from bert_variants.types import Leaf

SUM = "sum_as_product"  # the scope of products by ones, which no count of operations should count


@dataclasses.dataclass(frozen=True)
class Precision:
    """Formats of the activations between products and of the products' inputs."""

    activations: Any
    products: Any


PRECISIONS = {
    "float32": Precision(jnp.float32, jnp.float32),
    "bfloat16": Precision(jnp.bfloat16, jnp.bfloat16),
    "bfloat16_dots": Precision(jnp.float32, jnp.bfloat16),
}


def resolve(name: str, backend: str | None = None) -> str:
    """The name of a precision, with ``auto`` decided for ``backend`` (the default one if None)."""
    if name != "auto":
        return name
    if (backend or jax.default_backend()) != "cpu":
        return "bfloat16"
    return "bfloat16_dots" if _cpu_has_bfloat16() else "float32"


@functools.cache
def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def einsum(spec: str, x: Leaf, y: Leaf, precision: str) -> jax.Array:
    """``jnp.einsum`` of two operands in the given precision, also in the backward pass.

    Each index of an operand must stand in the output or in the other operand, once. Returns the
    precision's activation format.
    """
    chosen = PRECISIONS[precision]
    if chosen.products == jnp.float32:
        return jnp.einsum(spec, x, y)
    return _rounded_einsum(spec, chosen.activations == chosen.products, x, y).astype(
        chosen.activations
    )


# Left to itself, autodiff multiplies the float32 cotangent with the bfloat16 operand in float32,
# which loses the fast kernel in two of three products. So the cotangent is rounded too; what comes
# out is accumulated in float32 and keeps the operand's own format (float32 for parameters).
#
# XLA's CPU backend lacks bfloat16 kernels for some orders of axes, such as a weight's gradient,
# which contracts over the leading axis of both factors; in a large program it then fails at run
# time (jax 0.10.2). So on a CPU the gradients of matrices take the form of ``_contract_rows``.
# Other such products run in float32: on the rounded factors where activations are bfloat16
# (``all_low``), else for the second operand alone, with the cotangent as it is.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rounded_einsum(spec: str, all_low: bool, x: Leaf, y: Leaf) -> jax.Array:
    return _low(spec, x, y)


def _low(spec: str, x: Leaf, y: Leaf) -> jax.Array:
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _wide(spec: str, x: Leaf, y: Leaf) -> jax.Array:
    return jnp.einsum(spec, x.astype(jnp.float32), y.astype(jnp.float32))


def _low_or_wide(spec: str, x: Leaf, y: Leaf) -> jax.Array:
    """Of factors that are bfloat16 already, so that both forms give the same numbers."""
    low, wide = functools.partial(_low, spec), functools.partial(_wide, spec)
    return jax.lax.platform_dependent(x, y, cpu=wide, default=low)


def _forward(spec: str, all_low: bool, x: Leaf, y: Leaf) -> tuple[jax.Array, tuple[Leaf, ...]]:
    formats = (jnp.zeros((0,), x.dtype), jnp.zeros((0,), y.dtype))  # a dtype is no pytree leaf
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    return _low(spec, x, y), (x, y, *formats)


def _backward(spec: str, all_low: bool, saved: tuple[Leaf, ...], out: Leaf) -> tuple[Leaf, Leaf]:
    x, y, like_x, like_y = saved
    left, right, result = _letters(spec)
    to_left, to_right = f"{result},{right}->{left}", f"{left},{result}->{right}"
    if all_low:
        to_x, to_y = _low_or_wide(to_left, out, y), _low_or_wide(to_right, x, out)
    else:
        to_x = _low(to_left, out, y)
        to_y = _row_product(to_right, x, out) if len(right) == 2 else _wide(to_right, x, out)
    return to_x.astype(like_x.dtype), to_y.astype(like_y.dtype)


def product(spec: str, x: Leaf, y: Leaf, precision: str) -> jax.Array:
    """``einsum`` for gradients written by hand: float32 results, and no gradient of its own."""
    chosen = PRECISIONS[precision]
    if chosen.products == jnp.float32:
        return jnp.einsum(spec, x, y)
    if chosen.activations == chosen.products:
        return _low_or_wide(spec, x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    left, right, _ = _letters(spec)
    over_rows = left[-1] not in right and right[-1] not in left
    return (_row_product if over_rows else _low)(spec, x, y)


def _row_product(spec: str, x: Leaf, y: Leaf) -> jax.Array:
    """A product over the rows of both factors, rounded first, by the kernel of the backend."""
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    on_cpu = functools.partial(_contract_rows if on_one_device() else _wide, spec)
    return jax.lax.platform_dependent(x, y, cpu=on_cpu, default=functools.partial(_low, spec))


def _contract_rows(spec: str, x: Leaf, y: Leaf) -> jax.Array:
    """``_row_product`` in the one form that is fast on CPUs (measured: twice float32's speed).

    ``mx,my->xy``, or with leading indices that both have: ``btnh,bnts->bsnh`` is over t. The fast
    form contracts over the last axis of its left factor, so one factor is set upright: the
    narrower, if the other has its rows in place. XLA would fold a plain transpose back into the
    product, for which it then has no kernel; a row of zeros, cut off again, prevents that.
    """
    left, right, result = _letters(spec)
    (over,) = set(left) & set(right) - set(result)
    both = [c for c in result if c in left and c in right]
    ready = [[*both, over] == list(letters[:-1]) for letters in (left, right)]
    if not any(ready):
        return _wide(spec, x, y)
    if not ready[1] or (ready[0] and y.shape[-1] < x.shape[-1]):
        x, y, left, right = y, x, right, left
    (free,) = set(left) - set(both) - {over}
    upright = jnp.transpose(x, [left.index(c) for c in (*both, free, over)])
    upright = jnp.pad(upright, [(0, 0)] * len(both) + [(0, 1), (0, 0)])
    leading = tuple(range(len(both)))
    out = jax.lax.dot_general(
        upright,
        y,
        (((len(both) + 1,), (len(both),)), (leading, leading)),
        preferred_element_type=jnp.float32,
    )
    out = jax.lax.slice_in_dim(out, 0, x.shape[left.index(free)], axis=len(both))
    return jnp.transpose(out, [[*both, free, right[-1]].index(c) for c in result])


def _letters(spec: str) -> tuple[str, str, str]:
    inputs, result = spec.split("->")
    left, right = inputs.split(",")
    return left, right, result


_rounded_einsum.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def add_bias(x_MF: Leaf, bias_F: Leaf, precision: str) -> jax.Array:
    """``x + bias`` where F is a vocabulary: the gradient of the bias is a product on CPUs.

    XLA's CPU backend sums wide columns nine times slower than it multiplies them by ones.
    """
    return x_MF + bias_F[None]


def _add_bias_forward(x_MF: Leaf, bias_F: Leaf, precision: str) -> tuple[jax.Array, None]:
    return add_bias(x_MF, bias_F, precision), None


def _add_bias_backward(precision: str, _: None, out_MF: Leaf) -> tuple[Leaf, Leaf]:
    def product(out_MF: Leaf) -> jax.Array:
        ones_MO = jnp.ones((out_MF.shape[0], 1), out_MF.dtype)
        with jax.named_scope(SUM):
            if precision == "bfloat16_dots":
                return _row_product("mo,mf->of", ones_MO, out_MF)[0]
            return (ones_MO.T @ out_MF)[0]

    def plain(out_MF: Leaf) -> jax.Array:
        return jnp.sum(out_MF, axis=0)

    on_cpu = product if on_one_device() else plain
    return out_MF, jax.lax.platform_dependent(out_MF, cpu=on_cpu, default=plain)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)
