"""The variables of the original TensorFlow checkpoints: a table of rules for each of four models.

google-research/bert, google-research/albert, google-research/electra (modeling.py and
run_pretraining.py of each) and zihangdai/xlnet (modeling.py). Kernels are [in, out] there as here,
LayerNorms have ``gamma`` and ``beta``, and the weights of heads that were made by hand are
[classes, D].
"""

from __future__ import annotations

from bert_variants import registry
from bert_variants.convert.rules import TRANSPOSED, Change, Rule, Table, reshaped

# What stands beside the weights in a checkpoint of a run that could go on.
OPTIMIZER = (
    (r"(^|/)global_step$", "how many steps the run took"),
    (r"/(adam_m|adam_v|Adam|Adam_1)$", "the optimizer's state"),
    (r"^(beta1_power|beta2_power|loss_scale|good_steps)$", "the optimizer's state"),
    (r"^signal_early_stopping/", "whether the run was to stop"),
)
OF_A_TASK = "the head of a task, which this project has no head for"
TASKS = (
    (r"^(cls/squad/)?output_(weights|bias)$", OF_A_TASK),
    (r"^(start_logits|end_logits|answer_class)/", OF_A_TASK),
    (r"^task_specific/", OF_A_TASK),
)
TABLE = "heads/tokens/table/embedding"  # of a head that is not tied
NO_POOLER = "nothing of this model reads the pooled vector"
NO_PAIR = "this model has no such head"
NO_GENERATOR = "this model has no generator"


def plain(call: registry.Call, heads: frozenset[str] = frozenset()) -> str:
    """Why a model of ours is not theirs in tables and attention; empty if it is."""
    del heads
    if call.argument("relative"):
        return f"its attention is {call.argument('relative')}, and theirs knows no distances."
    if call.argument("first_position"):
        return f"its positions begin at row {call.argument('first_position')}, theirs at 0."
    return ""


def dense(ours: str, theirs: str, spare: str = "") -> tuple[Rule, Rule]:
    """A dense layer with its bias."""
    return (
        Rule(f"{ours}/kernel", f"{theirs}/kernel", spare=spare),
        Rule(f"{ours}/bias", f"{theirs}/bias", spare=spare),
    )


def norm(ours: str, theirs: str, spare: str = "") -> tuple[Rule, Rule]:
    """A LayerNorm."""
    return (
        Rule(f"{ours}/scale", f"{theirs}/gamma", spare=spare),
        Rule(f"{ours}/bias", f"{theirs}/beta", spare=spare),
    )


def embeddings(ours: str, theirs: str, spare: str = "") -> tuple[Rule, ...]:
    """The three tables and their LayerNorm."""
    return (
        Rule(f"{ours}/word/embedding", f"{theirs}/word_embeddings", spare=spare),
        Rule(f"{ours}/segment/embedding", f"{theirs}/token_type_embeddings", spare=spare),
        Rule(f"{ours}/position/embedding", f"{theirs}/position_embeddings", spare=spare),
        *norm(f"{ours}/norm", f"{theirs}/LayerNorm", spare),
    )


def layers(ours: str, theirs: str, spare: str = "") -> tuple[Rule, ...]:
    """A stack of BERT's layers; ``theirs`` is the scope of one, such as encoder/layer_{layer}."""
    parts = (
        *(
            dense(f"{ours}/attention/{part}", f"{theirs}/attention/self/{part}", spare)
            for part in ("query", "key", "value")
        ),
        dense(f"{ours}/attention/out", f"{theirs}/attention/output/dense", spare),
        norm(f"{ours}/attention_norm", f"{theirs}/attention/output/LayerNorm", spare),
        dense(f"{ours}/ffn/wide", f"{theirs}/intermediate/dense", spare),
        dense(f"{ours}/ffn/narrow", f"{theirs}/output/dense", spare),
        norm(f"{ours}/ffn_norm", f"{theirs}/output/LayerNorm", spare),
    )
    return tuple(rule for part in parts for rule in part)


def bert_heads() -> tuple[Rule, ...]:
    """Pooler, the head for masked tokens and that for pairs, of BERT and ALBERT."""
    tokens, pair = "cls/predictions", "cls/seq_relationship"
    return (
        *dense("heads/pooler/dense", "bert/pooler/dense", NO_POOLER),
        *dense("heads/tokens/dense", f"{tokens}/transform/dense"),
        *norm("heads/tokens/norm", f"{tokens}/transform/LayerNorm"),
        Rule("heads/tokens/bias", f"{tokens}/output_bias"),
        Rule("heads/pair/output/kernel", f"{pair}/output_weights", TRANSPOSED, spare=NO_PAIR),
        Rule("heads/pair/output/bias", f"{pair}/output_bias", spare=NO_PAIR),
    )


def bert(call: registry.Call) -> Table:
    """google-research/bert."""
    del call
    return Table(
        rules=(
            *embeddings("embeddings", "bert/embeddings"),
            *layers("encoder/layers", "bert/encoder/layer_{layer}"),
            *bert_heads(),
        ),
        ignored=(*OPTIMIZER, *TASKS),
    )


