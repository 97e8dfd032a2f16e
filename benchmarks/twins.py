"""The newer families as transformers has them in PyTorch, as a worker: one optimizer step a turn.

Each in the form that ``peer.py`` calls its best: allocator tuned, bfloat16 autocast (or float32,
which is faster for some), logits at predicted positions alone, fused AdamW, clipping at 1. Equal
work: the rows of our arms, as many predicted positions, dropout 0.1 at the same places. Where
transformers has only parts of a method, they are put together here as its paper says:

- ELECTRA: ``ElectraForMaskedLM`` and ``ElectraForPreTraining`` over the same tables, a token drawn
  for each predicted position, both losses in one step.
- DeBERTa v3: two ``DebertaV2`` networks, the tables of the second one those of the first without
  gradient plus a difference (``gdes``), its head that of microsoft/DeBERTa.

transformers has no Enhanced Mask Decoder, so these DeBERTas are read off their last layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks import ours, peer, turns
from bert_variants import runtime

POSITIONS = 512  # rows of the tables, as our models have them by default
Loss = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Spec:
    """How a twin is run.

    Attributes:
        family: one of ``FAMILIES``.
        layers, width, heads: of the model, of ELECTRA's and DeBERTa v3's discriminator.
        batch, length, predictions: rows, tokens a row, predicted positions a row.
        memory, reuse: of XLNet: positions that are remembered, and first positions of a row that
            are kept.
        bfloat16: autocast.
        device: cpu or cuda.
    """

    family: str
    layers: int
    width: int
    heads: int
    batch: int
    length: int
    predictions: int
    memory: int = 0
    reuse: int = 0
    bfloat16: bool = True
    device: str = "cpu"


def sizes(spec: Spec) -> dict[str, Any]:
    """What the configs of all families call by the same name."""
    return {
        "vocab_size": ours.VOCAB,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": 4 * spec.width,
        "max_position_embeddings": POSITIONS,
    }


def electra(spec: Spec, given: dict[str, Any]) -> tuple[Any, Loss]:
    """Generator a quarter as wide, one head for each 64 of its width; tables shared."""
    import torch
    import transformers

    shared = {**sizes(spec), "embedding_size": spec.width}
    narrow = max(1, round(spec.width / 4))
    small = {
        "hidden_size": narrow,
        "num_attention_heads": max(1, narrow // 64),
        "intermediate_size": 4 * narrow,
    }
    generator = transformers.ElectraForMaskedLM(transformers.ElectraConfig(**{**shared, **small}))
    discriminator = transformers.ElectraForPreTraining(transformers.ElectraConfig(**shared))
    tables = discriminator.electra.embeddings
    generator.electra.embeddings = tables
    generator.generator_lm_head.weight = tables.word_embeddings.weight
    model = torch.nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    read = {k: given[k] for k in ("token_type_ids", "attention_mask")}

    def generated(inputs: Any) -> Any:
        hidden = generator.electra(input_ids=inputs, **read).last_hidden_state
        states = generator.generator_predictions(at(hidden, given["at"]))
        return generator.generator_lm_head(states)

    def judged(inputs: Any) -> Any:
        return discriminator(input_ids=inputs, **read).logits

    return model, detection(generated, judged, given, 50.0)


def deberta_v1(spec: Spec, given: dict[str, Any]) -> tuple[Any, Loss]:
    """microsoft/deberta-base's settings at the spec's size."""
    import transformers

    config = transformers.DebertaConfig(**sizes(spec), **disentangled())
    model = transformers.DebertaForMaskedLM(config)
    if spec.bfloat16:
        low_biases(model)
    return model, masked(lambda **rows: model.deberta(**rows), model.cls, given)


def low_biases(model: Any) -> None:
    """Let DeBERTa v1's queries and values be bfloat16 under autocast, as those of v2 are.

    Its biases are added outside of any layer that autocast knows. So queries become float32, and
    transformers fills what is hidden of the bfloat16 scores with float32's lowest number, which
    fails: without this there would be no bfloat16 arm.
    """
    import torch
    from torch.nn.utils import parametrize

    class Low(torch.nn.Module):
        def forward(self, bias: Any) -> Any:
            return bias.to(torch.bfloat16)

    for layer in model.deberta.encoder.layer:
        for name in ("q_bias", "v_bias"):
            parametrize.register_parametrization(layer.attention.self, name, Low(), unsafe=True)


def deberta_v3(spec: Spec, given: dict[str, Any]) -> tuple[Any, Loss]:
    """microsoft/deberta-v3-base's settings at the spec's size; a generator half as deep."""
    import torch
    import transformers
    from torch.nn import functional

    shared = {**sizes(spec), **disentangled(), "norm_rel_ebd": "layer_norm"}
    shared |= {"position_buckets": 256, "share_att_key": True}
    half = {**shared, "num_hidden_layers": max(1, spec.layers // 2)}
    generator = transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(**half))
    discriminator = transformers.DebertaV2Model(transformers.DebertaV2Config(**shared))
    table = generator.deberta.embeddings.word_embeddings.weight
    delta = discriminator.embeddings.word_embeddings
    torch.nn.init.zeros_(delta.weight)
    head = torch.nn.Sequential(
        torch.nn.LayerNorm(spec.width, eps=1e-7),
        torch.nn.Linear(spec.width, spec.width),
        torch.nn.GELU(),
        torch.nn.Linear(spec.width, 1),
    )
    parts = {"generator": generator, "discriminator": discriminator, "head": head}
    mask = given["attention_mask"]

    def generated(inputs: Any) -> Any:
        hidden = generator.deberta(input_ids=inputs, attention_mask=mask).last_hidden_state
        return generator.cls(at(hidden, given["at"]))

    def judged(inputs: Any) -> Any:
        looked_up = functional.embedding(inputs, table.detach()) + delta(inputs)
        read = discriminator(inputs_embeds=looked_up, attention_mask=mask)
        hidden = read.last_hidden_state
        return head(hidden + hidden[:, :1])[..., 0]

    return torch.nn.ModuleDict(parts), detection(generated, judged, given, 10.0)


def disentangled() -> dict[str, Any]:
    """What both versions of DeBERTa set to something else than their configs' defaults."""
    return {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
    }


