"""Which curves a run's page shows."""

from __future__ import annotations

import dataclasses
import re

from bert_variants.report.plots import SERIES, Curve, plot, with_trend
from bert_variants.report.run import Run, judgements


@dataclasses.dataclass(frozen=True)
class Plot:
    """A title and the SVG below it."""

    title: str
    svg: str


def of(run: Run) -> list[Plot]:
    """Losses, fixed masks beside the unigram baseline, accuracy, rate, gradient, throughput.

    Those without a single point are left out.
    """
    plots = [*_objectives(run), _fixed_masks(run), _accuracy(run), *_health(run)]
    return [p for p in plots if p.svg]


def _objectives(run: Run) -> list[Plot]:
    """For each objective what was trained on, and the same on held-out rows."""
    found = []
    for name in run.names():
        objective, _, measure = name.rpartition("/")
        if measure != "loss" or not objective:
            continue
        held_out = run.judged(f"held_out/{objective}/loss")
        lines = [
            *with_trend("training", run.series(name), 0),
            Curve("held-out", held_out, 1, marked=True),
        ]
        title = f"{objective}: loss"
        svg = plot(_id(title), lines, title=title, unit="nats")
        found.append(Plot(title, svg))
    return found


def _probes(run: Run) -> list[str]:
    rows = judgements(run.last()[1])
    return [r.probe for r in rows if r.objective == "mlm" and r.probe != "held_out"]


def _fixed_masks(run: Run) -> Plot:
    lines, levels = [], []
    for i, probe in enumerate(_probes(run)):
        colour = i % SERIES
        lines.append(Curve(probe, run.judged(f"{probe}/mlm/loss"), colour, marked=True))
        baseline = run.judged(f"{probe}/unigram/loss")
        if baseline:
            levels.append((f"unigram, {probe}", baseline[-1][1], colour))
    title = "Held-out loss on fixed masks"
    return Plot(title, plot("masks", lines, title=title, unit="nats", levels=levels))


def _accuracy(run: Run) -> Plot:
    lines = [
        Curve(probe, _percent(run.judged(f"{probe}/mlm/accuracy")), i % SERIES, marked=True)
        for i, probe in enumerate(_probes(run))
    ]
    title = "Held-out accuracy on fixed masks"
    return Plot(title, plot("accuracy", lines, title=title, unit="%", from_zero=True))


def _percent(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(step, 100 * value) for step, value in points]


def _health(run: Run) -> list[Plot]:
    rate = plot(
        "rate",
        [Curve("learning rate", run.series("learning_rate"), 2)],
        title="Learning rate",
        unit="learning rate",
        from_zero=True,
    )
    norm = plot(
        "norm",
        with_trend("gradient norm", run.series("gradient_norm"), 3),
        title="Gradient norm",
        unit="norm before clipping",
        log=True,
    )
    speed = plot(
        "speed",
        with_trend("tokens", run.series("tokens_per_second"), 4),
        title="Throughput",
        unit="tokens / s",
        from_zero=True,
    )
    return [Plot("Learning rate", rate), Plot("Gradient norm", norm), Plot("Throughput", speed)]


def _id(title: str) -> str:
    return "loss-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
