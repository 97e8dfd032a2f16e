"""Evaluating a language model with a memory, and with a window that moves token by token.

    python -m benchmarks.recurrence                      attention lengths 64 .. 1024, on the CPU
    python -m benchmarks.recurrence --plot out/recurrence.svg --json out/recurrence.json
    python -m benchmarks.recurrence --run runs/transformer-xl-tiny --tokens 4096

Dai et al. 2019 (arXiv 1901.02860, table 9) tell of up to 1,874 times: the Al-Rfou model, to predict
one token, reads a whole window of A tokens and uses its last state; Transformer-XL reads a segment
of S tokens once, predicts behind each, and has M older ones in its memory, A = S + M. That is the
speed of evaluation, not of training. The table does not tell S, M, batch or sizes; the published
ratios are about A / 2, and only segments that grow with A can give that.

First both ways are shown to be the same network where they must be (segments with a memory that
loses nothing and begins empty = one pass, to 1e-5); else nothing is timed. Arms, in turns:

- window       vanilla, stride 1: absolute positions, the last position alone is used
- own window   the same with Transformer-XL's own network without memory
- segments     Transformer-XL over a full memory; keys and values of it are projected anew, as in
               the released code
- cached       control: the same with keys and values kept
- chunks       control: vanilla in chunks that do not overlap; cheap, and blind at their start

"ratio" is window over segments. "by MACs" is what counting multiplications predicts, for each layer
and token A (4 d^2 + 2 d F) + 2 A^2 d against
((M + S) (3 d^2 + d^2 / B) + S (d^2 + 2 d F) + 3 S (M + S) d) / S.

Expected: at a fixed S / M the ratio grows about linearly, log-log slope 0.9 .. 1.3, and is
above A / 4 for S = A / 2. Where a segment is only a few tokens (S = A / 8 at A = 64), starting a
program counts for more than running it, and the slope grows beyond what counting predicts: then
take more ``--width``. ``--run`` adds what a trained model loses by each way of reading.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, turns
from bert_variants import runtime

SLOPE = 0.9, 1.3
# name -> S / A; M is the rest
SPLITS = {"S = M = A/2": 0.5, "S = A/8, M = 7A/8": 0.125}
ARMS = ("window", "own window", "segments", "cached", "chunks")
# of the report's page, in the light
INK, LINE, COLOURS = "#1d2126", "#e3e5e8", ("#2458c5", "#c2410c")


def macs(size: Any, length: int, segment: int) -> tuple[float, float]:
    """Multiplications for each layer and predicted token: of the window, of the segments.

    Args:
        size: width d, ffn F, batch B.
        length, segment: A and S; M is A - S.
    """
    d, ffn, memory = size.width, size.ffn, length - segment
    window = length * (4 * d**2 + 2 * d * ffn) + 2 * length**2 * d
    read = (memory + segment) * (3 * d**2 + d**2 / size.batch)
    own = segment * (d**2 + 2 * d * ffn)
    return window, (read + own + 3 * segment * (memory + segment) * d) / segment


def loglog_slope(lengths: Sequence[float], ratios: Sequence[float]) -> float:
    """The exponent of a power law through the points."""
    return float(np.polyfit(np.log(lengths), np.log(ratios), 1)[0])


def slope(lengths: Sequence[float], ratios: Sequence[float]) -> float:
    """Of the line through the origin that fits the points best."""
    x, y = np.asarray(lengths, float), np.asarray(ratios, float)
    return float(x @ y / (x @ x))


def jobs(size: Any, lengths: Sequence[int]) -> dict[tuple[str, int, str], tuple[Any, int]]:
    """(arm, A, split or nothing) -> (one call, tokens that it predicts in a row of a batch)."""
    from benchmarks import reading

    found: dict[tuple[str, int, str], tuple[Any, int]] = {}
    for length in lengths:
        found["window", length, ""] = reading.vanilla(size, length, last=True), 1
        found["own window", length, ""] = reading.own_window(size, length), 1
        found["chunks", length, ""] = reading.vanilla(size, length, last=False), length
        for split, share in SPLITS.items():
            segment = int(length * share)
            parts = size, segment, length - segment
            found["segments", length, split] = reading.segments(*parts), segment
            found["cached", length, split] = reading.cached_segments(*parts), segment
    return found


def measure(size: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for each split and length: ms a token of all arms, and ratios."""
    made = jobs(size, options.lengths)
    calls = {name: job for name, (job, _) in made.items()}
    taken = turns.in_turn(calls, options.rounds, options.least, options.patience)
    found = {name: turns.medians(times) for name, times in taken.items()}
    lines = []
    for split, share in SPLITS.items():
        for length in options.lengths:
            segment = int(length * share)
            line: dict[str, Any] = {"split": split, "A": length, "S": segment, "B": size.batch}
            line["M"] = length - segment
            for arm in ARMS:
                name = (arm, length, split if (arm, length, split) in found else "")
                tokens = made[name][1] * size.batch
                line[arm] = found[name]["ms"] / tokens
                line[f"{arm}, core"] = found[name]["cpu_ms"] / tokens
                line[f"{arm}, clean"] = found[name]["clean"]
            line["ratio"] = line["window"] / line["segments"]
            line["core ratio"] = line["window, core"] / line["segments, core"]
            window, segments = macs(size, length, segment)
            line["by MACs"] = window / segments
            lines.append(line)
    return lines


