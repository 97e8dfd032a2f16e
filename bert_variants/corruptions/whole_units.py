"""Whole units: words that a segmenter found, phrases or entities, as in Chinese BERT-wwm."""

from __future__ import annotations

from bert_variants.corruptions.whole_words import whole
from bert_variants.ops import masking, spans
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("left_BP", "right_BP", "offset_BP"), needs=("data.units",))
def whole_units(
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
    """Choose units, and words where a token is in no unit: all tokens or none, as ``whole_words``.

    With ``data.units="chinese_words()"`` these are the words of Chinese text, whose characters are
    tokens of their own (ymcui/Chinese-BERT-wwm, issue 13). No "##" twin of a Chinese character is
    ever made: the ids are those of the tokenizer. A worked row::

        tokens   [CLS] 我 在 清 华 大 学 [SEP]     n = 8, budget 1 at 15 %, 5 at 60 %
        words     -1   0  1  2  3  4  5  -1
        units     -1   0  1  2  2  2  2  -1
        chosen    清 华 大 学 together or not at all; 我 or 在 if they do not fit

    Args: as ``tokens``.
    """
    return whole(
        keys_B,
        batch,
        vocab,
        lambda row: spans.groups(row.units_BT, row.words_BT),
        rate=rate,
        mask=mask,
        random=random,
        max_predictions=max_predictions,
        rounding=rounding,
        random_ids=random_ids,
    )
