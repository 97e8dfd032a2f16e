"""Original TensorFlow checkpoints: what is left knowingly, what is refused, and vocabularies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from convert import both_ways
from convert import tensorflow_published as published
from convert.tensorflow_cases import (
    COMMON,
    flat,
    model_of,
    small_pieces,
)

from bert_variants import registry
from bert_variants.convert import pretrained, tensorflow_checkpoints, tensorflow_forms
from bert_variants.convert.bundle import read_bundle, write_bundle
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.tensors import of_arrays
from bert_variants.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A small SentencePiece model."""
    return small_pieces()


def changed(folder: Path, name: str, pieces: Tokenizer, change) -> Path:
    """A written checkpoint with other variables: ``change`` is given them by name."""
    made = model_of(name, pieces)
    pretrained.save_pretrained(made, folder / "out", form="tensorflow")
    form = tensorflow_forms.of_model(registry.lookup("model", made.config.model))
    prefix = folder / "out" / form.checkpoint
    arrays = {n: stored.load() for n, stored in read_bundle(prefix).items()}
    change(arrays)
    for path in prefix.parent.glob(f"{form.checkpoint}.*"):
        path.unlink()
    write_bundle(prefix, of_arrays(arrays))
    return folder / "out"


def test_the_state_of_an_optimizer_is_left_knowingly(pieces, tmp_path):
    def add(arrays):
        for name in list(arrays):
            if name != "global_step":
                slots = ("Adam", "Adam_1") if "pooler" in name else ("adam_m", "adam_v")
                arrays |= {f"{name}/{slot}": arrays[name] * 0 for slot in slots}
        arrays["beta1_power"] = np.array(0.9, np.float32)
        arrays["output_weights"] = np.zeros((3, 12), np.float32)

    found = pretrained.look(changed(tmp_path, "bert", pieces, add))
    variables = len(published.shapes(published.BERT, **COMMON))
    assert len(found.model.left) == 2 * variables + 3
    assert found.model.left["bert/pooler/dense/kernel/Adam_1"] == "the optimizer's state"
    assert found.model.left["global_step"] == "how many steps the run took"
    assert "the head of a task" in found.model.left["output_weights"]
    assert any("not read: " in note for note in found.notes)


def test_all_that_does_not_fit_is_told(pieces, tmp_path):
    def spoil(arrays):
        del arrays["bert/encoder/layer_1/output/dense/kernel"]
        arrays["bert/embeddings/word_embeddings_2"] = np.zeros(3, np.float32)
        kernel = arrays["bert/pooler/dense/kernel"]
        arrays["bert/pooler/dense/kernel"] = kernel[:, :5]
        arrays["cls/predictions/output_bias"] = np.zeros(13, np.int32)

    with pytest.raises(ConvertError) as error:
        pretrained.look(changed(tmp_path, "bert", pieces, spoil))
    for part in (
        "bert/encoder/layer_1/output/dense/kernel [10, 12] is missing",
        "bert/embeddings/word_embeddings_2 [3] is unexpected",
        "bert/pooler/dense/kernel has shape [12, 5], expected [12, 12]",
        "cls/predictions/output_bias is of type int32",
    ):
        assert part in str(error.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    write_bundle(tmp_path / "x.ckpt", of_arrays({"dense/kernel": np.zeros((2, 3), np.float32)}))
    with pytest.raises(ConvertError, match="no checkpoint of BERT, ALBERT, ELECTRA or XLNet"):
        pretrained.look(tmp_path)


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("bert", {"hidden_act": "silu"}, "hidden_act is 'silu'"),
        ("bert", {"attention_window": 3}, "attention_window is 3, a field of unknown meaning"),
        ("albert", {"inner_group_num": 2}, "inner_group_num is 2"),
        ("xlnet", {"d_head": 5}, "d_head is 5"),
        ("electra", {"embedding_size": 8}, "embedding_size is 8, but the variables have 7"),
        ("electra", {"model_hparam_overrides": []}, "expected an object"),
        ("electra", {"model_hparam_overrides": {"hidden_act": 3}}, "hidden_act is 3"),
        ("electra", {"model_hparam_overrides": {"window": 3}}, "unknown meaning: 'window'"),
    ],
)
def test_settings_that_ours_cannot_do_are_refused(name, said, message, pieces, tmp_path):
    made = model_of(name, pieces)
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    form = tensorflow_forms.of_model(registry.lookup("model", made.config.model))
    path = tmp_path / "out" / form.settings_file
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with pytest.raises(ConvertError, match=message):
        pretrained.look(tmp_path / "out")


