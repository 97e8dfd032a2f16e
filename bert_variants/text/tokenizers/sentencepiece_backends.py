"""The two libraries that find sentencepiece pieces: sentencepiece itself, and tokenizers.

Both give ids and offsets in characters. The second reads a ``.vocab`` (piece<TAB>log probability),
which is all that is left of some published models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.albert_text import SPACE
from bert_variants.text.tokenizers.characters import is_mark
from bert_variants.text.tokenizers.sentencepiece_file import ModelFile, with_controls
from bert_variants.text.tokenizers.vocabulary_file import check_unique, lines

Found = list[tuple[list[int], list[tuple[int, int]]]]
Backend = Callable[[Sequence[str]], Found]  # texts to ids and offsets


def library_backend(model: ModelFile, specials: Sequence[str], name: str) -> Backend:
    """Pieces by the sentencepiece library, with its threads.

    Raises:
        TokenizerError: a model that parses and that the library refuses all the same.
    """
    import sentencepiece

    data = with_controls(model, frozenset(specials))
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, OSError) as error:
        raise TokenizerError(f"sentencepiece refuses {name}: {error}") from None

    def encode(texts: Sequence[str]) -> Found:
        found = processor.encode(list(texts), return_type="offset_mapping")
        return [(one["ids"], one["offsets"]) for one in found]

    return encode


def unigram_backend(
    pieces: Sequence[str], scores: Sequence[float], unk: int, specials: Sequence[int]
) -> Backend:
    """Pieces of a unigram model by the tokenizers library.

    Special pieces get a spelling that holds a blank, which no piece of text does, so that "<pad>"
    in a text is never found.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers

    hidden = frozenset(specials)
    rows = [
        (f"{piece} {i}" if i in hidden else piece, score)
        for i, (piece, score) in enumerate(zip(pieces, scores, strict=True))
    ]
    library = tokenizers.Tokenizer(models.Unigram(rows, unk_id=unk, byte_fallback=False))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"),
        ]
    )

    def encode(texts: Sequence[str]) -> Found:
        found = library.encode_batch(list(texts), add_special_tokens=False)
        return [(one.ids, one.offsets) for one in found]

    return encode


def marks_apart(backend: Backend) -> Backend:
    """A backend that sees what stands between punctuation marks, and each mark, as a text.

    "it's so" is read as "it", "'", "s so"; so each of the three gets the blank of a first word.
    """

    def encode(texts: Sequence[str]) -> Found:
        parts = [_cut_at_marks(text) for text in texts]
        pairs = zip(texts, parts, strict=True)
        found = iter(backend([text[a:b] for text, cuts in pairs for a, b in cuts]))
        together: Found = []
        for cuts in parts:
            ids: list[int] = []
            offsets: list[tuple[int, int]] = []
            for start, _ in cuts:
                more, places = next(found)
                ids += more
                offsets += [(a + start, b + start) for a, b in places]
            together.append((ids, offsets))
        return together

    return encode


def _cut_at_marks(text: str) -> list[tuple[int, int]]:
    """Starts and ends of the parts of a text: marks, and what stands between them."""
    marks = [i for i, character in enumerate(text) if is_mark(character)]
    edges = sorted({0, len(text), *marks, *(i + 1 for i in marks)})
    return list(itertools.pairwise(edges))


def read_scores(data: bytes, name: str) -> tuple[list[str], list[float]]:
    """Pieces and log probabilities of a ``.vocab``.

    Raises:
        TokenizerError: a line of another form, a score that is no number, a repeated piece.
    """
    pieces, scores = [], []
    for number, line in enumerate(lines(data, name), start=1):
        piece, tab, score = line.rpartition("\t")
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not tab or not math.isfinite(value):
            raise TokenizerError(
                f"{name}, line {number}: {line!r}, expected piece<TAB>log probability."
            )
        pieces.append(piece)
        scores.append(value)
    check_unique(pieces, name)
    return pieces, scores


def special_names(pieces: Sequence[str], name: str) -> Mapping[str, str]:
    """Which spelling the special tokens have: BERT's "[CLS]" or XLNet's "<cls>".

    Raises:
        TokenizerError: one of them has neither.
    """
    known = frozenset(pieces)
    found = {}
    for field in ("pad", "unk", "cls", "sep", "mask"):
        spellings = (f"[{field.upper()}]", f"<{field}>")
        present = [spelling for spelling in spellings if spelling in known]
        if not present:
            raise TokenizerError(
                f"{name} ({len(pieces)} pieces) lacks the special token {' or '.join(spellings)}. "
                "It was not made for a model of this family."
            )
        found[field] = present[0]
    return found
