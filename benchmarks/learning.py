"""Does every variant learn? Each objective's held-out result beside that of knowing nothing.

    python -m benchmarks.learning                        all variants on the synthetic world
    python -m benchmarks.learning --source wikipedia_en  on real text (BERT_VARIANTS_DATA)
    python -m benchmarks.learning --variants albert bert --steps 3000

Each is trained as its config says at size tiny, but without dropout, on the same text, with a
common vocabulary and a schedule of ``--steps``. "Knowing nothing" is, for objectives over the
vocabulary, the unigram model of the corpus; for objectives over classes, the frequencies of the
classes among the same held-out rows. Runs are kept in ``--dir``: the same command again goes on,
and where nothing is left to do only prints.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from bert_variants import config, keys, registry, runtime
from bert_variants.text.prepare import prepare
from bert_variants.train import checkpoint, evaluate, fixed, loop, setup
from bert_variants.types import Corrupted, Outputs

# name -> config, and what its get_config is told beside the size
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "albert": ("albert", {}),
    "spanbert": ("spanbert", {}),
    "bert_wwm": ("bert_wwm", {}),
    "ernie": ("ernie", {}),
    "structbert": ("structbert", {}),
    "electra": ("electra", {}),
    "deberta_v1": ("deberta", {"version": "v1"}),
    "deberta_v3": ("deberta", {"version": "v3"}),
    "xlnet": ("xlnet", {}),
    "xlnet_no_memory": ("xlnet", {"memory": "off"}),
    "transformer_xl": ("transformer_xl", {}),
}
SMALL = "wordpiece(size=1024)"  # the synthetic world has few words
CUT = "wordpiece(size=256)"  # and this cuts some of them


def pack() -> Path:
    """The data pack."""
    return Path(os.environ.get("BERT_VARIANTS_DATA", "../shared/data"))


def source(name: str) -> tuple[str, str]:
    """(data.source, data.held_out_source) of ``synthetic`` or of a folder of the data pack."""
    if name == "synthetic":
        return "synthetic(documents=4000)", ""
    call = "text({!r}, field='text')"
    folder = pack() / name
    return call.format(f"{folder}/train_*.jsonl.xz"), call.format(f"{folder}/valid.jsonl.xz")


def parent(variant: str, options: argparse.Namespace) -> config.Experiment:
    """A variant at size tiny; in Chinese with the units of its recipe.

    ERNIE's units are a lexicon's in Chinese and words elsewhere, of one kind: two stages, not
    three.
    """
    chinese = options.source.endswith("_zh")
    name, told = VARIANTS[variant]
    if variant == "bert_wwm" and chinese:
        told = {"recipe": "wwm"}
    if name in ("xlnet", "transformer_xl"):  # their memory is as long as their rows
        told = told | {"length": options.length}
    made = config.get_config(name, size="tiny", **told)
    if variant != "ernie":
        return made
    lexicon = registry.write("lexicon", {"file": str(pack() / "thuocl" / "*.tsv.xz")})
    stages = {"parts": ("units(chance=0.0)", "units()"), "until": (options.steps // 2,)}
    made = config.set_field(made, "data.units", lexicon if chinese else "words()")
    return config.set_field(made, "corruption", registry.write("stages", stages))


def experiment(variant: str, options: argparse.Namespace) -> config.Experiment:
    """A variant at size tiny over the common text."""
    made = parent(variant, options)
    text, held_out = source(options.source)
    small = CUT if "whole_words" in made.corruption else SMALL
    steps = options.steps
    return dataclasses.replace(
        made,
        data=dataclasses.replace(
            made.data,
            source=text,
            held_out_source=held_out,
            tokenizer=small
            if options.source == "synthetic"
            else f"wordpiece(size={options.pieces})",
            dir=str(options.dir / "data"),
            length=options.length,
        ),
        model=registry.edit(made.model, dropout=0.0, attention_dropout=0.0, **narrow(options)),
        optim=dataclasses.replace(
            made.optim, schedule="cosine()", warmup=min(made.optim.warmup, steps // 10)
        ),
        run=dataclasses.replace(
            made.run,
            dir=str(
                options.dir / f"{options.source}-{variant}-{steps}x{options.length}x{options.width}"
            ),
            steps=steps,
            batch=32,
            microbatches=1,
            output_bias="unigram",
            eval_every=0,
            save_every=max(1, steps // 3),
            log_every=max(1, steps // 50),
        ),
    )


def narrow(options: argparse.Namespace) -> dict[str, int]:
    """The sizes of ``--width``."""
    width = options.width
    return {"width": width, "ffn": 4 * width, "heads": max(1, width // 64)} if width else {}


def ignorant(ready: setup.Setup, learnt: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """objective -> loss and accuracy of a model that always says the same.

    How many tokens a generator replaced is among the results of the run: ``learnt``.
    """
    found = {}
    nats_V = np.asarray(evaluate.unigram_nats(ready.vocab))
    for objective in ready.objectives:
        reads = registry.entry("objective", objective.name).traits["reads"]
        (output, classes), *_ = reads.items()
        if output == "replaced_logits_BT":
            found[objective.name] = of_two(learnt[f"held_out/{objective.name}/replaced"])
            continue
        if output == "pair_logits_BC":
            shares = [
                judged(ready, objective, output, 20.0 * np.eye(classes)[c])["accuracy"]
                for c in range(classes)
            ]
            priors = np.log(np.maximum(shares, 1e-9))
        else:
            priors = -nats_V
        found[objective.name] = judged(ready, objective, output, priors)
    return found


def of_two(share: float) -> dict[str, float]:
    """Of two classes, one of which has this share: its entropy, and always saying the other."""
    other = 1.0 - share
    loss = -sum(p * math.log(p) for p in (share, other) if p > 0)
    return {"loss": loss, "accuracy": max(share, other)}


def judged(ready: setup.Setup, objective: Any, output: str, logits: np.ndarray) -> dict[str, float]:
    """An objective over the held-out rows of the run, whatever the row the same logits."""
    total = None
    for rows in corrupted(ready):
        shape = (len(rows.tokens_BT),) if output == "pair_logits_BC" else rows.at_BP.shape
        same = np.broadcast_to(logits.astype(np.float32), (*shape, len(logits)))
        terms = objective.objective(Outputs(**{output: same}), rows)
        total = terms if total is None else total + terms
    accuracies = {k: float(v.value()) for k, v in total.metrics.items() if k.endswith("accuracy")}
    first = next(iter(accuracies.values()))
    return {"loss": float(total.loss.value()), **accuracies, "accuracy": first}


def corrupted(ready: setup.Setup) -> Iterator[Corrupted]:
    """The run's own held-out rows under its own corruption."""
    made = ready.experiment
    rows = fixed.rows_of(made, ready.store, made.data.example, 0, 1)
    corrupt = jax.jit(setup.bind(made.corruption, ready.vocab))
    for batch in fixed.batches(made.evals, "held_out", rows):
        yield corrupt(keys.corruption_keys(keys.root(fixed.SEED), batch, 0, 1), batch)


