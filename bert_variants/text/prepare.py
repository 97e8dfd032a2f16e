"""Text to a store, once: in parallel, resumable, and the same bytes whatever the number of workers.

1. If the tokenizer is to be trained, the corpus is read for a sample of the train split.
2. The parts of the source are encoded into pieces, by several processes.
3. The pieces' documents are deduplicated, split, shuffled by content and written as shards.

Everything happens in a work folder beside the result; the finished store is moved into its place
in one step. A run that was killed goes on with the pieces that it had finished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bert_variants import registry
from bert_variants.config import Data
from bert_variants.text import sharding, units
from bert_variants.text.encoding import (
    Job,
    encode,
    finished,
    jobs_of,
    no_documents,
    write_file,
)
from bert_variants.text.index import (
    COUNTS,
    FORMAT,
    INDEX,
    SPLITS,
    TOKENIZER,
    FileRecord,
    Index,
    Split,
)
from bert_variants.text.sampling import load_or_train
from bert_variants.text.store import Store
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.workers import Done, job_failed, run_jobs

JOB_BYTES = 8 << 20  # text of a job: small enough to share out, large enough to be worth it
_LOG = logging.getLogger(__name__)

# (bytes of text done, bytes in all, tokens so far, seconds so far)
Report = Callable[[int, int, int, float], None]


def prepare(data: Data, *, report: Report | None = None) -> Store:
    """The store of a configuration's text: opened if it is there, else made.

    It lies in ``<data.dir>/<source>-<tokenizer>-<hash>``. The hash covers the sources and their
    contents, the held-out settings, tokenizer and units; so a change of any of them makes another
    folder, and a change of anything else (example, length, workers) none.

    A document exists once (exact duplicates, whatever their white space, are dropped and counted).
    Which documents are held out depends on their content alone: a document stays on its side when
    others come or go. A share above 0 holds out at least one of two documents.

    Args:
        data: the configuration.
        report: called now and then with (bytes of text done, bytes in all, tokens so far, seconds
            so far); bytes in all is the source's own guess.

    Raises:
        PrepareError: no usable document; says what was dropped and why.
        WorkerError: a part that failed, or a worker process that died; names the part.
        SourceError, TokenizerError, RegistryError: from what the configuration names.
        StoreError: the store is there but damaged.
    """
    origin, tokenizer = _origin(data)
    key = hashlib.sha256(json.dumps([FORMAT, origin], sort_keys=True).encode()).hexdigest()[:12]
    names = (registry.parse(origin["source"])[0], registry.parse(data.tokenizer)[0])
    name = f"{'-'.join(names)}-{key}"
    root = Path(data.dir)
    folder, work = root / name, root / f".work-{name}"
    if (folder / INDEX).is_file():
        return Store.open(folder)
    with _alone(work):
        if not (folder / INDEX).is_file():  # else another process made it while this one waited
            _make(data, origin, tokenizer, work, report or _silent)
            os.rename(work / "store", folder)
        shutil.rmtree(work, ignore_errors=True)
    return Store.open(folder)


def _silent(done: int, total: int, tokens: int, seconds: float) -> None:
    return


def _origin(data: Data) -> tuple[dict[str, Any], Tokenizer | None]:
    """What the store is made from, as plain values; and the tokenizer if it needs no text."""
    recipe = registry.lookup("tokenizer", data.tokenizer)
    built = recipe()
    tokenizer = None if built.needs_text else built.build(())
    origin: dict[str, Any] = {
        "tokenizer": str(recipe) if tokenizer is None else tokenizer.fingerprint,
        "units": data.units,
        "units_fingerprint": units.fingerprint(data.units) if data.units else "",
        "held_out": 0.0 if data.held_out_source else data.held_out,
    }
    for field in ("source", "held_out_source"):
        call = getattr(data, field)
        origin[field] = ""
        if call:
            found = registry.lookup("source", call)
            origin[field] = str(found)
            origin[f"{field}_fingerprint"] = found().fingerprint()
    return origin, tokenizer


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One process at a time; the lock goes with its holder, however that ends."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("another process is preparing %s: waiting for it", work)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(
    data: Data, origin: dict[str, Any], tokenizer: Tokenizer | None, work: Path, report: Report
) -> None:
    pieces, store = work / "pieces", work / "store"
    pieces.mkdir(exist_ok=True)
    jobs = {
        field: jobs_of(origin[field], pieces, field, JOB_BYTES)
        for field in ("source", "held_out_source")
        if origin[field]
    }
    for field, some in jobs.items():
        if not some:
            raise no_documents(f"data.{field} {origin[field]}", Counter())
    if tokenizer is None:
        tokenizer, trained_on = load_or_train(
            data.tokenizer, jobs["source"], origin["held_out"], work / TOKENIZER
        )
    else:
        trained_on = {}
        tokenizer.save(work / TOKENIZER)
    every = [job for some in jobs.values() for job in some]
    records = _encode_all(data, every, tokenizer, work / TOKENIZER, report)
    dropped, altered = Counter[str](), Counter[str]()
    for record in records:
        dropped.update(record["dropped"])
        altered.update(record["altered"])
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    optional = {column for record in records for column in record["has"]}
    if origin["units"]:
        optional.add("units")
    splits, counts = _splits(origin, jobs, tokenizer, store, optional, dropped)
    write_file(store / COUNTS, counts.tobytes())
    shutil.copytree(work / TOKENIZER, store / TOKENIZER)
    index = Index(
        origin=origin,
        tokenizer=_described(tokenizer, data.tokenizer),
        trained_on=trained_on,
        vocab=_ids(tokenizer),
        units=origin["units"],
        counts=FileRecord.of(counts),
        splits=splits,
        dropped=dict(sorted(dropped.items())),
        altered=dict(sorted(altered.items())),
    )
    write_file(store / INDEX, index.write())


def _described(tokenizer: Tokenizer, call: str) -> dict[str, Any]:
    return {
        "call": call,
        "kind": tokenizer.kind,
        "fingerprint": tokenizer.fingerprint,
        "files": {k: dataclasses.asdict(FileRecord.of(v)) for k, v in tokenizer.files().items()},
    }


def _ids(tokenizer: Tokenizer) -> dict[str, Any]:
    vocab = dataclasses.replace(tokenizer.vocab, counts_V=None)
    return {k: v for k, v in dataclasses.asdict(vocab).items() if k != "counts_V"}


def _encode_all(
    data: Data, jobs: list[Job], tokenizer: Tokenizer, folder: Path, report: Report
) -> list[dict[str, Any]]:
    """The records of all pieces; those of an earlier run are verified and kept."""
    records = {
        n: record
        for n, job in enumerate(jobs)
        if (record := finished(job.prefix, bool(data.units)))
    }
    left = [n for n in range(len(jobs)) if n not in records]
    todo = [jobs[n] for n in left]
    done = _Progress(todo, sum(jobs[n].size for n in records), report).done
    calls = [("source", data.source), ("source", data.held_out_source), ("units", data.units)]
    found = [registry.lookup(f, c) for f, c in calls if c]
    entries = [c.entry for call in found for c in (call, *call.inner())]
    entries.append(registry.entry("tokenizer", tokenizer.kind))
    modules = sorted({entry.fn.__module__ for entry in entries})
    workers = min(data.workers or len(os.sched_getaffinity(0)), len(left))
    if workers > 1 and "__main__" not in modules:
        task = {
            "path": sys.path,
            "modules": modules,
            "kind": tokenizer.kind,
            "tokenizer": str(folder),
            "units": data.units,
        }
        new = run_jobs(task, todo, workers, done)
    else:  # one process is enough, or others would not know what a notebook defined
        new = [_encode_here(data, job, tokenizer, n, done) for n, job in enumerate(todo)]
    records.update(zip(left, new, strict=True))
    return [records[n] for n in range(len(jobs))]


def _encode_here(
    data: Data, job: Job, tokenizer: Tokenizer, number: int, done: Done
) -> dict[str, Any]:
    source = registry.lookup("source", job.source)()
    find_units = registry.lookup("units", data.units) if data.units else None
    try:
        record = encode(source, job, tokenizer, find_units, lambda b, t: done(number, b, t, False))
    except Exception as error:
        raise job_failed(job, f"{type(error).__name__}: {error}") from error
    done(number, record["bytes"], record["tokens"], True)
    return record


class _Progress:
    """What is done, in the source's own measure of size, which may be that of compressed text."""

    def __init__(self, jobs: list[Job], kept: int, report: Report) -> None:
        self._sizes, self._kept, self._report = [job.size for job in jobs], kept, report
        self._begun = time.monotonic()
        self._text, self._tokens, self._whole = {}, {}, set()

    def done(self, number: int, text: int, tokens: int, whole: bool) -> None:
        """So much of a job: bytes of text and tokens; whether it is all."""
        self._text[number], self._tokens[number] = text, tokens
        if whole:
            self._whole.add(number)
        # How many bytes of text a byte of size is, is learned from the jobs that are through.
        known = sum(self._sizes[n] for n in self._whole)
        ratio = known / max(sum(self._text[n] for n in self._whole), 1) if known else 1.0
        sizes = (
            self._sizes[n] if n in self._whole else min(int(b * ratio), self._sizes[n])
            for n, b in self._text.items()
        )
        self._report(
            self._kept + sum(sizes),
            self._kept + sum(self._sizes),
            sum(self._tokens.values()),
            time.monotonic() - self._begun,
        )


def _splits(
    origin: dict[str, Any],
    jobs: dict[str, list[Job]],
    tokenizer: Tokenizer,
    store: Path,
    optional: set[str],
    dropped: Counter[str],
) -> tuple[dict[str, Split], np.ndarray]:
    """Write the shards of both splits; the ids' counts are those of the train split."""
    found = {
        field: sharding.shuffled(sharding.find_documents([j.prefix for j in some]), dropped)
        for field, some in jobs.items()
    }
    for field, documents in found.items():
        if not len(documents):
            raise no_documents(f"data.{field} {origin[field]}", dropped)
    train = found["source"]
    if "held_out_source" in found:
        held_out = found["held_out_source"]
        train = sharding.without(train, held_out, dropped)
    else:
        held = sharding.is_held_out(train.digests, origin["held_out"])
        train, held_out = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    splits, counts = {}, []
    for name, documents in zip(SPLITS, (train, held_out), strict=True):
        splits[name], count = sharding.write_split(
            name, documents, store, optional, tokenizer.vocab.size
        )
        counts.append(count)
    return splits, counts[0].astype("<i8")
