"""Write the golden arrays: what transformers' BERT computes for random weights and rows.

    python tests/golden/make.py            # needs transformers and torch

Each file holds the weights under their PyTorch names (``w/...``), the batch (``b/...``), the
results (``r/...``) and the configuration, all float32 or integers; both are odd on purpose: heads
that are not D / 64, odd vocabularies, more than two segments, odd lengths, a row of one token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
CASES: dict[str, dict[str, int]] = {
    "bert_3x18": {
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
        "layers": 2,
        "width": 20,
        "heads": 5,
        "ffn": 12,
        "positions": 11,
        "segments": 2,
        "vocab": 37,
        "length": 11,
    },
}
LENGTHS = (1.0, 0.6, 0.0, 0.85)  # of the rows, as shares of T; at least one token
SLOTS = 4
# parameters whose gradients are compared: of each kind, at the bottom and at the top
GRADIENTS = (
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.1.attention.output.dense.weight",
    "bert.encoder.layer.1.intermediate.dense.bias",
    "bert.pooler.dense.weight",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.bias",
    "cls.seq_relationship.weight",
)


def rows(case: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """A batch: ids, segments, lengths, positions to predict, labels."""
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
    return {
        "ids": (rng.integers(1, case["vocab"], (count, length)) * valid).astype(np.int32),
        "segments": (rng.integers(0, case["segments"], (count, length)) * valid).astype(np.int32),
        "valid": valid,
        "at": at,
        "weights": weights,
        "targets": targets.astype(np.int32),
        "labels": rng.integers(0, 2, count).astype(np.int32),
    }


def torch_model(case: dict[str, int], seed: int) -> Any:
    """A BertForPreTraining whose every parameter is random, LayerNorms and biases too."""
    import torch
    import transformers

    torch.manual_seed(seed)
    settings = transformers.BertConfig(
        vocab_size=case["vocab"],
        hidden_size=case["width"],
        num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"],
        intermediate_size=case["ffn"],
        max_position_embeddings=case["positions"],
        type_vocab_size=case["segments"],
        hidden_act="gelu_new",
        layer_norm_eps=1e-12,
        attn_implementation="eager",
    )
    model = transformers.BertForPreTraining(settings).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape) * 0.2
            weight.copy_(noise + 1 if name.endswith("LayerNorm.weight") else noise)
    return model


def raw_scores(model: Any) -> list[Any]:
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

    for layer in model.bert.encoder.layer:
        layer.attention.self.register_forward_hook(hook, with_kwargs=True)
    return kept


def compute(case: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Everything of a case: weights, batch and results, by name."""
    import torch

    model, batch = torch_model(case, seed), rows(case, seed)
    kept = raw_scores(model)
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    outputs = model.bert(
        input_ids=tensors["ids"].long(),
        token_type_ids=tensors["segments"].long(),
        attention_mask=tensors["valid"].long(),
        output_hidden_states=True,
    )
    logits, pairs = model.cls(outputs.last_hidden_state, outputs.pooler_output)
    picked = torch.gather(
        logits, 1, tensors["at"].long()[..., None].expand(-1, -1, logits.shape[-1])
    )
    nats = torch.nn.functional.cross_entropy(
        picked.flatten(0, 1), tensors["targets"].long().flatten(), reduction="none"
    )
    used = tensors["weights"].flatten()
    mlm = (nats * used).sum() / used.sum()
    nsp = torch.nn.functional.cross_entropy(pairs, tensors["labels"].long())
    (mlm + nsp).backward()
    parameters = dict(model.named_parameters())
    results = {
        "hidden": torch.stack(outputs.hidden_states),
        "scores": torch.stack(kept),
        "pooled": outputs.pooler_output,
        "token_logits": picked,
        "pair_logits": pairs,
        "mlm": mlm,
        "nsp": nsp,
        **{f"grad/{name}": parameters[name].grad for name in GRADIENTS},
    }
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
