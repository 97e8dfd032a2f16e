"""DeBERTa in and out of transformers' directories, at odd configurations, against transformers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from convert import both_ways
from models.parity import assert_close

from bert_variants import config
from bert_variants.convert import directory
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.families import deberta

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SIZES = {
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "hidden_size": 20,
    "intermediate_size": 14,
    "max_position_embeddings": 16,
    "attn_implementation": "eager",
}
ONE = {"relative_attention": True, "position_biased_input": False}
TWO = {**ONE, "norm_rel_ebd": "layer_norm", "share_att_key": True}
# name -> version, rows of words, fields of config.json
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "v1": ("v1", 37, {**ONE, "pos_att_type": "c2p|p2c", "max_relative_positions": 6}),
    "v1_three_segments": (
        "v1",
        41,
        {**ONE, "pos_att_type": ["p2c"], "type_vocab_size": 3, "legacy": False},
    ),
    "v1_narrow_tables": ("v1", 31, {**ONE, "pos_att_type": ["c2p"], "embedding_size": 9}),
    "v1_no_distances": ("v1", 29, {"type_vocab_size": 2, "hidden_act": "gelu_new"}),
    "v2": (
        "v2",
        43,
        {
            **TWO,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "max_relative_positions": 12,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
    "v2_own_projections": (
        "v2",
        33,
        {**ONE, "pos_att_type": "c2p|p2c", "type_vocab_size": 2, "legacy": False},
    ),
    "v2_biased_input": (
        "v2",
        35,
        {
            **TWO,
            "pos_att_type": ["c2p"],
            "position_biased_input": True,
            "norm_rel_ebd": "none",
            "embedding_size": 12,
            "type_vocab_size": 3,
            "hidden_act": "relu",
        },
    ),
    "v2_untied": (
        "v2",
        38,
        {**TWO, "pos_att_type": ["p2c"], "tie_word_embeddings": False, "embedding_size": 7},
    ),
    "v2_far_convolution": (
        "v2",
        38,
        {**TWO, "pos_att_type": ["p2c"], "conv_kernel_size": 5, "conv_act": "gelu"},
    ),
}


def build(name: str) -> tuple[Any, Any]:
    """The class of transformers, and a random model of it."""
    version, vocab, fields = CASES[name]
    family = "Deberta" if version == "v1" else "DebertaV2"
    kind = getattr(transformers, f"{family}ForMaskedLM")
    settings = getattr(transformers, f"{family}Config")
    seed = list(CASES).index(name)
    model = both_ways.randomised(kind(settings(vocab_size=vocab, **{**SIZES, **fields})), seed)
    with torch.no_grad():
        if "position_buckets" in fields:  # beyond the reach transformers reads row 0, ours row 1
            table = model.deberta.encoder.rel_embeddings.weight
            table[0] = table[1]
    return kind, model


def theirs(model: Any, batch: Any) -> dict[str, np.ndarray]:
    """What transformers makes of the rows: hidden states, attention, logits."""
    with torch.no_grad():
        outputs = model(
            input_ids=torch.from_numpy(batch.inputs_BT).long(),
            attention_mask=torch.from_numpy(batch.valid_BT).long(),
            token_type_ids=torch.from_numpy(batch.segments_BT).long(),
            labels=torch.from_numpy(both_ways.labels(batch)).long(),
            output_hidden_states=True,
            output_attentions=True,
        )
    return {
        "loss": outputs.loss.numpy(),
        "hidden": torch.stack(outputs.hidden_states).numpy(),
        "attention": torch.stack(outputs.attentions).numpy(),
        "logits": outputs.logits.numpy(),
    }


def compare(found: Any, expected: dict[str, np.ndarray], batch: Any, *, logits: bool) -> None:
    valid = batch.valid_BT
    for i, layer in enumerate(found.layers):
        assert_close(np.asarray(layer)[valid], expected["hidden"][i][valid], f"layer {i}")
    shares = both_ways.attention(found, valid)
    queries = np.broadcast_to(valid[None, :, None], shares.shape[:4])
    assert_close(shares[queries], expected["attention"][queries], "attention")
    if logits:
        mine = np.asarray(found.token_logits_BPV)
        assert_close(mine[valid], expected["logits"][valid], "token logits")
        np.testing.assert_allclose(both_ways.loss(found, batch), expected["loss"], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_into_ours_and_back(name, tmp_path):
    """transformers -> ours: all outputs; -> transformers: no key missing or unexpected."""
    kind, model = build(name)
    vocab = CASES[name][1]
    batch = both_ways.text(5, vocab, CASES[name][2].get("type_vocab_size", 0))
    expected = theirs(model, batch)
    model.save_pretrained(tmp_path / "theirs")
    found, params = both_ways.read(tmp_path / "theirs")
    assert found.vocab_size == vocab
    assert not found.left or set(found.left.values()) == {deberta.KEY_OF_DISTANCE}
    compare(both_ways.run(found.experiment, params, vocab, batch), expected, batch, logits=True)
    written = both_ways.write(tmp_path / "ours", found.experiment, params, vocab)
    assert written.architecture == kind.__name__
    again = both_ways.loaded(kind, tmp_path / "ours")
    mine, valid = theirs(again, batch), batch.valid_BT
    for i, layer in enumerate(mine["hidden"]):
        assert_close(layer[valid], expected["hidden"][i][valid], f"their layer {i}")
    assert_close(mine["logits"][valid], expected["logits"][valid], "their logits")


OURS = {
    "v1": "deberta(layers=3, width=18, heads=3, ffn=10, relative='deberta_v1(reach=5)', "
    "key_bias=False, absolute='decoder', positions=16)",
    "v1_input": "deberta(layers=2, width=20, heads=2, relative='deberta_v1(terms=\"c2p\")', "
    "key_bias=False, absolute='input', segments=2, positions=12, embedding=6)",
    "v2": "deberta(layers=2, width=18, heads=3, relative='deberta_v2(reach=14, buckets=6)', "
    "absolute='none', convolution=3, positions=16, segments=3)",
    "v2_decoder": "deberta(layers=3, width=20, heads=4, ffn=22, "
    "relative='deberta_v2(reach=30, buckets=0, projections=\"own\", norm=False)', positions=16)",
    "v1_untied": "deberta(layers=2, width=18, heads=2, relative='deberta_v1(reach=7)', "
    "key_bias=False, absolute='none', positions=12, tied=False)",
    "plain": "deberta(layers=2, width=20, heads=5, relative='', absolute='input', positions=12)",
}


@pytest.mark.parametrize("name", OURS)
def test_ours_into_theirs_and_back(name, tmp_path):
    """Random parameters of ours: what transformers computes of them, and the same bits again."""
    vocab, model = 39, OURS[name]
    experiment = config.Experiment(model=model, objectives="mlm")
    params = both_ways.random_params(experiment, vocab, 11)
    if "encoder/relative/embedding" in params:
        params["encoder/relative/embedding"][0] = params["encoder/relative/embedding"][1]
    written = both_ways.write(tmp_path, experiment, params, vocab)
    assert not written.apart
    kind = getattr(transformers, written.architecture)
    there = both_ways.loaded(kind, tmp_path)
    segments = 3 if "segments=3" in model else 2 if "segments=2" in model else 0
    batch = both_ways.text(7, vocab, segments)
    decodes = "absolute='decoder'" in model or "absolute" not in model
    mine = both_ways.run(experiment, params, vocab, batch)
    compare(mine, theirs(there, batch), batch, logits=not decodes)
    found, again = both_ways.read(tmp_path)
    assert found.experiment == experiment
    both_ways.same(again, params)
    (tmp_path / directory.OURS).unlink()
    found, again = both_ways.read(tmp_path)
    both_ways.same(again, params)


def test_heads_of_a_released_v3_are_read(tmp_path):
    """A discriminator as published: lm_predictions and mask_predictions in one file."""
    import safetensors.torch

    _, model = build("v2_own_projections")
    state = dict(model.state_dict())
    rng = torch.Generator().manual_seed(3)
    wide = {"LayerNorm.weight": (20,), "LayerNorm.bias": (20,), "dense.weight": (20, 20)}
    wide |= {"dense.bias": (20,), "classifier.weight": (1, 20), "classifier.bias": (1,)}
    added = {f"mask_predictions.{k}": torch.randn(s, generator=rng) for k, s in wide.items()}
    model.save_pretrained(tmp_path)
    safetensors.torch.save_file({**state, **added}, tmp_path / "model.safetensors")
    found, params = both_ways.read(tmp_path)
    assert found.experiment.objectives == "mlm + 10*replaced_token"
    batch = both_ways.text(9, 33, 2)
    mine = both_ways.run(found.experiment, params, 33, batch)
    with torch.no_grad():
        top = torch.from_numpy(theirs(model, batch)["hidden"][-1])
        states = torch.nn.functional.layer_norm(
            top + top[:, :1],
            (20,),
            added["mask_predictions.LayerNorm.weight"],
            added["mask_predictions.LayerNorm.bias"],
            1e-7,
        )
        dense = (
            states @ added["mask_predictions.dense.weight"].T + added["mask_predictions.dense.bias"]
        )
        logits = torch.nn.functional.gelu(dense) @ added["mask_predictions.classifier.weight"].T
        logits = (logits + added["mask_predictions.classifier.bias"])[..., 0].numpy()
    valid = batch.valid_BT
    assert_close(np.asarray(mine.replaced_logits_BT)[valid], logits[valid], "replaced")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"talking_head": True}, "talking_head"),
        ({"pos_att_type": ["c2p", "p2p"], "relative_attention": True}, "p2p"),
        ({"pos_att_type": ["c2p"]}, "relative_attention is false"),
        ({"embedding_size": "wide"}, "embedding_size"),
    ],
)
def test_what_ours_cannot_do_is_refused(fields, message, tmp_path):
    model = transformers.DebertaForMaskedLM(transformers.DebertaConfig(vocab_size=31, **SIZES))
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    said = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(said))
    with pytest.raises(ConvertError, match=message):
        directory.look(tmp_path)
