"""Vocabularies as lists of lines: read without losing a line, checked before they are used.

Lines end at "\\n" alone. Two entries of the published Chinese vocabulary are U+2028 and "##" with
U+2028, so a reader that splits at every Unicode line end, or strips white space, shifts all ids
behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.types import Vocab

BERT_SPECIALS = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}


def read_bytes(path: str) -> bytes:
    """The bytes of a vocabulary or model file, or an error that says which file is not there."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror or error}.") from None


def lines(data: bytes, name: str) -> list[str]:
    """The lines of a file, without their "\\n" (or "\\r\\n", where every line ends so).

    Raises:
        TokenizerError: empty file, not UTF-8 (with line and byte).
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TokenizerError(
            f"{name}, line {line}: byte {error.start} is not UTF-8 ({error.reason})."
        ) from None
    if not text:
        raise TokenizerError(f"{name} is empty.")
    found = text.removesuffix("\n").split("\n")
    if all(line.endswith("\r") for line in found):
        found = [line[:-1] for line in found]
    if found[0].startswith("\ufeff"):
        raise TokenizerError(f"{name}, line 1 begins with a byte order mark. Remove it.")
    return found


def check_unique(tokens: Sequence[str], name: str) -> None:
    """Refuse an empty or a repeated entry, with its line numbers (from 1)."""
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if not token:
            raise TokenizerError(f"{name}, line {number} is empty; every line is one token.")
        if token in seen:
            raise TokenizerError(
                f"{name}, line {number}: token {token!r} stands on line {seen[token]} already."
            )
        seen[token] = number


def vocab_of(
    tokens: Iterable[str], specials: Mapping[str, str], name: str, reserved: Sequence[str] = ()
) -> Vocab:
    """Size and special ids of a vocabulary, ids in the order of ``tokens``.

    Args:
        specials: field of ``Vocab`` -> spelling, such as ``mask -> [MASK]``.
        reserved: further tokens that stand for no text, such as ``<eop>``.

    Raises:
        TokenizerError: a special or a reserved token is not in the vocabulary.
    """
    ids = {token: i for i, token in enumerate(tokens)}
    for token in (*specials.values(), *reserved):
        if token not in ids:
            raise TokenizerError(
                f"{name} ({len(ids)} entries) lacks the special token {token}. Expected all of "
                f"{', '.join((*specials.values(), *reserved))}: is this the right file, and is it "
                "complete?"
            )
    named = {field: ids[token] for field, token in specials.items()}
    every = {*named.values(), *(ids[token] for token in reserved)}
    return Vocab(size=len(ids), specials=tuple(sorted(every)), **named)


def check_specials(specials: Mapping[str, object], name: str) -> dict[str, str]:
    """The spellings of the five special tokens, in the order of ``BERT_SPECIALS``.

    Raises:
        TokenizerError: another set of five, or a spelling that is none.
    """
    if set(specials) != set(BERT_SPECIALS):
        raise TokenizerError(
            f"{name}: special tokens are {sorted(specials)}, expected {sorted(BERT_SPECIALS)}."
        )
    found = {}
    for field in BERT_SPECIALS:
        spelling = specials[field]
        if not isinstance(spelling, str) or not spelling:
            raise TokenizerError(f"{name}: the {field} token is {spelling!r}, expected a spelling.")
        found[field] = spelling
    return found