def albert(call: registry.Call) -> Table:
    """google-research/albert: a scope for each group; its two LayerNorms are numbered."""
    del call
    ours, group = "encoder/layers", "bert/encoder/transformer/group_{layer}/inner_group_0"
    attention, ffn = f"{group}/attention_1", f"{group}/ffn_1/intermediate"
    parts = (
        *(
            dense(f"{ours}/attention/{part}", f"{attention}/self/{part}")
            for part in ("query", "key", "value")
        ),
        dense(f"{ours}/attention/out", f"{attention}/output/dense"),
        norm(f"{ours}/attention_norm", f"{group}/LayerNorm"),
        dense(f"{ours}/ffn/wide", f"{ffn}/dense"),
        dense(f"{ours}/ffn/narrow", f"{ffn}/output/dense"),
        norm(f"{ours}/ffn_norm", f"{group}/LayerNorm_1"),
    )
    return Table(
        rules=(
            *embeddings("embeddings", "bert/embeddings"),
            *dense("widen", "bert/encoder/embedding_hidden_mapping_in"),
            *(rule for part in parts for rule in part),
            *bert_heads(),
        ),
        ignored=(*OPTIMIZER, *TASKS),
    )


def electra(call: registry.Call) -> Table:
    """google-research/electra: two networks over one set of tables, unless those are untied."""
    del call
    head, judge = "generator_predictions", "discriminator_predictions"
    none = NO_GENERATOR
    return Table(
        rules=(
            *embeddings("embeddings", "electra/embeddings"),
            *dense("discriminator/project", "electra/embeddings_project"),
            *layers("discriminator/encoder/layers", "electra/encoder/layer_{layer}"),
            *embeddings("generator_embeddings", "generator/embeddings", none),
            *dense("generator/project", "generator/embeddings_project", none),
            *layers("generator/encoder/layers", "generator/encoder/layer_{layer}", none),
            *dense("heads/tokens/dense", f"{head}/dense", none),
            *norm("heads/tokens/norm", f"{head}/LayerNorm", none),
            Rule("heads/tokens/bias", f"{head}/output_bias", spare=none),
            *dense("heads/replaced/dense", f"{judge}/dense", NO_PAIR),
            *dense("heads/replaced/output", f"{judge}/dense_1", NO_PAIR),
        ),
        ignored=(*OPTIMIZER, *TASKS),
    )


def output(heads: int) -> Change:
    """XLNet's output projection: ours is [N * H, D], theirs [D, N, H]."""

    def shape(ours: tuple[int, ...]) -> tuple[int, ...]:
        return (ours[1], heads, ours[0] // heads)

    return Change(
        "transposed, heads apart",
        shape,
        lambda x: x.T.reshape(shape(x.shape)),
        lambda x: x.reshape(x.shape[0], -1).T,
    )


def xlnet(call: registry.Call) -> Table:
    """zihangdai/xlnet: u, v, s and the segments are one variable each for all layers."""
    width, heads = call.argument("width"), call.argument("heads")
    split = reshaped((width, width), (width, heads, width // heads))
    ours, trunk = "encoder/layers", "model/transformer"
    layer = f"{trunk}/layer_{{layer}}"
    biases = {"query_content": "r_w", "query_position": "r_r", "query_segment": "r_s"}
    at = f"{ours}/attention" if call.argument("untie") else "encoder"
    kernels = {"query": "q", "key": "k", "value": "v", "relative": "r"}
    return Table(
        rules=(
            Rule("word/embedding", f"{trunk}/word_embedding/lookup_table"),
            Rule(
                "start",
                f"{trunk}/mask_emb/mask_emb",
                spare="only predictions start from it, and this model makes none",
            ),
            *(Rule(f"{at}/{o}", f"{trunk}/{t}_bias") for o, t in biases.items()),
            Rule(f"{ours}/attention/segments", f"{trunk}/seg_embed"),
            *(
                Rule(f"{ours}/attention/{o}/kernel", f"{layer}/rel_attn/{t}/kernel", split)
                for o, t in kernels.items()
            ),
            Rule(f"{ours}/attention/out/kernel", f"{layer}/rel_attn/o/kernel", output(heads)),
            *norm(f"{ours}/attention_norm", f"{layer}/rel_attn/LayerNorm"),
            *dense(f"{ours}/ffn/wide", f"{layer}/ff/layer_1"),
            *dense(f"{ours}/ffn/narrow", f"{layer}/ff/layer_2"),
            *norm(f"{ours}/ffn_norm", f"{layer}/ff/LayerNorm"),
            *(() if call.argument("tied") else (Rule(TABLE, "model/lm_loss/weight"),)),
            Rule("heads/tokens/bias", "model/lm_loss/bias"),
            # the code spells this scope so
            *dense("heads/pooler/dense", "model/sequnece_summary/summary", NO_POOLER),
        ),
        ignored=(
            *OPTIMIZER,
            *TASKS,
            (r"^model/(classification|regression)_[^/]*/logit/", OF_A_TASK),
        ),
    )
