"""Whole words, as in BERT's later release ("whole word masking")."""

from __future__ import annotations

import jax

from bert_variants.ops import masking
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=())
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
    masking.check_shares(mask, random)
    most = masking.slots(batch.tokens_BT.shape[1], rate, max_predictions)

    def row(
        key: Leaf, tokens_T: Leaf, valid_T: Leaf, maskable_T: Leaf, words_T: Leaf
    ) -> tuple[Leaf, Leaf]:
        count_key, choose_key, replace_key = jax.random.split(key, 3)
        n = masking.budget_row(
            count_key, valid_T, maskable_T, rate=rate, most=most, rounding=rounding
        )
        chosen_T = masking.choose_groups(choose_key, words_T, maskable_T, n)
        inputs_T = masking.replace_row(
            replace_key, tokens_T, chosen_T, vocab, mask=mask, random=random
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = jax.vmap(row)(
        keys_B, batch.tokens_BT, batch.valid_BT, batch.maskable_BT, batch.words_BT
    )
    return masking.predict(batch, inputs_BT, chosen_BT, most)
