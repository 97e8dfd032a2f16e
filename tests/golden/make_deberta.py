"""Write DeBERTa's golden arrays: what transformers computes for random weights and rows.

    PYTHONPATH=tests python -m golden.make_deberta      # needs transformers and torch

As ``make.py``: weights (``w/...``), batch (``b/...``) and results (``r/...``). transformers has no
Enhanced Mask Decoder, but the layers of its v2 take a query of their own: the decoder is built of
them here, with a random table of positions (``w/positions``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "deberta"
Case = Mapping[str, Any]
# A case's place decides its seed: add new ones at the end. All are longer than their reach.
CASES: dict[str, dict[str, Any]] = {
    "v1_3x20": {
        "version": "v1",
        "layers": 3,
        "width": 20,
        "heads": 5,
        "ffn": 14,
        "embedding": 20,
        "reach": 6,
        "buckets": 0,
        "convolution": 0,
        "vocab": 37,
        "length": 11,
    },
    "v2_3x18": {
        "version": "v2",
        "layers": 3,
        "width": 18,
        "heads": 3,
        "ffn": 22,
        "embedding": 18,
        "reach": 12,
        "buckets": 8,
        "convolution": 3,
        "vocab": 31,
        "length": 15,
    },
    "v3_2x20": {
        "version": "v2",
        "layers": 2,
        "width": 20,
        "heads": 4,
        "ffn": 18,
        "embedding": 9,
        "reach": 9,
        "buckets": 10,
        "convolution": 0,
        "vocab": 41,
        "length": 13,
    },
}
LENGTHS = (1.0, 0.6, 0.0, 0.85)  # of the rows, as shares of T; at least one token
SLOTS = 4


def rows(case: Case, seed: int) -> dict[str, np.ndarray]:
    """A batch: ids, lengths, positions to predict."""
    rng = np.random.default_rng(seed)
    count, length = len(LENGTHS), case["length"]
    sizes = np.array([max(1, round(share * length)) for share in LENGTHS])
    valid = np.arange(length) < sizes[:, None]
    at = np.zeros((count, SLOTS), np.int32)
    weights = np.zeros((count, SLOTS), np.float32)
    for b, size in enumerate(sizes):
        chosen = np.sort(rng.choice(size, min(size, SLOTS - b % 2), replace=False))
        at[b, : len(chosen)], weights[b, : len(chosen)] = chosen, 1
    targets = rng.integers(0, case["vocab"], at.shape) * (weights > 0)
    ids = rng.integers(1, case["vocab"], (count, length))
    return {
        "ids": np.where(valid, ids, 0).astype(np.int32),
        "valid": valid,
        "at": at,
        "weights": weights,
        "targets": targets.astype(np.int32),
    }


def torch_model(case: Case, seed: int) -> Any:
    """A network whose every parameter is random, LayerNorms and biases too.

    transformers does not cut distances to the reach before it takes their logarithm, as the
    published code does, and so reads row 0 for the far side of a long text, where that reads row 1:
    both hold the same numbers here.
    """
    import torch
    import transformers

    sizes = {
        "vocab_size": case["vocab"],
        "hidden_size": case["width"],
        "embedding_size": case["embedding"],
        "num_hidden_layers": case["layers"],
        "num_attention_heads": case["heads"],
        "intermediate_size": case["ffn"],
        "max_position_embeddings": case["length"],
        "type_vocab_size": 0,
        "relative_attention": True,
        "max_relative_positions": case["reach"],
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "attn_implementation": "eager",
    }
    torch.manual_seed(seed)
    if case["version"] == "v1":
        model = transformers.DebertaForMaskedLM(transformers.DebertaConfig(**sizes))
    else:
        more = {"conv_kernel_size": 3, "conv_act": "gelu"} if case["convolution"] else {}
        config = transformers.DebertaV2Config(
            **sizes,
            position_buckets=case["buckets"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            **more,
        )
        model = transformers.DebertaV2ForMaskedLM(config)
    model = model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape) * 0.2
            weight.copy_(noise + 1 if name.endswith("LayerNorm.weight") else noise)
        if case["buckets"]:
            table = model.deberta.encoder.rel_embeddings.weight
            table[0] = table[1]
    return model


def decoded(model: Any, hidden: tuple[Any, ...], valid: Any, positions: Any) -> Any:
    """The Enhanced Mask Decoder, of transformers' last layer."""
    encoder = model.deberta.encoder
    below = hidden[-2]
    shared = {
        "attention_mask": encoder.get_attention_mask(valid),
        "relative_pos": encoder.get_rel_pos(below),
        "rel_embeddings": encoder.get_rel_embedding(),
    }
    query = below + positions[None]
    for _ in range(2):
        query, _ = encoder.layer[-1](below, query_states=query, **shared)
    return query