def xlnet(spec: Spec, given: dict[str, Any]) -> tuple[Any, Loss]:
    """Both streams over a full memory, half of the rows read backwards."""
    import torch
    import transformers

    config = transformers.XLNetConfig(
        vocab_size=ours.VOCAB,
        d_model=spec.width,
        n_layer=spec.layers,
        n_head=spec.heads,
        d_inner=4 * spec.width,
        ff_activation="gelu_pytorch_tanh",
        mem_len=spec.memory,
        reuse_len=spec.reuse,
        bi_data=True,
    )
    model = transformers.XLNetLMHeadModel(config)
    orders, mapping = permuted(spec, given["at"].cpu().numpy())
    rows = {
        "input_ids": original(given),
        "token_type_ids": given["token_type_ids"],
        "perm_mask": torch.from_numpy(orders).to(spec.device),
        "target_mapping": torch.from_numpy(mapping).to(spec.device),
        "labels": given["targets"],
    }
    size = (spec.memory, spec.batch, spec.width)
    held = [[torch.zeros(size, device=spec.device) for _ in range(spec.layers)]]

    def loss() -> Any:
        outputs = model(**rows, mems=held[0], use_mems=True)
        held[0] = outputs.mems
        return outputs.loss

    return model, loss


def permuted(spec: Spec, at_BP: Any) -> tuple[Any, Any]:
    """perm_mask [B, T, T], 1 where a token may not be read, and target_mapping [B, P, T].

    Ordinary tokens are read by all; predicted ones by those of a later rank, and none of the second
    part by the first part, whose ``reuse`` positions the memory keeps.
    """
    import numpy as np

    rng = np.random.default_rng(2)
    place_BT = np.zeros((spec.batch, spec.length), np.int64)
    mapping_BPT = np.zeros((*at_BP.shape, spec.length), np.float32)
    for b, at_P in enumerate(at_BP):
        place_BT[b, at_P] = 1 + rng.permutation(len(at_P))
        mapping_BPT[b, np.arange(len(at_P)), at_P] = 1
    first_T = np.arange(spec.length) < spec.reuse
    later = place_BT[:, None, :] >= np.maximum(place_BT[:, :, None], 1)
    return (later | (first_T[:, None] & ~first_T[None, :])[None]).astype(np.float32), mapping_BPT


