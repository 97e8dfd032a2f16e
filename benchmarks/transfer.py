"""What have the arms of a grid learnt that a task can use? Linear probes on frozen encoders.

    bert-variants ablate configs/ablations/replaced_token.py --dir runs/replaced
    python -m benchmarks.transfer runs/replaced                 (BERT_VARIANTS_DATA)

For every cell of the grid: the texts of a task go through the trained network, which is not
changed; a text's features are the means over its tokens of the output of every layer, one behind
the other, scaled to unit variance; a logistic regression learns the task from them. Its penalty is
the best of ``PENALTIES`` on the last tenth of the training texts. Beside it stand the same network
as it was before its first step, and always saying the commonest class.

Arms are paired by seed and compared with the baseline as the grid's page does it: Student's t
interval of the differences, corrected for the number of arms. Texts are cut at ``--length`` tokens.
SST-2 and CoLA are trained on parts; no number here can be compared with a leaderboard.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import lzma
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import machine
from bert_variants import keys, loaded, registry, runtime
from bert_variants.ablate import statistics
from bert_variants.loaded import Loaded
from bert_variants.train import setup

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
ROWS = 64  # a batch
TURNS = 200  # of L-BFGS


@dataclasses.dataclass(frozen=True)
class Task:
    """Texts with classes.

    Attributes:
        name: for the table.
        train, judged: (texts, classes) to learn from and to be judged by.
        score: of (classes, said): ``accuracy``, or ``matthews``, as is usual for the set.
    """

    name: str
    train: tuple[list[str], np.ndarray]
    judged: tuple[list[str], np.ndarray]
    score: str

    def commonest(self) -> float:
        """The score of always saying the commonest class of the training texts."""
        truth = self.judged[1]
        return score(self.score, truth, np.full_like(truth, np.bincount(self.train[1]).argmax()))


def table(path: Path) -> list[list[str]]:
    """The rows of a TSV file without quoting, plain or xz."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode()
    return list(csv.reader(io.StringIO(text, newline="\n"), delimiter="\t", quoting=csv.QUOTE_NONE))


def tasks(pack: Path, most: int) -> list[Task]:
    """The probes' tasks, of at most so many training texts."""

    def read(path: Path, text: int, label: int, skip: int = 0) -> tuple[list[str], list[str]]:
        rows = table(path)[skip:]
        return [row[text] for row in rows], [row[label] for row in rows]

    sst2 = (read(pack / "sst2" / f, 1, 0, 1) for f in ("train.tsv.xz", "dev.tsv"))
    cola = (read(pack / "cola" / f, 3, 1) for f in ("in_domain_train.tsv.xz", "in_domain_dev.tsv"))
    relations = (
        read(pack / "semeval2010_task8" / f, 1, 0) for f in ("train.tsv.xz", "test.tsv.xz")
    )
    named = (
        ("sst2", sst2, "accuracy"),
        ("cola", cola, "matthews"),
        ("semeval2010_task8", relations, "accuracy"),
    )
    found = []
    for name, (train, judged), score in named:
        classes = sorted(set(train[1]))
        number = {label: i for i, label in enumerate(classes)}
        found.append(
            Task(
                name,
                (train[0][:most], np.array([number[c] for c in train[1][:most]])),
                (judged[0], np.array([number[c] for c in judged[1]])),
                score,
            )
        )
    return found


def features(model: Loaded, texts: list[str], length: int) -> np.ndarray:
    """float32 [texts, layers * D]; see the module's docstring."""
    vocab = model.tokenizer.vocab
    found = []
    for begin in range(0, len(texts), ROWS):
        tokens_BT = np.full((ROWS, length), vocab.pad, np.int32)
        valid_BT = np.zeros((ROWS, length), bool)
        pieces = model.tokenizer.encode_batch(texts[begin : begin + ROWS])
        for row, piece in enumerate(pieces):
            ids = [vocab.cls, *piece.ids[: length - 2].tolist(), vocab.sep]
            tokens_BT[row, : len(ids)], valid_BT[row, : len(ids)] = ids, True
        layers = model(tokens_BT, attention_mask_BT=valid_BT, layers=True).layers
        seen_BT = valid_BT[: len(pieces)].astype(np.float32)
        means = [
            np.einsum("btd,bt->bd", np.asarray(layer)[: len(pieces)], seen_BT)
            / seen_BT.sum(axis=1, keepdims=True)
            for layer in layers
        ]
        found.append(np.concatenate(means, axis=1))
    return np.concatenate(found)


def fit(
    x_BD: np.ndarray, y_B: np.ndarray, classes: int, penalty: float
) -> Callable[[np.ndarray], np.ndarray]:
    """A logistic regression; returns the function that says the class of each row."""
    weights = {"kernel": jnp.zeros((x_BD.shape[1], classes)), "bias": jnp.zeros(classes)}
    trained = _descend(weights, jnp.asarray(x_BD), jnp.asarray(y_B), penalty)
    kernel, bias = np.asarray(trained["kernel"]), np.asarray(trained["bias"])
    return lambda rows_BD: (rows_BD @ kernel + bias).argmax(axis=1)


