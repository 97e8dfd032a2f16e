"""Words that white space separates: for text that was segmented before, in any language."""

from __future__ import annotations

import re

from bert_variants.registry import register
from bert_variants.text.units import Unit

_WORD = re.compile(r"\S+")


@register("units")
def words(text: str) -> list[Unit]:
    """Every run of characters that are not white space, as a unit of kind 0."""
    return [Unit(m.start(), m.end(), 0) for m in _WORD.finditer(text)]
