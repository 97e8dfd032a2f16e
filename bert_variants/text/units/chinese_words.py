"""Chinese words as jieba finds them, which is what BERT-wwm and its kin hide (arXiv 1906.08101)."""

from __future__ import annotations

import functools
import re
from types import ModuleType

from bert_variants.registry import register
from bert_variants.text.units import Unit, UnitsError

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@register("units")
def chinese_words(text: str) -> list[Unit]:
    """The words of Chinese text, of one or more characters, as units of kind 0.

    Punctuation, numbers and words in other scripts are in no unit::

        我在清华大学用Python。    ->    我 在 清华大学 用

    Raises:
        UnitsError: rjieba, of the extra "zh", is not installed.
    """
    units, start = [], 0
    for word in _rjieba().cut(text) if _HAN.search(text) else ():
        stop = start + len(word)
        if _HAN.search(word):
            units.append(Unit(start, stop, 0))
        start = stop
    return units


@functools.cache
def _rjieba() -> ModuleType:
    try:
        import rjieba
    except ImportError:
        raise UnitsError(
            "chinese_words() needs rjieba: pip install 'bert-variants[zh]'. Or segment the text "
            "beforehand, with spaces between words, and say words()."
        ) from None
    return rjieba