def gradients(case: Case) -> tuple[str, ...]:
    """Parameters whose gradients are compared: of each kind, at the bottom and at the top."""
    top = f"deberta.encoder.layer.{case['layers'] - 1}."
    inside = "attention.self."
    bottom = f"deberta.encoder.layer.0.{inside}"
    own = (
        (f"{bottom}in_proj.weight", f"{bottom}pos_proj.weight", f"{top}{inside}pos_q_proj.weight")
        if case["version"] == "v1"
        else (f"{bottom}query_proj.weight", f"{top}{inside}key_proj.bias", "positions")
    )
    found = (
        "deberta.embeddings.word_embeddings.weight",
        "deberta.encoder.rel_embeddings.weight",
        f"{top}output.dense.weight",
        "cls.predictions.bias",
        *own,
    )
    if case["embedding"] != case["width"]:
        found += ("deberta.embeddings.embed_proj.weight",)
    if case["convolution"]:
        found += ("deberta.encoder.conv.conv.weight",)
    return found


def compute(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Everything of a case: weights, batch and results, by name."""
    import torch

    model, batch = torch_model(case, seed), rows(case, seed)
    positions = torch.nn.Parameter(torch.randn(case["length"], case["width"]) * 0.2)
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    outputs = model.deberta(
        input_ids=tensors["ids"].long(),
        attention_mask=tensors["valid"].long(),
        output_hidden_states=True,
        output_attentions=True,
    )
    results = {
        "hidden": torch.stack(outputs.hidden_states),
        "shares": torch.stack(outputs.attentions),
    }
    tops = {"plain": outputs.last_hidden_state}
    if case["version"] != "v1":  # where a query of its own fails
        valid = tensors["valid"].long()
        tops["decoded"] = decoded(model, outputs.hidden_states, valid, positions)
    head, table = model.cls.predictions, model.deberta.embeddings.word_embeddings.weight
    for name, top in tops.items():
        logits = head.transform(top) @ table.T + head.bias
        at = tensors["at"].long()[..., None].expand(-1, -1, logits.shape[-1])
        picked = torch.gather(logits, 1, at)
        nats = torch.nn.functional.cross_entropy(
            picked.flatten(0, 1), tensors["targets"].long().flatten(), reduction="none"
        )
        used = tensors["weights"].flatten()
        loss = (nats * used).sum() / used.sum()
        results |= {f"{name}_logits": picked, f"{name}_mlm": loss}
    loss.backward()  # of the last one
    parameters = dict(model.named_parameters()) | {"positions": positions}
    results |= {f"grad/{n}": parameters[n].grad for n in gradients(case)}
    kept = {k: v for k, v in parameters.items() if k != "cls.predictions.decoder.bias"}
    arrays = {f"w/{k}": v for k, v in kept.items()} | {f"r/{k}": v for k, v in results.items()}
    return {k: v.detach().numpy() for k, v in arrays.items()} | {
        f"b/{k}": v for k, v in batch.items()
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
