"""Steps of ELECTRA, DeBERTa and XLNet: relative to BERT's, and against their PyTorch twins.

    python -m benchmarks.families                              mini 32x128, all families, on the CPU
    python -m benchmarks.families --families electra --rounds 9 --json out/families.json
    python -m benchmarks.families --together on                everything in one run (16 processes)

All arms of a run take turns, as in ``benchmarks.step``. Everybody reads the same rows, predicts as
many positions, has dropout 0.1, AdamW and clipping. Where the machine cannot hold all arms at once
there is a run for each family, with our BERT and Hugging Face's in every one, so that what is
relative to them was measured beside them.

Arms of a family: ours; our published form where transformers has no such thing (DeBERTa's decoder:
two more passes of the last layer for one less of the plain one); and the twin (``twins.py``) in
bfloat16 autocast and in float32, of which the faster one counts. ELECTRA: ``mlm +
50*replaced_token``, a generator a quarter as wide, tables shared. DeBERTa v3: two networks, the
generator half as deep. XLNet: two streams and a memory of 3/4 of a row, half of the rows backwards.

Goals: none of ours is slower than its twin; our DeBERTa costs less of our BERT than PyTorch's of
PyTorch's.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from benchmarks import machine, ours, peer, step, turns, twins
from bert_variants import registry

BERT, HF_BERT = "ours bert", "HF bert"
SHAPES = {**step.CPU, **step.TOY}
PROCESS = 1.5  # GiB of an arm's libraries and parameters; 7 GiB more at base 4x512, see ``step``


@dataclasses.dataclass(frozen=True)
class Group:
    """The arms of a family, by name; ``ours[0]`` does the work of the twins.

    Attributes:
        family: of ``twins.FAMILIES``.
        ours, theirs: names of arms.
    """

    family: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


def remembered(shape: step.Shape) -> tuple[int, int]:
    """XLNet's memory, and how many positions of a row it keeps, as in configs/xlnet.py."""
    return 3 * shape.length // 4, shape.length // 2


def our_specs(shape: step.Shape) -> dict[str, dict[str, ours.Spec]]:
    """Family -> arm -> what it runs; the first one of each does the work of the twins."""
    from bert_variants.configs import deberta

    layers, width, heads = step.sizes(shape.size)
    sizes = {"layers": layers, "width": width, "heads": heads, "ffn": 4 * width}
    base = ours.Spec(size=shape.size, batch=shape.batch, length=shape.length)
    written = ", ".join(f"{name}={value}" for name, value in sizes.items())
    most = shape.predictions

    def published(version: str) -> ours.Spec:
        model, objectives, corruption = deberta.VERSIONS[version]
        return dataclasses.replace(
            base,
            model=model.format(sizes=written),
            objectives=objectives,
            corruption=registry.edit(corruption, max_predictions=most),
            example="single()",
        )

    def plain(version: str) -> ours.Spec:
        spec = published(version)
        return dataclasses.replace(spec, model=registry.edit(spec.model, absolute="none"))

    narrow = sizes | {"generator_width": max(1, round(width / 4))}
    memory, reuse = remembered(shape)
    recurrent = sizes | {"memory": memory, "reuse": reuse, "masked": "hidden"}
    return {
        "electra": {
            "ours electra": dataclasses.replace(
                base,
                model=registry.write("electra", narrow),
                objectives="mlm + 50*replaced_token",
                corruption=f"tokens(rate=0.15, mask=0.85, random=0.0, max_predictions={most})",
                example="electra_pairs()",
            )
        },
        "deberta_v1": {
            "ours deberta v1": plain("v1"),
            "ours deberta v1, decoder": published("v1"),
        },
        "deberta_v3": {
            "ours deberta v3": plain("v3"),
            "ours deberta v3, decoder": published("v3"),
        },
        "xlnet": {
            "ours xlnet": dataclasses.replace(
                base,
                model=registry.write("xlnet", recurrent),
                corruption=f"permutation(reuse={reuse}, max_predictions={most})",
                example=f"xlnet_stream(reuse={reuse}, directions='both')",
            )
        },
    }


def twin_spec(shape: step.Shape, family: str) -> twins.Spec:
    """The twin of our arm."""
    layers, width, heads = step.sizes(shape.size)
    memory, reuse = remembered(shape)
    return twins.Spec(
        family,
        *(layers, width, heads, shape.batch, shape.length, shape.predictions),
        memory=memory,
        reuse=reuse,
    )


def common(shape: step.Shape) -> list[turns.Arm]:
    """Both BERTs, in their best form: what the others are relative to."""
    mine = ours.Spec(size=shape.size, batch=shape.batch, length=shape.length)
    theirs = peer.Spec(
        *(*step.sizes(shape.size), shape.batch, shape.length, shape.predictions),
        malloc=True,
        bfloat16=True,
        gathered=True,
    )
    return [
        turns.Arm(BERT, "ours", dataclasses.asdict(mine)),
        turns.Arm(HF_BERT, "peer", dataclasses.asdict(theirs)),
    ]


def arms(shape: step.Shape, family: str) -> tuple[Group, list[turns.Arm]]:
    """The arms of a family alone."""
    mine = our_specs(shape)[family]
    best = twin_spec(shape, family)
    theirs = {
        f"HF {family}, bf16": best,
        f"HF {family}, float32": dataclasses.replace(best, bfloat16=False),
    }
    made = [turns.Arm(name, "ours", dataclasses.asdict(spec)) for name, spec in mine.items()]
    made += [turns.Arm(name, "twins", dataclasses.asdict(spec)) for name, spec in theirs.items()]
    return Group(family, tuple(mine), tuple(theirs)), made


