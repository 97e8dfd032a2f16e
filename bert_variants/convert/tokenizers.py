"""Tokenizers in and out of a Hugging Face directory.

    tokenizer = read(folder)
    write(tokenizer, folder, family="bert", length=512)
"""

from __future__ import annotations

from pathlib import Path

from bert_variants.text.tokenizer import Tokenizer


def read(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face directory.

    Raises:
        ConvertError: no tokenizer there, one of no known family, or settings that cannot be had.
        TokenizerError: a vocabulary or model file that is damaged or incomplete.
    """
    raise NotImplementedError


def write(tokenizer: Tokenizer, folder: Path, *, family: str, length: int | None = None) -> None:
    """Write a directory's tokenizer files.

    Args:
        family: name that ``model_type`` has in a config.json; see ``layouts.FAMILIES``.
        length: most tokens of a row (``model_max_length``); None: not said.

    Raises:
        ConvertError: a tokenizer of a kind that the family does not have.
    """
    raise NotImplementedError
