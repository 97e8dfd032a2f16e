"""Hugging Face's PyTorch BERT with AdamW, as a worker: one optimizer step a turn.

Equal work: the same rows, as many predicted positions, dropout 0.1, gradients clipped at 1. Ours
also corrupts its rows inside the step; here the masked inputs are given, as a collator would.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks import ours, turns
from bert_variants import runtime


@dataclasses.dataclass(frozen=True)
class Spec:
    """How it is run.

    Attributes:
        layers, width, heads: of the model.
        batch, length, predictions: rows, tokens a row, predicted positions a row.
        pairs: BertForPreTraining (with the next-sentence head) instead of BertForMaskedLM.
        malloc: whether the allocator is tuned, exactly as ours is.
        bfloat16: autocast.
        gathered: logits at the predicted positions alone; else everywhere, -100 where not asked.
        compiled: torch.compile.
        device: cpu or cuda.
    """

    layers: int
    width: int
    heads: int
    batch: int
    length: int
    predictions: int
    pairs: bool = False
    malloc: bool = False
    bfloat16: bool = False
    gathered: bool = False
    compiled: bool = False
    device: str = "cpu"


def make_model(spec: Spec) -> Any:
    """BERT with random weights, sdpa attention (the default)."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=ours.VOCAB,
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.width,
    )
    cls = transformers.BertForPreTraining if spec.pairs else transformers.BertForMaskedLM
    return cls(config).to(spec.device).train()


def make_inputs(spec: Spec) -> dict[str, Any]:
    """Rows, their masked inputs, and labels in both forms."""
    import numpy as np
    import torch

    made = ours.rows(spec.batch, spec.length)
    rng = np.random.default_rng(1)
    at = np.stack(
        [
            np.sort(rng.choice(np.flatnonzero(row), spec.predictions, replace=False))
            for row in made["maskable"]
        ]
    )
    targets = np.take_along_axis(made["tokens"], at, axis=1)
    inputs, labels = made["tokens"].copy(), np.full(made["tokens"].shape, -100)
    np.put_along_axis(inputs, at, ours.MASK, axis=1)
    np.put_along_axis(labels, at, targets, axis=1)
    arrays = {
        "input_ids": inputs,
        "token_type_ids": made["segments"],
        "attention_mask": np.ones_like(inputs),
        "labels": labels,
        "at": at,
        "targets": targets,
        "next_sentence_label": made["next_sentence"],
    }
    return {k: torch.from_numpy(v.astype(np.int64)).to(spec.device) for k, v in arrays.items()}


def loss_function(spec: Spec, model: Any, given: dict[str, Any]) -> Callable[[], Any]:
    """The loss: the model's own, or with the head on gathered positions."""
    import torch
    from torch.nn.functional import cross_entropy

    read = {k: given[k] for k in ("input_ids", "token_type_ids", "attention_mask")}

    def everywhere() -> Any:
        pairs = {"next_sentence_label": given["next_sentence_label"]} if spec.pairs else {}
        return model(**read, labels=given["labels"], **pairs).loss

    def gathered() -> Any:
        outputs = model.bert(**read)
        hidden = outputs.last_hidden_state
        at = given["at"][:, :, None].expand(-1, -1, hidden.shape[-1])
        logits = model.cls.predictions if spec.pairs else model.cls
        loss = cross_entropy(
            logits(torch.gather(hidden, 1, at)).flatten(0, 1).float(), given["targets"].flatten()
        )
        if spec.pairs:
            pair = model.cls.seq_relationship(outputs.pooler_output)
            loss = loss + cross_entropy(pair.float(), given["next_sentence_label"])
        return loss

    return gathered if spec.gathered else everywhere


def train_step(
    model: Any, loss_of: Callable[[], Any], *, bfloat16: bool, fused: bool, device: str = "cpu"
) -> Callable[[], None]:
    """One AdamW step a call: the loss, its gradients, clipped at 1, the update.

    Args:
        model: whose parameters are trained.
        loss_of: computes the loss.
        bfloat16: whether under autocast.
        fused: one pass over each parameter; the plain form is what people get by default.
        device: cpu or cuda.
    """
    import torch

    more = {"fused": True} if fused else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, **more)

    def step() -> None:
        cast = torch.autocast(device, torch.bfloat16)
        with cast if bfloat16 else contextlib.nullcontext():
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def worker(given: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """For ``turns.serve``."""
    spec = Spec(**given)
    if spec.malloc:
        runtime.tune()
    import torch

    torch.manual_seed(0)
    model, inputs = make_model(spec), make_inputs(spec)
    loss_of = loss_function(spec, model, inputs)
    if spec.compiled:
        loss_of = torch.compile(loss_of)
    step = train_step(
        model, loss_of, bfloat16=spec.bfloat16, fused=spec.bfloat16, device=spec.device
    )
    return step, {"attention": model.config._attn_implementation}


if __name__ == "__main__":
    turns.serve(worker)
