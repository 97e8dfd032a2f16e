"""Drawing tokens from a generator's distribution, and what text they make."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.types import Leaf

BLOCK = 256


def sample(keys_B: Leaf, logits_BPV: Leaf, temperature: float = 1.0) -> jax.Array:
    """One id for each slot from softmax(logits / temperature): int32 [B, P], without gradient.

    By the inverse of the distribution function, a uniform number a slot: first the block of 256
    ids, then the id in it. That reads the logits twice, where the Gumbel trick of the published
    code (google-research/electra:pretrain/pretrain_helpers.py) draws V random numbers a slot. Both
    draw from the same distribution, up to the rounding of float32 sums.

    Args:
        keys_B: typed keys, one a row, so that a row's draw depends on its key alone.
        logits_BPV: float; -inf is never drawn.
        temperature: above 0; small ones draw the likeliest id.
    """
    logits_BPV = jax.lax.stop_gradient(logits_BPV).astype(jnp.float32) / temperature
    vocab_size = logits_BPV.shape[-1]
    peak_BP1 = jnp.max(logits_BPV, axis=-1, keepdims=True)
    power_BPV = jnp.exp(logits_BPV - peak_BP1)
    blocks = -(-vocab_size // BLOCK)
    padded = jnp.pad(power_BPV, [(0, 0), (0, 0), (0, blocks * BLOCK - vocab_size)])
    power_BPKI = padded.reshape(*power_BPV.shape[:2], blocks, BLOCK)
    upper_BPK = jnp.cumsum(jnp.sum(power_BPKI, axis=-1), axis=-1)
    uniform_BP = jax.vmap(lambda key: jax.random.uniform(key, logits_BPV.shape[1:2]))(keys_B)
    wanted_BP = uniform_BP * upper_BPK[..., -1]
    # the first block whose sum of all before and itself is above: never an empty one
    block_BP = jnp.sum(upper_BPK <= wanted_BP[..., None], axis=-1)
    block_BP = jnp.minimum(block_BP, blocks - 1)
    at = block_BP[..., None, None]
    inside_BPI = jnp.take_along_axis(power_BPKI, at, axis=2)[:, :, 0]
    before_BP = jnp.where(
        block_BP > 0,
        jnp.take_along_axis(upper_BPK, jnp.maximum(at[..., 0] - 1, 0), axis=2)[..., 0],
        0.0,
    )
    upper_BPI = jnp.cumsum(inside_BPI, axis=-1)
    # rounding may leave what is wanted at or above the block's last sum: then its last likely id
    rest_BP = wanted_BP - before_BP
    place_BP = jnp.sum(upper_BPI <= rest_BP[..., None], axis=-1)
    likely_BPI = inside_BPI > 0
    last_BP = BLOCK - 1 - jnp.argmax(likely_BPI[..., ::-1], axis=-1)
    place_BP = jnp.minimum(place_BP, last_BP)
    return (block_BP * BLOCK + place_BP).astype(jnp.int32)


def replaced(
    tokens_BT: Leaf, at_BP: Leaf, weights_BP: Leaf, samples_BP: Leaf
) -> tuple[jax.Array, jax.Array]:
    """The original text with samples put in, and where that changed it.

    A worked row (variants of the same position in unused slots change nothing)::

        tokens    a b c d      at   1 2 0      samples  b x 9
        weights   1 1 0
        inputs    a b x d      replaced  0 0 1 0     (b was drawn again: it is not replaced)

    Args:
        tokens_BT: the original ids: what was [MASK] to the generator is never seen here.
        at_BP, weights_BP: the predicted positions and which slots are used.
        samples_BP: ids.

    Returns:
        ``inputs_BT`` int32 and ``replaced_BT`` bool.
    """
    length = tokens_BT.shape[1]
    place_BP = jnp.where(weights_BP > 0, at_BP, length)  # out of range: dropped
    put = jax.vmap(lambda row, place, ids: row.at[place].set(ids, mode="drop"))
    inputs_BT = put(tokens_BT, place_BP, samples_BP.astype(tokens_BT.dtype))
    return inputs_BT, inputs_BT != tokens_BT
