"""The small JSON file that stands beside a vocabulary: kind, names of the other files, options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bert_variants.text.tokenizer import TokenizerError

NAME = "tokenizer_settings.json"


def write(kind: str, files: Mapping[str, bytes], **options: Any) -> dict[str, bytes]:
    """``files`` with the settings file added. Same input, same bytes."""
    record = {"kind": kind, "files": sorted(files), **options}
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    return {**files, NAME: text.encode()}


def read(files: Mapping[str, bytes], *options: str) -> dict[str, Any]:
    """The settings among ``files``: at least kind, files and the named options.

    Raises:
        TokenizerError: no settings file, not JSON, a field absent, or a file it names absent
            (the last only where options are asked for, which is when the files are there).
    """
    if NAME not in files:
        raise TokenizerError(f"{NAME} is absent; found: {', '.join(sorted(files)) or 'nothing'}.")
    try:
        record = json.loads(files[NAME])
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{NAME} is not JSON: {error}.") from None
    if not isinstance(record, dict):
        raise TokenizerError(f"{NAME} holds a {type(record).__name__}, expected an object.")
    for field in ("kind", "files", *options):
        if field not in record:
            raise TokenizerError(f"{NAME} lacks the field '{field}'.")
    if options:
        for name in record["files"]:
            if name not in files:
                raise TokenizerError(f"{NAME} names the file {name}, which is absent.")
    return record


def unusual(usual: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """The options that are to be written: those that are not what ``usual`` says.

    So a tokenizer that needs none of them has the same settings file, and the same fingerprint, as
    before the option existed.
    """
    plain = json.loads(json.dumps(values))
    return {k: v for k, v in plain.items() if v != json.loads(json.dumps(usual[k]))}


def with_usual(record: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``unusual``: what stands in the record, else what ``usual`` says.

    Raises:
        TokenizerError: a value of another JSON type than the usual one.
    """
    found = {}
    for name, value in usual.items():
        found[name] = record[name] if name in record else value
        plain = list if isinstance(value, tuple) else type(value)
        if name in record and not isinstance(record[name], plain):
            raise TokenizerError(
                f"{NAME}: '{name}' is {record[name]!r}, expected a {plain.__name__}."
            )
    return found
