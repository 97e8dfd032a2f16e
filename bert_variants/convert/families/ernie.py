"""ERNIE 1.0: BERT's architecture under names of its own.

A model of ours is written as BERT, which computes the same; ``form="ernie"`` asks for these names.
"""

from __future__ import annotations

from bert_variants.convert.families import bert
from bert_variants.convert.family import Family

FAMILIES = (
    Family(
        model_type="ernie",
        model="bert",
        config="bert",
        fields=(*bert.FIELDS, *bert.TABLES, bert.TIED),
        # versions 2 and 3 add a table of tasks
        fixed=bert.FIXED | {"use_task_id": (False,)},
        known=("task_type_vocab_size",),
        table=lambda call: bert.table("ernie", call),
        architectures=bert.architectures("Ernie"),
        objectives=bert.OBJECTIVES,
        settings=lambda call, vocab: bert.segments(call),
        fits=lambda call, heads: bert.plain(call),
        rank=-1,
    ),
)