def test_settings_and_vocabulary_are_asked_for(pieces, tmp_path):
    folder = changed(tmp_path, "bert", pieces, lambda arrays: None)
    (folder / "tokenizer_settings.json").unlink()
    (folder / "vocab.txt").rename(folder / "words")
    with pytest.raises(ConvertError, match=r"holds no vocabulary: put vocab\.txt"):
        pretrained.look(folder)
    (folder / "bert_config.json").unlink()
    with pytest.raises(ConvertError, match=r"bert_config\.json is not there"):
        pretrained.look(folder)


def test_a_class_default_is_their_own(pieces, tmp_path):
    """The class of BERT has 16 segments, the released files say 2."""
    made = model_of("bert", pieces)
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    path = tmp_path / "out" / "bert_config.json"
    said = json.loads(path.read_text())
    assert said.pop("type_vocab_size") == 3
    path.write_text(json.dumps(said))
    with pytest.raises(ConvertError, match=r"token_type_embeddings has shape \[3, 12\], expected"):
        pretrained.look(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "lowercase"),
    [
        ("bert_base_uncased_vocab.txt", True),
        ("bert_base_cased_vocab.txt", False),
        ("bert_base_chinese_vocab.txt", True),
    ],
)
def test_the_case_of_published_vocabularies(name, lowercase, shared_data):
    found = tensorflow_checkpoints.has_no_capitals(shared_data / "vocab" / name)
    assert found == lowercase


@pytest.mark.parametrize("said", [None, False])
def test_a_vocabulary_without_our_settings(said, pieces, tmp_path):
    """As published: lower-cased because no token has capitals, unless hparams.json denies it."""
    made = model_of("electra", pieces)
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    (tmp_path / "out" / "tokenizer_settings.json").unlink()
    path = tmp_path / "out" / "hparams.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": said}))
    tokenizer = pretrained.look(tmp_path / "out").tokenizer
    assert tokenizer.encode_batch(["A"])[0].ids.tolist() == ([5] if said is None else [1])


def test_pieces_without_our_settings(pieces, tmp_path):
    made = model_of("xlnet", pieces)
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    (tmp_path / "out" / "tokenizer_settings.json").unlink()
    tokenizer = pretrained.look(tmp_path / "out").tokenizer
    assert tokenizer.fingerprint == made.tokenizer.fingerprint


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("bert(layers=1, width=12, heads=2, eps=1e-5)", "eps is 1e-05"),
        ("bert(layers=1, width=12, heads=2, activation='gelu_erf')", "activation is 'gelu_erf'"),
        ("bert(layers=1, width=12, heads=2, first_position=2)", "positions begin at row 2"),
        ("bert(layers=1, width=12, heads=2, relative='deberta_v1')", "knows no distances"),
        ("albert(layers=2, width=12, heads=2, sharing='ffn')", "share their ffn alone"),
        ("electra(layers=1, width=12, heads=2, generator='unigram')", "unigram"),
        ("electra(layers=1, width=12, heads=2, generator_width=8, generator_ffn=9)", "ffn is 9"),
        ("deberta(layers=1, width=12, heads=2)", "has no TensorFlow code"),
    ],
)
def test_what_their_code_cannot_do_is_not_written(model, message, pieces, tmp_path):
    objectives = "mlm + replaced_token" if "unigram" in model else "mlm"
    made = model_of("bert", pieces, model=model, objectives=objectives)
    with pytest.raises(ConvertError, match=message):
        pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    assert not (tmp_path / "out").exists()


def test_layers_that_share_nothing_are_groups(pieces, tmp_path):
    model = "albert(layers=3, width=12, heads=2, positions=9, embedding=12, sharing='none')"
    made = model_of("albert", pieces, model=model, objectives="mlm")
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    again = pretrained.from_pretrained(tmp_path / "out")
    assert registry.lookup("model", again.config.model).argument("groups") == 3
    both_ways.same(flat(again), flat(made))


def test_without_a_table_of_segments(pieces, tmp_path):
    """Theirs always has one: of one segment, of zeros."""
    model = "bert(layers=1, width=12, heads=2, positions=9, segments=0)"
    made = model_of("bert", pieces, model=model, objectives="mlm")
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    again = flat(pretrained.from_pretrained(tmp_path / "out"))
    assert not again.pop("embeddings/segment/embedding").any()
    both_ways.same(again, flat(made))
