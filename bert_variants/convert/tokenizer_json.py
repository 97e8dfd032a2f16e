"""A tokenizer as the one file that the ``tokenizers`` library reads, tokenizer.json.

It says all that ours do in that library's own words: what is done to the text, how it is cut, the
pieces, and which special tokens stand around. Written by hand, so that it does not depend on which
version of the library is there, and so that equal tokenizers have equal bytes.
"""

from __future__ import annotations

import base64
import functools
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bert_variants.convert.errors import ConvertError
from bert_variants.convert.layouts import Layout, Part
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers import settings
from bert_variants.text.tokenizers.albert_text import CHANGES, Change, splits_comma
from bert_variants.text.tokenizers.byte_bpe import MERGES
from bert_variants.text.tokenizers.byte_bpe_files import read_merges
from bert_variants.text.tokenizers.sentencepiece import MODEL, SCORES
from bert_variants.text.tokenizers.sentencepiece_backends import read_scores
from bert_variants.text.tokenizers.sentencepiece_parts import (
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    USER_DEFINED,
    Parts,
    parts_of,
)

Json = dict[str, Any]
BLANK = "▁"
# What without_controls drops, as a class of characters.
CONTROLS = r"[\x{0}-\x{8}\x{b}\x{c}\x{e}-\x{1f}\x{7f}-\x{9f}\x{fffd}]"
CLEAN = {"type": "Replace", "pattern": {"Regex": CONTROLS}, "content": ""}
QUOTES = [{"type": "Replace", "pattern": {"String": s}, "content": '"'} for s in ("``", "''")]
BLANK_SIGN = {"type": "Replace", "pattern": {"String": BLANK}, "content": "_"}
ONE_BLANK = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
ENDS = {"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""}
# Blanks before a mark are no token.
MARKS_APART = {"type": "Punctuation", "behavior": "Isolated"}
NO_BLANKS = {
    "type": "Split",
    "pattern": {"Regex": r" +\z"},
    "behavior": "Removed",
    "invert": False,
}
NFKD, LOWER = {"type": "NFKD"}, {"type": "Lowercase"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
LONGEST_WORD = 100  # characters of a word, WordPiece
# A piece such as "2010," is never taken: it is so unlikely. Published files do the same.
NEVER = -100.0


def tokenizer_json(tokenizer: Tokenizer, layout: Layout, mask_takes_blank: bool) -> Json:
    """The content of tokenizer.json.

    Args:
        tokenizer: of any of our kinds.
        layout: what stands around the text.
        mask_takes_blank: whether a mask token that is written into a text takes the blank before
            it, as RoBERTa's does.

    Raises:
        ConvertError: of another kind, or with settings that the library cannot follow.
    """
    files = tokenizer.files()
    options = settings.read(files)
    if tokenizer.kind == "wordpiece":
        parts = _wordpiece(tokenizer, options)
    elif tokenizer.kind == "byte_bpe":
        parts = _byte_bpe(tokenizer, options, files)
    elif tokenizer.kind == "sentencepiece":
        parts = _pieces(tokenizer, options, files)
    else:
        raise ConvertError(f"a tokenizer of kind {tokenizer.kind!r} cannot be written.")
    around = _template(tokenizer, layout)
    if tokenizer.kind == "byte_bpe":
        # The first of them leaves the blank that a token begins with out of its offsets.
        trims = {**BYTES, "add_prefix_space": options["prefix_space"]}
        around = {"type": "Sequence", "processors": [trims, around]}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(tokenizer, mask_takes_blank),
        "normalizer": parts["normalizer"],
        "pre_tokenizer": parts["pre_tokenizer"],
        "post_processor": around,
        "decoder": parts["decoder"],
        "model": parts["model"],
    }


def added_tokens(tokenizer: Tokenizer, mask_takes_blank: bool) -> list[Json]:
    """The special tokens, which the library finds in raw text."""
    return [
        {
            "id": i,
            "content": tokenizer.tokens[i],
            "single_word": False,
            "lstrip": mask_takes_blank and i == tokenizer.vocab.mask,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i in tokenizer.vocab.specials
    ]


def _template(tokenizer: Tokenizer, layout: Layout) -> Json:
    ids = {"cls": tokenizer.vocab.cls, "sep": tokenizer.vocab.sep}
    names = {part: tokenizer.tokens[i] for part, i in ids.items()}

    def row(parts: Sequence[Part]) -> list[Json]:
        return [
            {"SpecialToken": {"id": names[part], "type_id": segment}}
            if part in names
            else {"Sequence": {"id": part, "type_id": segment}}
            for part, segment in parts
        ]

    return {
        "type": "TemplateProcessing",
        "single": row(layout.single),
        "pair": row(layout.pair),
        "special_tokens": {
            name: {"id": name, "ids": [ids[part]], "tokens": [name]} for part, name in names.items()
        },
    }


def _wordpiece(tokenizer: Tokenizer, options: Mapping[str, Any]) -> Json:
    chinese = "chinese_chars" not in options or options["chinese_chars"]
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": chinese,
            "strip_accents": options["strip_accents"],
            "lowercase": options["lowercase"],
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": tokenizer.tokens[tokenizer.vocab.unk],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": _by_token(tokenizer.tokens),
        },
    }


