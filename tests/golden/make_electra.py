"""Write the golden arrays of ELECTRA's two networks together; see tests/golden/make.py.

    PYTHONPATH=tests python -m golden.make_electra      # needs transformers and torch

transformers has a generator (ElectraForMaskedLM) and a discriminator (ElectraForPreTraining) and
nothing that joins them. Here they share one embedding block, the generator's likeliest ids are put
into the original text, and ``mlm + 50 * replaced_token`` is differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden import make

FOLDER = Path(__file__).parent / "electra"
Case = Mapping[str, Any]
# A case's place decides its seed: add new ones at the end.
CASES: dict[str, dict[str, Any]] = {
    # every size odd, both networks projected, the generator shallower
    "narrow": {
        "layers": 2,
        "width": 15,
        "heads": 3,
        "ffn": 19,
        "embedding": 7,
        "generator_layers": 1,
        "generator_width": 10,
        "generator_heads": 2,
        "generator_ffn": 14,
        "positions": 15,
        "segments": 2,
        "vocab": 47,
        "length": 13,
        "tied": True,
    },
    # tables as wide as the discriminator, as in base and large
    "wide": {
        "layers": 2,
        "width": 15,
        "heads": 5,
        "ffn": 12,
        "embedding": 15,
        "generator_layers": 2,
        "generator_width": 8,
        "generator_heads": 1,
        "generator_ffn": 18,
        "positions": 11,
        "segments": 3,
        "vocab": 41,
        "length": 11,
        "tied": True,
    },
    # tables of their own
    "apart": {
        "layers": 2,
        "width": 10,
        "heads": 2,
        "ffn": 13,
        "embedding": 9,
        "generator_layers": 2,
        "generator_width": 12,
        "generator_heads": 3,
        "generator_ffn": 10,
        "positions": 9,
        "segments": 2,
        "vocab": 37,
        "length": 9,
        "tied": False,
    },
}
MASK = 4
WEIGHT = 50.0


def rows(case: Case, seed: int) -> dict[str, np.ndarray]:
    """The rows of ``make.rows``; of the positions to predict, every third stays as it is."""
    batch = make.rows({**case, "network": "bert"}, seed)
    used = batch["weights"] > 0
    batch["targets"] = np.where(used, np.take_along_axis(batch["ids"], batch["at"], 1), 0)
    inputs = batch["ids"].copy()
    for b in range(len(inputs)):
        hidden = batch["at"][b][used[b]]
        inputs[b, hidden[np.arange(len(hidden)) % 3 != 2]] = MASK
    return batch | {"inputs": inputs, "targets": batch["targets"].astype(np.int32)}


def _settings(case: Case, prefix: str = "") -> Any:
    import transformers

    own_tables = prefix and not case["tied"]
    return transformers.ElectraConfig(
        vocab_size=case["vocab"],
        embedding_size=case["generator_width" if own_tables else "embedding"],
        hidden_size=case[f"{prefix}width"],
        num_hidden_layers=case[f"{prefix}layers"],
        num_attention_heads=case[f"{prefix}heads"],
        intermediate_size=case[f"{prefix}ffn"],
        max_position_embeddings=case["positions"],
        type_vocab_size=case["segments"],
        attn_implementation="eager",
    )


def networks(case: Case, seed: int) -> tuple[Any, Any]:
    """Generator and discriminator with random parameters, LayerNorms and biases too."""
    import torch
    import transformers

    torch.manual_seed(seed)
    generator = transformers.ElectraForMaskedLM(_settings(case, "generator_")).eval()
    discriminator = transformers.ElectraForPreTraining(_settings(case)).eval()
    with torch.no_grad():
        for model in (generator, discriminator):
            # rows of padding are like all others: the generator may draw them
            model.electra.embeddings.word_embeddings.padding_idx = None
            for name, weight in model.named_parameters():
                noise = torch.randn(weight.shape) * 0.2
                weight.copy_(noise + 1 if name.endswith("LayerNorm.weight") else noise)
    if case["tied"]:
        generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = generator.electra.embeddings.word_embeddings.weight
    return generator, discriminator


def right_sometimes(batch: dict[str, np.ndarray], guesses: np.ndarray) -> None:
    """Let the first hidden token of every other row be what the generator guesses there."""
    for b in range(0, len(guesses), 2):
        place = batch["at"][b, 0]
        assert batch["inputs"][b, place] == MASK, "the generator has not seen it"
        batch["ids"][b, place] = batch["targets"][b, 0] = guesses[b, 0]


def compute(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Everything of a case: weights, batch and results, by name."""
    import torch

    generator, discriminator = networks(case, seed)
    batch = rows(case, seed)
    t = {k: torch.from_numpy(v) for k, v in batch.items()}  # shares the memory
    given = {"token_type_ids": t["segments"].long(), "attention_mask": t["valid"].long()}
    logits = generator(input_ids=t["inputs"].long(), **given).logits
    index = t["at"].long()[..., None].expand(-1, -1, logits.shape[-1])
    picked = torch.gather(logits, 1, index)
    right_sometimes(batch, picked.detach().numpy().argmax(-1))
    nats = torch.nn.functional.cross_entropy(
        picked.flatten(0, 1), t["targets"].long().flatten(), reduction="none"
    )
    used = t["weights"].flatten()
    read = t["ids"].clone().long()
    for b, at in enumerate(t["at"]):
        for slot, place in enumerate(at):
            if t["weights"][b, slot] > 0:
                read[b, place] = picked[b, slot].argmax()
    replaced = read != t["ids"]
    found = discriminator(
        input_ids=read, labels=replaced.long(), output_hidden_states=True, **given
    )
    losses = {"mlm": (nats * used).sum() / used.sum(), "replaced_token": found.loss}
    (losses["mlm"] + WEIGHT * losses["replaced_token"]).backward()
    results = {
        "hidden": torch.stack(found.hidden_states),
        "token_logits": picked,
        "replaced_logits": found.logits,
        "replaced": replaced,
        **losses,
    }
    arrays = {f"r/{k}": v for k, v in results.items()}
    for prefix, model in (("g", generator), ("d", discriminator)):
        for name, weight in model.named_parameters():
            if case["tied"] and prefix == "g" and name.startswith("electra.embeddings."):
                continue  # the discriminator's
            arrays[f"w/{prefix}.{name}"] = weight
            arrays[f"r/grad/{prefix}.{name}"] = weight.grad
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
