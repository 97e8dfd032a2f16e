"""Single tokens, as in BERT."""

from __future__ import annotations

import jax

from bert_variants.ops import masking
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=())
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
) -> Corrupted:
    """Choose tokens uniformly; of these 80 % become [MASK], 10 % a random token, 10 % stay.

    The number is ``min(P, max(1, round(rate * n)))`` with n counting the special tokens too,
    exactly as in google-research/bert:create_pretraining_data.py. A worked row::

        tokens   [CLS] the cat ##s ran [SEP]     n = 6, round(0.9) = 1
        inputs   [CLS] the cat [MASK] ran [SEP]
        at         3
        targets  ##s

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate: share of a row's tokens, specials counted, that is chosen.
        mask, random: shares of the chosen ones; see ``masking.replace_row``.
        max_predictions: P; 0: ``ceil(rate * T)``.
        rounding: see ``masking.budget_row``; ``random`` is RoBERTa's.
    """
    masking.check_shares(mask, random)
    most = masking.slots(batch.tokens_BT.shape[1], rate, max_predictions)

    def row(key: Leaf, tokens_T: Leaf, valid_T: Leaf, maskable_T: Leaf) -> tuple[Leaf, Leaf]:
        count_key, choose_key, replace_key = jax.random.split(key, 3)
        n = masking.budget_row(
            count_key, valid_T, maskable_T, rate=rate, most=most, rounding=rounding
        )
        chosen_T = masking.choose_tokens(choose_key, maskable_T, n)
        inputs_T = masking.replace_row(
            replace_key, tokens_T, chosen_T, vocab, mask=mask, random=random
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = jax.vmap(row)(keys_B, batch.tokens_BT, batch.valid_BT, batch.maskable_BT)
    return masking.predict(batch, inputs_BT, chosen_BT, most)