def _byte_bpe(tokenizer: Tokenizer, options: Mapping[str, Any], files: Mapping[str, bytes]) -> Json:
    merges = read_merges(files[MERGES], MERGES, tokenizer.tokens)
    return {
        "normalizer": CLEAN if options["clean"] else None,
        "pre_tokenizer": {**BYTES, "add_prefix_space": options["prefix_space"]},
        "decoder": BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": _by_token(tokenizer.tokens),
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def _by_token(tokens: Sequence[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def _pieces(tokenizer: Tokenizer, options: Mapping[str, Any], files: Mapping[str, bytes]) -> Json:
    """Of SentencePiece. Tokens that follow the pieces stand among the added tokens alone."""
    change = CHANGES[options["normalization"]]
    split_marks = "split_marks" in options and options["split_marks"]
    if MODEL in files:
        parts = parts_of(files[MODEL], MODEL)
        _check(parts)
        before = [*normalizers(change), *_own_normalizers(parts)]
        cuts = [metaspace(parts)]
    else:
        pieces, scores = read_scores(files[SCORES], SCORES)
        unk = tokenizer.vocab.unk
        kinds = tuple(UNKNOWN if i == unk else NORMAL for i in range(len(pieces)))
        parts = Parts(tuple(pieces), tuple(scores), kinds)
        before = normalizers(change)
        cuts = [{"type": "WhitespaceSplit"}, metaspace(parts)]
    if split_marks:
        cuts = [MARKS_APART, NO_BLANKS, *cuts]
    return {
        "normalizer": {"type": "Sequence", "normalizers": before},
        "pre_tokenizer": cuts[0] if len(cuts) == 1 else {"type": "Sequence", "pretokenizers": cuts},
        "decoder": metaspace(parts),
        "model": {
            "type": "Unigram",
            "unk_id": parts.unk,
            "vocab": _scored(parts, change),
            "byte_fallback": False,
        },
    }


def _check(parts: Parts) -> None:
    unlike = list(parts.unlike)
    if parts.model != UNIGRAM:
        unlike.insert(0, f"model type {parts.model}, not unigram")
    if not parts.collapse:
        unlike.append("remove_extra_whitespaces=false")
    if unlike:
        raise ConvertError(
            "this sentencepiece model cannot be written as a tokenizer.json, whose tokens would "
            f"differ: {'; '.join(unlike)}."
        )


def normalizers(change: Change) -> list[Json]:
    """What is done to a text before the model's own normaliser."""
    found = [BLANK_SIGN, CLEAN]
    found += QUOTES if change.quotes else []
    if change.strip_accents:
        found += [NFKD, {"type": "Replace", "pattern": {"Regex": combining()}, "content": ""}]
    return found + ([LOWER] if change.lowercase else [])


def _own_normalizers(parts: Parts) -> list[Json]:
    compiled = base64.b64encode(parts.charsmap).decode()
    own = [{"type": "Precompiled", "precompiled_charsmap": compiled}] if parts.charsmap else []
    return [*own, ENDS, ONE_BLANK]


def metaspace(parts: Parts) -> Json:
    """Blanks as "▁", one before the text."""
    return {
        "type": "Metaspace",
        "replacement": BLANK,
        "prepend_scheme": "always" if parts.prefix else "never",
        # Pieces end where words do, unless one holds a blank within.
        "split": not any(BLANK in piece[1:] for piece in parts.pieces),
    }


def _scored(parts: Parts, change: Change) -> list[list[Any]]:
    """Pieces with their scores. Those that stand for no text have 0, as published files have."""
    best = max(s for s, k in zip(parts.scores, parts.kinds, strict=True) if k == NORMAL)
    rows: list[list[Any]] = []
    for piece, score, kind in zip(parts.pieces, parts.scores, parts.kinds, strict=True):
        if kind == USER_DEFINED:
            # As sentencepiece does: a little worse than the same length of the best pieces.
            score = len(piece) * best - 0.1
        elif kind != NORMAL:
            score = 0.0
        elif change.quotes and splits_comma(piece):
            score += NEVER
        rows.append([piece, score])
    return rows


@functools.cache
def combining() -> str:
    """The class of all characters that ``unicodedata.combining`` knows, for a regular expression.

    Not the marks that the library's own StripAccents drops: among those are vowels of India, which
    ALBERT keeps.
    """
    points = (p for p in range(sys.maxunicode + 1) if unicodedata.combining(chr(p)))
    return "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in _runs(points)) + "]"


def _runs(points: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of every run of numbers: 1 2 3 7 8 gives (1, 3) (7, 8)."""
    runs: list[tuple[int, int]] = []
    for point in points:
        if runs and runs[-1][1] == point - 1:
            runs[-1] = (runs[-1][0], point)
        else:
            runs.append((point, point))
    return runs
