"""The networks of transformers that ours are compared with: how each is built and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Case = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """One architecture of transformers.

    Attributes:
        trunk: the attribute that holds the network without heads.
        pad: id of padding.
        pair: the objective of the pair head, or empty where there is none.
        build: a network of a case's sizes.
        attentions: the modules with ``query`` and ``key``, each once.
        token_logits, pair_logits: from all hidden states, from the pooled ones.
        gradients: parameters whose gradients are compared: of each kind, at the bottom and at the
            top.
    """

    trunk: str
    pad: int
    pair: str
    build: Callable[[Case], Any]
    attentions: Callable[[Any], list[Any]]
    token_logits: Callable[[Any, Any], Any]
    pair_logits: Callable[[Any, Any], Any] | None
    gradients: Callable[[Case], tuple[str, ...]]


def _sizes(case: Case) -> dict[str, Any]:
    return {
        "vocab_size": case["vocab"],
        "hidden_size": case["width"],
        "num_hidden_layers": case["layers"],
        "num_attention_heads": case["heads"],
        "intermediate_size": case["ffn"],
        "max_position_embeddings": case["positions"],
        "type_vocab_size": case["segments"],
        "attn_implementation": "eager",
    }


def _bert(case: Case) -> Any:
    import transformers

    settings = transformers.BertConfig(**_sizes(case), hidden_act="gelu_new", layer_norm_eps=1e-12)
    return transformers.BertForPreTraining(settings)


def _roberta(case: Case) -> Any:
    """Two more rows of positions; one row of segments, which every token takes."""
    import transformers

    sizes = _sizes(case) | {"max_position_embeddings": case["positions"] + 2}
    settings = transformers.RobertaConfig(
        **sizes, hidden_act="gelu", layer_norm_eps=1e-5, pad_token_id=1
    )
    return transformers.RobertaForMaskedLM(settings)


def _albert(case: Case) -> Any:
    import transformers

    settings = transformers.AlbertConfig(
        **_sizes(case),
        embedding_size=case["embedding"],
        num_hidden_groups=case["groups"],
        hidden_act="gelu_new",
        layer_norm_eps=1e-12,
    )
    return transformers.AlbertForPreTraining(settings)


def _layer_gradients(trunk: str) -> tuple[str, ...]:
    return (
        f"{trunk}.embeddings.word_embeddings.weight",
        f"{trunk}.embeddings.position_embeddings.weight",
        f"{trunk}.embeddings.LayerNorm.weight",
        f"{trunk}.encoder.layer.0.attention.self.query.weight",
        f"{trunk}.encoder.layer.1.attention.output.dense.weight",
        f"{trunk}.encoder.layer.1.intermediate.dense.bias",
    )


def _albert_gradients(case: Case) -> tuple[str, ...]:
    first, last = (
        f"albert.encoder.albert_layer_groups.{group}.albert_layers.0."
        for group in (0, case["groups"] - 1)
    )
    return (
        "albert.embeddings.word_embeddings.weight",
        "albert.embeddings.position_embeddings.weight",
        "albert.embeddings.LayerNorm.weight",
        "albert.encoder.embedding_hidden_mapping_in.weight",
        f"{first}attention.query.weight",
        f"{first}attention.LayerNorm.bias",
        f"{last}attention.dense.weight",
        f"{last}ffn.bias",
        f"{last}ffn_output.weight",
        f"{last}full_layer_layer_norm.weight",
        "albert.pooler.weight",
        "predictions.dense.weight",
        "predictions.bias",
        "sop_classifier.classifier.weight",
    )


NETWORKS = {
    "bert": Network(
        trunk="bert",
        pad=0,
        pair="nsp",
        build=_bert,
        attentions=lambda model: [layer.attention.self for layer in model.bert.encoder.layer],
        token_logits=lambda model, hidden: model.cls.predictions(hidden),
        pair_logits=lambda model, pooled: model.cls.seq_relationship(pooled),
        gradients=lambda case: (
            *_layer_gradients("bert"),
            "bert.pooler.dense.weight",
            "cls.predictions.transform.dense.weight",
            "cls.predictions.bias",
            "cls.seq_relationship.weight",
        ),
    ),
    "roberta": Network(
        trunk="roberta",
        pad=1,
        pair="",
        build=_roberta,
        attentions=lambda model: [layer.attention.self for layer in model.roberta.encoder.layer],
        token_logits=lambda model, hidden: model.lm_head(hidden),
        pair_logits=None,
        gradients=lambda case: (
            *_layer_gradients("roberta"),
            "lm_head.dense.weight",
            "lm_head.layer_norm.weight",
            "lm_head.bias",
        ),
    ),
    "albert": Network(
        trunk="albert",
        pad=0,
        pair="sop",
        build=_albert,
        attentions=lambda model: [
            group.albert_layers[0].attention for group in model.albert.encoder.albert_layer_groups
        ],
        token_logits=lambda model, hidden: model.predictions(hidden),
        pair_logits=lambda model, pooled: model.sop_classifier(pooled),
        gradients=_albert_gradients,
    ),
}
