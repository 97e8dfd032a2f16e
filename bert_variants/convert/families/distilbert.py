"""DistilBERT: BERT without segments, pooler and pairs."""

from __future__ import annotations

from bert_variants import registry
from bert_variants.convert.families import bert
from bert_variants.convert.families.bert import BUFFERS, TASKS, dense, norm, plain
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import ACTIVATIONS, Field
from bert_variants.convert.rules import Rule, Table

EPS = 1e-12  # of every LayerNorm; no field says it
TRUNK, LAYER = "distilbert", "distilbert.transformer.layer.{layer}"
PROJECTOR = "vocab_projector"


def _table(call: registry.Call) -> Table:
    tied = bert.tied(call, f"{PROJECTOR}.weight")
    at = "encoder/layers"
    return Table(
        rules=(
            Rule(
                "embeddings/word/embedding", f"{TRUNK}.embeddings.word_embeddings.weight", also=tied
            ),
            Rule("embeddings/position/embedding", f"{TRUNK}.embeddings.position_embeddings.weight"),
            *norm("embeddings/norm", f"{TRUNK}.embeddings.LayerNorm"),
            *dense(f"{at}/attention/query", f"{LAYER}.attention.q_lin"),
            *dense(f"{at}/attention/key", f"{LAYER}.attention.k_lin"),
            *dense(f"{at}/attention/value", f"{LAYER}.attention.v_lin"),
            *dense(f"{at}/attention/out", f"{LAYER}.attention.out_lin"),
            *norm(f"{at}/attention_norm", f"{LAYER}.sa_layer_norm"),
            *dense(f"{at}/ffn/wide", f"{LAYER}.ffn.lin1"),
            *dense(f"{at}/ffn/narrow", f"{LAYER}.ffn.lin2"),
            *norm(f"{at}/ffn_norm", f"{LAYER}.output_layer_norm"),
            *dense("heads/tokens/dense", "vocab_transform"),
            *norm("heads/tokens/norm", "vocab_layer_norm"),
            *(() if tied else (Rule("heads/tokens/table/embedding", f"{PROJECTOR}.weight"),)),
            Rule("heads/tokens/bias", f"{PROJECTOR}.bias"),
        ),
        ignored=(BUFFERS, TASKS),
        prefix=f"{TRUNK}.",
    )


def _fits(call: registry.Call, heads: frozenset[str]) -> str:
    if plain(call):
        return plain(call)
    if call.argument("segments"):
        return f"it has {call.argument('segments')} segments, a DistilBERT none."
    if call.argument("eps") != EPS:
        return f"the eps of its norms is {call.argument('eps')}, a DistilBERT's is {EPS}."
    more = sorted(heads - {"tokens"})
    return f"a DistilBERT has no head for {', '.join(more)}." if more else ""


FAMILIES = (
    Family(
        model_type="distilbert",
        model="bert",
        config="bert",
        fields=(
            Field("n_layers", "layers", 6),
            Field("dim", "width", 768),
            Field("n_heads", "heads", 12),
            Field("hidden_dim", "ffn", 3072),
            Field("dropout", "dropout", 0.1),
            Field("attention_dropout", "attention_dropout", 0.1),
            Field("max_position_embeddings", "positions", 512),
            Field("activation", "activation", "gelu", ACTIVATIONS),
            bert.TIED,
        ),
        # how the table of positions starts; what it has become is in the file
        known=("sinusoidal_pos_embds", "tie_weights_", "qa_dropout", "seq_classif_dropout"),
        arguments=lambda settings, found: {"segments": 0, "eps": EPS},
        table=_table,
        architectures=(
            Architecture("DistilBertForMaskedLM", frozenset({"tokens"})),
            Architecture("DistilBertModel", frozenset()),
        ),
        objectives=(("heads/tokens/bias", "mlm"),),
        fits=_fits,
        rank=1,
    ),
)
