"""Directories of every form: there and back bit for bit, damaged ones with everything listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from convert import forms
from convert.forms import BERT, FORMS, PAIRS

from bert_variants import config, registry
from bert_variants.convert import directory, pairs
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.safetensors_files import read_safetensors, write_safetensors
from bert_variants.convert.tensors import of_arrays

every = pytest.mark.parametrize("name", FORMS)


def edited(folder: Path, **fields) -> None:
    """Change fields of config.json; None removes one."""
    path = folder / directory.CONFIG
    said = json.loads(path.read_bytes()) | fields
    path.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


def rewritten(folder: Path, change) -> None:
    """Replace model.safetensors by what ``change`` makes of its arrays."""
    arrays = {name: stored.load().copy() for name, stored in read_safetensors(folder).items()}
    (folder / "model.safetensors").unlink()
    write_safetensors(folder, of_arrays(change(arrays)))


@every
def test_there_and_back_is_bitwise_and_the_whole_experiment(tmp_path, name):
    form = FORMS[name]
    params = forms.written(tmp_path / "out", form)
    model = directory.look(tmp_path / "out")
    forms.assert_same(forms.read(model), params)
    assert model.experiment == forms.experiment_of(form.model, form.objectives)
    assert (model.step, model.vocab_size, model.left) == (7, form.vocab.size, {})


@every
def test_without_our_file_it_is_read_as_transformers_reads_it(tmp_path, name):
    """What others wrote has no bert_variants.json: the same numbers, without the heads apart."""
    form = FORMS[name]
    params = forms.written(tmp_path / "out", form)
    (tmp_path / "out" / directory.OURS).unlink()
    model = directory.look(tmp_path / "out")
    found = forms.read(model)
    expected = {k: v for k, v in params.items() if k.split("/")[1] not in form.apart}
    extra = set(found) - set(expected)
    zero = {"embeddings/segment/embedding"} if "segments=0" in form.model else set()
    zero -= {"embeddings/segment/embedding"} if form.model_type == "distilbert" else set()
    assert extra == zero
    assert all(not found.pop(path).any() for path in extra)
    forms.assert_same(found, expected)
    assert model.step == 0
    if model.experiment.objectives:
        config.check(model.experiment)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_storage(tmp_path, dtype):
    params = forms.written(tmp_path / "out", FORMS["structbert"], dtype=dtype)
    stored = read_safetensors(tmp_path / "out")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["dtype"] == dtype
    found = forms.read(directory.look(tmp_path / "out"))
    wide = stored["bert.embeddings.word_embeddings.weight"].load().astype(np.float32)
    np.testing.assert_array_equal(found["embeddings/word/embedding"], wide)
    assert np.abs(wide - params["embeddings/word/embedding"]).max() > 1e-6
    # the heads beside it are ours alone, and lose nothing
    path = "heads/pair/output/kernel"
    np.testing.assert_array_equal(found[path], params[path])


def test_several_files(tmp_path):
    params = forms.written(tmp_path / "out", FORMS["bert"], shard_bytes=4_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    forms.assert_same(forms.read(directory.look(tmp_path / "out")), params)


@pytest.mark.parametrize("objectives", ["mlm + 50*replaced_token", "mlm + corrected"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_generator_and_a_discriminator_are_two_directories(tmp_path, name, objectives):
    experiment, params = forms.written_pair(tmp_path / "out", PAIRS[name], objectives)
    assert pairs.is_one(tmp_path / "out")
    model = pairs.look(tmp_path / "out")
    forms.assert_same(forms.read(model), params)
    assert (model.experiment, model.step) == (experiment, 9)
    classes = {
        part: json.loads((tmp_path / "out" / part / "config.json").read_bytes())["architectures"]
        for part in (pairs.FIRST, pairs.SECOND)
    }
    assert classes[pairs.SECOND] == ["ElectraForMaskedLM"]
    detects = "replaced_token" in objectives
    assert classes[pairs.FIRST] == ["ElectraForPreTraining" if detects else "ElectraModel"]


@pytest.mark.parametrize("name", PAIRS)
def test_two_published_directories_become_one_model(tmp_path, name):
    experiment, params = forms.written_pair(tmp_path, PAIRS[name], "mlm + 50*replaced_token")
    for file in tmp_path.rglob(directory.OURS):
        file.unlink()
    model = pairs.look(tmp_path)
    forms.assert_same(forms.read(model), params)
    mine, read = (registry.lookup("model", e.model) for e in (experiment, model.experiment))
    assert read.argument("tying") == mine.argument("tying")
    assert model.experiment.objectives == "mlm + 50*replaced_token"


def test_two_that_are_not_one_model_say_why(tmp_path):
    forms.written_pair(tmp_path, PAIRS["electra"], "mlm + 50*replaced_token")
    for file in tmp_path.rglob(directory.OURS):
        file.unlink()
    edited(tmp_path / "generator", layer_norm_eps=1e-6)

    def other(arrays):
        arrays["electra.embeddings.position_embeddings.weight"] += 1
        return arrays

    rewritten(tmp_path / "generator", other)
    with pytest.raises(ConvertError) as error:
        pairs.look(tmp_path)
    assert "eps is 1e-06 of the generator and 1e-12 of the discriminator." in str(error.value)
    assert "their tables differ, and the generator's are 10 wide" in str(error.value)


def test_tables_that_differ_though_they_are_one(tmp_path):
    forms.written_pair(tmp_path, PAIRS["electra"], "mlm + 50*replaced_token")

    def other(arrays):
        arrays["electra.embeddings.LayerNorm.bias"] += 1
        return arrays

    rewritten(tmp_path / "generator", other)
    with pytest.raises(ConvertError, match="embeddings/norm/bias is shared by discriminator and"):
        forms.read(pairs.look(tmp_path))


def test_names_that_files_have_had(tmp_path):
    """gamma and beta, a file without the prefix, tied copies, buffers, heads of tasks."""
    params = forms.written(tmp_path, FORMS["bert"])
    (tmp_path / directory.OURS).unlink()

    def older(arrays):
        made = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): x
            for n, x in arrays.items()
        }
        made["cls.predictions.decoder.weight"] = made["bert.embeddings.word_embeddings.weight"]
        made["cls.predictions.decoder.bias"] = made["cls.predictions.bias"]
        made["bert.embeddings.position_ids"] = np.arange(16)[None]
        made["classifier.weight"] = np.ones((3, 12), np.float32)
        made["fit_dense.bias"] = np.ones(9, np.float32)
        return made

    rewritten(tmp_path, older)
    model = directory.look(tmp_path)
    forms.assert_same(forms.read(model), params)
    assert sorted(model.left) == [
        "bert.embeddings.position_ids",
        "classifier.weight",
        "fit_dense.bias",
    ]


def test_an_encoder_alone_has_no_prefix_and_no_head(tmp_path):
    params = forms.written(tmp_path, FORMS["bert"])
    (tmp_path / directory.OURS).unlink()
    rewritten(
        tmp_path,
        lambda arrays: {
            n.removeprefix("bert."): x for n, x in arrays.items() if n.startswith("bert.")
        },
    )
    model = directory.look(tmp_path)
    assert model.experiment.objectives == ""
    assert model.left == dict.fromkeys(
        ["pooler.dense.weight", "pooler.dense.bias"],
        "nothing of this model reads the pooled vector",
    )
    forms.assert_same(
        forms.read(model), {k: v for k, v in params.items() if not k.startswith("heads/")}
    )


def test_everything_that_is_wrong_with_the_tensors_is_listed(tmp_path):
    forms.written(tmp_path, FORMS["bert"])

    def damaged(arrays):
        del arrays["bert.encoder.layer.1.output.dense.bias"]
        del arrays["cls.seq_relationship.bias"]
        arrays["bert.pooler.dense.weight"] = np.ones((12, 13), np.float32)
        arrays["bert.encoder.layer.3.output.dense.bias"] = np.ones(12, np.float32)
        arrays["bert.embeddings.word_embeddings.weight"] = np.ones((61, 12), np.int64)
        return arrays

    rewritten(tmp_path, damaged)
    with pytest.raises(ConvertError) as error:
        directory.look(tmp_path)
    text = str(error.value)
    for line in (
        "bert.encoder.layer.1.output.dense.bias [12] is missing.",
        "cls.seq_relationship.bias [2] is missing.",
        "bert.pooler.dense.weight has shape [12, 13], expected [12, 12].",
        "bert.encoder.layer.3.output.dense.bias [12] is unexpected",
        "bert.embeddings.word_embeddings.weight is of type int64",
    ):
        assert line in text, line
    assert len(text.split("\n")) == 6


def test_a_config_that_was_edited_afterwards_is_noticed(tmp_path):
    forms.written(tmp_path, FORMS["albert"])
    edited(tmp_path, hidden_act="gelu", layer_norm_eps=1e-5)
    with pytest.raises(ConvertError) as error:
        directory.look(tmp_path)
    assert "layer_norm_eps is 1e-05 in config.json, 1e-12 in bert_variants.json" in str(error.value)
    assert "hidden_act is 'gelu' in config.json, 'gelu_new' in bert_variants.json" in str(
        error.value
    )
    edited(tmp_path, hidden_act="gelu_new", layer_norm_eps=1e-12, transformers_version="9")
    directory.look(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": None}, "has no model_type"),
        ({"model_type": "gpt2"}, "model_type 'gpt2' cannot be read"),
        ({"model_type": "roberta"}, "describe"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"vocab_size": "61"}, "vocab_size is '61'"),
        ({"vocab_size": 62}, r"word_embeddings.weight has shape \[61, 12\], expected \[62, 12\]"),
        ({"num_attention_heads": 5}, "bert_variants.json"),
    ],
)
def test_configs_that_cannot_be(tmp_path, fields, message):
    forms.written(tmp_path, FORMS["bert"])
    edited(tmp_path, **fields)
    with pytest.raises(ConvertError, match=message):
        directory.look(tmp_path)


def test_the_layer_of_albert_that_ours_has_not_must_do_nothing(tmp_path):
    """transformers has a layer between tables and encoder where both are 12 wide."""
    forms.written(tmp_path, FORMS["albert_groups"])
    stored = read_safetensors(tmp_path)
    at = "albert.encoder.embedding_hidden_mapping_in"
    np.testing.assert_array_equal(stored[f"{at}.weight"].load(), np.eye(12))

    def other(arrays):
        arrays[f"{at}.weight"][3, 4] = 0.5
        return arrays

    rewritten(tmp_path, other)
    with pytest.raises(
        ConvertError, match=r"mapping_in\.weight is not the identity, and ours has no"
    ):
        directory.look(tmp_path)


def test_a_pickle_is_refused_unless_it_is_named(tmp_path):
    forms.written(tmp_path, FORMS["bert"])
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConvertError, match="is a pickle"):
        directory.look(tmp_path)
    with pytest.raises(ConvertError):  # it is none
        directory.look(tmp_path / "pytorch_model.bin")


def test_heads_apart_that_are_gone_or_of_another_shape(tmp_path):
    forms.written(tmp_path, FORMS["spanbert"])
    apart = tmp_path / directory.EXTRA / "model.safetensors"
    arrays = {n: s.load().copy() for n, s in read_safetensors(apart).items()}
    assert all(name.startswith("heads/spans/") for name in arrays)
    arrays["heads/spans/bias"] = np.ones(3, np.float32)
    apart.unlink()
    write_safetensors(apart.parent, of_arrays(arrays))
    with pytest.raises(ConvertError, match=r"heads/spans/bias has shape \[3\], expected \[61\]"):
        directory.look(tmp_path)
    apart.unlink()
    apart.parent.rmdir()
    with pytest.raises(ConvertError, match="heads/spans/bias of ours has 0 rules"):
        directory.look(tmp_path)


def test_a_table_with_more_rows_than_tokens_keeps_them(tmp_path):
    experiment = forms.experiment_of(FORMS["bert"].model, "mlm")
    params = forms.random_params(experiment, 64)
    directory.write(tmp_path, experiment, params, BERT)
    model = directory.look(tmp_path)
    assert model.vocab_size == 64
    forms.assert_same(forms.read(model), params)
