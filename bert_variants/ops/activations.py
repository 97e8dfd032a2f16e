"""Activation functions by the name that a config gives them."""

from __future__ import annotations

import functools

import jax

# BERT and ALBERT use the tanh approximation; RoBERTa, ELECTRA, DeBERTa and SpanBERT the exact one.
ACTIVATIONS = {
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "tanh": jax.nn.tanh,
}


def activation(name: str, x: jax.Array) -> jax.Array:
    """Apply an activation by name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}. Known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name](x)
