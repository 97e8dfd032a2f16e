"""What the models that hold a generator have in common: its samples, and the text they make."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants import keys
from bert_variants.ops.sampling import replaced, sample
from bert_variants.types import Batch, Corrupted, Leaf


def with_a_slot(batch: Batch | Corrupted) -> Corrupted:
    """Rows with one unused slot of every kind: what makes every parameter, whatever they hold."""
    nothing_BP = jnp.zeros_like(batch.inputs_BT[:, :1])
    slots = ("at_BP", "targets_BP", "left_BP", "right_BP", "offset_BP")
    fields = dict.fromkeys(slots, nothing_BP)
    fields["weights_BP"] = jnp.zeros(nothing_BP.shape, jnp.float32)
    if isinstance(batch, Corrupted):
        return batch.replace(**fields)
    return Corrupted.of(batch, inputs_BT=batch.inputs_BT, **fields)


def sample_keys(module: nn.Module, batch: Corrupted) -> jax.Array:
    """One key a row for drawing tokens: of the stream ``sample``, or fixed where there is none.

    Outside training the draw is thus a function of the row alone: an evaluation repeats itself.
    """
    key = module.make_rng("sample") if module.has_rng("sample") else keys.root(0)
    return jax.vmap(lambda number: keys.derive(key, number))(batch.example_id_B)


def replace(
    module: nn.Module,
    batch: Corrupted,
    logits_BPV: Leaf,
    temperature: float = 1.0,
    *,
    disallow_correct: bool = False,
) -> tuple[Corrupted, jax.Array]:
    """``batch`` with the generator's samples as inputs, and bool [B, T] where those differ.

    Args:
        module: asks for the random stream.
        batch: the rows as the generator read them.
        logits_BPV: of the generator; no gradient passes.
        temperature: see ``ops.sampling.sample``.
        disallow_correct: never draw the original token, so that every used slot is replaced
            (google-research/electra:pretrain/pretrain_helpers.py, there by 1000 off its logit).
    """
    if disallow_correct:
        ids = jax.lax.broadcasted_iota(jnp.int32, logits_BPV.shape, 2)
        original_BPV = ids == batch.targets_BP[..., None]
        logits_BPV = jnp.where(original_BPV, -jnp.inf, logits_BPV)
    ids_BP = sample(sample_keys(module, batch), logits_BPV, temperature)
    inputs_BT, replaced_BT = replaced(batch.tokens_BT, batch.at_BP, batch.weights_BP, ids_BP)
    return batch.replace(inputs_BT=inputs_BT.astype(jnp.int32)), replaced_BT
