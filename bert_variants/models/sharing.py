"""The stack of layers where layers share parameters, as in ALBERT (Lan et al. 2019, section 3.1).

A layer has two halves, each with the LayerNorm behind it: attention and feed-forward. A half that
is shared is one set of parameters: stored once, with one gradient and one state of the optimizer.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models.layers import Block, RelativeTable, Shape
from bert_variants.types import Leaf

Sharing = Literal["all", "attention", "ffn", "none"]
ATTENTION, FFN = ("attention", "attention_norm"), ("ffn", "ffn_norm")
# what every layer has for itself, by what is shared; the names are those of ``Block``
OWN = {"all": (), "attention": FFN, "ffn": ATTENTION, "none": (*ATTENTION, *FFN)}


class SharedEncoder(nn.Module):
    """``layers`` blocks, of which some share parameters.

    The parameters have the paths of ``Encoder``'s and a leading axis too: of ``layers`` for what
    every layer has for itself, of ``groups`` for what is shared. So ``sharing="none"`` is
    ``Encoder``. Whatever is shared, one block is compiled and looped over.

    Attributes:
        layers: L.
        shape: of the blocks.
        sharing: the halves that layers share: all, attention, ffn, none.
        groups: with sharing ``all``: layer i is one of group floor(i * groups / L), whose layers
            share; 12 layers in 3 groups: 0 0 0 0 1 1 1 1 2 2 2 2.
        unroll: layers that are compiled into one turn of the loop; L unrolls all.
        remat: recompute a block's activations in the backward pass.
    """

    layers: int
    shape: Shape
    sharing: Sharing = "all"
    groups: int = 1
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(
        self, x_BTD: Leaf, visible_BNTT: Leaf, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
        """Returns the top [B, T, D] and, stacked over layers, every output and the scores.

        Raises:
            ValueError: ``groups`` outside 1 .. L, or several with a sharing other than ``all``.
        """
        numbers = _numbers(self.layers, self.sharing, self.groups)
        block = Block(self.shape, parent=None)
        shared, one_token = (visible_BNTT,), (x_BTD[:, :1], visible_BNTT[..., :1, :1])
        if self.shape.relative is not None:
            table_RD = RelativeTable(self.shape, name="relative")(x_BTD.shape[1])
            shared, one_token = (*shared, table_RD), (*one_token, table_RD[:1])
        params = self.param("layers", start_layers, block, numbers, *one_token)
        own = {name: params[name] for name in OWN[self.sharing]}
        common = {name: params[name] for name in params if name not in own}
        drops = train and (self.shape.dropout or self.shape.attention_dropout)
        keys_L = jax.random.split(self.make_rng("dropout"), self.layers) if drops else None

        def a_layer(x_BTD: Leaf, common: Any, of_layer: Any) -> Any:
            own, key = of_layer
            rngs = {} if key is None else {"dropout": key}
            x_BTD, scores = block.apply(
                {"params": common | own}, x_BTD, *shared, train=train, rngs=rngs
            )
            return x_BTD, (x_BTD, scores)

        if self.remat:
            a_layer = jax.checkpoint(a_layer, prevent_cse=self.unroll >= self.layers)
        equal = runs(self.layers, self.groups)
        commons = _cut(common, [groups for groups, _ in equal])
        each = _cut((own, keys_L), [groups * length for groups, length in equal])
        made = []
        for (groups, length), common, of_layers in zip(equal, commons, each, strict=True):
            x_BTD, outputs = _loop(
                a_layer, x_BTD, common, of_layers, groups, length, self.unroll >= self.layers
            )
            made.append(outputs)
        return x_BTD, jax.tree.map(lambda *x: x[0] if len(x) == 1 else jnp.concatenate(x), *made)


def runs(layers: int, groups: int) -> list[tuple[int, int]]:
    """Groups of equal length that follow each other: (groups, layers of each).

    12 layers in 3 groups: [(3, 4)]; 5 layers in 2 groups, 0 0 0 1 1: [(1, 3), (1, 2)].
    """
    group_of = [layer * groups // layers for layer in range(layers)]
    lengths = [group_of.count(group) for group in range(groups)]
    return [(len(list(same)), length) for length, same in itertools.groupby(lengths)]


def _loop(
    a_layer: Any,
    x_BTD: Leaf,
    common_G: Any,
    of_layers_L: Any,
    groups: int,
    length: int,
    unrolled: bool,
) -> tuple[jax.Array, Any]:
    """Equally long groups: a loop over them and in it one over the group's layers.

    What the layers of the inner loop share is constant in it, so that it is neither copied for each
    layer nor kept for each until the backward pass.
    """

    def a_group(x_BTD: Leaf, group: Any) -> Any:
        common, of_layers = group
        return jax.lax.scan(
            lambda x_BTD, of_layer: a_layer(x_BTD, common, of_layer),
            x_BTD,
            of_layers,
            length=length,
            unroll=length if unrolled else 1,
        )

    nested = jax.tree.map(lambda x: x.reshape(groups, length, *x.shape[1:]), of_layers_L)
    x_BTD, outputs = jax.lax.scan(
        a_group, x_BTD, (common_G, nested), length=groups, unroll=groups if unrolled else 1
    )
    return x_BTD, jax.tree.map(lambda x: x.reshape(groups * length, *x.shape[2:]), outputs)


def _cut(tree: Any, sizes: list[int]) -> list[Any]:
    """The leading axis of every array in consecutive parts of these sizes."""
    borders = [0, *itertools.accumulate(sizes)]
    return [
        jax.tree.map(lambda x, start=start, stop=stop: x[start:stop], tree)
        for start, stop in itertools.pairwise(borders)
    ]


def _numbers(layers: int, sharing: Sharing, groups: int) -> dict[str, int]:
    """How many of each part of a block there are."""
    if not 1 <= groups <= layers:
        raise ValueError(f"groups is {groups}, expected 1 .. {layers}, the number of layers.")
    if groups > 1 and sharing != "all":
        raise ValueError(
            f"groups is {groups} and sharing is {sharing!r}: groups share whole layers. Set "
            "sharing='all' or groups=1."
        )
    return {name: layers if name in OWN[sharing] else groups for name in OWN["none"]}


def start_layers(
    key: jax.Array, block: Block, numbers: dict[str, int], *one_token: Leaf
) -> dict[str, Any]:
    """Initial parameters of a block, ``numbers`` of each part, each with a start of its own.

    Args:
        key: a typed key.
        block: not bound to a parent.
        numbers: how many there are of each part.
        one_token: arguments for the block, of a text of one token.
    """

    def one(key: jax.Array) -> Any:
        return block.init({"params": key}, *one_token, train=False)["params"]

    made = {
        number: jax.vmap(one)(jax.random.split(key, number)) for number in set(numbers.values())
    }
    return {name: made[number][name] for name, number in numbers.items()}