def measure(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train a variant, or find it trained; its results beside those of knowing nothing."""
    made = experiment(variant, options)
    store = prepare(made.data)
    loop.train(setup.make(made, store))
    # a run is judged on few rows, for speed; an accuracy over two classes wants more
    judge = dataclasses.replace(made, evals=dataclasses.replace(made.evals, rows=options.rows))
    ready = setup.make(judge, store)
    found = ready.evaluate(checkpoint.load(Path(made.run.dir)).params)
    rows = {}
    for name, nothing in ignorant(ready, found).items():
        metrics = {
            key.removeprefix(f"held_out/{name}/"): value
            for key, value in found.items()
            if key.startswith(f"held_out/{name}/")
        }
        rows[name] = {"learnt": metrics, "nothing": nothing}
        accuracy = next(v for k, v in metrics.items() if k.endswith("accuracy"))
        print(
            f"| {variant} | {name} | {metrics['loss']:.3f} | {nothing['loss']:.3f} | "
            f"{accuracy:.1%} | {nothing['accuracy']:.1%} |",
            flush=True,
        )
    return {"experiment": config.to_dict(made), "objectives": rows}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--source", default="synthetic", help="synthetic, wikipedia_en, ...")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--width", type=int, default=0, help="of the models; 0: of size tiny, 128")
    parser.add_argument("--rows", type=int, default=2048, help="held-out rows to judge by")
    parser.add_argument("--pieces", type=int, default=8192, help="vocabulary of real text")
    parser.add_argument("--dir", type=Path, default=Path("runs/learning"))
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    runtime.tune()
    print("| variant | objective | nats | knowing nothing | accuracy | knowing nothing |")
    print("| --- | --- | --- | --- | --- | --- |")
    result = {variant: measure(variant, options) for variant in options.variants}
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
