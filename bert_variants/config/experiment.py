"""The classes of a config, with every default, and what their values must keep to."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from bert_variants.config.fields import ConfigError, get_field
from bert_variants.config.terms import objective_terms, parse_named

Precision = Literal["auto", "float32", "bfloat16", "bfloat16_dots"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Text in, rows out.

    Attributes:
        source: where documents come from: pydocs(), text("*.txt"), tfds("name"), synthetic().
        held_out_source: documents to evaluate on; empty: a share of ``source``.
        held_out: share of ``source``'s documents that are held out, chosen by their content.
        tokenizer: wordpiece(size=8192) trains one on the corpus; wordpiece(file="vocab.txt")
            loads one. Likewise byte_bpe(...) and sentencepiece(...).
        units: phrase and entity boundaries to store with the text; empty: none.
        example: how rows are built from documents.
        length: T, tokens a row, specials included.
        copies: 0 draws new rows and masks on every visit. k repeats them after k visits: static
            masking with k copies, as in BERT's own data (dupe_factor).
        dir: where prepared shards are kept, one folder for each (source, tokenizer, units).
        workers: processes that prepare text; 0: one a core. The shards do not depend on it.
    """

    source: str = "pydocs()"
    held_out_source: str = ""
    held_out: float = 0.05
    tokenizer: str = "wordpiece(size=8192)"
    units: str = ""
    example: str = "nsp_pairs()"
    length: int = 128
    copies: int = 0
    dir: str = "data"
    workers: int = 0


@dataclasses.dataclass(frozen=True)
class Optim:
    """How gradients become updates.

    Attributes:
        optimizer: adamw(...), lamb(...); see train/optim.py.
        schedule: the learning rate over steps: bert_linear(), linear(), product(), cosine(),
            constant().
        lr: the schedule's peak.
        warmup: steps of linear warm-up.
        weight_decay: decoupled, scaled by the learning rate.
        no_decay: parameters whose path matches one of these regular expressions are not decayed
            (and take no trust ratio in LAMB).
        clip: largest global gradient norm; 0: no clipping.
        freeze: parameters whose path matches one of these regular expressions never change. They
            have no moments, and no part in the norm that is clipped.
        layer_decay: each layer learns at this share of the rate of the one above it, for
            fine-tuning; 1: all alike. See ``train/optim.py:scale_by_depth``.
        layer_decay_gap: further factors of it between the heads and the top layer: ELECTRA was
            published with 1 and says that 0 was meant.
    """

    optimizer: str = "adamw(bias_correction=False)"
    schedule: str = "bert_linear()"
    lr: float = 1e-4
    warmup: int = 10_000
    weight_decay: float = 0.01
    no_decay: tuple[str, ...] = ("bias$", "norm/scale$")
    clip: float = 1.0
    freeze: tuple[str, ...] = ()
    layer_decay: float = 1.0
    layer_decay_gap: int = 0


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices by axis. At most one axis may be -1: all devices that are left.

    Attributes:
        data: rows of the batch are split over it; parameters are copied.
        fsdp: rows are split over it too, and so are parameters and optimizer state.
        tensor: widths of matrices are split over it.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """The life of a run.

    Attributes:
        dir: everything the run writes. Starting again with the same dir resumes.
        seed: all randomness comes from it.
        steps: optimizer steps of the whole run; the schedule ends there.
        batch: rows of the global batch.
        microbatches: parts that the batch is split into, one after the other. Exact: the
            gradients are those of the whole batch.
        precision: of the matrix products. Parameters, sums and losses are float32 always. auto:
            bfloat16 on GPU and TPU; on a CPU with bfloat16 instructions only the products' inputs
            are bfloat16; else float32.
        scan: compile one layer and loop over it (fast to compile) or all of them (faster on a CPU
            for shallow models). The numbers are the same. auto: scan, except on a CPU with at
            most 12 layers.
        remat: recompute activations in the backward pass, for memory.
        log_every, eval_every, save_every: in steps; 0: only at the end.
        keep: newest checkpoints that are kept, beside the best by held-out loss.
        keep_every: also keep every checkpoint whose step is a multiple; 0: none.
        init_from: a run, or a directory of Hugging Face's transformers, whose parameters start this
            run; empty: random. Heads of a published model that this run has not are left there.
        init_map: where its parameters have other names: entries "HERE <- THERE". What the regular
            expression HERE finds in the path of a parameter of this run is replaced by THERE, which
            gives its path in ``init_from``. An entry "HERE" alone: these start at random. The first
            entry that finds something counts; without one the names are the same. With a map, what
            is not taken is told and left; see ``train/origins.py``.
        output_bias: what the bias of the heads that predict tokens starts at: zeros as in BERT, or
            the log of the corpus's unigram probabilities, which spares a short run the steps that
            learn them.
        allow_change: names of fields that may differ from the checkpoint's on resume.
        max_skipped: steps with a non-finite loss or gradient that are skipped in a row before the
            run is rolled back; after three roll-backs it stops with exit code 4.
    """

    dir: str = "runs/bert"
    seed: int = 0
    steps: int = 1_000_000
    batch: int = 256
    microbatches: int = 1
    precision: Precision = "auto"
    scan: Literal["auto", "on", "off"] = "auto"
    remat: bool = False
    log_every: int = 10
    eval_every: int = 1_000
    save_every: int = 1_000
    keep: int = 2
    keep_every: int = 0
    init_from: str = ""
    init_map: tuple[str, ...] = ()
    output_bias: Literal["zeros", "unigram"] = "zeros"
    allow_change: tuple[str, ...] = ()
    max_skipped: int = 5


