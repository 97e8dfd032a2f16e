"""Whole words, as in BERT's later release ("whole word masking")."""

from __future__ import annotations

from collections.abc import Callable

import jax

from bert_variants.ops import masking, spans
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("left_BP", "right_BP", "offset_BP"), whole_words=True)
def whole_words(
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
    """Choose words: all tokens of a word or none; 80/10/10 is still drawn for each token.

    Words come in random order; one that would exceed the budget is skipped, not cut
    (google-research/bert:create_pretraining_data.py, ``do_whole_word_mask``). Words are those of
    the tokenizer (``words_BT``), never guessed from "##". A worked row::

        tokens   [CLS] un ##happi ##ly yes [SEP]      n = 6, budget 1
        words     -1   0    0      0    1   -1
        chosen    the word 0 does not fit in 1, so only "yes" can be chosen

    Args: as ``tokens``.
    """
    return whole(
        keys_B,
        batch,
        vocab,
        lambda row: row.words_BT,
        rate=rate,
        mask=mask,
        random=random,
        max_predictions=max_predictions,
        rounding=rounding,
        random_ids=random_ids,
    )


def whole(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    groups: Callable[[Batch], Leaf],
    *,
    rate: float,
    mask: float,
    random: float,
    max_predictions: int,
    rounding: masking.Rounding,
    random_ids: masking.RandomIds,
) -> Corrupted:
    """``whole_words`` for any grouping: ``groups(row)`` is int32 [T], -1 for none."""
    masking.check_shares(mask, random)
    most = masking.slots(batch.tokens_BT.shape[1], rate, max_predictions)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, choose_key, replace_key = jax.random.split(key, 3)
        n = masking.budget_row(
            count_key, row.valid_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        chosen_T = masking.choose_groups(choose_key, groups(row), row.maskable_BT, n)
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
    return spans.predict(batch, inputs_BT, chosen_BT, most)
