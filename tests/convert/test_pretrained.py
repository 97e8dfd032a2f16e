"""Models in and out with their tokenizers: what users call, and what stands on disk afterwards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from convert import forms

import bert_variants as bv
from bert_variants import cli, loaded
from bert_variants.commands import fill_mask
from bert_variants.convert import directory, pretrained, runs
from bert_variants.convert.errors import ConvertError
from bert_variants.loaded import Loaded
from bert_variants.text.tokenizers.wordpiece import WordPiece
from bert_variants.train import leaves

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "ran", ".")
TOKENS = (*WORDS, *"abcdefghijklmnopqrstuvwxy", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxy"))
assert len(TOKENS) == forms.BERT.size
TEXT = "the [MASK] sat ."


def tokenizer(tokens: tuple[str, ...] = TOKENS) -> WordPiece:
    return WordPiece(tokens, lowercase=True, strip_accents=None)


def made(name: str = "bert", rows: int = len(TOKENS), seed: int = 0) -> Loaded:
    """A model of a form, with random parameters."""
    form = forms.FORMS[name]
    experiment = forms.experiment_of(form.model, form.objectives)
    params = forms.random_params(experiment, rows, seed)
    return loaded.of(experiment, leaves.nested(params), tokenizer(), step=7)


def flat(model: Loaded) -> dict[str, np.ndarray]:
    return {path: np.asarray(x) for path, x in leaves.flatten(model.params)[0].items()}


def published(folder: Path, name: str = "bert") -> Loaded:
    """A directory as others write it: without our file."""
    model = made(name)
    bv.save_pretrained(model, folder, form=forms.FORMS[name].form)
    (folder / directory.OURS).unlink()
    return model


def test_a_model_is_saved_and_read_again_as_the_same_object(tmp_path):
    model = made()
    notes = bv.save_pretrained(model, tmp_path / "out")
    assert notes == ("read by transformers.BertForPreTraining",)
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        *("config.json", "model.safetensors", "bert_variants.json", "vocab.txt", "README.md"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    found = bv.from_pretrained(tmp_path / "out")
    assert isinstance(found, Loaded)
    forms.assert_same(flat(found), flat(model))
    assert (found.config, found.step) == (model.config, 7)
    assert found.tokenizer.fingerprint == model.tokenizer.fingerprint
    assert found.fill_mask(TEXT, top=3) == model.fill_mask(TEXT, top=3)
    ids = np.array([found.ids("the cat sat"), [2, 5, 6, 3, 0]])
    np.testing.assert_array_equal(found(ids).hidden_BTD, model(ids).hidden_BTD)


def test_what_is_published_becomes_a_run_and_the_run_what_is_published(tmp_path, capsys):
    model = published(tmp_path / "hub")
    assert cli.main(["convert", str(tmp_path / "hub"), str(tmp_path / "run")]) == 0
    assert "a run at step 0" in capsys.readouterr().out
    assert runs.is_one(tmp_path / "run")
    found = bv.load(tmp_path / "run")
    forms.assert_same(flat(found), flat(model))
    assert found.tokenizer.fingerprint == model.tokenizer.fingerprint
    assert found.config.objectives == "mlm + nsp"
    said = json.loads((tmp_path / "run" / "config.json").read_bytes())
    assert said["run"]["dir"] == str(tmp_path / "run")
    # the call-string of its tokenizer gives its tokenizer
    recipe = bv.lookup("tokenizer", said["data"]["tokenizer"])()
    assert recipe.build(()).fingerprint == model.tokenizer.fingerprint
    assert fill_mask.main(fill_mask.Options(str(tmp_path / "run"), (TEXT,), top=2)) == 0
    assert found.fill_mask(TEXT)[0][0].token in capsys.readouterr().out
    # and the way back, from the run's directory
    assert cli.main(["convert", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    forms.assert_same(flat(bv.from_pretrained(tmp_path / "back")), flat(model))
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("hub", "back")
    )
    assert first == second
    # a run is what from_pretrained reads too
    assert bv.from_pretrained(tmp_path / "run").config == found.config


def test_nothing_is_written_over_and_nothing_is_left_half_written(tmp_path):
    model = published(tmp_path / "hub")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ConvertError, match=r"is there already\. It is no model: give another"):
            bv.save_pretrained(model, tmp_path / "home", force=force)
    with pytest.raises(ConvertError, match=r"is there already\. Give another, or --force"):
        bv.save_pretrained(model, tmp_path / "hub")
    other = dataclasses.replace(model, params=made(seed=1).params)
    bv.save_pretrained(other, tmp_path / "hub", force=True)
    forms.assert_same(flat(bv.from_pretrained(tmp_path / "hub")), flat(other))
    # too large for the type: found while the file is written
    params = flat(model)
    params["heads/tokens/bias"][3] = 1e30
    wide = dataclasses.replace(model, params=leaves.nested(params))
    with pytest.raises(ConvertError, match="float16 cannot hold"):
        bv.save_pretrained(wide, tmp_path / "narrow", dtype="float16")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "hub"]


def test_what_cannot_take_the_name_leaves_the_model_that_has_it(tmp_path, monkeypatch):
    model = published(tmp_path / "hub")
    rename = Path.rename

    def refused(self, target):
        if self.suffix == ".part" and self.is_dir():
            raise OSError("no room for names")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    other = dataclasses.replace(model, params=made(seed=1).params)
    with pytest.raises(OSError, match="no room for names"):
        bv.save_pretrained(other, tmp_path / "hub", force=True)
    forms.assert_same(flat(bv.from_pretrained(tmp_path / "hub")), flat(model))
    assert [p.name for p in tmp_path.iterdir()] == ["hub"]


def test_the_command_says_what_is_wrong_in_one_message(tmp_path, capsys):
    published(tmp_path / "hub")
    said = json.loads((tmp_path / "hub" / "config.json").read_bytes())
    (tmp_path / "hub" / "config.json").write_text(json.dumps(said | {"hidden_act": "swish"}))
    assert cli.main(["convert", str(tmp_path / "hub"), str(tmp_path / "run")]) == 3
    assert "hidden_act is 'swish'" in capsys.readouterr().err
    assert cli.main(["convert", str(tmp_path / "none"), str(tmp_path / "run")]) == 3
    assert "none does not exist." in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["convert", str(tmp_path / "empty"), str(tmp_path / "run")]) == 3
    assert "is no model that can be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_rows_that_are_no_tokens_are_kept_and_told(tmp_path):
    model = made(rows=64)
    bv.save_pretrained(model, tmp_path / "out")
    found = pretrained.look(tmp_path / "out")
    assert "the table has 64 rows, of which 61 are tokens" in found.notes
    bv.from_pretrained(tmp_path / "out").fill_mask(TEXT, top=64)
    notes = pretrained.convert(tmp_path / "out", tmp_path / "run")
    assert any("64 rows" in note for note in notes)
    run = bv.load(tmp_path / "run")
    forms.assert_same(flat(run), flat(model))
    assert any(guess.token == "[63]" for guess in run.fill_mask(TEXT, top=64)[0])


def test_a_vocabulary_larger_than_the_table_is_refused(tmp_path):
    bv.save_pretrained(made(rows=64), tmp_path / "out")
    said = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert said["vocab_size"] == 64
    small = dataclasses.replace(made(rows=64), tokenizer=tokenizer(TOKENS + tuple("123456789")))
    bv.save_pretrained(small, tmp_path / "other")
    with pytest.raises(ConvertError, match="has 70 tokens, the model's table 64 rows"):
        bv.from_pretrained(tmp_path / "other")


def test_two_networks_are_saved_and_converted_as_one_model(tmp_path):
    experiment = forms.experiment_of(forms.PAIRS["electra"], "mlm + 50*replaced_token")
    params = forms.random_params(experiment, len(TOKENS))
    arrays = leaves.nested({path: jax.numpy.asarray(x) for path, x in params.items()})
    model = loaded.of(experiment, arrays, tokenizer())
    notes = bv.save_pretrained(model, tmp_path / "out", dtype="float32")
    assert notes == (
        "discriminator/: read by transformers.ElectraForPreTraining",
        "generator/: read by transformers.ElectraForMaskedLM",
    )
    forms.assert_same(flat(bv.from_pretrained(tmp_path / "out")), params)
    pretrained.convert(tmp_path / "out", tmp_path / "run")
    forms.assert_same(flat(bv.load(tmp_path / "run")), params)
    # one of the two alone
    reader = bv.from_pretrained(tmp_path / "out" / "discriminator")
    batch = loaded.batch_of(np.array([[2, 5, 6, 7, 3]]))
    whole = model.network.apply(model.params, batch)
    alone = reader.network.apply(reader.params, batch)
    np.testing.assert_array_equal(alone.hidden_BTD, whole.hidden_BTD)
    np.testing.assert_array_equal(alone.replaced_logits_BT, whole.replaced_logits_BT)
    writer = bv.from_pretrained(tmp_path / "out" / "generator")
    assert writer.fill_mask(TEXT) == model.fill_mask(TEXT)


def test_a_model_without_heads_gives_hidden_states_and_is_not_trained(tmp_path):
    model = made("bert_alone")
    bv.save_pretrained(model, tmp_path / "out")
    found = pretrained.look(tmp_path / "out")
    assert found.notes == ("it has no head: it gives hidden states, and predicts nothing",)
    pretrained.convert(tmp_path / "out", tmp_path / "run")
    run = bv.load(tmp_path / "run")
    assert run(np.array([[2, 5, 3]])).hidden_BTD.shape == (1, 3, 12)
    with pytest.raises(ValueError, match="trained no token head"):
        run.fill_mask(TEXT)
    with pytest.raises(bv.config.ConfigError, match="objectives is empty"):
        bv.config.check(run.config)


def test_a_run_keeps_its_own_form(tmp_path):
    published(tmp_path / "hub")
    with pytest.raises(ConvertError, match="whose parameters are float32"):
        pretrained.convert(tmp_path / "hub", tmp_path / "run", dtype="bfloat16")


def test_the_parameters_are_on_the_device(tmp_path):
    published(tmp_path / "hub")
    model = bv.from_pretrained(tmp_path / "hub")
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(model.params))
