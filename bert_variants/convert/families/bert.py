"""BERT, and all that has its architecture: BERT-wwm, SpanBERT's encoder, StructBERT, TinyBERT.

SpanBERT's head for span boundaries and StructBERT's pair head of three classes have no class in
transformers: they are written into a file of their own beside the model, where this project finds
them again (``directory.EXTRA``).
"""

from __future__ import annotations

from bert_variants import registry
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import ACTIVATIONS, Field
from bert_variants.convert.rules import TRANSPOSED, Constant, Rule, Table

NO_POOLER = "nothing of this model reads the pooled vector"
NO_PAIR = "this model has no such head"

FIELDS = (
    Field("num_hidden_layers", "layers", 12),
    Field("hidden_size", "width", 768),
    Field("num_attention_heads", "heads", 12),
    Field("intermediate_size", "ffn", 3072),
    Field("hidden_dropout_prob", "dropout", 0.1),
    Field("attention_probs_dropout_prob", "attention_dropout", 0.1),
    Field("layer_norm_eps", "eps", 1e-12),
    Field("hidden_act", "activation", "gelu", ACTIVATIONS),
)
TABLES = (
    Field("max_position_embeddings", "positions", 512),
    Field("type_vocab_size", "segments", 2),
)
TIED = Field("tie_word_embeddings", "tied", True)
FIXED = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
# Names of theirs that no network here reads.
BUFFERS = (r"(^|\.)(position_ids|token_type_ids)$", "a buffer that counts positions")
TASKS = (
    r"^(classifier|qa_outputs|pre_classifier|summary|sequence_summary)\.",
    "the head of a task, which this project has no head for",
)
FIT_DENSE = (r"^fit_dense\.", "TinyBERT's projection to its teacher, which only training reads")


def dense(ours: str, theirs: str, spare: str = "") -> tuple[Rule, Rule]:
    """A dense layer with its bias."""
    return (
        Rule(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSED, spare=spare),
        Rule(f"{ours}/bias", f"{theirs}.bias", spare=spare),
    )


def norm(ours: str, theirs: str, spare: str = "") -> tuple[Rule, Rule]:
    """A LayerNorm; files that came from TensorFlow call its numbers gamma and beta."""
    return (
        Rule(f"{ours}/scale", f"{theirs}.weight", also=(f"{theirs}.gamma",), spare=spare),
        Rule(f"{ours}/bias", f"{theirs}.bias", also=(f"{theirs}.beta",), spare=spare),
    )


def embeddings(ours: str, theirs: str, *tied: str) -> tuple[Rule, ...]:
    """Tables and their LayerNorm; ``tied`` is the name of a tied head's copy of the words'."""
    return (
        Rule(f"{ours}/word/embedding", f"{theirs}.word_embeddings.weight", also=tied),
        Rule(f"{ours}/position/embedding", f"{theirs}.position_embeddings.weight"),
        Rule(f"{ours}/segment/embedding", f"{theirs}.token_type_embeddings.weight"),
        *norm(f"{ours}/norm", f"{theirs}.LayerNorm"),
    )


def layers(ours: str, theirs: str) -> tuple[Rule, ...]:
    """A stack of BERT's layers; ``theirs`` is the name of one, such as encoder.layer.{layer}."""
    return (
        *dense(f"{ours}/attention/query", f"{theirs}.attention.self.query"),
        *dense(f"{ours}/attention/key", f"{theirs}.attention.self.key"),
        *dense(f"{ours}/attention/value", f"{theirs}.attention.self.value"),
        *dense(f"{ours}/attention/out", f"{theirs}.attention.output.dense"),
        *norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm"),
        *dense(f"{ours}/ffn/wide", f"{theirs}.intermediate.dense"),
        *dense(f"{ours}/ffn/narrow", f"{theirs}.output.dense"),
        *norm(f"{ours}/ffn_norm", f"{theirs}.output.LayerNorm"),
    )


def tied(call: registry.Call, name: str) -> tuple[str, ...]:
    """The names of copies of the table of words: that of the head for tokens, where it is tied."""
    return (name,) if call.argument("tied") else ()


def projection(call: registry.Call, theirs: str) -> tuple[Rule, ...]:
    """The table of a head for tokens, where it has one of its own, and its bias.

    transformers keeps the bias twice, in the head and in the layer that is its table. They are one
    where the table is tied; where it is not, the head's is never read.
    """
    bias, inner = f"{theirs}.bias", f"{theirs}.decoder.bias"
    if call.argument("tied"):
        return (Rule("heads/tokens/bias", bias, also=(inner,)),)
    return (
        Rule("heads/tokens/table/embedding", f"{theirs}.decoder.weight"),
        Rule("heads/tokens/bias", inner, unread=(bias,)),
    )


def one_segment(theirs: str, call: registry.Call, width: int) -> tuple[Constant, ...]:
    """The table of one segment that theirs always has, where ours has none."""
    name = f"{theirs}.token_type_embeddings.weight"
    return () if call.argument("segments") else (Constant(name, (1, width), "Take segments=1."),)


def segments(call: registry.Call) -> dict[str, int]:
    """The number of segments that is written: one where ours has no table."""
    return {"type_vocab_size": max(1, call.argument("segments"))}


def table(trunk: str, call: registry.Call) -> Table:
    """The rules of a network whose names begin with ``trunk``, with BERT's heads."""
    tokens = "cls.predictions"
    return Table(
        rules=(
            *embeddings(
                "embeddings", f"{trunk}.embeddings", *tied(call, f"{tokens}.decoder.weight")
            ),
            *layers("encoder/layers", f"{trunk}.encoder.layer.{{layer}}"),
            *dense("heads/pooler/dense", f"{trunk}.pooler.dense", spare=NO_POOLER),
            *dense("heads/tokens/dense", f"{tokens}.transform.dense"),
            *norm("heads/tokens/norm", f"{tokens}.transform.LayerNorm"),
            *projection(call, tokens),
            *dense("heads/pair/output", "cls.seq_relationship", spare=NO_PAIR),
        ),
        ignored=(BUFFERS, TASKS, FIT_DENSE),
        constants=one_segment(f"{trunk}.embeddings", call, call.argument("width")),
        prefix=f"{trunk}.",
    )


def architectures(name: str) -> tuple[Architecture, ...]:
    """The classes with BERT's heads, by what their names begin with."""
    return (
        Architecture(f"{name}ForPreTraining", frozenset({"tokens", "pooler", "pair"})),
        Architecture(f"{name}ForMaskedLM", frozenset({"tokens"})),
        Architecture(f"{name}ForNextSentencePrediction", frozenset({"pooler", "pair"})),
        Architecture(f"{name}Model", frozenset({"pooler"}), frozenset()),
    )


OBJECTIVES = (("heads/tokens/bias", "mlm"), ("heads/pair/output/kernel", "nsp"))


def plain(call: registry.Call) -> str:
    """Why a model of ours is not BERT's in tables and attention; empty if it is."""
    if call.argument("relative"):
        return f"its attention is {call.argument('relative')}, and this form knows no distances."
    if call.argument("first_position"):
        return f"its positions begin at row {call.argument('first_position')}, as RoBERTa's do."
    return ""


FAMILIES = (
    Family(
        model_type="bert",
        model="bert",
        config="bert",
        fields=(*FIELDS, *TABLES, TIED),
        fixed=FIXED,
        table=lambda call: table("bert", call),
        architectures=architectures("Bert"),
        objectives=OBJECTIVES,
        settings=lambda call, vocab: segments(call),
        fits=lambda call, heads: plain(call),
    ),
)