def runs(
    shape: step.Shape, families: list[str], together: str, room: float
) -> list[tuple[list[Group], list[turns.Arm]]]:
    """What is measured in one go: all families, or one after another.

    Args:
        shape: of all arms.
        families: which.
        together: ``on``, ``off``, or ``auto``: if the arms fit in ``room``.
        room: GiB.
    """
    parts = [arms(shape, family) for family in families]
    every = common(shape) + [arm for _, found in parts for arm in found]
    relative = step.useful_flops(shape) / step.useful_flops(step.CPU["base"])
    need = len(every) * (PROCESS + 7.0 * relative)
    if together == "on" or (together == "auto" and need <= room):
        return [([group for group, _ in parts], every)]
    print(
        f"  {len(every)} arms would take {need:.0f} GiB, {room:.0f} are free: a run for each family"
        if together == "auto"
        else "  a run for each family",
        flush=True,
    )
    return [([group], common(shape) + found) for group, found in parts]


def compared(group: Group, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A family's figures; those of arms that died are absent.

    ``of_bert``: ms over our BERT's; ``twin``: the faster one of the twins; ``twin_of_bert``: its ms
    over Hugging Face's BERT; ``speed``: the twin's ms over ours, ``core_speed`` of core time.
    """
    figures: dict[str, Any] = {"family": group.family}
    alive = [found[name] for name in group.theirs if "ms" in found[name]]
    mine, bert, hf_bert = (found[name] for name in (group.ours[0], BERT, HF_BERT))
    if "ms" in mine and "ms" in bert:
        figures["of_bert"] = mine["ms"] / bert["ms"]
    if not alive:
        return figures
    twin = min(alive, key=lambda result: result["ms"])
    figures["twin"] = twin["arm"]
    if "ms" in hf_bert:
        figures["twin_of_bert"] = twin["ms"] / hf_bert["ms"]
    if "ms" in mine:
        figures["speed"] = twin["ms"] / mine["ms"]
        figures["core_speed"] = twin["cpu_ms"] / mine["cpu_ms"]
    return figures


def verdicts(figures: dict[str, Any]) -> list[str]:
    """Whether the goals were met, one line each."""
    lines, family = [], figures["family"]
    if "speed" in figures:
        met = "met" if figures["speed"] >= 1 else "MISSED"
        lines.append(f"{family}: {figures['speed']:.2f} times its twin's speed (goal 1): {met}")
    if family.startswith("deberta") and {"of_bert", "twin_of_bert"} <= figures.keys():
        mine, theirs = figures["of_bert"], figures["twin_of_bert"]
        met = "met" if mine < theirs else "MISSED"
        lines.append(
            f"{family}: {mine:.2f} of our BERT's step, PyTorch's {theirs:.2f} of PyTorch's "
            f"(goal: less): {met}"
        )
    return lines


def table(groups: list[Group], results: list[dict[str, Any]]) -> str:
    """One line an arm: ms, relative to the BERT of its side, and our speed relative to the twin."""
    found = {result["arm"]: result for result in results}
    heads = "".join(f"{head:>9}" for head in ("ms", "of BERT", "to twin", "core-ms", "clean"))
    lines = [f"{'arm':28}{heads}  note"]
    names = [BERT, HF_BERT] + [n for group in groups for n in (*group.ours, *group.theirs)]
    of_group = {name: group for group in groups for name in group.ours}
    for name in names:
        result, bert = found[name], found[BERT if name.startswith("ours") else HF_BERT]
        clean = f"{result['clean']}/{result['steps']}"
        if "ms" not in result:
            lines.append(f"{name:28}" + f"{'-':>9}" * 4 + f"{clean:>9}  {result['died']}")
            continue
        relative = f"{result['ms'] / bert['ms']:.2f}" if "ms" in bert else "-"
        theirs = of_group[name].theirs if name in of_group else ()
        if name == BERT:
            theirs = (HF_BERT,)
        best = min((found[n]["ms"] for n in theirs if "ms" in found[n]), default=None)
        speed = "-" if best is None else f"{best / result['ms']:.2f}"
        note = result["died"] or ("" if result["clean"] >= 3 else "loaded machine")
        lines.append(
            f"{name:28}{result['ms']:9.0f}{relative:>9}{speed:>9}{result['cpu_ms']:9.0f}"
            f"{clean:>9}  {note}"
        )
    return "\n".join(lines)


def measure(shape: step.Shape, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All runs of a shape."""
    measured = []
    room = 0.9 * machine.memory() / 2**30
    for groups, found in runs(shape, options.families, options.together, room):
        workers = turns.run(
            found, options.rounds, options.patience, lambda line: print(line, flush=True)
        )
        results = [turns.summary(worker) for worker in workers]
        print(table(groups, results))
        figures = [compared(group, {r["arm"]: r for r in results}) for group in groups]
        for line in (line for one in figures for line in verdicts(one)):
            print(line, flush=True)
        measured.append({"arms": results, "families": figures})
    return measured


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="mini", choices=list(SHAPES))
    parser.add_argument(
        "--families", nargs="+", default=list(twins.FAMILIES), choices=list(twins.FAMILIES)
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each arm")
    parser.add_argument("--patience", type=float, default=30, help="s a run to wait for quiet")
    parser.add_argument("--together", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    shape = SHAPES[options.shape]
    about = machine.describe()
    print(machine.headline(about))
    print(shape, flush=True)
    result = {
        "machine": about,
        **dataclasses.asdict(shape),
        "runs": measure(shape, options),
        "after": machine.describe(),
    }
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
