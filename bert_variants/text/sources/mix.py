"""Several sources as one, each document knowing which of them it is from.

How often each of them is read is said where rows are built (``text/examples/by_part.py``), so that
other weights need no other preparation.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from bert_variants import registry
from bert_variants.registry import register
from bert_variants.text.sources import REVISION, Document, Part, Reading, Source, SourceError

MOST = 255  # sources


@register("source", calls=("parts",))
def mix(parts: Sequence[str]) -> Source:
    """The documents of several sources, such as ``mix(parts=("pydocs()", "text('a/*.txt')"))``.

    Part k is the k-th call-string. A document that stands in several parts belongs to the first
    of them: preparation keeps one of equal documents.

    Raises:
        SourceError: no part, more than 255, or a mix among them.
        RegistryError: a call-string that cannot be read, or an unknown source.
    """
    if isinstance(parts, str) or not 0 < len(parts) <= MOST:
        raise SourceError(
            f"mix(parts={parts!r}): expected 1 to {MOST} call-strings of sources in a tuple."
        )
    calls = [registry.lookup("source", part) for part in parts]
    if any(call.name == "mix" for call in calls):
        raise SourceError(f"mix(parts={parts!r}): a mix in a mix. Name its parts here instead.")
    return Mix(tuple(map(str, calls)), tuple(call() for call in calls))


@dataclasses.dataclass(frozen=True)
class Mix(Source):
    """See ``mix``. Names and ids begin with the number of the part: "1:wiki/a.txt"."""

    calls: tuple[str, ...]
    sources: tuple[Source, ...]

    def __str__(self) -> str:
        return registry.write("mix", {"parts": self.calls})

    def parts(self) -> list[Part]:
        return [
            dataclasses.replace(part, name=f"{k}:{part.name}")
            for k, source in enumerate(self.sources)
            for part in source.parts()
        ]

    def read(self, part: Part) -> Reading:
        number, _, name = part.name.partition(":")
        reading = self.sources[int(number)].read(dataclasses.replace(part, name=name))

        def documents(dropped: Counter[str]) -> Iterator[Document]:
            for document in reading:
                yield dataclasses.replace(document, id=f"{number}:{document.id}", part=int(number))
            dropped.update(reading.dropped)

        return Reading(documents)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{REVISION} mix".encode())
        for source in self.sources:
            digest.update(b"\0" + source.fingerprint().encode())
        return digest.hexdigest()
