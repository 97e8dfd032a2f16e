"""How fast devices can multiply: published peaks, and a measurement where nothing is published."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bert_variants.ops.precision import PRECISIONS


@dataclasses.dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        name: what people call it.
        kinds: beginnings of jax's ``device_kind``, the more special ones first.
        flops: peak of dense bfloat16 products a second.
        memory: bytes.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: float


# Dense bfloat16 with float32 sums. NVIDIA: data sheets of the H100, H200, A100 and L4 (tensor core,
# the figure without sparsity). TPU: "System architecture" pages of Google Cloud TPU, per chip,
# which from v4 on is one jax device.
DEVICES = (
    Device("H100 PCIe", ("NVIDIA H100 PCIe",), 756e12, 80e9),
    Device("H100 NVL", ("NVIDIA H100 NVL",), 835e12, 94e9),
    Device("H100", ("NVIDIA H100",), 989.4e12, 80e9),
    Device("H200", ("NVIDIA H200", "NVIDIA GH200"), 989.4e12, 141e9),
    Device("A100 80 GB", ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"), 312e12, 80e9),
    Device("A100", ("NVIDIA A100",), 312e12, 40e9),
    Device("L4", ("NVIDIA L4",), 121e12, 24e9),
    Device("TPU v4", ("TPU v4",), 275e12, 32e9),
    Device("TPU v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16e9),
    Device("TPU v5p", ("TPU v5p", "TPU v5"), 459e12, 95e9),
    Device("TPU v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32e9),
)


@dataclasses.dataclass(frozen=True)
class Peak:
    """Floating-point operations a second of all devices together, and where the number is from."""

    flops: float
    source: str


def known(device_kind: str) -> Device | None:
    """The device of that ``device_kind``; "NVIDIA L40S" is no "NVIDIA L4"."""
    for device in DEVICES:
        for kind in device.kinds:
            rest = device_kind[len(kind) :]
            if device_kind.startswith(kind) and not rest[:1].isalnum():
                return device
    return None


def peak(devices: Sequence[Any], precision: str) -> Peak | None:
    """The peak of some devices together; None where it is not known.

    Accelerators: the published bfloat16 figure. CPU: measured now, in a third of a second; the
    devices of one process share its cores, so their number does not count.

    Args:
        devices: jax devices.
        precision: of the products (see ops/precision.py), for the measurement.
    """
    if devices[0].platform == "cpu":
        return Peak(measured(precision), f"{precision} products measured on this CPU")
    device = known(devices[0].device_kind)
    if device is None:
        return None
    return Peak(device.flops * len(devices), f"{len(devices)} x {device.name}, published bfloat16")


def measured(precision: str, *, size: int = 1536, seconds: float = 0.3) -> float:
    """The best rate of a square product on the default device, in operations a second."""
    kind = PRECISIONS[precision].products
    x = jnp.ones((size, size), kind)
    multiply = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    multiply(x).block_until_ready()
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds or not best:
        start = time.perf_counter()
        multiply(x).block_until_ready()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
