"""SentencePiece: unigram or BPE pieces over raw text, as ALBERT, XLNet and DeBERTa use.

    sentencepiece(size=8192)                                  trains a unigram model
    sentencepiece(file="spm.model")                           loads a model
    sentencepiece(file="albert_30k-clean.vocab")              loads ALBERT's pieces and scores
    sentencepiece(file="spiece.model", normalization="xlnet")

``normalization="albert"`` does to text and pieces what ALBERT's own tokenizer does around the
model, ``"xlnet"`` the same with capital letters kept (see ``albert_text.py``). Nothing in the text
is ever read as a special token, and "▁" in it is read as "_", since the library would take it for a
blank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_variants.registry import register
from bert_variants.text.tokenizer import Encoded, Recipe, Tokenizer, TokenizerError
from bert_variants.text.tokenizers import settings
from bert_variants.text.tokenizers.albert_text import (
    CHANGES,
    SPACE,
    albert_text,
    comma_splits,
    starts_word,
)
from bert_variants.text.tokenizers.characters import (
    code_points,
    offsets_array,
    raw_offsets,
    trimmed,
    without_controls,
    without_surrogates,
)
from bert_variants.text.tokenizers.sentencepiece_backends import (
    library_backend,
    marks_apart,
    read_scores,
    special_names,
    unigram_backend,
)
from bert_variants.text.tokenizers.sentencepiece_file import read_model
from bert_variants.text.tokenizers.sentencepiece_training import train_sentencepiece
from bert_variants.text.tokenizers.vocabulary_file import check_specials, read_bytes, vocab_of
from bert_variants.types import Vocab

MODEL, SCORES = "spiece.model", "spiece.vocab"
NORMALIZATIONS = tuple(CHANGES)
# Options that published directories may set and that a call-string does not. No special tokens
# named: those that the pieces have, in either of two spellings.
USUAL: dict[str, Any] = {"specials": {}, "reserved": (), "appended": (), "split_marks": False}


class SentencePiece(Tokenizer):
    """Pieces of a ``.model`` (through sentencepiece) or of a ``.vocab`` (through tokenizers).

    Words begin where ALBERT's rule says (``albert_text.starts_word``): at "▁", at a mark, and at
    every piece that holds something other than ASCII letters and marks. Offsets leave out the blank
    that a piece begins with.

    Args:
        data: of the file.
        stored_as: ``MODEL`` or ``SCORES``, which of the two it is.
        normalization: a name of ``CHANGES``: what is done to text before the model.
        name: of the file, for messages.
        specials: spelling of each special token, by the name that it has in ``Vocab``; None:
            "[CLS]" or "<cls>", whichever the pieces have, and so on.
        reserved: further tokens that stand for no text, such as "<eop>".
        appended: tokens that follow the pieces, as DeBERTa's "[MASK]"; special or reserved ones.
        split_marks: cut the text at punctuation marks first, each part as if it stood alone.
        training: see ``Tokenizer.training``.
    """

    def __init__(
        self,
        data: bytes,
        stored_as: str,
        *,
        normalization: str,
        name: str,
        specials: Mapping[str, str] | None = None,
        reserved: Sequence[str] = (),
        appended: Sequence[str] = (),
        split_marks: bool = False,
        training: Mapping[str, int] | None = None,
    ):
        self._data = data
        self._stored_as = stored_as
        self._normalization = normalization
        self._more = {"specials": dict(specials or {}), "reserved": tuple(reserved)}
        self._more |= {"appended": tuple(appended), "split_marks": split_marks}
        self.training = training or {}
        if stored_as == MODEL:
            model = read_model(data, name)
            pieces, controls = model.pieces, model.controls
        else:
            found, scores = read_scores(data, name)
            pieces, controls = tuple(found), ()
        self._tokens = _with_appended(pieces, appended, name)
        self._specials = check_specials(specials or special_names(self._tokens, name), name)
        vocab = vocab_of(self._tokens, self._specials, name, reserved)
        self._vocab = _with_specials(vocab, controls)
        if stored_as == MODEL:
            hidden = [*self._specials.values(), *reserved]
            self._backend = library_backend(model, hidden, name)
        else:
            self._backend = unigram_backend(pieces, scores, vocab.unk, self._vocab.specials)
        if split_marks:
            self._backend = marks_apart(self._backend)
        self._starts = np.array([starts_word(piece) for piece in self._tokens])
        self._starts[list(self._vocab.specials)] = True
        # Whether a piece holds more than a blank, and whether it begins with one.
        self._spelled = np.array([piece != SPACE for piece in self._tokens])
        self._blank_first = np.array([piece.startswith(SPACE) for piece in self._tokens])
        self._splits = self._comma_splits() if CHANGES[normalization].quotes else {}

    @property
    def kind(self) -> str:
        return "sentencepiece"

    @property
    def tokens(self) -> Sequence[str]:
        return self._tokens

    @property
    def vocab(self) -> Vocab:
        return self._vocab

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        whole = [without_surrogates(text) for text in texts]
        prepared = [_prepared(text, self._normalization) for text in whole]
        found = self._backend([text for text, _ in prepared])
        return [
            self._encoded(ids, offsets, text, places)
            for (ids, offsets), text, (_, places) in zip(found, whole, prepared, strict=True)
        ]

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Pieces put together, "▁" as blanks, special tokens as their names between blanks.

        An id beyond the vocabulary, which a padded model can predict, is written ``[30000]``.
        """
        parts = []
        for i in ids:
            if i >= len(self._tokens):
                parts.append(f" [{i}] ")
            elif i in self._vocab.specials:
                parts.append(f" {self._tokens[i]} ")
            else:
                parts.append(self._tokens[i].replace(SPACE, " "))
        return " ".join(word for word in "".join(parts).split(" ") if word)

    def continues_word(self, token: str) -> bool:
        return not starts_word(token) and token not in {
            self._tokens[i] for i in self._vocab.specials
        }

    def files(self) -> Mapping[str, bytes]:
        files = {self._stored_as: self._data}
        more = settings.unusual(USUAL, **self._more)
        return settings.write(self.kind, files, normalization=self._normalization, **more)

    def _encoded(
        self,
        ids: list[int],
        offsets: list[tuple[int, int]],
        text: str,
        places: np.ndarray | None,
    ) -> Encoded:
        if not self._splits.keys().isdisjoint(ids):
            ids, offsets = self._split_commas(ids, offsets)
        ids_n = np.array(ids, np.int32)
        starts = self._starts[ids_n]
        words = np.cumsum(starts) - (starts[0] if len(ids) else 0)
        # Blanks are those of the raw text: one that a character expands to is part of it.
        sources = code_points(text)
        if places is not None:
            sources = sources[places[:-1]]
        at = raw_offsets(self._with_width(ids_n, offsets_array(offsets), sources), places)
        return Encoded(ids_n, words.astype(np.int32), at)

    def _with_width(self, ids: np.ndarray, found: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Offsets without the blank that a piece begins with, none of them empty without need.

        Of a character that becomes several, as "½" becomes "1⁄2", the library gives no width to
        any part but the last. Here every part points at the whole character.
        """
        offsets = trimmed(points, found)
        empty = (offsets[:, 0] == offsets[:, 1]) & self._spelled[ids]
        # An unknown piece may be a line end, which is white space and no blank.
        itself = empty & ~self._blank_first[ids] & (found[:, 0] < found[:, 1])
        offsets[itself] = found[itself]
        part = empty & ~itself
        offsets[part, 1] = np.minimum(offsets[part, 0] + 1, len(points))
        # A blank between two parts is part of the character too.
        offsets[:, 1] = np.maximum.accumulate(offsets[:, 1])
        return offsets

    def _comma_splits(self) -> dict[int, tuple[int, ...]]:
        return comma_splits(self._tokens, lambda text: self._backend([text])[0][0])

    def _split_commas(
        self, ids: list[int], offsets: list[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        ids, offsets = list(ids), list(offsets)
        for at in reversed([n for n, i in enumerate(ids) if i in self._splits]):
            parts, (start, end) = self._splits[ids[at]], offsets[at]
            # Widths from the right, where every part stands for as many characters as it has.
            ends = [end]
            for part in reversed(parts[1:]):
                ends.insert(0, max(start, ends[0] - len(self._tokens[part])))
            ids[at : at + 1] = parts
            offsets[at : at + 1] = zip([start, *ends[:-1]], ends, strict=True)
        return ids, offsets


def _prepared(text: str, normalization: str) -> tuple[str, np.ndarray | None]:
    """What the backend sees, and where in the raw text each of its characters stood."""
    text, places = without_controls(text.replace(SPACE, "_"))
    text, moved = albert_text(text, CHANGES[normalization])
    if moved is None or places is None:
        return text, places if moved is None else moved
    return text, places[moved]


def _with_appended(pieces: Sequence[str], appended: Sequence[str], name: str) -> tuple[str, ...]:
    for token in appended:
        if token in pieces or appended.count(token) > 1:
            raise TokenizerError(f"{name}: {token!r} is to follow its pieces and is one already.")
    return (*pieces, *appended)


def _with_specials(vocab: Vocab, controls: Iterable[int]) -> Vocab:
    return dataclasses.replace(vocab, specials=tuple(sorted({*vocab.specials, *controls})))


class _SentencePieceRecipe(Recipe):
    def __init__(self, file: str, normalization: str, **training: Any):
        self._file = file
        self._normalization = normalization
        self._training = training

    @property
    def needs_text(self) -> bool:
        return not self._file

    def build(self, texts: Iterable[str]) -> Tokenizer:
        if self._file:
            stored_as = SCORES if self._file.endswith(".vocab") else MODEL
            default = "albert" if stored_as == SCORES else "model"
            return SentencePiece(
                read_bytes(self._file),
                stored_as,
                normalization=self._normalization or default,
                name=self._file,
            )
        normalization = self._normalization or "model"
        data, training = train_sentencepiece(
            texts,
            lambda text: _prepared(without_surrogates(text), normalization)[0],
            **self._training,
        )
        found = SentencePiece(
            data, MODEL, normalization=normalization, name="the trained model", training=training
        )
        found.training = {**training, "size": found.vocab.size}
        return found

    def restore(self, files: Mapping[str, bytes]) -> Tokenizer:
        options = settings.read(files, "normalization")
        normalization = options["normalization"]
        stored_as = SCORES if SCORES in files else MODEL
        _check("normalization", normalization, NORMALIZATIONS)
        return SentencePiece(
            files[stored_as],
            stored_as,
            normalization=normalization,
            name=stored_as,
            **settings.with_usual(options, USUAL),
        )


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise TokenizerError(f"sentencepiece: {name} is {value!r}, expected {' or '.join(known)}.")


@register("tokenizer")
def sentencepiece(
    size: int = 8192,
    kind: str = "unigram",
    file: str = "",
    lowercase: bool = False,
    normalization: str = "",
    coverage: float = 0.9995,
) -> Recipe:
    """SentencePiece.

    Args:
        size: pieces to train, the 5 specials included.
        kind: "unigram" or "bpe", of the model to train.
        file: a ``.model``, or a ``.vocab`` of piece<TAB>log probability. Then nothing is trained,
            and of the others only ``normalization`` is read.
        lowercase: fold case within the trained model. A loaded model has this built in or not.
        normalization: "model", the model's own alone; "albert", ALBERT's before it; "xlnet", the
            same with capital letters kept; "albert_with_accents" and "xlnet_with_accents", without
            dropping accents; "lower", lower case before it. Empty means "albert" for a ``.vocab``,
            which holds no normaliser, else "model".
        coverage: share of all characters that have a piece in the trained model.

    Raises:
        TokenizerError: unknown kind or normalization, lowercase with a file; (from ``build``) an
            unreadable, cut off or incomplete file, a corpus that the trainer refuses.
    """
    _check("kind", kind, ("unigram", "bpe"))
    _check("normalization", normalization or "model", NORMALIZATIONS)
    if file and lowercase:
        raise TokenizerError(
            f"sentencepiece: lowercase cannot be set for {file}; its model folds case or does not. "
            'For ALBERT, set normalization="albert".'
        )
    return _SentencePieceRecipe(
        file, normalization, size=size, kind=kind, lowercase=lowercase, coverage=coverage
    )
