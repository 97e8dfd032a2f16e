"""Train a WordPiece vocabulary: the alphabet by coverage, then the most frequent pairs.

The published vocabularies came from a trainer that was never released; merging by frequency is what
everyone uses in its place. Unlike the trainers at hand this one gives the same bytes always.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.characters import stands_alone
from bert_variants.text.tokenizers.pair_merging import learn_merges
from bert_variants.text.tokenizers.vocabulary_file import BERT_SPECIALS
from bert_variants.text.tokenizers.word_counts import count_words

LONGEST_WORD = 100  # google-research/bert:tokenization.py; longer words become [UNK]
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training saw and left out.

    Attributes:
        words: words of the corpus, repetitions counted; ``distinct_words`` without them.
        characters: characters of these words; ``distinct_characters`` likewise.
        alphabet: distinct characters that have a token.
        dropped_characters: occurrences of characters that have none; ``distinct_dropped`` of them.
        unknown_words: words (repetitions counted) that hold such a character: [UNK] when encoded.
        long_words: words too long to be encoded, likewise [UNK].
        size: entries of the vocabulary, and ``asked``, the number that was asked for.
    """

    words: int
    distinct_words: int
    characters: int
    distinct_characters: int
    alphabet: int
    dropped_characters: int
    distinct_dropped: int
    unknown_words: int
    long_words: int
    size: int
    asked: int


def train_wordpiece(
    texts: Iterable[str],
    words_of: Callable[[str], Iterable[str]],
    *,
    size: int,
    min_frequency: int,
    coverage: float,
    limit_alphabet: int | None,
) -> tuple[list[str], dict[str, int]]:
    """The tokens of a new vocabulary, and the fields of ``Training``.

    Layout: [PAD] [UNK] [CLS] [SEP] [MASK], the alphabet in code point order ("a", and "##a" unless
    it stands alone), then merges in the order of merging. Every word of at most 100 characters over
    the alphabet can be written with it.

    Args:
        words_of: normalised words of a text.
        size: entries to reach, specials and alphabet included; fewer if pairs run out.
        min_frequency: pairs rarer than this are not merged.
        coverage: the share of all characters that the alphabet covers; rarest left out.
        limit_alphabet: at most so many distinct characters; None for no further limit.

    Raises:
        TokenizerError: no word in the corpus, or ``size`` holds not even two characters.
    """
    counts = count_words(texts, _chunks, words_of)
    if not counts:
        raise TokenizerError("cannot train a vocabulary: the corpus holds no word.")
    long = sum(n for word, n in counts.items() if len(word) > LONGEST_WORD)
    usable = {w: n for w, n in counts.items() if len(w) <= LONGEST_WORD}
    characters = _count_characters(usable)
    inner = {c for word in usable if len(word) > 1 for c in word}
    joining = {c for c in characters if c in inner or not stands_alone(c)}
    room = size - len(BERT_SPECIALS)
    alphabet = _alphabet(characters, joining, room, coverage, limit_alphabet)
    tokens = list(BERT_SPECIALS.values())
    for character in sorted(alphabet):
        tokens += [character, "##" + character] if character in joining else [character]
    known = {w: n for w, n in usable.items() if alphabet.issuperset(w)}
    learn_merges(_symbols(known, tokens), tokens, size, min_frequency, _join)
    dropped = {c: n for c, n in characters.items() if c not in alphabet}
    training = Training(
        words=sum(counts.values()),
        distinct_words=len(counts),
        characters=sum(characters.values()),
        distinct_characters=len(characters),
        alphabet=len(alphabet),
        dropped_characters=sum(dropped.values()),
        distinct_dropped=len(dropped),
        unknown_words=sum(usable.values()) - sum(known.values()),
        long_words=long,
        size=len(tokens),
        asked=size,
    )
    account = dataclasses.asdict(training)
    _LOG.info("trained a WordPiece vocabulary: %s", account)
    return tokens, account


def _chunks(text: str) -> list[str]:
    # Exactly the white space that BERT's cleaner knows in ASCII; the rest is left to words_of.
    return text.replace("\n", " ").replace("\t", " ").replace("\r", " ").split(" ")


def _join(left: str, right: str) -> str:
    return left + right[2:]


def _symbols(words: Mapping[str, int], tokens: list[str]) -> dict[tuple[int, ...], int]:
    ids = {token: i for i, token in enumerate(tokens)}
    return {(ids[word[0]], *(ids["##" + c] for c in word[1:])): n for word, n in words.items()}


def _count_characters(words: Mapping[str, int]) -> Counter[str]:
    characters: Counter[str] = Counter()
    for word, n in words.items():
        for character in word:
            characters[character] += n
    return characters


def _alphabet(
    characters: Mapping[str, int],
    joining: Set[str],
    room: int,
    coverage: float,
    limit: int | None,
) -> frozenset[str]:
    """The most frequent characters, up to coverage, limit and room (in tokens)."""
    enough = coverage * sum(characters.values())
    chosen, covered = [], 0
    for character, n in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        room -= 2 if character in joining else 1
        if covered >= enough or room < 0 or len(chosen) == limit:
            break
        chosen.append(character)
        covered += n
    if len(chosen) < min(2, len(characters)):
        raise TokenizerError(
            f"cannot train a vocabulary: its size leaves room for {len(chosen)} of "
            f"{len(characters)} characters. Ask for a larger size or limit_alphabet."
        )
    return frozenset(chosen)
