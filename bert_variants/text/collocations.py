"""Words that stand together far more often than chance has it: the units of PMI-masking.

Source: Levine et al. 2020, arXiv 2010.01825, section 4. For more than two words the plain measure,
log p(w1 .. wn) / (p(w1) .. p(wn)), is large as soon as two of the words belong together. So the
measure of an n-gram is the least one over all the ways to cut it in pieces::

    PMI(w1 .. wn) = min over cuts of  log p(w1 .. wn) - sum of log p(piece)

"new york is" then gets the measure of "new york" beside "is", which is that of chance.

The text is read once, into a temporary file of word numbers (4 bytes a word). The n-grams are then
counted a length at a time: one is a candidate where both n-grams of one word less that it holds are
frequent, which loses none. So memory holds the vocabulary (``WORDS`` at most), one length's
candidates (``CANDIDATES`` at most), the frequent n-grams, and 24 bytes a document. Where a limit is
met, what was lost is counted, never left unsaid.
"""

from __future__ import annotations

import array
import dataclasses
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_variants import registry
from bert_variants.config import ConfigError, Data
from bert_variants.text.encoding import DIGEST, PrepareError, digest, no_documents, write_file
from bert_variants.text.ngrams import Level, Tally, first_level
from bert_variants.text.sharding import is_held_out
from bert_variants.text.units.lexicon import LONGEST as LONGEST_ENTRY

WORDS = 1 << 22  # different words that are told apart
CANDIDATES = 1 << 24  # different n-grams that are counted at a time
CHUNK = 1 << 20  # words that are looked at together
LONGEST = 5  # words of a collocation, as in the paper
BREAK, OTHER = 0, 1  # numbers in the temporary file: between runs of words; a word of no number

# Words with exactly one space between them, as an entry of a lexicon spells them. A word here is
# what ``lexicon`` takes for one: letters and digits. What follows the apostrophe of "it's" is none.
_RUN = re.compile(r"(?<![^\W_])(?<![^\W_]['’])[^\W_]+(?: [^\W_]+)*")
_NO_WORD = f"word beyond the first {WORDS} different ones"


@dataclasses.dataclass(frozen=True)
class Collocation:
    """Words that belong together: how they are spelt, how often they occur, their PMI in nats."""

    words: tuple[str, ...]
    count: int
    score: float


@dataclasses.dataclass(frozen=True)
class Found:
    """The collocations of a corpus, sorted by length and score, and what they were counted in.

    Attributes:
        collocations: per length the best first.
        documents, words: of the train split.
        dropped: reason -> how often something was left out.
    """

    collocations: tuple[Collocation, ...]
    documents: int
    words: int
    dropped: Mapping[str, int]


def collocations(
    data: Data,
    *,
    longest: int = LONGEST,
    minimum: int = 10,
    most: int = 50_000,
    score: float = 3.0,
) -> Found:
    """The collocations of 2 to ``longest`` words in the train split of a configuration's text.

    Text is taken in lower case; the words of one stand side by side, with one space between
    them and no punctuation or line end, and without digits. Scripts without spaces have none:
    for Chinese, segment the text first. Documents that are held out, or repeat others, do not
    count. The result depends on the documents and, where a limit is met, on their order.

    Args:
        data: its source, and what it holds out.
        longest: words of a collocation at most, 2 to 5.
        minimum: how often it must occur; the paper takes 10.
        most: how many of each length are kept, the best by PMI. The paper keeps 800,000 in all,
            about half of whose corpus is then in one; take fewer for less text.
        score: least PMI in nats; 3 is twenty times as often as chance.

    Raises:
        ConfigError: numbers out of range.
        PrepareError: no document, or no collocation.
        SourceError, RegistryError: from what the configuration names.
    """
    if not 2 <= longest <= LONGEST or minimum < 1 or most < 1:
        raise ConfigError(
            f"longest={longest}, minimum={minimum}, most={most}: expected 2 to {LONGEST}, at least "
            "1 and at least 1."
        )
    with tempfile.TemporaryFile() as file:
        text = _read(data, file)
        numbers = np.memmap(file, np.uint32, "r+") if text.numbers else np.zeros(0, np.uint32)
        documents = _leave_out(text, numbers, data)
        levels = _levels(numbers, len(text.words), longest, minimum, text.dropped)
        words = int(np.count_nonzero(numbers))
    found = [
        one
        for level in range(2, len(levels) + 1)
        for one in _best(levels[:level], words, text.words, most, score)
    ]
    if not found:
        raise PrepareError(
            f"data.source {data.source} has no collocation: {documents} documents of {words} words "
            f"hold no words that occur together {minimum} times and {np.exp(score):.0f} times as "
            "often as chance. Give more text, or a smaller minimum or score."
        )
    return Found(tuple(found), documents, words, dict(sorted(text.dropped.items())))


