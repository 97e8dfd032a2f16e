"""PyTorch's names and layouts of weights into ours.

Written out here and not taken from the package: a converter that is wrong must not agree with
itself. Dense kernels are transposed (ours are [in, out]); layers are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Weights = Mapping[str, np.ndarray]


def dense(weights: Weights, name: str) -> dict:
    return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}


def norm(weights: Weights, name: str) -> dict:
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def token_head(weights: Weights, dense_name: str, norm_name: str, bias: str) -> dict:
    return {
        "dense": dense(weights, dense_name),
        "norm": norm(weights, norm_name),
        "bias": weights[bias],
    }


def embeddings(weights: Weights, trunk: str, *tables: str) -> dict:
    named = {"word": "word", "position": "position", "segment": "token_type"}
    at = f"{trunk}.embeddings"
    made = {t: {"embedding": weights[f"{at}.{named[t]}_embeddings.weight"]} for t in tables}
    return made | {"norm": norm(weights, f"{at}.LayerNorm")}


def layers(weights: Weights, trunk: str, count: int) -> dict:
    """BERT's and RoBERTa's layers."""

    def layer(i: int) -> dict:
        at = f"{trunk}.encoder.layer.{i}."
        names = {"query": "self.query", "key": "self.key", "value": "self.value"}
        names["out"] = "output.dense"
        return {
            "attention": {k: dense(weights, f"{at}attention.{v}") for k, v in names.items()},
            "attention_norm": norm(weights, f"{at}attention.output.LayerNorm"),
            "ffn": {
                "wide": dense(weights, f"{at}intermediate.dense"),
                "narrow": dense(weights, f"{at}output.dense"),
            },
            "ffn_norm": norm(weights, f"{at}output.LayerNorm"),
        }

    return stacked([layer(i) for i in range(count)])


def stacked(each: list[dict]) -> dict:
    return {"layers": jax.tree.map(lambda *x: np.stack(x), *each)}


def bert(weights: Weights, case: Mapping[str, Any]) -> dict:
    return {
        "embeddings": embeddings(weights, "bert", "word", "position", "segment"),
        "encoder": layers(weights, "bert", case["layers"]),
        "heads": {
            "pooler": {"dense": dense(weights, "bert.pooler.dense")},
            "pair": {"output": dense(weights, "cls.seq_relationship")},
            "tokens": token_head(
                weights,
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.bias",
            ),
        },
    }


def roberta(weights: Weights, case: Mapping[str, Any]) -> dict:
    """Without transformers' segment table: see ``folded``."""
    return {
        "embeddings": embeddings(weights, "roberta", "word", "position"),
        "encoder": layers(weights, "roberta", case["layers"]),
        "heads": {
            "tokens": token_head(weights, "lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
        },
    }


def folded(weights: Weights) -> dict[str, np.ndarray]:
    """RoBERTa's only row of segments, which every token takes, added to the row of each position.

    fairseq's own model has no such row; in transformers' conversion of it the row is zero.
    """
    at = "roberta.embeddings"
    row = weights[f"{at}.token_type_embeddings.weight"]
    position = f"{at}.position_embeddings.weight"
    return dict(weights) | {position: weights[position] + row}


def albert(weights: Weights, case: Mapping[str, Any]) -> dict:
    def group(i: int) -> dict:
        at = f"albert.encoder.albert_layer_groups.{i}.albert_layers.0."
        names = {"query": "query", "key": "key", "value": "value", "out": "dense"}
        return {
            "attention": {k: dense(weights, f"{at}attention.{v}") for k, v in names.items()},
            "attention_norm": norm(weights, f"{at}attention.LayerNorm"),
            "ffn": {
                "wide": dense(weights, f"{at}ffn"),
                "narrow": dense(weights, f"{at}ffn_output"),
            },
            "ffn_norm": norm(weights, f"{at}full_layer_layer_norm"),
        }

    return {
        "embeddings": embeddings(weights, "albert", "word", "position", "segment"),
        "widen": dense(weights, "albert.encoder.embedding_hidden_mapping_in"),
        "encoder": stacked([group(i) for i in range(case["groups"])]),
        "heads": {
            "pooler": {"dense": dense(weights, "albert.pooler")},
            "pair": {"output": dense(weights, "sop_classifier.classifier")},
            "tokens": token_head(
                weights, "predictions.dense", "predictions.LayerNorm", "predictions.bias"
            ),
        },
    }
