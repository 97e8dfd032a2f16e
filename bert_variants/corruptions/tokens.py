"""Single tokens, as in BERT."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from bert_variants.ops import masking
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption")
def tokens(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    mask: float = 0.8,
    random: float = 0.1,
    max_predictions: int = 0,
    rounding: masking.Rounding = "nearest",
    random_ids: masking.RandomIds = "vocab",
    selection: Literal["distinct", "with_replacement"] = "distinct",
) -> Corrupted:
    """Choose tokens uniformly; of these 80 % become [MASK], 10 % a random token, 10 % stay.

    The number is ``min(P, max(1, round(rate * n)))`` with n counting the special tokens too,
    exactly as in google-research/bert:create_pretraining_data.py. A worked row::

        tokens   [CLS] the cat ##s ran [SEP]     n = 6, round(0.9) = 1
        inputs   [CLS] the cat [MASK] ran [SEP]
        at         3
        targets  ##s

    ELECTRA masks 85 % of them and leaves the rest, so ``tokens(mask=0.85, random=0.0)``, and draws
    them ``with_replacement`` (google-research/electra:pretrain/pretrain_helpers.py): a token that
    is drawn k times counts k times in the loss, its weight is k, and it is masked if any of its
    draws says so. Of 128 tokens the 19 draws at 15 % hide 17.7. Not reproduced: where draws of one
    token lead to different samples, that code puts in the id halfway between them; its author calls
    it a fault and recommends distinct tokens (its issue 41), the default here.

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate: share of a row's tokens, specials counted, that is chosen.
        mask, random: shares of the chosen ones; see ``masking.replace_row``.
        max_predictions: P; 0: ``ceil(rate * T)``.
        rounding: see ``masking.budget_row``; ``random`` is RoBERTa's.
        random_ids: see ``masking.draw_ids``; ``text`` is RoBERTa's.
        selection: ``distinct`` tokens, or draws ``with_replacement``.
    """
    masking.check_shares(mask, random)
    most = masking.slots(batch.tokens_BT.shape[1], rate, max_predictions)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, choose_key, replace_key = jax.random.split(key, 3)
        n = masking.budget_row(
            count_key, row.valid_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        coin_T = None
        if selection == "distinct":
            times_T = masking.choose_tokens(choose_key, row.maskable_BT, n).astype(jnp.int32)
        else:
            times_T, coin_T = masking.draw_tokens(choose_key, row.maskable_BT, n, most)
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            times_T > 0,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
            coin_T=coin_T,
        )
        return inputs_T, times_T

    inputs_BT, times_BT = masking.each_row(choose, keys_B, batch)
    found = masking.predict(batch, inputs_BT, times_BT > 0, most)
    times_BP = jnp.take_along_axis(times_BT, found.at_BP, axis=-1).astype(jnp.float32)
    return found.replace(weights_BP=found.weights_BP * times_BP)
