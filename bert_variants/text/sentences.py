"""Cutting a document into sentences, in English and in Chinese, well enough for sentence pairs.

A newline always ends a sentence. Otherwise one ends behind 。！？ and behind . ! ? … where white
space (or, in Chinese text, nothing) follows, unless what stands around speaks against it: an
abbreviation, an initial, a number that opens a list item, or a small letter behind the point.
Closing quotes and brackets belong to the sentence that they close. A worked row::

    He met Dr. J. Li (in 1999). "Why?" he asked. 她笑了。“好！”
    |-------------------------| |--------------| |----||---|
"""

from __future__ import annotations

import re


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# What may stand in front of a point that ends no sentence, whatever follows.
_OPEN = _words(
    "mr mrs ms dr prof rev hon st gen col capt lt sgt cmdr gov sen rep pres messrs mme mlle "
    "fig figs eq eqs sec secs ch chap vol vols no nos pp ed eds ref refs def thm "
    "e.g eg i.e ie cf vs viz approx ca resp incl al u.s u.k u.n"
)
# These do end one where a capital letter follows.
_CLOSED = _words(
    "etc inc ltd co corp jr sr bros dept univ assn est a.m p.m am pm "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun"
)
# A sentence rather than a surname begins with these: "the matrix A. The" but "by A. Turing".
_STARTERS = _words(
    "a after all also although an and any as at because before both but by each every for from "
    "he her here his how however i if in is it its like no not note now of on one only or other "
    "our returns see she since so some such that the their then there these they this those "
    "thus to unless use we what when where which while who will with you your"
)
_REACH = 24  # characters looked at in front of a point: longer words are no abbreviations

_END = re.compile(r"""\n | ([.!?。！？｡…⋯]+) (["'”’»›)\]}」』）】》〉〕］｝]*)""", re.VERBOSE)
_NEXT = re.compile(r"""([^\S\n]*) ["'“‘«‹(\[{「『（【《〈〔［｛`*_]* (\w*)""", re.VERBOSE)
_FULL = re.compile("[。！？｡]")
_CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_INITIALS = re.compile(r"[^\W\d_](\.[^\W\d_])*")


def split(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence, in code points of ``text``, without outer white space.

    The spans are in order, do not overlap and cover everything that is not white space. Linear
    in the length of the text; a sentence may be of any length.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match[0] == "\n" or _ends(text, match, start):
            _add(spans, text, start, match.end())
            start = match.end()
    _add(spans, text, start, len(text))
    return spans


def _add(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    inside = text[start:end].rstrip()
    if stripped := inside.lstrip():
        spans.append((start + len(inside) - len(stripped), start + len(inside)))


def _ends(text: str, match: re.Match[str], start: int) -> bool:
    """Whether the marks that were found end the sentence that begins at ``start``."""
    marks, closers = match.groups()
    if _FULL.search(marks):
        return True
    if match.end() == len(text):
        return True
    gap, word = _NEXT.match(text, match.end()).groups()
    if not gap and text[match.end()] != "\n":
        asks = set(marks) != {"."} or (match.start() and _CJK.match(text, match.start() - 1))
        return bool(asks and _CJK.match(text, match.end()))
    if word[:1].islower():
        return False
    if marks != "." or closers:
        return True
    return not _is_abbreviation(text, match.start(), start, word)


def _is_abbreviation(text: str, point: int, start: int, following: str) -> bool:
    """Whether the word in front of a lone point explains the point."""
    before = text[max(start, point - _REACH) : point]
    if not before or before[-1].isspace():
        return False
    word = before.split()[-1].lstrip("([{\"'“‘«（")
    if word.lower() in _OPEN:
        return True
    if word.lower() in _CLOSED:
        return not following[:1].isupper()
    if _INITIALS.fullmatch(word) and word[0].isupper():
        return following.lower() not in _STARTERS
    return (
        word.isdecimal() and text[start:point].strip() == word if point - start < _REACH else False
    )
