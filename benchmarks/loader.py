"""How fast text becomes ids and ids become batches, on one thread.

    python -m benchmarks.loader [--tokens 8000000] [--json out.json]

Rows are planned and put together from a window of random text whose sentences and documents have
the lengths of prose; the count is of tokens of text in finished batches, padding left out, planning
included, in CPU time of the thread. Tokenising is measured on documents of ``pydocs()``, with a
WordPiece vocabulary trained on them. Goal: 10 M tokens/s.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks import machine, ours
from bert_variants import registry
from bert_variants.text.plan import Window
from bert_variants.text.prefetch import Prefetch
from bert_variants.text.rows import assemble

GOAL = 10e6
SHAPES = ((128, 32), (128, 256), (512, 16))


def window(tokens: int, seed: int = 0) -> Window:
    """Random ids in sentences of about 24 tokens and documents of about 30 sentences."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.gamma(2, 12, tokens // 20).astype(np.int64), 1, 400)
    lengths = lengths[np.cumsum(lengths) <= tokens]
    sentences = np.concatenate([[0], np.cumsum(lengths)])
    ends = np.cumsum(rng.integers(1, 60, len(lengths)))
    documents = np.concatenate([[0], ends[ends < len(lengths)], [len(lengths)]]).astype(np.int64)
    n = int(sentences[-1])
    return Window(
        documents,
        sentences,
        rng.integers(1000, ours.VOCAB, n).astype(np.uint16),
        rng.random(n) < 0.75,
    )


def rows(text: Window, example: str, length: int, batch: int) -> dict[str, float]:
    """Planning the window and making all its batches, by CPU time of this thread."""
    vocab = ours.vocab()
    begun = time.thread_time()
    call = registry.lookup("example", example)
    plan = call(text, np.random.default_rng(1), vocab, length=length)
    planned = time.thread_time() - begun
    order = np.random.default_rng(2).permutation(len(plan))
    valid = cells = 0
    begun = time.thread_time()
    for first in range(0, len(plan) - batch + 1, batch):
        made = assemble(plan, order[first : first + batch], text, vocab, length)
        valid += int(np.count_nonzero(made.valid_BT))
        cells += made.valid_BT.size
    taken = planned + time.thread_time() - begun
    return {
        "tokens_per_s": valid / taken,
        "cells_per_s": cells / taken,
        "planning_share": planned / taken,
    }


def prefetched(text: Window, length: int, batch: int, seconds: float = 1.0) -> float:
    """Valid tokens a second that a consumer gets from the prefetch thread, wall time."""
    vocab = ours.vocab()
    plan = registry.lookup("example", "nsp_pairs()")(
        text, np.random.default_rng(1), vocab, length=length
    )
    order = np.random.default_rng(2).permutation(len(plan))

    def make(first: int) -> tuple[Any, int]:
        chosen = order[np.arange(first, first + batch) % len(order)]
        return assemble(plan, chosen, text, vocab, length), first + batch

    valid = 0
    begun = time.perf_counter()
    with Prefetch(make, 0, 2) as batches:
        for made, _ in batches:
            valid += int(np.count_nonzero(made.valid_BT))
            if time.perf_counter() - begun > seconds:
                break
    return valid / (time.perf_counter() - begun)


def tokenising(megabytes: float, call: str) -> dict[str, float]:
    """Training on and encoding about so much of ``pydocs()``; one thread, MB of UTF-8 a second."""
    texts: list[str] = []
    size = 0
    for document in registry.lookup("source", "pydocs()")().documents():
        texts.append(document.text)
        size += len(document.text.encode())
        if size > megabytes * 1e6:
            break
    begun = time.perf_counter()
    tokenizer = registry.lookup("tokenizer", call)().build(texts)
    trained = time.perf_counter() - begun
    begun = time.process_time()
    tokens = sum(len(tokenizer.encode(text).ids) for text in texts)
    taken = time.process_time() - begun
    return {"train_s": trained, "mb_per_s": size / 1e6 / taken, "tokens_per_s": tokens / taken}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=4_000_000, help="of the window")
    parser.add_argument("--megabytes", type=float, default=1.5, help="of text to tokenise; 0: none")
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    about = machine.describe()
    print(machine.headline(about))
    text = window(options.tokens)
    result: dict[str, Any] = {"machine": about, "rows": {}}
    for name in registry.names("example"):
        for length, batch in SHAPES:
            found = rows(text, f"{name}()", length, batch)
            result["rows"][f"{name} {batch}x{length}"] = found
            print(
                f"{name:16} {batch:3}x{length}: {found['tokens_per_s'] / 1e6:6.1f} M tokens/s, "
                f"{found['planning_share']:.0%} of it planning"
                f"{'' if found['tokens_per_s'] >= GOAL else '  MISSES the goal'}",
                flush=True,
            )
    result["prefetched"] = prefetched(text, 128, 256)
    print(f"through the prefetch thread, 256x128: {result['prefetched'] / 1e6:.1f} M tokens/s")
    if options.megabytes:
        result["wordpiece"] = tokenising(options.megabytes, "wordpiece(size=8192)")
        found = result["wordpiece"]
        print(
            f"WordPiece: {found['mb_per_s']:.1f} MB/s, "
            f"{found['tokens_per_s'] / 1e6:.2f} M tokens/s (trained in {found['train_s']:.1f} s)"
        )
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
