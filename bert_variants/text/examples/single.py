"""One segment of whole sentences of one document: [CLS] x [SEP].

Sources: facebookresearch/SpanBERT:pretraining/fairseq/data/no_nsp_span_bert_dataset.py (single
sequences); facebookresearch/fairseq:fairseq/data/token_block_dataset.py (``complete_doc``, which is
RoBERTa's DOC-SENTENCES).
"""

from __future__ import annotations

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.filling import cut_chunks, fill
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

SPECIALS = 2
LEAST = 2  # text tokens of a row: with fewer there is nothing to predict from anything


@register("example", labels=(), reserved=("length",))
def single(
    window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int, long: str = "cut"
) -> Plan:
    """Blocks of whole sentences, greedily up to ``length - 2`` tokens; none crosses a document.

    The sentence that would overflow opens the next block, and a document's tail is a short block.
    A sentence that is longer than a block is cut into pieces (``long="cut"``), the last of which
    is filled up like any other sentence, or left out (``long="drop"``, SpanBERT's way), which ends
    the block before it. Rows of fewer than 2 text tokens are left out. What was left out is
    counted. Nothing is random here: a visit has the rows of the one before, in another order.

    Raises:
        ConfigError: ``length`` below 4, or an unknown ``long``.
    """
    if long not in ("cut", "drop"):
        raise ConfigError(f"example single: long is {long!r}, expected 'cut' or 'drop'.")
    budget = length - SPECIALS
    if budget < LEAST:
        raise ConfigError(
            f"example single: data.length is {length}, expected at least {SPECIALS + LEAST}."
        )
    starts, document, cut = cut_chunks(window, budget)
    too_long = 0
    if long == "drop":
        begins, ends = window.sentences[:-1], window.sentences[1:]
        kept, cut = ends - begins <= budget, 0
        too_long = int((ends - begins)[~kept].sum())
        # A block is one stretch of text, so that a gap ends it just as a document's end does.
        stretch = np.repeat(np.arange(len(window.documents) - 1), np.diff(window.documents))
        stretch = (stretch + np.cumsum(~kept))[kept]
        begins, ends, document = begins[kept], ends[kept], stretch
    else:
        begins, ends = starts[:-1], starts[1:]
    borders = np.flatnonzero(np.diff(document)) + 1
    groups = np.concatenate([[0], borders, [len(begins)]])
    rows = fill(begins, ends, groups, budget)
    first, last = begins[rows[:-1]], ends[rows[1:] - 1]
    enough = last - first >= LEAST
    dropped = {
        "sentence longer than the row": too_long,
        "row of fewer than 2 tokens": int((last - first)[~enough].sum()),
    }
    altered = {"sentence cut into pieces": cut}
    return _plan(first[enough], last[enough], vocab, dropped, altered)


@register("example", labels=(), reserved=("length",))
def doc_sentences(window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int) -> Plan:
    """RoBERTa's DOC-SENTENCES: whole sentences of one document, greedily up to the row's length.

    The rows of ``single(long="cut")``, under the name that the paper gives them (Liu et al. 2019,
    section 4.2).
    """
    return single(window, rng, vocab, length=length, long="cut")


def _plan(
    first: np.ndarray,
    last: np.ndarray,
    vocab: Vocab,
    dropped: dict[str, int],
    altered: dict[str, int],
) -> Plan:
    n = len(first)
    start = np.empty((n, 3), np.int64)
    start[:, 0], start[:, 1], start[:, 2] = -1 - vocab.cls, first, -1 - vocab.sep
    size = np.ones((n, 3), np.int32)
    size[:, 1] = last - first
    return Plan(
        rows=np.arange(0, 3 * n + 1, 3, dtype=np.int64),
        start=start.ravel(),
        length=size.ravel(),
        segment=np.zeros(3 * n, np.int32),
        dropped=dropped,
        altered=altered,
    )
