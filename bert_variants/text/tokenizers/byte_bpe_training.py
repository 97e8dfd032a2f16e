"""Train a byte-level BPE vocabulary: 256 bytes, then the most frequent pairs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.pair_merging import learn_merges
from bert_variants.text.tokenizers.word_counts import count_words

LONGEST_WORD = 1000  # bytes; longer runs (encoded data, rows of dashes) teach nothing
_LOG = logging.getLogger(__name__)
# A blank belongs to the word behind it; several are cut as GPT-2's pattern cuts them.
_CHUNK = re.compile(r" ?\S+|\s+(?!\S)|\s+")


def byte_characters() -> list[str]:
    """The visible character that stands for each byte (openai/gpt-2:src/encoder.py).

    Printable bytes stand for themselves, the others for code points from 256 on: byte 32, the
    blank, is "Ġ", U+0120.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    names, others = [], 0
    for byte in range(256):
        names.append(chr(byte) if byte in printable else chr(256 + others))
        others += byte not in printable
    return names


def train_byte_bpe(
    texts: Iterable[str],
    words_of: Callable[[str], Iterable[str]],
    *,
    specials_before: Sequence[str],
    specials_after: Sequence[str],
    size: int,
    min_frequency: int,
) -> tuple[list[str], list[tuple[str, str]], dict[str, int]]:
    """Tokens, merges and an account of the training.

    Layout: ``specials_before``, the 256 bytes in the order of their characters, merged tokens in
    the order of merging, ``specials_after``.

    Args:
        words_of: words of a text, as byte characters.
        size: entries to reach; fewer if pairs run out.
        min_frequency: pairs rarer than this are not merged.

    Raises:
        TokenizerError: no word in the corpus, or a size without room for the bytes.
    """
    least = len(specials_before) + 256 + len(specials_after)
    if size < least:
        raise TokenizerError(f"a byte-level vocabulary needs size >= {least}, found {size}.")
    counts = count_words(texts, _CHUNK.findall, words_of)
    if not counts:
        raise TokenizerError("cannot train a vocabulary: the corpus holds no word.")
    tokens = [*specials_before, *sorted(byte_characters())]
    ids = {token: i for i, token in enumerate(tokens)}
    usable = {word: n for word, n in counts.items() if len(word) <= LONGEST_WORD}
    symbols = {tuple(ids[c] for c in word): n for word, n in usable.items()}
    merges = learn_merges(
        symbols, tokens, size - len(specials_after), min_frequency, lambda a, b: a + b
    )
    tokens += specials_after
    account = {
        "words": sum(counts.values()),
        "distinct_words": len(counts),
        "long_words": sum(counts.values()) - sum(usable.values()),
        "merges": len(merges),
        "size": len(tokens),
        "asked": size,
    }
    _LOG.info("trained a byte-level BPE vocabulary: %s", account)
    return tokens, merges, account
