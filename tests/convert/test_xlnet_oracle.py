"""XLNet in and out of transformers' directories, at odd configurations, against transformers."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from convert import both_ways
from models.parity import assert_close

from bert_variants import config, registry
from bert_variants.convert import directory
from bert_variants.convert.errors import ConvertError

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

# name -> rows of words, fields of config.json
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "exact_gelu": (
        37,
        {"d_model": 20, "n_head": 5, "n_layer": 3, "d_inner": 14, "mem_len": 7, "clamp_len": 4},
    ),
    "relu": (
        41,
        {
            "d_model": 18,
            "n_head": 3,
            "n_layer": 2,
            "d_inner": 23,
            "mem_len": None,
            "ff_activation": "relu",
            "dropout": 0.2,
            "tie_word_embeddings": False,
            "layer_norm_eps": 1e-6,
        },
    ),
}


def theirs(model: Any, batch: Any) -> dict[str, np.ndarray]:
    """The content stream, and logits of the query stream at every position.

    Every token reads all; a prediction reads all but its own position.
    """
    length = batch.inputs_BT.shape[1]
    one_hot = torch.eye(length)[None].expand(len(batch.inputs_BT), -1, -1)
    with torch.no_grad():
        outputs = model(
            input_ids=torch.from_numpy(batch.inputs_BT).long(),
            token_type_ids=torch.from_numpy(batch.segments_BT).long(),
            attention_mask=torch.from_numpy(batch.valid_BT).float(),
            perm_mask=one_hot.clone(),
            target_mapping=one_hot.clone(),
            labels=torch.from_numpy(both_ways.labels(batch)).long(),
            output_hidden_states=True,
            output_attentions=True,
        )
    return {
        "loss": outputs.loss.numpy(),
        "hidden": torch.stack(outputs.hidden_states[::2]).numpy(),  # of both streams by turns
        "attention": torch.stack([content for content, _ in outputs.attentions]).numpy(),
        "logits": outputs.logits.numpy(),
    }


def compare(found: Any, expected: dict[str, np.ndarray], batch: Any) -> None:
    valid = batch.valid_BT
    for i, layer in enumerate(found.layers):
        assert_close(np.asarray(layer)[valid], expected["hidden"][i][valid], f"layer {i}")
    shares = both_ways.attention(found, valid)
    queries = np.broadcast_to(valid[None, :, None], shares.shape[:4])
    assert_close(shares[queries], expected["attention"][queries], "attention")
    mine = np.asarray(found.token_logits_BPV)
    several = valid & (valid.sum(axis=1) > 1)[:, None]  # a token alone has nothing to read
    assert_close(mine[several], expected["logits"][several], "token logits")
    np.testing.assert_allclose(both_ways.loss(found, batch), expected["loss"], rtol=1e-6)


def read_whole(experiment: config.Experiment) -> config.Experiment:
    """The experiment with text that is read as it stands, as transformers reads it."""
    model = registry.edit(experiment.model, masked="read")
    return dataclasses.replace(experiment, model=model)


@pytest.mark.parametrize("name", CASES)
def test_into_ours_and_back(name, tmp_path):
    """transformers -> ours: all outputs; -> transformers: no key missing or unexpected."""
    vocab, fields = CASES[name]
    kind = transformers.XLNetLMHeadModel
    settings = transformers.XLNetConfig(vocab_size=vocab, attn_implementation="eager", **fields)
    model = both_ways.randomised(kind(settings), list(CASES).index(name))
    batch = both_ways.text(3, vocab, 3)
    expected = theirs(model, batch)
    model.save_pretrained(tmp_path / "theirs")
    found, params = both_ways.read(tmp_path / "theirs")
    assert not found.left
    experiment = read_whole(found.experiment)
    compare(both_ways.run(experiment, params, vocab, batch), expected, batch)
    written = both_ways.write(tmp_path / "ours", experiment, params, vocab)
    assert written.architecture == "XLNetLMHeadModel"
    again = theirs(both_ways.loaded(kind, tmp_path / "ours"), batch)
    valid = batch.valid_BT
    for i in range(fields["n_layer"] + 1):
        assert_close(again["hidden"][i][valid], expected["hidden"][i][valid], f"their layer {i}")
    several = valid & (valid.sum(axis=1) > 1)[:, None]
    assert_close(again["logits"][several], expected["logits"][several], "their logits")


OURS = {
    "untied": "xlnet(layers=3, width=18, heads=3, memory=5, reuse=4, clamp=6, untie=True)",
    "own_table": "xlnet(layers=1, width=12, heads=2, memory=0, untie=True, tied=False)",
    "tied": "xlnet(layers=2, width=20, heads=2, ffn=13, memory=0, untie=False, "
    "activation='gelu_erf', inner_dropout=0.0)",
}


@pytest.mark.parametrize("name", OURS)
def test_ours_into_theirs_and_back(name, tmp_path):
    """Random parameters of ours: what transformers computes of them, and the same bits again."""
    vocab = 39
    experiment = config.Experiment(model=OURS[name], objectives="mlm")
    params = both_ways.random_params(experiment, vocab, 11)
    written = both_ways.write(tmp_path, experiment, params, vocab)
    assert not written.apart
    there = both_ways.loaded(transformers.XLNetLMHeadModel, tmp_path)
    batch = both_ways.text(7, vocab, 3)
    compare(both_ways.run(experiment, params, vocab, batch), theirs(there, batch), batch)
    found, again = both_ways.read(tmp_path)
    assert found.experiment == experiment
    both_ways.same(again, params)
    (tmp_path / directory.OURS).unlink()
    found, again = both_ways.read(tmp_path)
    assert f"untie={name != 'tied'}" in found.experiment.model
    both_ways.same(again, params)


def test_without_a_head(tmp_path):
    """The network alone is XLNetModel, which has a start of its predictions all the same."""
    experiment = config.Experiment(
        model="xlnet(layers=2, width=12, heads=3, memory=0)", objectives=""
    )
    params = both_ways.random_params(experiment, 31, 2)
    assert "start" not in params
    assert both_ways.write(tmp_path, experiment, params, 31).architecture == "XLNetModel"
    there = both_ways.loaded(transformers.XLNetModel, tmp_path)
    assert not there.mask_emb.any()
    _, again = both_ways.read(tmp_path)
    both_ways.same(again, params)
    both_ways.randomised(there, 3).save_pretrained(tmp_path / "theirs")
    found, _ = both_ways.read(tmp_path / "theirs")
    assert list(found.left) == ["mask_emb"]


def test_layers_that_do_not_share_are_not_read_as_sharing(tmp_path):
    settings = transformers.XLNetConfig(
        vocab_size=31, d_model=12, n_head=3, n_layer=2, d_inner=8, untie_r=False
    )
    both_ways.randomised(transformers.XLNetLMHeadModel(settings), 1).save_pretrained(tmp_path)
    with pytest.raises(ConvertError, match=r"should be a copy of transformer\.layer\.0"):
        both_ways.read(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attn_type": "uni"}, "attn_type"),
        ({"same_length": True}, "same_length"),
        ({"d_head": 7}, "d_head is 7"),
        ({"d_head": "7"}, "d_head is '7'"),
        ({"mem_len": "long"}, "mem_len"),
        ({"ff_activation": "silu"}, "ff_activation"),
    ],
)
def test_what_ours_cannot_do_is_refused(fields, message, tmp_path):
    settings = transformers.XLNetConfig(vocab_size=31, d_model=12, n_head=3, n_layer=1, d_inner=8)
    transformers.XLNetLMHeadModel(settings).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ConvertError, match=message):
        directory.look(tmp_path)
