"""Tokenizers, one kind a file, behind the interface of ``text/tokenizer.py``.

A tokenizer describes itself completely in ``Tokenizer.files()``; one of those files,
``tokenizer_settings.json``, names its kind. So a checkpoint or a store is read again by::

    tokenizer = restore(files)        # name -> bytes, out of a checkpoint
    tokenizer = load(folder)          # what Tokenizer.save(folder) wrote
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bert_variants import registry
from bert_variants.text.tokenizer import Tokenizer, TokenizerError
from bert_variants.text.tokenizers import settings


def restore(files: Mapping[str, bytes]) -> Tokenizer:
    """The tokenizer that ``files`` (of ``Tokenizer.files()``) describe, whatever its kind.

    Raises:
        TokenizerError: the settings file is absent or damaged, or the kind refuses its files.
    """
    kind = settings.read(files)["kind"]
    if not isinstance(kind, str) or kind not in registry.names("tokenizer"):
        known = ", ".join(registry.names("tokenizer"))
        raise TokenizerError(f"{settings.NAME}: kind is {kind!r}, expected one of: {known}.")
    return registry.lookup("tokenizer", kind)().restore(files)


def load(folder: Path) -> Tokenizer:
    """The tokenizer that ``Tokenizer.save(folder)`` wrote. Other files there are left alone.

    Raises:
        TokenizerError: there is no tokenizer in the folder, or a file of it is absent or damaged.
    """
    path = folder / settings.NAME
    if not path.is_file():
        raise TokenizerError(f"no tokenizer in {folder}: it holds no {settings.NAME}.")
    named = settings.read({settings.NAME: path.read_bytes()})["files"]
    if not isinstance(named, list) or any(Path(str(n)).name != n for n in named):
        raise TokenizerError(f"{path}: 'files' is {named!r}, expected a list of plain file names.")
    absent = [n for n in named if not (folder / n).is_file()]
    if absent:
        raise TokenizerError(f"{path} names the file {absent[0]}, which {folder} does not hold.")
    files = {name: (folder / name).read_bytes() for name in named}
    return restore({**files, settings.NAME: path.read_bytes()})
