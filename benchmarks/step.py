"""Our training step against Hugging Face PyTorch's, in one interleaved run.

    python -m benchmarks.step                          mini 32x128, then base 4x512, on the CPU
    python -m benchmarks.step --shapes mini --rounds 15 --json out/step.json
    python -m benchmarks.step --device gpu             bfloat16, base and large at 128 and 512

Arms on the CPU: Hugging Face as people run it (sdpa attention), the same with our allocator
settings, its best form (allocator, bfloat16 autocast, head on predicted positions, fused AdamW),
and ours as ``bert-variants train`` runs it, in float32 too.

Model FLOPs utilisation, on a GPU: useful operations a second over ``--peak`` (dense bfloat16).
Useful operations of a step, B rows of T tokens, P predicted, are 6 for each weight of a matrix
product and each token that meets it, plus attention:
6 B T L (4 D^2 + 2 D F) + 12 B T^2 L D + 6 B P (D^2 + D V).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from benchmarks import machine, ours, peer, turns


@dataclasses.dataclass(frozen=True)
class Shape:
    """A size at a batch and a length."""

    size: str
    batch: int
    length: int

    @property
    def predictions(self) -> int:
        """P: 15 %, rounded up, as our corruption makes it."""
        return -(-15 * self.length // 100)


CPU = {"mini": Shape("mini", 32, 128), "base": Shape("base", 4, 512)}
GPU = {
    "base-128": Shape("base", 512, 128),
    "base-512": Shape("base", 128, 512),
    "large-128": Shape("large", 256, 128),
    "large-512": Shape("large", 64, 512),
}
TOY = {"toy": Shape("tiny", 8, 32)}

BETWEEN = ("ours float32", "HF malloc")  # arms that explain the others


def useful_flops(shape: Shape) -> float:
    """See the module's docstring."""
    layers, width, _ = sizes(shape.size)
    tokens = shape.batch * shape.length
    return (
        6 * tokens * layers * 12 * width**2
        + 12 * tokens * shape.length * layers * width
        + 6 * shape.batch * shape.predictions * (width**2 + width * ours.VOCAB)
    )


def sizes(size: str) -> tuple[int, int, int]:
    """Layers, width, heads."""
    from bert_variants.configs import bert

    return bert.SIZES[size]


def arms(shape: Shape, *, pairs: bool, device: str, compiled: bool) -> list[turns.Arm]:
    """Everybody who takes part; the first is what speeds are relative to."""
    layers, width, heads = sizes(shape.size)
    base = peer.Spec(
        *(layers, width, heads, shape.batch, shape.length, shape.predictions),
        pairs=pairs,
        device="cuda" if device == "gpu" else "cpu",
    )
    mine = ours.Spec(
        size=shape.size,
        batch=shape.batch,
        length=shape.length,
        objectives="mlm + nsp" if pairs else "mlm",
    )
    if device == "gpu":
        best = dataclasses.replace(base, bfloat16=True, gathered=True)
        theirs = {
            "HF bf16 sdpa": dataclasses.replace(base, bfloat16=True),
            "HF bf16 gathered": best,
        }
        own = {"ours bf16": mine}
    else:
        best = dataclasses.replace(base, malloc=True, bfloat16=True, gathered=True)
        theirs = {
            "HF as people run it": base,
            "HF malloc": dataclasses.replace(base, malloc=True),
            "HF best (malloc, bf16, gathered)": best,
        }
        own = {"ours float32": dataclasses.replace(mine, precision="float32"), "ours": mine}
    if compiled:
        theirs["HF best + torch.compile"] = dataclasses.replace(best, compiled=True)
    return [turns.Arm(n, "peer", dataclasses.asdict(s)) for n, s in theirs.items()] + [
        turns.Arm(n, "ours", dataclasses.asdict(s)) for n, s in own.items()
    ]


def fitting(found: list[turns.Arm], shape: Shape) -> list[turns.Arm]:
    """The arms that this machine can hold at once; those in between are left out, and it is said.

    All arms wait in memory for their turns: 7 GiB each at base 4x512.
    """
    each = 7.0 * useful_flops(shape) / useful_flops(CPU["base"])
    room = max(2, int(machine.memory() / 2**30 / max(each, 1e-9)))
    wanted = [arm for arm in found if arm.name not in BETWEEN]
    between = [arm for arm in found if arm.name in BETWEEN][: max(0, room - len(wanted))]
    for arm in found:
        if arm.name in BETWEEN and arm not in between:
            print(f"  left out, for want of memory ({each:.0f} GiB an arm): {arm.name}", flush=True)
    return [arm for arm in found if arm in wanted or arm in between]


def measure(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """One shape: all arms in turn."""
    print(f"{shape}, {'MLM + NSP' if options.nsp else 'MLM'}", flush=True)
    found = arms(shape, pairs=options.nsp, device=options.device, compiled=options.compile)
    if options.only:
        found = [arm for arm in found if any(part in arm.name for part in options.only)]
    elif options.device == "cpu":
        found = fitting(found, shape)
    workers = turns.run(found, options.rounds, options.patience, lambda s: print(s, flush=True))
    results = [turns.summary(w) for w in workers]
    print(turns.table(results))
    flops = useful_flops(shape)
    for r in results:
        if "ms" in r:
            r["useful_gflops"] = flops / r["ms"] / 1e6
            print(f"{r['arm']:34} {r['useful_gflops']:,.0f} useful GFLOP/s")
            if options.peak:
                r["mfu"] = r["useful_gflops"] / options.peak / 1e3
                print(f"{r['arm']:34} {r['mfu']:.1%} of {options.peak} TFLOP/s")
    return {**dataclasses.asdict(shape), "arms": results}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--shapes", nargs="+", default=None, help="mini base; base-128 ...; toy")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each arm")
    parser.add_argument("--patience", type=float, default=30, help="s a shape to wait for quiet")
    parser.add_argument("--nsp", action="store_true", help="with next-sentence prediction")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--only", nargs="*", default=[], help="arms whose name holds one of these")
    parser.add_argument("--peak", type=float, default=0, help="TFLOP/s of the GPU, for MFU")
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    known = {**(GPU if options.device == "gpu" else CPU), **TOY}
    shapes = options.shapes or [name for name in known if name not in TOY]
    about = machine.describe()
    print(machine.headline(about))
    result = {
        "machine": about,
        "shapes": [measure(known[name], options) for name in shapes],
        "after": machine.describe(),
    }
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