def write_lexicon(found: Found, path: Path) -> None:
    """Write what ``lexicon(file, ignore_case=True)`` reads: ``spelling<TAB>pmi2``, sorted.

    The kind is the number of words, so ``units`` can be told to take some lengths alone: kinds 0
    to 3 are those of 2 to 5 words, if there are some of each.
    """
    lines = sorted(f"{' '.join(one.words)}\tpmi{len(one.words)}\n" for one in found.collocations)
    write_file(path, "".join(lines).encode("utf-8"))


@dataclasses.dataclass
class _Text:
    """What reading left: the spelling of each number, and where documents end in the file."""

    words: list[str]
    numbers: int
    ends: np.ndarray
    digests: np.ndarray
    dropped: Counter[str]


def _read(data: Data, file: BinaryIO) -> _Text:
    """All documents as numbers of words, one behind another, a BREAK behind each run."""
    number_of = {"": BREAK, "\0": OTHER}  # neither is a word
    ends, digests = array.array("Q"), bytearray()
    dropped = Counter[str]()
    at = 0
    reading = registry.lookup("source", data.source)().documents()
    for document in reading:
        numbers = array.array("I")
        for run in _RUN.finditer(document.text.lower()):
            numbers.extend(_numbered(run[0].split(" "), number_of, dropped))
            numbers.append(BREAK)
        file.write(numbers.tobytes())
        at += len(numbers)
        ends.append(at)
        digests += digest(document.text)
    dropped.update(reading.dropped)
    if not ends:
        raise no_documents(f"data.source {data.source}", dropped)
    file.flush()
    return _Text(
        words=list(number_of),
        numbers=at,
        ends=np.frombuffer(ends, np.uint64).astype(np.int64),
        digests=np.frombuffer(bytes(digests), np.uint8).reshape(-1, DIGEST),
        dropped=dropped,
    )


def _numbered(
    words: Sequence[str], number_of: dict[str, int], dropped: Counter[str]
) -> Iterator[int]:
    for word in words:
        number = number_of.get(word)
        if number is None:
            if not word.isalpha() or len(word) > LONGEST_ENTRY:
                number = OTHER
            elif len(number_of) - 2 >= WORDS:
                dropped[_NO_WORD] += 1
                number = OTHER
            else:
                number = number_of[word] = len(number_of)
        yield number


def _leave_out(text: _Text, numbers: np.ndarray, data: Data) -> int:
    """Blank the documents that are not in the train split; returns how many are in it."""
    different, first = np.unique(text.digests, axis=0, return_index=True)
    if data.held_out_source:
        others = {
            digest(document.text)
            for document in registry.lookup("source", data.held_out_source)().documents()
        }
        held = np.asarray([row.tobytes() in others for row in different])
    else:
        held = is_held_out(different, data.held_out)
    kept = np.zeros(len(text.ends), bool)
    kept[first[~held]] = True
    begins = np.concatenate([[0], text.ends[:-1]])
    for begin, end in zip(begins[~kept].tolist(), text.ends[~kept].tolist(), strict=True):
        numbers[begin:end] = BREAK
    return int(kept.sum())


