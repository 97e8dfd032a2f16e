"""The README.md that is written beside exported weights: what was recorded, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bert_variants
from bert_variants import config, registry
from bert_variants.convert import families
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import heads_of
from bert_variants.loaded import Loaded
from bert_variants.train import leaves, record

UNKNOWN = "not recorded"
Row = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a run's directory says of the training that gave a checkpoint.

    Attributes:
        start: the newest start of the run at or before the step; empty if none was recorded.
        tokens: positions processed, padding included, up to the step; None if unknown.
        scores: held-out results at the step; empty if it was not evaluated there.
    """

    start: Mapping[str, Any]
    tokens: int | None
    scores: Mapping[str, float]


def card(loaded: Loaded, run_dir: Path | None = None) -> str:
    """What is known of a model, as a model card for its directory.

    A model that was not trained here has an experiment all the same, our shipped one; what that
    says of data and training is no record of anything and is left out.

    Args:
        loaded: the model.
        run_dir: the run that it came from, whose records tell training, scores and versions; None:
            nothing is known of these.

    Returns:
        Markdown, with the head that the hub reads. What is not known says "not recorded".
    """
    found = recorded(run_dir, loaded.step) if run_dir is not None else None
    call = registry.lookup("model", loaded.config.model)
    parts = [
        _head(call.name, _predicts(loaded)),
        f"# {loaded.config.name}",
        _summary(loaded, call.name, found),
        "## How to use it",
        _use(loaded),
        "## The model",
        _table(_model(loaded)),
        "## Training",
        _training(loaded, found),
        "## Scores",
        _scores(loaded.step, found),
        "## With what it was made",
        _table(_versions(found)),
        "## What is not known",
        "Language of the text, licence of the text and of the weights, and what the model is good "
        f"or bad for: {UNKNOWN}.",
    ]
    return "\n\n".join(parts) + "\n"


