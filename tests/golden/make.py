"""Write the golden arrays: what transformers computes for random weights and rows.

    PYTHONPATH=tests python -m golden.make      # needs transformers and torch

Each file holds the weights under their PyTorch names (``w/...``), the batch (``b/...``), the
results (``r/...``) and the configuration, all float32 or integers; both are odd on purpose: heads
that are not D / 64, odd vocabularies, more than two segments, odd lengths, a row of one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden.networks import NETWORKS

FOLDER = Path(__file__).parent
Case = Mapping[str, Any]
# A case's place decides its seed: add new ones at the end.
CASES: dict[str, dict[str, Any]] = {
    "bert_3x18": {
        "network": "bert",
        "layers": 3,
        "width": 18,
        "heads": 3,
        "ffn": 28,
        "positions": 19,
        "segments": 3,
        "vocab": 61,
        "length": 13,
    },
    "bert_2x20": {
        "network": "bert",
        "layers": 2,
        "width": 20,
        "heads": 5,
        "ffn": 12,
        "positions": 11,
        "segments": 2,
        "vocab": 37,
        "length": 11,
    },
    "roberta_2x18": {
        "network": "roberta",
        "layers": 2,
        "width": 18,
        "heads": 3,
        "ffn": 26,
        "positions": 13,
        "segments": 1,
        "vocab": 47,
        "length": 13,
    },
    "albert_3x20": {
        "network": "albert",
        "layers": 3,
        "width": 20,
        "heads": 5,
        "ffn": 14,
        "embedding": 7,
        "groups": 1,
        "positions": 12,
        "segments": 2,
        "vocab": 41,
        "length": 9,
    },
    "albert_5x12_2_groups": {
        "network": "albert",
        "layers": 5,
        "width": 12,
        "heads": 3,
        "ffn": 22,
        "embedding": 15,
        "groups": 2,
        "positions": 11,
        "segments": 3,
        "vocab": 37,
        "length": 11,
    },
}
LENGTHS = (1.0, 0.6, 0.0, 0.85)  # of the rows, as shares of T; at least one token
SLOTS = 4


def rows(case: Case, seed: int) -> dict[str, np.ndarray]:
    """A batch: ids, segments, lengths, positions to predict, labels."""
    rng = np.random.default_rng(seed)
    pad = NETWORKS[case["network"]].pad
    count, length = len(LENGTHS), case["length"]
    sizes = np.array([max(1, round(share * length)) for share in LENGTHS])
    valid = np.arange(length) < sizes[:, None]
    at = np.zeros((count, SLOTS), np.int32)
    weights = np.zeros((count, SLOTS), np.float32)
    for b, size in enumerate(sizes):
        chosen = np.sort(rng.choice(size, min(size, SLOTS - b % 2), replace=False))
        at[b, : len(chosen)], weights[b, : len(chosen)] = chosen, 1
    targets = rng.integers(0, case["vocab"], at.shape) * (weights > 0)
    ids = rng.integers(pad + 1, case["vocab"], (count, length))
    return {
        "ids": np.where(valid, ids, pad).astype(np.int32),
        "segments": (rng.integers(0, case["segments"], (count, length)) * valid).astype(np.int32),
        "valid": valid,
        "at": at,
        "weights": weights,
        "targets": targets.astype(np.int32),
        "labels": rng.integers(0, 2, count).astype(np.int32),
    }


def torch_model(case: Case, seed: int) -> Any:
    """A network whose every parameter is random, LayerNorms and biases too."""
    import torch

    torch.manual_seed(seed)
    model = NETWORKS[case["network"]].build(case).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape) * 0.2
            scale = name.endswith(("LayerNorm.weight", "layer_norm.weight"))
            weight.copy_(noise + 1 if scale else noise)
    return model


def raw_scores(model: Any, attentions: list[Any]) -> list[Any]:
    """Hooks that keep q k / sqrt(H) of each layer, which transformers computes and forgets."""
    import torch

    kept: list[Any] = []

    def hook(attention: Any, args: Any, kwargs: Any, out: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        heads = model.config.num_attention_heads

        def split(dense: Any) -> Any:
            return dense(hidden).unflatten(-1, (heads, -1)).transpose(1, 2)

        q, k = split(attention.query), split(attention.key)
        kept.append(torch.matmul(q, k.transpose(-1, -2)) / q.shape[-1] ** 0.5)

    for attention in attentions:
        attention.register_forward_hook(hook, with_kwargs=True)
    return kept


def compute(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Everything of a case: weights, batch and results, by name."""
    import torch

    network = NETWORKS[case["network"]]
    model, batch = torch_model(case, seed), rows(case, seed)
    kept = raw_scores(model, network.attentions(model))
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    outputs = getattr(model, network.trunk)(
        input_ids=tensors["ids"].long(),
        token_type_ids=tensors["segments"].long(),
        attention_mask=tensors["valid"].long(),
        output_hidden_states=True,
    )
    logits = network.token_logits(model, outputs.last_hidden_state)
    picked = torch.gather(
        logits, 1, tensors["at"].long()[..., None].expand(-1, -1, logits.shape[-1])
    )
    nats = torch.nn.functional.cross_entropy(
        picked.flatten(0, 1), tensors["targets"].long().flatten(), reduction="none"
    )
    used = tensors["weights"].flatten()
    losses = {"mlm": (nats * used).sum() / used.sum()}
    results = {
        "hidden": torch.stack(outputs.hidden_states),
        "scores": torch.stack(kept),
        "token_logits": picked,
    }
    if network.pair_logits:
        pairs = network.pair_logits(model, outputs.pooler_output)
        losses[network.pair] = torch.nn.functional.cross_entropy(pairs, tensors["labels"].long())
        results |= {"pooled": outputs.pooler_output, "pair_logits": pairs}
    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    results |= losses | {f"grad/{n}": parameters[n].grad for n in network.gradients(case)}
    arrays = {f"w/{k}": v for k, v in parameters.items()}
    arrays |= {f"r/{k}": v for k, v in results.items()}
    return {k: v.detach().numpy() for k, v in arrays.items()} | {
        f"b/{k}": v for k, v in batch.items()
    }


def main() -> None:
    """Write all cases."""
    for seed, (name, case) in enumerate(CASES.items()):
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **compute(case, seed))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
