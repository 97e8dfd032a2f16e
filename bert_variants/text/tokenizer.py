"""The one interface behind which WordPiece, byte-level BPE and SentencePiece stand.

A registered tokenizer (family ``tokenizer``) is a function of its call-string that returns a
``Recipe``: it either loads files or trains on text; both give a ``Tokenizer``. Whatever the kind,
word boundaries come from the tokenizer and never from "##" or "▁", so that word-level corruptions
work on every vocabulary, and offsets count code points of the raw text.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bert_variants.types import Vocab


class TokenizerError(ValueError):
    """A vocabulary or model file that is damaged, incomplete, or not what was expected."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One text as tokens, without special tokens.

    A worked row, WordPiece, text "Unhappily, yes"::

        tokens   un  ##happi ##ly  ,   yes
        words     0     0      0   1    2
        offsets  0-2   2-7    7-9 9-10 11-14

    Attributes:
        ids: int32 [n].
        words: int32 [n], the word that each token belongs to, from 0, never decreasing.
            Punctuation marks and CJK characters are words of their own.
        offsets: int32 [n, 2], start and end of each token in code points of the raw text.
    """

    ids: np.ndarray
    words: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(abc.ABC):
    """Text to ids and back. Special tokens in raw text are ordinary text and never parsed.

    Attributes:
        training: what its training saw, left out and dropped, as counts; empty if it was loaded.
            It is not part of ``files()``: two equal tokenizers may have been trained on other text.
    """

    training: Mapping[str, int] = {}

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """The registered name that reads this tokenizer's files: wordpiece, byte_bpe, ..."""

    @property
    @abc.abstractmethod
    def tokens(self) -> Sequence[str]:
        """The token of every id."""

    @property
    @abc.abstractmethod
    def vocab(self) -> Vocab:
        """Size and special ids (``counts_V`` is not set here: counts belong to a corpus)."""

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts; as fast as the library allows."""

    @abc.abstractmethod
    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Readable text for ids; special tokens are written as their names."""

    @abc.abstractmethod
    def files(self) -> Mapping[str, bytes]:
        """Everything needed to load it again, by file name."""

    def encode(self, text: str) -> Encoded:
        """Encode one text."""
        return self.encode_batch([text])[0]

    def continues_word(self, token: str) -> bool:
        """Whether a token, by its spelling, never begins a word ("##ing"). For display."""
        return token.startswith("##")

    @property
    def fingerprint(self) -> str:
        """sha256 over kind and files: equal exactly if two tokenizers are the same."""
        digest = hashlib.sha256(self.kind.encode())
        for name, data in sorted(self.files().items()):
            digest.update(f"\0{name}\0{len(data)}\0".encode())
            digest.update(data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``files()`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files().items():
            (folder / name).write_bytes(data)


def padded(vocab: Vocab, multiple: int) -> Vocab:
    """``vocab`` with rows added up to a multiple, so that a model's table divides evenly.

    The added ids are ``specials``: they are not text, and no corruption may put them into a row.
    Sizes 30522 and 64 give 30528, with the specials 30522 .. 30527.
    """
    size = -(-vocab.size // multiple) * multiple
    specials = (*vocab.specials, *range(vocab.size, size))
    return dataclasses.replace(vocab, size=size, specials=specials)


class Recipe(abc.ABC):
    """How a call-string gets its tokenizer."""

    @property
    @abc.abstractmethod
    def needs_text(self) -> bool:
        """True if it must be trained, False if it only loads files."""

    @abc.abstractmethod
    def build(self, texts: Iterable[str]) -> Tokenizer:
        """Train on ``texts`` (deterministic, byte for byte) or, if not ``needs_text``, load."""

    @abc.abstractmethod
    def restore(self, files: Mapping[str, bytes]) -> Tokenizer:
        """The tokenizer that these ``Tokenizer.files()`` describe."""
