"""The stack of layers: compiled once and looped over, or unrolled; recomputed or not."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from bert_variants.models.layers import Block, RelativeTable, Shape
from bert_variants.types import Leaf


class Encoder(nn.Module):
    """``layers`` equal blocks.

    Parameters are stacked on a leading axis of layers whether or not the loop is unrolled, so both
    forms have the same checkpoints and the same numbers.

    Attributes:
        layers: L.
        shape: of the blocks.
        unroll: layers that are compiled into one turn of the loop; L unrolls all.
        remat: recompute a block's activations in the backward pass.
        block: the class of the blocks, called as ``(x_BTD, *shared, train=...)``.
    """

    layers: int
    shape: Shape
    unroll: int = 1
    remat: bool = False
    block: Any = Block

    @nn.compact
    def __call__(
        self, x_BTD: Leaf, *shared: Leaf, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
        """Returns the top [B, T, D] and, stacked over layers, every output and the scores."""
        if self.shape.relative is not None:
            table_RD = RelativeTable(self.shape, name="relative")(x_BTD.shape[1])
            shared = (*shared, table_RD)

        def a_layer(block: nn.Module, x_BTD: Leaf, shared: tuple[Leaf, ...]) -> Any:
            x_BTD, scores = block(x_BTD, *shared, train=train)
            return x_BTD, (x_BTD, scores)

        if self.remat:
            a_layer = nn.remat(a_layer, prevent_cse=self.unroll >= self.layers)
        stack = nn.scan(
            a_layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.layers,
            unroll=min(self.unroll, self.layers),
        )
        return stack(self.block(self.shape, name="layers"), x_BTD, shared)