def _levels(
    numbers: np.ndarray, vocabulary: int, longest: int, minimum: int, dropped: Counter[str]
) -> list[Level]:
    """The frequent n-grams of 1, 2, ... words, as far as there are any."""
    counts = np.zeros(vocabulary, np.int64)
    for begin in range(0, len(numbers), CHUNK):
        counts += np.bincount(numbers[begin : begin + CHUNK], minlength=vocabulary)
    counts[[BREAK, OTHER]] = 0
    levels = [first_level(counts, minimum)]
    for length in range(2, longest + 1):
        tally = Tally(CANDIDATES)
        for begin in range(0, len(numbers), CHUNK):
            grams = levels[0].of_words(numbers[begin : begin + CHUNK + length - 1])
            for level in levels[1:]:
                grams = level.of_pairs(grams)
            tally.add(levels[-1].keys_of(grams))
        level = levels[-1].longer(*tally.result(), minimum)
        if tally.forgotten:
            dropped[f"rare candidate of {length} words forgotten"] += tally.forgotten
            dropped[f"count of {length} words that may be missed, at most"] = tally.missed
        if not len(level):
            break
        levels.append(level)
    return levels


def _best(
    levels: Sequence[Level], total: int, words: Sequence[str], most: int, score: float
) -> list[Collocation]:
    """The best n-grams of the last of ``levels``."""
    scores = pmi(levels, total)
    good = np.flatnonzero(scores >= score)
    columns = [levels[0].words[c] for c in _columns(levels, good)]
    spelt = list(zip(*([words[w] for w in column] for column in columns), strict=True))
    counts = levels[-1].counts[good]
    found = [
        Collocation(spelling, int(count), float(value))
        for spelling, count, value in zip(spelt, counts, scores[good], strict=True)
        if len(" ".join(spelling)) <= LONGEST_ENTRY
    ]
    found.sort(key=lambda one: (-one.score, -one.count, one.words))
    return found[:most]


def pmi(levels: Sequence[Level], total: int) -> np.ndarray:
    """float64: the measure of each n-gram of the last of ``levels``, in nats.

    Args:
        levels: n-grams of 1, 2, ... n words, at least 2.
        total: words of the text, by which counts become probabilities.
    """
    best: list[np.ndarray] = []  # of each length, the largest sum of log p over all cuts, or none
    for n, level in enumerate(levels, 1):
        whole = np.log(level.counts / total)
        if n == 1:
            best.append(whole)
            continue
        cut = np.full(len(level), -np.inf)
        every = np.arange(len(level))
        left = _prefixes(levels, n, every)
        right = _suffixes(levels, n, every)
        for k in range(1, n):
            cut = np.maximum(cut, best[k - 1][left[k - 1]] + best[n - k - 1][right[n - k - 1]])
        best.append(np.maximum(whole, cut))
    return whole - cut


def _prefixes(levels: Sequence[Level], n: int, grams: np.ndarray) -> list[np.ndarray]:
    """The first 1, 2, ... n words of n-grams, as numbers within their levels."""
    found = [grams]
    for level in reversed(levels[1:n]):
        found.insert(0, level.heads[found[0]])
    return found


def _suffixes(levels: Sequence[Level], n: int, grams: np.ndarray) -> list[np.ndarray]:
    """The last 1, 2, ... n words of n-grams, likewise."""
    found = [grams]
    for level in reversed(levels[1:n]):
        found.insert(0, level.tails[found[0]])
    return found


def _columns(levels: Sequence[Level], grams: np.ndarray) -> list[np.ndarray]:
    """The first, second, ... word of n-grams of the last of ``levels``, numbers within level 1."""
    prefixes = _prefixes(levels, len(levels), grams)
    return [_suffixes(levels, n, prefix)[0] for n, prefix in enumerate(prefixes, 1)]