@jax.jit
def _descend(weights: Any, x_BD: jax.Array, y_B: jax.Array, penalty: float) -> Any:
    solver = optax.lbfgs()

    def loss(w: Any) -> jax.Array:
        nats = optax.softmax_cross_entropy_with_integer_labels(
            x_BD @ w["kernel"] + w["bias"][None], y_B
        )
        return nats.mean() + penalty * jnp.sum(w["kernel"] ** 2)

    value_and_grad = optax.value_and_grad_from_state(loss)

    def turn(carried: Any, _: None) -> tuple[Any, None]:
        w, state = carried
        value, grad = value_and_grad(w, state=state)
        updates, state = solver.update(grad, state, w, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(w, updates), state), None

    (weights, _), _ = jax.lax.scan(turn, (weights, solver.init(weights)), length=TURNS)
    return weights


def score(kind: str, truth: np.ndarray, said: np.ndarray) -> float:
    """Accuracy, or Matthews' correlation: of two classes, 0 for always saying the same."""
    if kind == "accuracy":
        return float((truth == said).mean())
    spread = truth.std() * said.std()
    return float(((truth - truth.mean()) * (said - said.mean())).mean() / spread) if spread else 0.0


def probe(model: Loaded, task: Task, length: int) -> float:
    """The score of a linear probe on this network."""
    train, judged = (features(model, texts, length) for texts, _ in (task.train, task.judged))
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, judged = (train - mean) / spread, (judged - mean) / spread
    y_B = task.train[1]
    classes, cut = int(y_B.max()) + 1, len(y_B) - len(y_B) // 10
    tried = {
        penalty: score(
            task.score, y_B[cut:], fit(train[:cut], y_B[:cut], classes, penalty)(train[cut:])
        )
        for penalty in PENALTIES
    }
    best = max(PENALTIES, key=lambda p: tried[p])
    return score(task.score, task.judged[1], fit(train, y_B, classes, best)(judged))


def untrained(model: Loaded) -> Loaded:
    """The same network with the parameters of step 0."""
    made = model.config
    rows = setup.example_rows(made.data.length, registry.lookup("example", made.data.example))
    params = jax.jit(model.network.init)(keys.root(made.run.seed), rows)
    return dataclasses.replace(model, params=params)


def cells(folder: Path) -> dict[str, dict[int, Path]]:
    """arm -> seed -> directory of the cell's run, in the grid's order."""
    arms = json.loads((folder / "grid.json").read_bytes())["arms"]
    return {
        arm: {
            int(p.name.removeprefix("seed-")): p
            for p in sorted((folder / "cells" / arm).glob("seed-*"))
        }
        for arm in arms
    }


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """task -> arm -> seed -> score, arms before their first step included."""
    pack = Path(os.environ.get("BERT_VARIANTS_DATA", "../shared/data"))
    chosen = [t for t in tasks(pack, options.rows) if t.name in options.tasks]
    found: dict[str, dict[str, dict[int, float]]] = {task.name: {} for task in chosen}
    for task in chosen:
        print(f"{task.name}, always the commonest class: {task.score} {task.commonest():.4f}")
    for arm, seeds in cells(folder).items():
        for seed, path in seeds.items():
            model = loaded.load(path)
            for name, which in ((arm, model), (f"{arm}, step 0", untrained(model))):
                for task in chosen:
                    value = probe(which, task, options.length)
                    found[task.name].setdefault(name, {})[seed] = value
                    print(f"  {task.name} {name} seed {seed}: {value:.4f}", flush=True)
    return found


def shown(task: str, values: Mapping[str, Mapping[int, float]], baseline: str) -> str:
    """A Markdown table of one task."""
    trained = {arm: by_seed for arm, by_seed in values.items() if not arm.endswith(", step 0")}
    seeds = sorted({seed for by_seed in trained.values() for seed in by_seed})
    compared = statistics.compare(trained, baseline, seeds, lower_is_better=False)
    lines = [
        f"| {task} | seeds | score | before its first step | minus {baseline} | 95 %, all arms | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm, one in compared.items():
        before = np.mean(list(values[f"{arm}, step 0"].values()))
        bounds = one.corrected
        difference = "" if arm == baseline else f"{one.difference:+.4f}"
        interval = "" if arm == baseline else f"{bounds.low:+.4f} .. {bounds.high:+.4f}"
        verdict = "" if arm == baseline else one.verdict
        lines.append(
            f"| {arm} | {len(one.values)} | {one.mean:.4f} | {before:.4f} | {difference} | "
            f"{interval} | {verdict} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Probe, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path, help="directory of a trained grid")
    parser.add_argument("--baseline", default="", help="arm; default: the grid's")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "cola"])
    parser.add_argument("--rows", type=int, default=4000, help="training texts of a task, at most")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    runtime.tune()
    about = json.loads((options.grid / "grid.json").read_bytes())
    found = measure(options.grid, options)
    for task, values in found.items():
        print(shown(task, values, options.baseline or about["baseline"]), end="\n\n")
    machine.save(options.json, found)
    return found


if __name__ == "__main__":
    main()