def fits(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each split the slopes, and whether what was expected is so."""
    found = []
    for split in SPLITS:
        own = [line for line in lines if line["split"] == split]
        lengths, ratios = [line["A"] for line in own], [line["ratio"] for line in own]
        fit: dict[str, Any] = {"split": split, "slope": slope(lengths, ratios)}
        if len(own) > 1:
            fit["log-log slope"] = loglog_slope(lengths, ratios)
            fit["by MACs"] = loglog_slope(lengths, [line["by MACs"] for line in own])
            fit["linear"] = SLOPE[0] <= fit["log-log slope"] <= SLOPE[1]
        if SPLITS[split] == 0.5:
            fit["above A/4"] = all(line["ratio"] > line["A"] / 4 for line in own)
        found.append(fit)
    return found


def verdicts(fit: dict[str, Any]) -> list[str]:
    """One line for each expectation."""
    split, lines = fit["split"], []
    if "linear" in fit:
        met = "met" if fit["linear"] else "MISSED"
        lines.append(
            f"{split}: log-log slope {fit['log-log slope']:.2f} (by MACs "
            f"{fit['by MACs']:.2f}; expected {SLOPE[0]} .. {SLOPE[1]}): {met}"
        )
    lines.append(f"{split}: ratio / A = {fit['slope']:.3f} fitted (published: 0.43 .. 0.50)")
    if "above A/4" in fit:
        met = "met" if fit["above A/4"] else "MISSED"
        lines.append(f"{split}: ratio above A / 4 at every length: {met}")
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """ms a predicted token of every arm."""
    head = "".join(f"{name:>6}" for name in "ASMB") + "".join(f"{arm:>12}" for arm in ARMS)
    text = []
    for split in SPLITS:
        text += [f"{split}; ms a token", f"{head}{'ratio':>8}{'by MACs':>9}{'ratio/A':>9}"]
        for line in (line for line in lines if line["split"] == split):
            sizes = "".join(f"{line[name]:>6}" for name in "ASMB")
            times = "".join(f"{line[arm]:>12.4f}" for arm in ARMS)
            ratio, counted = line["ratio"], line["by MACs"]
            ratios = f"{ratio:>8.1f}{counted:>9.1f}{ratio / line['A']:>9.3f}"
            loaded = [arm for arm in ARMS if line[f"{arm}, clean"] < 3]
            which = "" if len(loaded) == len(ARMS) else f": {', '.join(loaded)}"
            note = f"  loaded machine{which}" if loaded else ""
            text.append(sizes + times + ratios + note)
    return "\n".join(text)


def plot(lines: list[dict[str, Any]], path: str) -> None:
    """Ratio over attention length: measured, by counting, and a line of slope 1/2."""
    from matplotlib.figure import Figure

    from bert_variants.report import plots

    figure = Figure(figsize=(6.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for split, colour in zip(SPLITS, COLOURS, strict=True):
        own = [line for line in lines if line["split"] == split]
        lengths = [line["A"] for line in own]
        axes.plot(
            lengths,
            [line["ratio"] for line in own],
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.6,
            label=f"measured, {split}",
        )
        counted = [line["by MACs"] for line in own]
        label = "by counting" if colour == COLOURS[0] else "_nolegend_"
        axes.plot(lengths, counted, color=colour, linestyle="--", linewidth=1, label=label)
    ends = [min(line["A"] for line in lines), max(line["A"] for line in lines)]
    half = [end / 2 for end in ends]
    axes.plot(ends, half, color=INK, linestyle=":", linewidth=1.2, label="A / 2")
    ticks = sorted({line["A"] for line in lines})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.set_xlabel("attention length A", color=INK)
    axes.set_ylabel("times as fast as the window", color=INK)
    plots.framed(axes, INK, LINE)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def losses(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Nats a token of a trained model by each way of reading, a line for each length."""
    from benchmarks import nats

    given = nats.judged(options.run, max(options.lengths), options.tokens)
    print(
        f"{options.run}, step {given.loaded.step:,}: nats a token over {given.count:,} tokens of "
        f"its held-out text, the same for all (the first {given.first:,} are only read)"
    )
    names = ("window", *SPLITS, "chunks")
    print(f"{'A':>6}" + "".join(f"{name:>20}" for name in names), flush=True)
    found = []
    for length in options.lengths:
        line: dict[str, Any] = {"A": length, "window": nats.by_windows(given, length)}
        for split, share in SPLITS.items():
            segment = int(length * share)
            line[split] = nats.by_segments(given, segment, length - segment)
        line["chunks"] = nats.by_segments(given, length, 0)
        found.append(line)
        print(f"{length:>6}" + "".join(f"{line[name]:>20.4f}" for name in names), flush=True)
    return found


def timed(options: argparse.Namespace) -> dict[str, Any]:
    """The test, the turns, the table, the fits."""
    from benchmarks import reading

    size = reading.Size(
        *(options.layers, options.width, options.heads, options.ffn or 4 * options.width),
        vocab=options.vocab,
        batch=options.batch,
    )
    print(f"{size}, float32, without dropout", flush=True)
    shortest = min(options.lengths)
    agreement = {}
    for split, share in SPLITS.items():
        agreement[split] = reading.check(size, shortest, int(shortest * share))
        differ = ", ".join(f"{name} {worst:.1e}" for name, worst in agreement[split].items())
        print(f"{split}: the same network, largest difference: {differ}", flush=True)
    lines = measure(size, options)
    print(table(lines))
    found = fits(lines)
    for line in (line for fit in found for line in verdicts(fit)):
        print(line, flush=True)
    if options.plot:
        plot(lines, options.plot)
    made = {"size": dataclasses.asdict(size), "agreement": agreement}
    return {**made, "lines": lines, "fits": found}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--ffn", type=int, default=0, help="0: 4 * width")
    parser.add_argument("--vocab", type=int, default=204, help="symbols, as in enwik8")
    parser.add_argument("--batch", type=int, default=1, help="rows read side by side")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each arm at each length")
    parser.add_argument("--least", type=float, default=0.2, help="s of a turn")
    parser.add_argument("--patience", type=float, default=60, help="s to wait for quiet, in all")
    parser.add_argument("--run", default="", help="a trained transformer_xl: its losses too")
    parser.add_argument("--tokens", type=int, default=4096, help="held-out ones that are judged")
    parser.add_argument("--losses-only", action="store_true", help="time nothing")
    parser.add_argument("--plot", default="", help="a .png or .svg to draw the ratios in")
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    wrong = [length for length in options.lengths if length < 8 or length % 8]
    if wrong:
        parser.error(f"--lengths {wrong[0]}: expected multiples of 8, of which S = A / 8 is one.")
    if options.plot and Path(options.plot).suffix not in (".png", ".svg"):
        parser.error(f"--plot {options.plot}: expected a name that ends in .png or .svg.")
    if options.losses_only and not options.run:
        parser.error("--losses-only needs --run, the trained model whose losses are wanted.")
    runtime.tune()
    about = machine.describe()
    print(machine.headline(about))
    result: dict[str, Any] = {"machine": about}
    if not options.losses_only:
        result |= timed(options)
    if options.run:
        result["losses"] = losses(options)
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
