"""A run's directory as a quickstart leaves it, made up: curves, masks, guesses, config."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from bert_variants import config, keys, registry
from bert_variants.report import views
from bert_variants.text.tokenizer import Encoded, Tokenizer
from bert_variants.types import Batch, Vocab

TEXTS = (
    "Return a new array of given shape and type, filled with ones. The default is float64, which "
    "matches the behaviour of the builtin type.",
    "If the optional argument is given, an uninterruptible reconfiguration follows. Iterating over "
    "the dictionary view raises a RuntimeError when its size changes.",
)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Pieces(Tokenizer):
    """Words cut into pieces of at most six letters, enough to look like WordPiece."""

    kind = "pieces"
    tokens: Sequence[str] = ()
    vocab = Vocab(0, 0, 1, 2, 3, 4)

    def __init__(self, texts: Sequence[str]) -> None:
        found = [p for text in texts for word in self.split(text) for p in word]
        self.tokens = (*SPECIALS, *dict.fromkeys(found))
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.vocab = Vocab(len(self.tokens), 0, 1, 2, 3, 4, (0, 1, 2, 3, 4))

    @staticmethod
    def split(text: str) -> list[list[str]]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        cut = [[w[i : i + 6] for i in range(0, len(w), 6)] for w in words]
        return [[p if i == 0 else "##" + p for i, p in enumerate(word)] for word in cut]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        raise NotImplementedError

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        raise NotImplementedError

    def files(self) -> Mapping[str, bytes]:
        return {}


def batch(length: int = 64) -> tuple[Batch, Pieces]:
    """Two rows of English."""
    tokenizer = Pieces(TEXTS)
    tokens, words = (np.full((2, length), fill, np.int32) for fill in (0, -1))
    segments = np.zeros((2, length), np.int32)
    for b, text in enumerate(TEXTS):
        at = 1
        tokens[b, 0] = 2
        for number, word in enumerate(tokenizer.split(text)):
            for piece in word:
                tokens[b, at], words[b, at] = tokenizer.ids[piece], number
                at += 1
        tokens[b, at] = 3
    made = Batch(
        tokens_BT=tokens,
        segments_BT=segments,
        positions_BT=np.broadcast_to(np.arange(length, dtype=np.int32), (2, length)),
        valid_BT=tokens != 0,
        maskable_BT=tokens > 4,
        words_BT=words,
        units_BT=np.full((2, length), -1, np.int32),
        example_id_B=np.array([1830, 77], np.uint32),
        visit_B=np.zeros(2, np.uint32),
        labels={"next_sentence": np.array([0, 1], np.int32)},
    )
    return made, tokenizer


def write(folder: Path, *, steps: int = 3000, name: str = "") -> Path:
    """Everything that a finished run leaves, in ``folder``."""
    experiment = config.get_config("quickstart", minutes=steps / 600)
    if name:
        experiment = dataclasses.replace(experiment, name=name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict(experiment)))
    (folder / "metrics.jsonl").write_text("".join(_metrics(experiment, steps)))
    _json(folder / "views.json", _views(experiment))
    _json(folder / "fill_mask.json", GUESSES)
    _json(folder / "manifest.json", MANIFEST)
    return folder


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False))


def _views(experiment: config.Experiment) -> dict:
    rows, tokenizer = batch()
    call = registry.lookup("corruption", experiment.corruption)
    row_keys = keys.corruption_keys(keys.root(3), rows, 0, 0)
    made = jax.tree.map(np.asarray, call(row_keys, rows, tokenizer.vocab))
    return views.as_json(made, tokenizer, tokenizer.vocab)


def _metrics(experiment: config.Experiment, steps: int) -> Iterable[str]:
    rng = np.random.default_rng(0)
    tokens = experiment.run.batch * experiment.data.length
    for step in range(10, steps + 1, 10):
        done = step / steps
        loss = 3.2 + 5.8 * math.exp(-step / 160) + 1.6 * math.exp(-3 * done)
        seconds = step * 0.0985 + (0 if step < steps * 0.6 else -steps * 0.6 * 0.0985)
        values = {
            "position": step * experiment.run.batch,
            "tokens": step * tokens,
            "loss": loss + 0.6,
            "mlm/loss": loss + rng.normal() * 0.12,
            "mlm/accuracy": 0.45 * (1 - math.exp(-3 * done)),
            "nsp/loss": 0.45 + 0.25 * math.exp(-4 * done) + rng.normal() * 0.04,
            "nsp/accuracy": 0.5 + 0.3 * done,
            "gradient_norm": 1.2 + 9 * math.exp(-step / 60) + abs(rng.normal()) * 0.3,
            "learning_rate": 2e-3 * min(step / 150, 0.5 * (1 + math.cos(math.pi * done))),
            "skipped": 0.0,
        }
        timing = {
            "seconds": seconds,
            "tokens_per_second": 41_500 + rng.normal() * 900 - 9_000 * (step % 700 == 0),
        }
        yield json.dumps({"kind": "train", "step": step, **values, "timing": timing}) + "\n"
        if step % (steps // 6) == 0:
            yield json.dumps({"kind": "held_out", "step": step, **_results(loss, done)}) + "\n"


def _results(loss: float, done: float) -> dict[str, float]:
    found = {
        "held_out/mlm/loss": loss + 0.1,
        "held_out/mlm/accuracy": 0.43 * done,
        "held_out/nsp/loss": 0.69 - 0.2 * done,
        "held_out/nsp/accuracy": 0.5 + 0.27 * done,
    }
    for probe, harder in (("tokens(rate=0.15)", 0.0), ("whole_words(rate=0.15)", 0.7)):
        found |= {
            f"{probe}/mlm/loss": loss + 0.1 + harder,
            f"{probe}/mlm/accuracy": (0.44 - harder / 5) * math.sqrt(done),
            f"{probe}/unigram/loss": 5.91 + harder / 7,
        }
    return found | {"held_out/loss": loss + 0.7}


GUESSES = [
    {
        "text": "The [MASK] of the function is returned.",
        "guesses": [[
            {"token": "value", "probability": 0.412},
            {"token": "result", "probability": 0.233},
            {"token": "name", "probability": 0.094},
            {"token": "output", "probability": 0.051},
            {"token": "type", "probability": 0.019},
        ]],
    },
    {
        "text": "If the file does not [MASK], an error is raised.",
        "guesses": [[
            {"token": "exist", "probability": 0.871},
            {"token": "match", "probability": 0.022},
            {"token": "change", "probability": 0.011},
        ]],
    },
]  # fmt: skip
START = {
    "time": "2026-11-21T09:40:12+00:00",
    "step": 0,
    "origin": "scratch",
    "host": "laptop",
    "pid": 4100,
    "platform": "Linux-6.1-x86_64",
    "processes": 1,
    "command": ["bert-variants", "quickstart", "--minutes", "5"],
    "parameters": 1_552_898,
    "devices": 1,
    "versions": {"bert_variants": "0.1.0", "python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8"},
    "revision": "9e4a5c4d1f",
}
RESUMED = {"time": "2026-11-21T09:43:30+00:00", "step": 1500, "origin": "step 1500 of this run"}
MANIFEST = {
    "fingerprints": {"store": "5d41402abc4b", "tokenizer": "7215ee9c7d9d"},
    "starts": [START, START | RESUMED],
}
