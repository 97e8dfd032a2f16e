"""Stories about the synthetic world: text in which everything is known. See text/synthetic.py."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from bert_variants.registry import register, write
from bert_variants.text.sources import REVISION, Document, Part, Reading, Source, SourceError
from bert_variants.text.synthetic import Story, World
from bert_variants.text.synthetic_language import LANGUAGES

PART = 1000  # documents
_GUESS = 400  # bytes of a document
_SAMPLE = 64  # documents that the fingerprint looks at


@register("source")
def synthetic(*, documents: int = 2000, seed: int = 0, language: str = "en") -> Source:
    """Stories 0 .. ``documents - 1`` of ``World(seed, language)``, "en" or "zh"."""
    if language not in LANGUAGES or documents < 1:
        raise SourceError(
            f"synthetic(documents={documents}, language={language!r}): expected at least one "
            f"document, and a language of {', '.join(LANGUAGES)}."
        )
    return Synthetic(documents, seed, language)


@dataclasses.dataclass(frozen=True)
class Synthetic(Source):
    """See ``synthetic``. Story i is the same for any number of documents."""

    count: int
    seed: int
    language: str

    def __str__(self) -> str:
        call = {"documents": self.count, "seed": self.seed, "language": self.language}
        return write("synthetic", call)

    def parts(self) -> list[Part]:
        ends = [(a, min(a + PART, self.count)) for a in range(0, self.count, PART)]
        return [Part("stories", a, b, (b - a) * _GUESS) for a, b in ends]

    def read(self, part: Part) -> Reading:
        def documents(dropped: Counter[str]) -> Iterator[Document]:
            world = World(self.seed, self.language)
            for at in range(part.start, part.stop):
                yield Document(f"story{at}", story(world, self.seed, at).text)

        return Reading(documents)

    def fingerprint(self) -> str:
        """Over the call and the first stories, which change when the way of telling does."""
        digest = hashlib.sha256(f"{REVISION} {self}".encode())
        for document in self.read(Part("stories", 0, min(self.count, _SAMPLE), 0)):
            digest.update(b"\0" + document.text.encode())
        return digest.hexdigest()


def story(world: World, seed: int, number: int) -> Story:
    """Story ``number`` of ``synthetic(seed=seed)``, with all that is known of it."""
    return world.document(np.random.default_rng([seed, number]))