def at(hidden: Any, positions: Any) -> Any:
    """The states at the predicted positions: [B, P, D]."""
    import torch

    return torch.gather(hidden, 1, positions[:, :, None].expand(-1, -1, hidden.shape[-1]))


def original(given: dict[str, Any]) -> Any:
    """The text before anything was masked."""
    return given["input_ids"].scatter(1, given["at"], given["targets"])


def masked(network: Callable[..., Any], head: Any, given: dict[str, Any]) -> Loss:
    """Masked language modelling with the head on the predicted positions."""
    from torch.nn.functional import cross_entropy

    read = {k: given[k] for k in ("input_ids", "attention_mask")}

    def loss() -> Any:
        logits = head(at(network(**read).last_hidden_state, given["at"]))
        return cross_entropy(logits.flatten(0, 1).float(), given["targets"].flatten())

    return loss


def detection(
    generated: Callable[[Any], Any],
    judged: Callable[[Any], Any],
    given: dict[str, Any],
    weight: float,
) -> Loss:
    """A generator's masked language modelling, and telling which tokens it replaced.

    Args:
        generated: inputs [B, T] -> logits [B, P, V].
        judged: text [B, T] -> logits of "replaced" [B, T].
        given: of ``peer.make_inputs``.
        weight: of telling.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    text = original(given)

    def loss() -> Any:
        logits = generated(given["input_ids"]).float()
        of_generator = cross_entropy(logits.flatten(0, 1), given["targets"].flatten())
        inputs = text.scatter(1, given["at"], drawn(logits))
        replaced = (inputs != text).float()
        return of_generator + weight * binary_cross_entropy_with_logits(
            judged(inputs).float(), replaced
        )

    return loss


def drawn(logits: Any) -> Any:
    """One id from each distribution [B, P], by its inverse as ours does.

    ``torch.multinomial`` draws V random numbers for each, which takes 13 times as long on a CPU.
    """
    import torch

    with torch.no_grad():
        upper = torch.softmax(logits, dim=-1).cumsum(dim=-1)
        wanted = torch.rand(*upper.shape[:-1], 1, device=upper.device) * upper[..., -1:]
        found = torch.searchsorted(upper, wanted, right=True)
        return found.clamp(max=upper.shape[-1] - 1)[..., 0]


FAMILIES: dict[str, Callable[[Spec, dict[str, Any]], tuple[Any, Loss]]] = {
    "electra": electra,
    "deberta_v1": deberta_v1,
    "deberta_v3": deberta_v3,
    "xlnet": xlnet,
}


def make(spec: Spec) -> tuple[Any, Loss]:
    """The model of a family and the function that computes its loss on the rows of all arms."""
    import torch

    torch.manual_seed(0)
    model, loss_of = FAMILIES[spec.family](spec, peer.make_inputs(spec))
    return model.to(spec.device).train(), loss_of


def worker(given: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """For ``turns.serve``."""
    spec = Spec(**given)
    runtime.tune()
    model, loss_of = make(spec)
    step = peer.train_step(model, loss_of, bfloat16=spec.bfloat16, fused=True, device=spec.device)
    return step, {"parameters": sum(p.numel() for p in model.parameters())}


if __name__ == "__main__":
    turns.serve(worker)
