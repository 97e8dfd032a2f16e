"""Sentence-BERT directories: the encoder, how it pools, and modules that ours has not."""

from __future__ import annotations

import dataclasses
import json

import pytest
from convert import forms
from convert.test_pretrained import flat, made

import bert_variants as bv
from bert_variants.convert import pretrained, sentences
from bert_variants.convert.errors import ConvertError


def module(kind: str, path: str = "") -> dict:
    return {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}


def folder_of(folder, modules, pooling):
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


USUAL = [module("Transformer"), module("Pooling", "1_Pooling")]
MEAN = {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize("pooling", [("mean",), ("cls", "max")])
def test_an_encoder_with_its_pooling_goes_there_and_back(tmp_path, pooling):
    model = dataclasses.replace(made("bert_alone"), pooling=pooling)
    notes = bv.save_pretrained(model, tmp_path / "out")
    assert notes[-1] == f"a Sentence-BERT directory, pooling {', '.join(pooling)}"
    found = bv.from_pretrained(tmp_path / "out")
    assert found.pooling == pooling
    forms.assert_same(flat(found), flat(model))
    pretrained.convert(tmp_path / "out", tmp_path / "run")
    run = bv.load(tmp_path / "run")
    assert run.pooling == pooling
    pretrained.convert(tmp_path / "run", tmp_path / "back")
    assert sentences.look(tmp_path / "back").pooling == pooling


def test_the_encoder_may_have_a_folder_of_its_own(tmp_path):
    folder_of(tmp_path, [module("Transformer", "0_Transformer"), USUAL[1]], MEAN)
    encoder = tmp_path / "0_Transformer"
    bv.save_pretrained(made("bert_alone"), encoder)
    (encoder / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    found = sentences.look(tmp_path)
    assert found == sentences.Sentences(encoder, ("mean",), 9, False)
    assert bv.from_pretrained(tmp_path).pooling == ("mean",)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([*USUAL, module("Normalize", "2_Normalize")], "module 2 is '.*Normalize'"),
        ([*USUAL, module("Dense", "2_Dense")], "module 2 is '.*Dense'"),
        ([module("WordEmbeddings"), USUAL[1]], "module 0 is '.*WordEmbeddings'"),
        ([USUAL[1], USUAL[0]], "module 0 is '.*Pooling'"),
        ([USUAL[0], *USUAL], "module 1 is '.*Transformer'"),
        ([USUAL[0]], "there is no pooling"),
        ([USUAL[0], module("Pooling", "../1_Pooling")], "it leads to another folder"),
        ([{"type": "x"}], "is no list of modules"),
        ({"type": "x"}, "is no list of modules"),
    ],
)
def test_modules_that_ours_has_not(tmp_path, modules, message):
    with pytest.raises(ConvertError, match=message):
        sentences.look(folder_of(tmp_path, modules, MEAN))


@pytest.mark.parametrize(
    ("pooling", "found"),
    [
        (MEAN, ("mean",)),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, ("cls",)),
        (MEAN | {"pooling_mode_max_tokens": True}, ("max", "mean")),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({"embedding_dimension": 12, "pooling_mode": "mean"}, ("mean",)),
        ({"pooling_mode": ["max", "cls"]}, ("cls", "max")),
    ],
)
def test_ways_of_pooling(tmp_path, pooling, found):
    assert sentences.look(folder_of(tmp_path, USUAL, pooling)).pooling == found


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        (MEAN | {"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken is true"),
        (MEAN | {"pooling_mode_weightedmean_tokens": True}, "weightedmean_tokens is true"),
        ({"pooling_mode_mean_tokens": False}, "none of pooling_mode_cls_token"),
        ({"pooling_mode": "lasttoken"}, "pooling_mode is 'lasttoken'"),
        (MEAN | {"include_prompt": False}, "ours has no prompts"),
        ({"pooling_mode_mean_tokens": "yes"}, "expected true or false"),
    ],
)
def test_ways_of_pooling_that_ours_has_not(tmp_path, pooling, message):
    with pytest.raises(ConvertError, match=message):
        sentences.look(folder_of(tmp_path, USUAL, pooling))


def test_no_pooling_is_written_that_nobody_knows(tmp_path):
    for pooling in ((), ("median",)):
        with pytest.raises(ConvertError, match="expected of cls, max, mean, mean_sqrt_len"):
            sentences.write(tmp_path / "out", pooling, 12, 16)