@dataclasses.dataclass(frozen=True)
class Evals:
    """The probes that judge every run alike, whatever trained it.

    Attributes:
        example: how held-out rows are built for the masks; not the run's own, so that runs with
            different rows are judged on the same ones.
        masks: corruptions whose masks over held-out rows are fixed: the same for every run on the
            same corpus.
        pll: pseudo-log-likelihood: so many tokens of each row are hidden, one at a time, and
            predicted from all the others; see train/pll.py. 0: none.
        rows: held-out rows at most.
        batch: rows of an evaluation batch.
    """

    example: str = "single()"
    masks: tuple[str, ...] = ("tokens(rate=0.15)", "whole_words(rate=0.15)")
    pll: int = 0
    rows: int = 512
    batch: int = 64


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment, complete.

    Attributes:
        name: what it is called in tables.
        data, optim, mesh, run, evals: see their classes.
        corruption: what is done to the text, such as ``tokens(rate=0.15)``.
        model: the architecture, such as ``bert(layers=12, width=768)``.
        objectives: a weighted sum, such as ``mlm + 0.5*nsp``. Empty: a model without heads, which
            can be used and not trained.
    """

    name: str = "bert"
    data: Data = dataclasses.field(default_factory=Data)
    corruption: str = "tokens(rate=0.15)"
    model: str = "bert()"
    objectives: str = "mlm + nsp"
    optim: Optim = dataclasses.field(default_factory=Optim)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    run: Run = dataclasses.field(default_factory=Run)
    evals: Evals = dataclasses.field(default_factory=Evals)

    def __post_init__(self) -> None:
        for path, low in _AT_LEAST.items():
            value = get_field(self, path)
            if value < low:
                raise ConfigError(f"{path} is {value}, expected at least {low}.")
        if not 0 <= self.data.held_out < 1:
            raise ConfigError(f"data.held_out is {self.data.held_out}, expected 0 <= x < 1.")
        if not (self.data.held_out or self.data.held_out_source):
            raise ConfigError(
                "data.held_out is 0 and data.held_out_source is empty: every run is judged on "
                "held-out text. Set one of them."
            )
        if self.run.batch % self.run.microbatches:
            raise ConfigError(
                f"run.batch is {self.run.batch}, not divisible by run.microbatches "
                f"{self.run.microbatches}."
            )
        axes = (self.mesh.data, self.mesh.fsdp, self.mesh.tensor)
        if axes.count(-1) > 1 or any(a == 0 or a < -1 for a in axes):
            raise ConfigError(
                f"mesh is {axes}: axes are positive numbers, at most one of them -1 (the rest)."
            )
        for path, family in CALLS.items():
            calls = get_field(self, path)
            for call in (calls,) if isinstance(calls, str) else calls:
                if call or path not in OPTIONAL_CALLS:
                    parse_named(path, call, family)
        objective_terms(self.objectives)
        if not 0 < self.optim.layer_decay <= 1:
            raise ConfigError(
                f"optim.layer_decay is {self.optim.layer_decay}, expected 0 < x <= 1."
            )
        if self.run.init_map and not self.run.init_from:
            raise ConfigError("run.init_map is given, but run.init_from is empty.")
        for path in ("optim.no_decay", "optim.freeze", "run.init_map"):
            for entry in get_field(self, path):
                _check_pattern(path, entry)


def init_map_entry(entry: str) -> tuple[str, str | None]:
    """An entry of ``run.init_map``: (HERE, THERE), or (HERE, None) where there is no arrow.

    ``"^discriminator/ <- generator/"`` is ``("^discriminator/", "generator/")``.
    """
    here, arrow, there = entry.partition("<-")
    return here.strip(), there.strip() if arrow else None


def _check_pattern(path: str, pattern: str) -> None:
    if path == "run.init_map":
        pattern, _ = init_map_entry(pattern)
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{path}: {pattern!r} is no regular expression: {error}.") from None


_AT_LEAST = {
    "data.length": 4,
    "data.copies": 0,
    "data.workers": 0,
    "optim.lr": 0,
    "optim.warmup": 0,
    "optim.weight_decay": 0,
    "optim.clip": 0,
    "optim.layer_decay_gap": 0,
    "run.steps": 1,
    "run.batch": 1,
    "run.microbatches": 1,
    "run.log_every": 0,
    "run.eval_every": 0,
    "run.save_every": 0,
    "run.keep": 1,
    "run.keep_every": 0,
    "run.max_skipped": 0,
    "evals.pll": 0,
    "evals.rows": 1,
    "evals.batch": 1,
}
# Fields that hold call-strings, and the family that each belongs to.
CALLS = {
    "data.source": "source",
    "data.held_out_source": "source",
    "data.tokenizer": "tokenizer",
    "data.units": "units",
    "data.example": "example",
    "corruption": "corruption",
    "model": "model",
    "optim.optimizer": "optimizer",
    "optim.schedule": "schedule",
    "evals.example": "example",
    "evals.masks": "corruption",
}
OPTIONAL_CALLS = ("data.held_out_source", "data.units")


def call_fields() -> dict[str, str]:
    """Dotted path of every field that holds call-strings -> the registry family."""
    return dict(CALLS)
