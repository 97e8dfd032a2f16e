"""Documents as one stream of tokens, a separator behind each: what rows of streams are cut from.

A *place* counts the tokens and the separators of a window: token x, of document d, stands at
``x + d``, and the separator of a document behind its last token. Documents "a b c" and "d e"::

    place   0   1   2    3    4   5    6
            a   b   c  [SEP]  d   e  [SEP]
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bert_variants.text.plan import Window


@dataclasses.dataclass(frozen=True)
class Stream:
    """The places of a window, counted from its beginning or, ``backward``, from its end.

    Attributes:
        documents: int64 [n_documents + 1], where each document begins, counted from the beginning
            in both directions; the end last.
        sentences: int64, ascending: the places where a sentence or a separator begins, in the
            direction of reading; the end last.
        backward: whether place 0 is the last one.
    """

    documents: np.ndarray
    sentences: np.ndarray
    backward: bool = False

    @classmethod
    def of(cls, window: Window) -> Stream:
        """The stream of a window's documents, in their order."""
        count = len(window.documents) - 1
        documents = window.sentences[window.documents] + np.arange(count + 1)
        in_document = np.repeat(np.arange(count), np.diff(window.documents))
        sentences = np.concatenate([window.sentences[:-1] + in_document, documents[1:] - 1])
        return cls(documents, np.append(np.sort(sentences), documents[-1]))

    def mirrored(self) -> Stream:
        """The same stream in the other direction: place p is now ``end - 1 - p``."""
        return Stream(self.documents, self.end - self.sentences[::-1], not self.backward)

    @property
    def end(self) -> int:
        """How many places there are."""
        return int(self.documents[-1])

    def text_before(self, places: np.ndarray) -> np.ndarray:
        """How many tokens of text, separators not counted, are read before each place."""
        if self.backward:
            every = self.end - (len(self.documents) - 1)
            return every - self.mirrored().text_before(self.end - places)
        return places - np.searchsorted(self.documents[1:], places, side="right")

    def cut(
        self, begin: np.ndarray, end: np.ndarray, separator: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stretches of places as pieces of a plan.

        The stretch 1 .. 5 of the stream above: the text 1 .. 3, the separator, the text 3 .. 4;
        mirrored, the stretch 2 .. 6 is these in the other order.

        Args:
            begin, end: int64 [n], ``begin < end``.
            separator: its id.

        Returns:
            start int64 and length int32 of the pieces (see ``plan``), in the order of reading, and
            to which of the stretches each belongs.
        """
        if self.backward:
            start, size, which = self.mirrored().cut(self.end - end, self.end - begin, separator)
            order = np.lexsort((-np.arange(len(which)), which))
            return start[order], size[order], which[order]
        first = np.searchsorted(self.documents, begin, side="right") - 1
        parts = np.searchsorted(self.documents, end - 1, side="right") - first
        which = np.repeat(np.arange(len(begin)), parts)
        document = first[which] + np.arange(len(which)) - (np.cumsum(parts) - parts)[which]
        behind = self.documents[document + 1] - 1  # the place of the document's separator
        low = np.maximum(self.documents[document], begin[which])
        start = np.full((len(which), 2), -1 - separator, np.int64)
        size = np.empty((len(which), 2), np.int32)
        start[:, 0] = low - document
        size[:, 0] = np.minimum(behind, end[which]) - low
        size[:, 1] = behind < end[which]
        kept = size.ravel() > 0
        return start.ravel()[kept], size.ravel()[kept], np.repeat(which, 2)[kept]
