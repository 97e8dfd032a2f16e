"""Ways of reading a text from left to right, as functions of one call each: what ``recurrence.py``
times and compares.

All networks have the same sizes, float32, no dropout, post-LN, ReLU. ``Vanilla`` knows absolute
positions, so a window that has moved by one token must be read anew from end to end (Al-Rfou et
al. 2018, arXiv 1808.04444, the baseline of the claim); ``transformer_xl`` is the project's model.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_variants import config, registry
from bert_variants.loaded import batch_of
from bert_variants.models import network
from bert_variants.models.encoder import Encoder
from bert_variants.models.layers import INITIALISERS, Shape, Table
from bert_variants.models.xlnet import OutputBias
from bert_variants.ops import relative
from bert_variants.types import Batch, Corrupted, Leaf

EPS = 1e-5
TOLERANCE = 1e-5


class NotEquivalent(RuntimeError):
    """Two ways of reading that should give the same states do not."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Of all networks, and B, the rows that are read side by side.

    Few symbols, as in enwik8 (204): the logits cost both sides the same, and a large vocabulary
    would hide what differs.
    """

    layers: int = 4
    width: int = 256
    heads: int = 4
    ffn: int = 1024
    vocab: int = 204
    batch: int = 1

    def text(self, length: int, seed: int = 0) -> np.ndarray:
        """Random tokens: int32 [B, length]."""
        rng = np.random.default_rng(seed)
        return rng.integers(5, self.vocab, (self.batch, length)).astype(np.int32)


# ------------------------------------------------------------- networks


class Vanilla(nn.Module):
    """A causal network with a table of absolute positions.

    Attributes:
        size: of the network.
        length: rows of the table.
        last: whether only the logits behind the last token are wanted.
    """

    size: Size
    length: int
    last: bool

    @nn.compact
    def __call__(self, tokens_BT: Leaf) -> jax.Array:
        """float32 logits of the next token behind each, or behind the last one: [B, T or 1, V]."""
        size = self.size
        shape = Shape(
            width=size.width,
            heads=size.heads,
            ffn=size.ffn,
            dropout=0.0,
            attention_dropout=0.0,
            eps=EPS,
            activation="relu",
            precision="float32",
            initialiser=INITIALISERS["normal"],
        )
        word = Table(size.vocab, size.width, name="word")
        position = Table(self.length, size.width, name="position")
        length = tokens_BT.shape[1]
        x_BTD = word(tokens_BT) * math.sqrt(size.width) + position(jnp.arange(length))[None]
        visible = jnp.tril(jnp.ones((length, length), bool))[None, None]
        encoder = Encoder(size.layers, shape, unroll=size.layers, name="encoder")
        x_BTD, _ = encoder(x_BTD, visible, train=False)
        read = x_BTD[:, -1:] if self.last else x_BTD
        return OutputBias(size.vocab, "float32", name="tokens")(read, word.weights())


def transformer_xl(size: Size, memory: int) -> network.Network:
    """The project's model, of that size, in float32."""
    sizes = {name: getattr(size, name) for name in ("layers", "width", "heads", "ffn")}
    experiment = config.Experiment(
        model=registry.write("transformer_xl", sizes | {"memory": memory}),
        corruption="causal()",
        objectives="mlm",
        run=config.Run(precision="float32"),
    )
    return network.build(experiment, size.vocab)


@functools.cache
def weights(size: Size) -> Any:
    """Random parameters of ``transformer_xl``: they do not depend on the memory.

    Of deviation 1 / sqrt(d) instead of 0.02, so that attention is far from uniform, and what reads
    the wrong keys is seen.
    """
    net = transformer_xl(size, 0)
    made = jax.jit(net.init)(jax.random.key(0), rows(size.text(4), last=False))

    def wide(path: Any, weight: Leaf) -> Leaf:
        plain = path[-1].key in ("scale", "bias")
        return weight if plain else weight / (0.02 * math.sqrt(size.width))

    return jax.tree_util.tree_map_with_path(wide, made)


def rows(tokens_BT: Leaf, *, last: bool, targets_BP: Leaf = None, carry: Any = None) -> Corrupted:
    """Full rows whose next tokens are wanted: behind each token, or behind the last one alone.

    The model reads the prediction of position p off the state before it, so ``at_BP`` are 1 .. T,
    or T: the last of them is a position that the row does not have, and need not have.
    """
    tokens_BT = np.asarray(tokens_BT, np.int32)
    count, length = tokens_BT.shape
    wanted_P = np.array([length] if last else np.arange(1, length + 1), np.int32)
    at_BP = np.broadcast_to(wanted_P, (count, len(wanted_P)))
    plain: Batch = batch_of(tokens_BT, valid_BT=np.ones_like(tokens_BT, bool))
    made = Corrupted.of(
        plain.replace(carry=carry),
        inputs_BT=tokens_BT,
        at_BP=at_BP,
        targets_BP=np.zeros_like(at_BP) if targets_BP is None else np.asarray(targets_BP),
        weights_BP=np.ones(at_BP.shape, np.float32),
    )
    return jax.tree.map(jnp.asarray, made)


