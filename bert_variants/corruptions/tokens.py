"""Single tokens, as in BERT."""

from __future__ import annotations

import jax

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
        random_ids: see ``masking.draw_ids``; ``text`` is RoBERTa's.
    """
    masking.check_shares(mask, random)
    most = masking.slots(batch.tokens_BT.shape[1], rate, max_predictions)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, choose_key, replace_key = jax.random.split(key, 3)
        n = masking.budget_row(
            count_key, row.valid_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        chosen_T = masking.choose_tokens(choose_key, row.maskable_BT, n)
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            chosen_T,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = masking.each_row(choose, keys_B, batch)
    return masking.predict(batch, inputs_BT, chosen_BT, most)