def recorded(run_dir: Path, step: int) -> Recorded | None:
    """What a run recorded of its training up to a step; None if it was not trained by us.

    Raises:
        ConvertError: a manifest.json that is damaged.
    """
    path = run_dir / "manifest.json"
    if not path.is_file():
        return None
    try:
        starts = json.loads(path.read_bytes())["starts"]
        before = [one for one in starts if one["step"] <= step]
    except (ValueError, KeyError, TypeError) as error:
        raise ConvertError(f"{path} is no record of a run: {error!r}.") from None
    tokens, scores = None, {}
    for line in record.read(run_dir):
        if line["step"] != step:
            continue
        if line["kind"] == "train" and "tokens" in line:
            tokens = int(line["tokens"])
        elif line["kind"] == "held_out":
            scores = _numbers(line)
    return Recorded(before[-1] if before else {}, tokens, scores)


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Results of a line of metrics.jsonl; what was not finite is left out there already."""
    names = [name for name in line if name not in ("kind", "step", "position", "tokens", "timing")]
    return {n: line[n] for n in names if isinstance(line[n], (int, float))}


def _predicts(loaded: Loaded) -> bool:
    """Whether it was trained to fill in masks."""
    terms = config.objective_terms(loaded.config.objectives) if loaded.config.objectives else ()
    return any(registry.parse(call)[0] == "mlm" for _, call in terms)


def _head(model: str, predicts: bool) -> str:
    """What the hub reads. No language and no licence: they are not known."""
    tag = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    lines = ["library_name: transformers"]
    lines += ["pipeline_tag: fill-mask"] if predicts else []
    return "\n".join(["---", *lines, "tags:", "- bert-variants", f"- {tag}", "---"])


def _summary(loaded: Loaded, model: str, found: Recorded | None) -> str:
    if found is None:
        return f"A `{model}` model, converted by bert-variants. How it was trained: {UNKNOWN}."
    steps = loaded.config.run.steps
    return f"A `{model}` model, trained by bert-variants for {loaded.step:,} of {steps:,} steps."


def _use(loaded: Loaded) -> str:
    """Two programs; ``DIR`` stands for the directory."""
    ours = ["import bert_variants as bv", "", 'model = bv.from_pretrained("DIR")']
    asks = 'model.fill_mask("The [MASK] is here.")'
    ours.append(asks if _predicts(loaded) else "model(tokens_BT).hidden_BTD")
    params, _ = leaves.flatten(loaded.params)
    shapes = {name: tuple(array.shape) for name, array in params.items()}
    text = f"DIR is where this directory lies. Here:\n\n{_code(ours)}"
    try:
        family = families.of_model(loaded.config.model, heads_of(shapes), "")
    except ConvertError:
        return f"{text}\n\ntransformers has no model of this kind."
    folders = list(family.split(loaded.config)) or [""]
    theirs = ["from transformers import AutoModel, AutoTokenizer"]
    for folder in folders:
        place = f"DIR/{folder}" if folder else "DIR"
        theirs += ["", f'tokenizer = AutoTokenizer.from_pretrained("{place}")']
        theirs.append(f'model = AutoModel.from_pretrained("{place}")')
    return f"{text}\n\nIn transformers:\n\n{_code(theirs)}"


def _model(loaded: Loaded) -> list[Row]:
    params, _ = leaves.flatten(loaded.params)
    tokenizer = loaded.tokenizer
    return [
        ("model", _quoted(loaded.config.model)),
        ("parameters", f"{sum(math.prod(array.shape) for array in params.values()):,}"),
        ("tokenizer", f"{tokenizer.kind}, {tokenizer.vocab.size:,} tokens"),
        ("heads", _quoted(", ".join(n for n, _ in config.wanted_outputs(loaded.config))) or "none")
        if loaded.config.objectives
        else ("heads", "none"),
        *([("vector of a text", ", ".join(loaded.pooling))] if loaded.pooling else []),
    ]


def _training(loaded: Loaded, found: Recorded | None) -> str:
    if found is None:
        return f"Data, steps, objectives and optimizer: {UNKNOWN}."
    made, data, optim, run = (
        loaded.config,
        loaded.config.data,
        loaded.config.optim,
        loaded.config.run,
    )
    terms = config.objective_terms(made.objectives)
    tokens = UNKNOWN if found.tokens is None else f"{found.tokens:,} (padding included)"
    return _table(
        [
            ("text", _quoted(data.source)),
            ("held-out text", _quoted(data.held_out_source) or f"{data.held_out:g} of the text"),
            ("tokenizer", _quoted(data.tokenizer)),
            ("rows", f"{_quoted(data.example)}, {data.length} tokens each"),
            ("corruption", _quoted(made.corruption)),
            ("objectives", ", ".join(f"{weight:g} x {_quoted(call)}" for weight, call in terms)),
            ("steps", f"{loaded.step:,} of {run.steps:,}"),
            ("rows a step", f"{run.batch:,}"),
            ("tokens seen", tokens),
            ("started from", _quoted(run.init_from) or "random parameters"),
            ("optimizer", _quoted(optim.optimizer)),
            ("learning rate", f"{optim.lr:g} at its peak, {_quoted(optim.schedule)}"),
            ("warm-up", f"{optim.warmup:,} steps"),
            ("weight decay", f"{optim.weight_decay:g}"),
            ("largest gradient norm", f"{optim.clip:g}" if optim.clip else "not limited"),
            ("precision", run.precision),
            ("seed", str(run.seed)),
        ]
    )


def _scores(step: int, found: Recorded | None) -> str:
    if found is None or not found.scores:
        return f"Held-out results at step {step:,}: {UNKNOWN}."
    rows = [(_quoted(name), f"{value:.4f}") for name, value in found.scores.items()]
    about = f"On held-out text at step {step:,}, as the run recorded them; losses in nats."
    return f"{about}\n\n{_table(rows, ('result', 'value'))}"


def _versions(found: Recorded | None) -> list[Row]:
    start = found.start if found is not None else {}
    versions = start["versions"] if "versions" in start else {}
    known = isinstance(versions, Mapping)
    told = {str(k): str(v) for k, v in versions.items()} if known else {}
    hardware = told.pop("devices") if "devices" in told else UNKNOWN
    processes = f", {start['processes']} processes" if "processes" in start else ""
    revision = start["revision"] if "revision" in start else None
    return [
        ("hardware", hardware + processes),
        ("packages in training", ", ".join(f"{k} {v}" for k, v in told.items()) or UNKNOWN),
        ("commit in training", str(revision) if revision else UNKNOWN),
        ("started", str(start["time"]) if "time" in start else UNKNOWN),
        ("written by", f"bert-variants {bert_variants.__version__}"),
    ]


def _table(rows: Iterable[Row], head: Sequence[str] = ("", "")) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def _quoted(text: str) -> str:
    """Text as code in a cell of a table; empty for none. "|" and line ends would end the cell."""
    if not text:
        return ""
    text = " ".join(text.split()).replace("|", "\\|")
    runs = re.findall("`+", text)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    blank = " " if runs else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
