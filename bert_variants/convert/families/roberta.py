"""RoBERTa: its first token takes the row of positions behind that of padding.

transformers' table of positions counts the rows before the first token too: 514 for 512 tokens. It
has a table of one segment, of zeros in the published models, where fairseq's model has none.
"""

from __future__ import annotations

from bert_variants import registry
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.families import bert
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import Field, Settings
from bert_variants.convert.rules import Table
from bert_variants.convert.tensors import Tensors
from bert_variants.types import Vocab

GELU = {"gelu": "gelu_erf", "gelu_python": "gelu_erf"}  # that of the head is always this one


def _table(call: registry.Call) -> Table:
    return Table(
        rules=(
            *bert.embeddings(
                "embeddings", "roberta.embeddings", *bert.tied(call, "lm_head.decoder.weight")
            ),
            *bert.layers("encoder/layers", "roberta.encoder.layer.{layer}"),
            *bert.dense("heads/pooler/dense", "roberta.pooler.dense", spare=bert.NO_POOLER),
            *bert.dense("heads/tokens/dense", "lm_head.dense"),
            *bert.norm("heads/tokens/norm", "lm_head.layer_norm"),
            *bert.projection(call, "lm_head"),
        ),
        ignored=(bert.BUFFERS, bert.TASKS),
        constants=bert.one_segment("roberta.embeddings", call, call.argument("width")),
        prefix="roberta.",
    )


def _arguments(settings: Settings, found: Tensors) -> dict[str, int]:
    """The rows of positions: what the file counts, less padding's and those before it."""
    del found
    pad = settings.said_or("pad_token_id", 1)
    rows = settings.said_or("max_position_embeddings", 512)
    for name, value in (("pad_token_id", pad), ("max_position_embeddings", rows)):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            raise ConvertError(f"{settings.where}: {name} is {value!r}, expected a whole number.")
    if rows <= pad + 1:
        raise ConvertError(
            f"{settings.where}: max_position_embeddings is {rows}: no row is left behind that of "
            f"padding, {pad}."
        )
    return {"first_position": pad + 1, "positions": rows - pad - 1}


def _settings(call: registry.Call, vocab: Vocab) -> dict[str, int]:
    first = call.argument("first_position")
    if first != vocab.pad + 1:
        raise ConvertError(
            f"the first token takes row {first} of the positions, which in transformers is the one "
            f"behind that of padding, and padding is token {vocab.pad} of this vocabulary. The "
            f"tokenizer must have it as token {first - 1}."
        )
    rows = {"max_position_embeddings": first + call.argument("positions")}
    return rows | bert.segments(call) | {"bos_token_id": vocab.cls, "eos_token_id": vocab.sep}


def _fits(call: registry.Call, heads: frozenset[str]) -> str:
    del heads
    if call.argument("relative"):
        return bert.plain(call)
    return "" if call.argument("first_position") else "its positions begin at row 0, as BERT's do."


FAMILIES = (
    Family(
        model_type="roberta",
        model="bert",
        config="roberta",
        fields=(
            *(field for field in bert.FIELDS if field.theirs != "hidden_act"),
            Field("hidden_act", "activation", "gelu", GELU),
            Field("type_vocab_size", "segments", 2),
            bert.TIED,
        ),
        fixed=bert.FIXED,
        known=("max_position_embeddings",),
        arguments=_arguments,
        table=_table,
        architectures=(
            Architecture("RobertaForMaskedLM", frozenset({"tokens"})),
            Architecture("RobertaModel", frozenset({"pooler"}), frozenset()),
        ),
        objectives=(("heads/tokens/bias", "mlm"),),
        settings=_settings,
        fits=_fits,
    ),
)