# ------------------------------------------------------------- with keys and values kept


def kept(params: Any, carry: Any, size: Size, segment: int) -> dict[str, Any]:
    """What ``cached`` keeps instead of states: keys and values of the memory, and the projected
    distances, which never change: for each layer ``key`` and ``value`` [B, M, N, H], ``distance``
    [R, N, H].
    """
    memory = carry["states"].shape[2]
    span = relative.distances(segment, memory + segment, both_ways=False)
    table_RD = relative.sinusoids(span, size.width)
    found: dict[str, list[Any]] = {"key": [], "value": [], "distance": []}
    for number in range(size.layers):
        at = _layer(params, number)["attention"]
        states_BMD = carry["states"][:, number]
        for name, x in (("key", states_BMD), ("value", states_BMD)):
            found[name].append(_heads(_product(x, at[name]["kernel"]), size))
        found["distance"].append(_heads(_product(table_RD, at["relative"]["kernel"]), size))
    return found


def cached(params: Any, tokens_BT: Leaf, held: Any, size: Size) -> tuple[jax.Array, Any]:
    """A segment of ``transformer_xl`` over a full memory whose keys and values were kept.

    Written out over the model's parameters (the model itself projects its memory anew, as the
    released code does); ``check`` compares the two.

    Returns:
        logits [B, T, V], and what to hand to the next segment.
    """
    x_BTD = params["word"]["embedding"][tokens_BT] * math.sqrt(size.width)
    length, memory = tokens_BT.shape[1], held["key"][0].shape[1]
    keys = memory + length
    visible = jnp.arange(keys)[None, :] <= memory + jnp.arange(length)[:, None]
    offsets, scale = params["encoder"], (size.width // size.heads) ** -0.5
    after: dict[str, list[Any]] = {"key": [], "value": [], "distance": held["distance"]}
    for number in range(size.layers):
        layer = _layer(params, number)
        at, ffn = layer["attention"], layer["ffn"]
        q = _heads(_product(x_BTD, at["query"]["kernel"]), size)
        k, v = (
            jnp.concatenate(
                [held[name][number], _heads(_product(x_BTD, at[name]["kernel"]), size)], axis=1
            )
            for name in ("key", "value")
        )
        content, position = (
            (q + offsets[name][None, None]) * scale for name in ("query_content", "query_position")
        )
        by_row = jnp.einsum("bqnh,rnh->bnqr", position, held["distance"][number])
        scores = jnp.einsum("bqnh,bknh->bnqk", content, k) + relative.shift(by_row, keys)
        read = relative.mix(scores, visible[None], v).reshape(x_BTD.shape)
        x_BTD = _norm(x_BTD + _product(read, at["out"]["kernel"]), layer["attention_norm"])
        wide = _product(x_BTD, ffn["wide"]["kernel"]) + ffn["wide"]["bias"][None, None]
        narrow = _product(jax.nn.relu(wide), ffn["narrow"]["kernel"])
        x_BTD = _norm(x_BTD + narrow + ffn["narrow"]["bias"][None, None], layer["ffn_norm"])
        after["key"].append(k[:, -memory:])
        after["value"].append(v[:, -memory:])
    logits = _product(x_BTD, params["word"]["embedding"].T)
    return logits + params["heads"]["tokens"]["bias"][None, None], after


def _layer(params: Any, number: int) -> Any:
    return jax.tree.map(lambda w: w[number], params["encoder"]["layers"])


def _heads(x: Leaf, size: Size) -> jax.Array:
    return x.reshape(*x.shape[:-1], size.heads, size.width // size.heads)


def _product(x: Leaf, kernel: Leaf) -> jax.Array:
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _norm(x: Leaf, at: Any) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    spread = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(spread + EPS) * at["scale"][None, None] + at["bias"][None, None]


# ------------------------------------------------------------- one call each


Job = Callable[[], jax.Array]


def vanilla(size: Size, length: int, *, last: bool) -> Job:
    """``Vanilla`` over ``length`` tokens; the logits behind all of them, or behind the last."""
    module = Vanilla(size, length, last)
    tokens_BT = jnp.asarray(size.text(length))
    params = jax.jit(module.init)(jax.random.key(0), tokens_BT)
    run = jax.jit(module.apply).lower(params, tokens_BT).compile()
    return lambda: jax.block_until_ready(run(params, tokens_BT))


def own_window(size: Size, length: int) -> Job:
    """``transformer_xl`` without memory over ``length`` tokens; the logits behind the last one."""
    net, given = transformer_xl(size, 0), weights(size)
    batch = rows(size.text(length), last=True)
    run = jax.jit(lambda p, b: net.apply(p, b).token_logits_BPV).lower(given, batch).compile()
    return lambda: jax.block_until_ready(run(given, batch))


def segments(size: Size, segment: int, memory: int) -> Job:
    """``transformer_xl``, segment by segment over a full memory; the logits behind all tokens."""
    given = weights(size)
    run, batch, carry = full(size, segment, memory)
    held = [carry]

    def job() -> jax.Array:
        logits, held[0] = run(given, batch.replace(carry=held[0]))
        return jax.block_until_ready(logits)

    return job


def cached_segments(size: Size, segment: int, memory: int) -> Job:
    """The same with keys and values kept."""
    given = weights(size)
    _, batch, carry = full(size, segment, memory)
    held = [kept(given, carry, size, segment)]
    step = functools.partial(cached, size=size)
    run = jax.jit(step).lower(given, batch.inputs_BT, held[0]).compile()

    def job() -> jax.Array:
        logits, held[0] = run(given, batch.inputs_BT, held[0])
        return jax.block_until_ready(logits)

    return job


@functools.cache
def full(size: Size, segment: int, memory: int) -> tuple[Any, Corrupted, Any]:
    """Compiled ``(params, batch) -> (logits, carry)``, a segment, and a memory that is full."""
    net, given = transformer_xl(size, memory), weights(size)

    def apply(params: Any, batch: Corrupted) -> tuple[jax.Array, Any]:
        outputs = net.apply(params, batch)
        return outputs.token_logits_BPV, outputs.carry

    carry = net.carry(size.batch)
    batch = rows(size.text(segment), last=False, carry=carry)
    run = jax.jit(apply).lower(given, batch).compile()
    for _ in range(math.ceil(memory / segment)):
        carry = run(given, batch.replace(carry=carry))[1]
    if int(carry["length"].min()) != memory:
        raise NotEquivalent(f"a memory of {memory} holds {carry['length']} positions.")
    return run, batch, carry


# ------------------------------------------------------------- the test that comes first


def check(size: Size, length: int, segment: int) -> dict[str, float]:
    """How far ways of reading differ that must agree, on a text of ``length``; see ``apart``.

    ``segments``: states of segments, with a memory as long as the text and empty at its start,
    against those of one pass. ``cached``: logits with keys and values kept against logits with
    states kept, three segments over a full memory half as long as the text.

    Raises:
        NotEquivalent: one of them is above 1e-5.
    """
    ways = {
        "segments": lambda: _segments_are_one_pass(size, length, segment),
        "cached": lambda: _cached_is_the_model(size, segment, max(1, length // 2)),
    }
    found = {}
    for name, difference in ways.items():
        found[name] = difference()
        if not found[name] <= TOLERANCE:
            raise NotEquivalent(
                f"{name}: differ by {found[name]:.1e}, at most {TOLERANCE} is rounding (layers "
                f"{size.layers}, width {size.width}, text of {length}, segments of {segment}). "
                "What is not the same network must not be timed as if it were."
            )
    return found


def _segments_are_one_pass(size: Size, length: int, segment: int) -> float:
    net, given = transformer_xl(size, length), weights(size)
    text_BT = size.text(length, seed=1)
    apply = jax.jit(lambda p, b: net.apply(p, b))
    expected = apply(given, rows(text_BT, last=False)).hidden_BTD
    carry, worst = net.carry(size.batch), 0.0
    for start in range(0, length, segment):
        part = text_BT[:, start : start + segment]
        outputs = apply(given, rows(part, last=False, carry=carry))
        worst = max(worst, apart(outputs.hidden_BTD, expected[:, start : start + segment]))
        carry = outputs.carry
    return worst


def _cached_is_the_model(size: Size, segment: int, memory: int) -> float:
    given = weights(size)
    run, _, carry = full(size, segment, memory)
    held, worst = kept(given, carry, size, segment), 0.0
    step = jax.jit(functools.partial(cached, size=size))
    for number in range(3):
        part = rows(size.text(segment, seed=2 + number), last=False, carry=carry)
        expected, carry = run(given, part)
        found, held = step(given, part.inputs_BT, held)
        worst = max(worst, apart(found, expected))
    return worst


def apart(found: Leaf, expected: Leaf) -> float:
    """The largest difference, as a share of the largest entry."""
    return float(jnp.abs(found - expected).max() / jnp.abs(expected).max())
