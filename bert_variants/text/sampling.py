"""What a tokenizer is trained on: a bounded, fair and repeatable sample of the train split."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_variants import registry
from bert_variants.text.encoding import DIGEST, Job, digest, no_documents, write_file
from bert_variants.text.sharding import is_held_out
from bert_variants.text.tokenizer import Tokenizer

SAMPLE = 50_000_000  # characters
LONGEST_SAMPLED = 1_000_000  # characters of one document


def sample(jobs: Sequence[Job], held_out: float) -> tuple[list[str], dict[str, int]]:
    """The documents with the smallest digests, up to 50 million characters.

    That is a uniform choice of documents that depends on their content alone, so the order of the
    source and the number of its parts do not matter. Each document is there once, and at most its
    first million characters. Documents that the share ``held_out`` holds out are not among them.

    Returns:
        the texts, in the order of their digests, and in numbers what was taken of what.

    Raises:
        PrepareError: there is no document.
    """
    chosen: list[tuple[int, str]] = []  # a heap with the largest digest on top
    present: set[bytes] = set()
    every = bytearray()
    dropped = Counter[str]()
    size = total = 0
    for job in jobs:
        source = registry.lookup("source", job.source)()
        for part in job.parts:
            reading = source.read(part)
            for document in reading:
                identity = digest(document.text)
                every += identity
                total += len(document.text)
                number = int.from_bytes(identity)
                full = size >= SAMPLE and number > -chosen[0][0]
                if full or identity in present:
                    continue
                text = document.text[:LONGEST_SAMPLED]
                heapq.heappush(chosen, (-number, text))
                present.add(identity)
                size += len(text)
                while size - len(chosen[0][1]) >= SAMPLE:
                    number, text = heapq.heappop(chosen)
                    present.remove((-number).to_bytes(DIGEST))
                    size -= len(text)
            dropped.update(reading.dropped)
    if not chosen:
        raise no_documents(f"data.source {jobs[0].source}", dropped)
    texts = _of_train(chosen, np.frombuffer(bytes(every), np.uint8).reshape(-1, DIGEST), held_out)
    return texts, {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "of_documents": len(every) // DIGEST,
        "of_characters": total,
    }


def _of_train(chosen: list[tuple[int, str]], every: np.ndarray, held_out: float) -> list[str]:
    different = np.unique(every, axis=0)
    held = {row.tobytes() for row in different[is_held_out(different, held_out)]}
    return [
        text
        for number, text in sorted(chosen, key=lambda item: -item[0])
        if (-number).to_bytes(DIGEST) not in held
    ]


def load_or_train(
    call: str, jobs: Sequence[Job], held_out: float, folder: Path
) -> tuple[Tokenizer, dict[str, int]]:
    """The trained tokenizer that ``folder`` holds, else a new one, which is stored there.

    Returns:
        the tokenizer, and what it was trained on; see ``sample``.
    """
    recipe = registry.lookup("tokenizer", call)()
    note = folder.with_name(f"{folder.name}.json")
    if note.is_file():
        said = json.loads(note.read_bytes())
        files = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
        tokenizer = recipe.restore(files)
        if tokenizer.fingerprint == said["fingerprint"]:
            return tokenizer, said["trained_on"]
    texts, trained_on = sample(jobs, held_out)
    tokenizer = recipe.build(texts)
    tokenizer.save(folder)
    said = {"fingerprint": tokenizer.fingerprint, "trained_on": trained_on}
    write_file(note, json.dumps(said).encode())
    return tokenizer, trained_on
