"""The two files of a byte-level BPE vocabulary, ``vocab.json`` and ``merges.txt``, checked."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.vocabulary_file import lines


def read_vocabulary(data: bytes, name: str) -> list[str]:
    """Tokens by id of a JSON object ``{token: id}``.

    Raises:
        TokenizerError: not such an object, a token given twice, or ids that are not 0 .. n-1.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for token, index in pairs:
            if token in found:
                raise TokenizerError(f"{name}: token {token!r} is given twice.")
            found[token] = index
        return found

    try:
        ids = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except TokenizerError:
        raise
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{name} is not JSON in UTF-8: {error}.") from None
    if not isinstance(ids, dict) or not ids:
        raise TokenizerError(f"{name}: expected an object of token: id.")
    by_id: dict[int, str] = {}
    for token, index in ids.items():
        if type(index) is not int or not 0 <= index < len(ids):
            raise TokenizerError(
                f"{name}: token {token!r} has the id {index!r}, expected 0 .. {len(ids) - 1}."
            )
        if index in by_id:
            raise TokenizerError(f"{name}: {by_id[index]!r} and {token!r} share the id {index}.")
        by_id[index] = token
    return [by_id[i] for i in range(len(ids))]


def write_vocabulary(tokens: Sequence[str]) -> bytes:
    """The inverse of ``read_vocabulary``."""
    ids = {token: i for i, token in enumerate(tokens)}
    return (json.dumps(ids, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def read_merges(data: bytes, name: str, tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The merges of a file with one ``left right`` a line, after an optional ``#version`` line.

    Raises:
        TokenizerError: a line of another form, or a merge whose parts or result have no token
            (which also catches a file that belongs to another vocabulary).
    """
    known = frozenset(tokens)
    merges = []
    for number, line in enumerate(lines(data, name), start=1):
        if number == 1 and line.startswith("#version"):
            continue
        left, blank, right = line.partition(" ")
        if not (left and blank and right) or " " in right:
            raise TokenizerError(f"{name}, line {number}: {line!r}, expected two tokens.")
        for token in (left, right, left + right):
            if token not in known:
                raise TokenizerError(
                    f"{name}, line {number}: {token!r} is not in the vocabulary; the two files "
                    "do not belong together."
                )
        merges.append((left, right))
    return merges


def write_merges(merges: Sequence[tuple[str, str]]) -> bytes:
    """The inverse of ``read_merges``."""
    return ("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)).encode()
