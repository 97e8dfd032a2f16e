"""Where words, phrases and entities begin and end, for corruptions that hide whole ones.

A registered entry (family ``units``) is a function ``(text, *, ...) -> list of Unit``: spans in
code points of the text, in order, none empty, none overlapping another. What lies in no span is in
no unit. One entry a file; dropping a file here registers it::

    lookup("units", 'lexicon("phrases.tsv")')("He went to New York.")   # [Unit(11, 19, 0)]
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from bert_variants import registry
from bert_variants.text.sources.files import content_hash, find


class Unit(NamedTuple):
    """``text[start:stop]`` is a unit of this kind; kinds are small numbers, 0 .. 126."""

    start: int
    stop: int
    kind: int


class UnitsError(ValueError):
    """A lexicon that cannot be used, or a library that is not installed."""


def fingerprint(call: str) -> str:
    """The canonical call-string and, where it names a list, a sha256 over the list's contents.

    An entry says which of its parameters are file patterns when it registers:
    ``@register("units", files=("file",))``.
    """
    found = registry.lookup("units", call)
    digest = hashlib.sha256()
    patterns = found.traits["files"]
    for pattern in patterns:
        root, names = find(found.argument(pattern))
        for name in names:
            digest.update(f"{name}\0{content_hash(root / name)}\0".encode())
    return f"{found} {digest.hexdigest()}" if patterns else str(found)
