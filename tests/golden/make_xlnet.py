"""Write the golden arrays of XLNet: two streams over three rows of a stream, with memory.

    PYTHONPATH=tests python -m golden.make_xlnet      # needs transformers and torch

Each file holds the weights under their PyTorch names (``w/...``), a batch a row (``b/0/...``),
and the results (``r/0/...``). The masks are made here from ranks and kinds of tokens, as
zihangdai/xlnet:data_utils.py makes them; the order that our network reads is stored beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "xlnet"
Case = Mapping[str, Any]
CASES: dict[str, dict[str, Any]] = {
    # memory longer than a row, of which a part is remembered; the last row is padded
    "two_streams": {
        "layers": 3,
        "width": 18,
        "heads": 3,
        "ffn": 22,
        "vocab": 37,
        "length": 9,
        "first": 5,
        "memory": 11,
        "reuse": 6,
        "clamp": 0,
        "bi_data": False,
        "ordered": True,
        "rows": 3,
    },
    # no order, far distances clamped, half of the rows backwards
    "both_directions": {
        "layers": 2,
        "width": 20,
        "heads": 5,
        "ffn": 14,
        "vocab": 31,
        "length": 8,
        "first": 8,
        "memory": 5,
        "reuse": 0,
        "clamp": 6,
        "bi_data": True,
        "ordered": False,
        "rows": 2,
    },
}
COUNT, SLOTS = 4, 3
GRADIENTS = (
    "transformer.word_embedding.weight",
    "transformer.mask_emb",
    "transformer.layer.0.rel_attn.q",
    "transformer.layer.0.rel_attn.r_w_bias",
    "transformer.layer.1.rel_attn.k",
    "transformer.layer.1.rel_attn.r",
    "transformer.layer.1.rel_attn.r_r_bias",
    "transformer.layer.1.rel_attn.r_s_bias",
    "transformer.layer.1.rel_attn.seg_embed",
    "transformer.layer.0.rel_attn.o",
    "transformer.layer.1.rel_attn.layer_norm.weight",
    "transformer.layer.1.ff.layer_1.weight",
    "lm_loss.bias",
)


def rows(case: Case, rng: np.random.Generator, *, padded: bool) -> dict[str, np.ndarray]:
    """A batch: text, segments, targets, their order, and the masks that follow from it."""
    length, first = case["length"], case["first"]
    sizes = np.full(COUNT, length)
    if padded:
        sizes = rng.integers(min(SLOTS + 1, length), length + 1, COUNT)
        sizes[-1] = length
    valid = np.arange(length) < sizes[:, None]
    at = np.zeros((COUNT, SLOTS), np.int32)
    weights = np.zeros((COUNT, SLOTS), np.float32)
    order = np.zeros((COUNT, length), np.int32)
    masks = np.zeros((COUNT, length, length), np.float32)
    for b, size in enumerate(sizes):
        target, functional = np.zeros(length, bool), np.zeros(length, bool)
        # the first token stays visible: a target that sees nothing differs by convention
        free = np.arange(1, size) if size > 1 else np.zeros(0, int)
        kept = np.sort(rng.choice(free, min(free.size, SLOTS - b % 2), replace=False))
        at[b, : kept.size], weights[b, : kept.size] = kept, 1
        target[kept] = True
        rest = np.setdiff1d(free, kept)
        functional[rest[: rest.size // 2]] = True
        order[b], masks[b] = _order(rng, target, functional, first)
    if not case["ordered"]:
        masks = np.broadcast_to(np.eye(length, dtype=np.float32), masks.shape).copy()
    return {
        "ids": (rng.integers(1, case["vocab"], (COUNT, length)) * valid).astype(np.int32),
        "segments": (rng.integers(0, 3, (COUNT, length)) * valid).astype(np.int32),
        "valid": valid,
        "at": at,
        "weights": weights,
        "targets": (rng.integers(0, case["vocab"], at.shape) * (weights > 0)).astype(np.int32),
        "order": order,
        "perm_mask": masks,
    }


def _order(
    rng: np.random.Generator, target: np.ndarray, functional: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """The order of two parts, one after the other, and the released rule: 1 where i may not read j.

    Ordinary tokens have the place -1, targets and functional tokens their rank; all but targets
    read what has their own rank too. Of the second part the first sees nothing.
    """
    length = target.size
    ranks = np.concatenate([rng.permutation(first), rng.permutation(length - first)])
    ordinary = ~target & ~functional
    place = np.where(ordinary, -1, ranks)
    own = np.where(target, place, place + 1)
    blocked = (own[:, None] <= place[None, :]) & ~ordinary[None, :]
    late = np.arange(length) >= first
    blocked = np.where(late[:, None] == late[None, :], blocked, ~late[:, None] & late[None, :])
    return (place + 1 + late * (first + 1)).astype(np.int32), blocked.astype(np.float32)


def torch_model(case: Case, seed: int) -> Any:
    """A network whose every parameter is random, LayerNorms and biases too."""
    import torch
    import transformers

    settings = transformers.XLNetConfig(
        vocab_size=case["vocab"],
        d_model=case["width"],
        n_layer=case["layers"],
        n_head=case["heads"],
        d_inner=case["ffn"],
        ff_activation="gelu_new",
        untie_r=True,
        attn_type="bi",
        layer_norm_eps=1e-12,
        dropout=0.0,
        mem_len=case["memory"],
        reuse_len=case["reuse"],
        clamp_len=case["clamp"] or -1,
        bi_data=case["bi_data"],
    )
    torch.manual_seed(seed)
    model = transformers.XLNetLMHeadModel(settings).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape) * 0.2
            weight.copy_(noise + 1 if name.endswith("layer_norm.weight") else noise)
    return model


def compute(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Everything of a case: weights, batches and results, by name."""
    import torch

    model, rng = torch_model(case, seed), np.random.default_rng(seed)
    arrays: dict[str, Any] = {f"w/{k}": v for k, v in model.named_parameters()}
    memory, loss = None, 0.0
    for number in range(case["rows"]):
        batch = rows(case, rng, padded=number == case["rows"] - 1)
        arrays |= {f"b/{number}/{k}": v for k, v in batch.items()}
        tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
        mapping = torch.nn.functional.one_hot(tensors["at"].long(), case["length"]).float()
        outputs = model(
            input_ids=tensors["ids"].long(),
            token_type_ids=tensors["segments"].long(),
            attention_mask=tensors["valid"].float(),
            perm_mask=tensors["perm_mask"],
            target_mapping=mapping * tensors["weights"][..., None],
            mems=memory,
            use_mems=True,
            output_hidden_states=True,
        )
        memory = outputs.mems
        content = torch.stack(outputs.hidden_states[::2])  # of both streams by turns
        arrays |= {f"r/{number}/hidden": content, f"r/{number}/token_logits": outputs.logits}
        nats = torch.nn.functional.cross_entropy(
            outputs.logits.flatten(0, 1), tensors["targets"].long().flatten(), reduction="none"
        )
        used = tensors["weights"].flatten()
        loss = (nats * used).sum() / used.sum().clamp(min=1)
    loss.backward()
    parameters = dict(model.named_parameters())
    arrays |= {"r/loss": loss} | {f"r/grad/{n}": parameters[n].grad for n in GRADIENTS}
    return {
        k: v if isinstance(v, np.ndarray) else v.detach().numpy().copy() for k, v in arrays.items()
    }


def main() -> None:
    """Write all cases."""
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, case) in enumerate(CASES.items()):
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **compute(case, seed))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
