"""Original TensorFlow checkpoints: names and shapes as published, and the same bits back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from convert import both_ways
from convert import tensorflow_published as published

from bert_variants import config, loaded, registry
from bert_variants.convert import pretrained, tensorflow_checkpoints, tensorflow_forms
from bert_variants.convert.bundle import read_bundle, write_bundle
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import resolved, shapes_of
from bert_variants.convert.tensors import of_arrays
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers.wordpiece import WordPiece
from bert_variants.train import leaves

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c", "the", "."]
COMMON = {"V": 13, "S": 3, "P": 9, "D": 12, "F": 10}
# name -> our model, objectives, the published list, its sizes
CASES = {
    "bert": (
        "bert(layers=2, width=12, heads=3, ffn=10, positions=9, segments=3)",
        "mlm + nsp",
        published.BERT,
        {},
    ),
    "albert": (
        "albert(layers=5, width=12, heads=2, ffn=10, positions=9, segments=3, embedding=5, "
        "groups=2, activation='relu')",
        "mlm + sop",
        published.ALBERT,
        {"E": 5},
    ),
    "electra": (
        "electra(layers=2, width=12, heads=4, ffn=10, positions=9, segments=3, embedding=7, "
        "generator_width=6)",
        "mlm + 50*replaced_token",
        published.ELECTRA,
        {"E": 7, "G": 6, "I": 24},
    ),
    "xlnet": (
        "xlnet(layers=2, width=12, heads=3, ffn=10, memory=4)",
        "mlm",
        published.XLNET,
        {"L": 2, "N": 3, "H": 4},
    ),
}


def experiment_of(name: str) -> config.Experiment:
    model, objectives, _, _ = CASES[name]
    return config.Experiment(model=model, objectives=objectives)


def variables(experiment: config.Experiment, params) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what is written; no number is made."""
    call = resolved(registry.lookup("model", experiment.model))
    form = tensorflow_forms.of_model(call)
    made = tensorflow_checkpoints.variables(form, call, params)
    shapes = {name: stored.shape for name, stored in made.items()}
    assert shapes.pop("global_step") == ()
    return shapes


def nothing(experiment: config.Experiment, vocab: int) -> dict[str, np.ndarray]:
    """Arrays of the right shapes that take no memory."""
    shapes = shapes_of(experiment, vocab)
    return {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()}


@pytest.mark.parametrize("name", CASES)
def test_names_and_shapes_are_the_published_ones(name):
    _, _, lines, sizes = CASES[name]
    expected = published.shapes(lines, **{**COMMON, **sizes})
    experiment = experiment_of(name)
    assert variables(experiment, nothing(experiment, COMMON["V"])) == expected


BASE = {"P": 512, "S": 2, "D": 768, "F": 3072}
# model, objectives, the list, sizes, how many numbers the published one has
PUBLISHED = {
    "bert": (
        "bert()",
        "mlm + nsp",
        published.deeper(published.BERT, 12),
        {**BASE, "V": 30522},
        110_106_428,
    ),
    "albert": (
        "albert()",
        "mlm + sop",
        published.deeper(published.ALBERT, 1),
        {**BASE, "V": 30000, "E": 128},
        11_813_810,
    ),
    "electra": (
        "electra(generator_width=256)",
        "mlm + 50*replaced_token",
        published.without(published.deeper(published.ELECTRA, 12), "electra/embeddings_project"),
        {**BASE, "V": 30522, "E": 768, "G": 256, "I": 1024},
        119_386_427,
    ),
    "electra_small": (
        "electra(width=256, heads=4, embedding=128, generator_width=64)",
        "mlm + 50*replaced_token",
        published.deeper(published.ELECTRA, 12),
        {**BASE, "V": 30522, "E": 128, "D": 256, "F": 1024, "G": 64, "I": 256},
        14_196_219,
    ),
    "xlnet": (
        "xlnet()",
        "mlm",
        published.deeper(published.XLNET, 12),
        {**BASE, "V": 32000, "L": 12, "N": 12, "H": 64},
        116_750_336,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    model, objectives, lines, sizes, numbers = PUBLISHED[name]
    expected = published.shapes(lines, **sizes)
    assert published.count(expected) == numbers
    experiment = config.Experiment(model=model, objectives=objectives)
    assert variables(experiment, nothing(experiment, sizes["V"])) == expected


def test_shared_offsets_of_xlnet_are_one_variable():
    experiment = config.Experiment(
        model="xlnet(layers=2, width=12, heads=3, ffn=10, untie=False)", objectives="mlm"
    )
    expected = published.shapes(
        published.XLNET.replace("_bias                       L N H", "_bias N H"),
        **{**COMMON, "L": 2, "N": 3, "H": 4},
    )
    assert expected["model/transformer/r_s_bias"] == (3, 4)
    assert variables(experiment, nothing(experiment, COMMON["V"])) == expected


# ------------------------------------------------------------- there and back


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A small SentencePiece model."""
    recipe = registry.lookup("tokenizer", "sentencepiece(size=60, normalization='xlnet')")()
    return recipe.build(["the cat sat on the mat", "a dog and a cat ran", "no mat is a dog"] * 20)


def model_of(name: str, pieces: Tokenizer, **changes: str) -> loaded.Loaded:
    """A model with random parameters and a tokenizer."""
    tokenizer = pieces if name == "xlnet" else WordPiece(TOKENS, lowercase=True, strip_accents=None)
    experiment = dataclasses.replace(experiment_of(name), **changes)
    rows = tokenizer.vocab.size + 3
    params = both_ways.random_params(experiment, rows, 5)
    tree = leaves.nested({path: jnp.asarray(array) for path, array in params.items()})
    return loaded.of(experiment, tree, tokenizer, 1234)


def flat(made: loaded.Loaded) -> dict[str, np.ndarray]:
    return {path: np.asarray(array) for path, array in leaves.flatten(made.params)[0].items()}


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name, pieces, tmp_path):
    """Written, recognised, read: the same bits, model, vocabulary and step."""
    made = model_of(name, pieces)
    notes = pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    form = tensorflow_forms.of_model(registry.lookup("model", made.config.model))
    assert form.checkpoint in notes[0]
    for path in (tmp_path / "out", tmp_path / "out" / form.checkpoint):
        assert pretrained.kind_of(path) == "tensorflow"
    again = pretrained.from_pretrained(tmp_path / "out" / form.checkpoint)
    both_ways.same(flat(again), flat(made))
    assert again.step == 1234
    assert again.tokenizer.fingerprint == made.tokenizer.fingerprint
    assert again.config.objectives == made.config.objectives
    ours, theirs = (resolved(registry.lookup("model", m.config.model)) for m in (made, again))
    unsaid = {"memory", "reuse", "masked", "inner_dropout", "initialiser", "generator_layers"}
    unsaid |= {"generator_heads", "generator_ffn"}
    for argument in set(ours.entry.parameters) - unsaid:
        assert theirs.argument(argument) == ours.argument(argument), argument


@pytest.mark.parametrize(
    "model",
    [
        "electra(layers=2, width=64, heads=1, ffn=10, positions=9, generator='uniform')",
        "electra(layers=2, width=12, heads=2, ffn=10, positions=9, tying='all')",
        "electra(layers=3, width=64, heads=2, positions=9, tying='none', generator_width=16, "
        "generator_layers=2)",
    ],
)
def test_electra_without_tied_tables(model, pieces, tmp_path):
    objectives = "replaced_token" if "uniform" in model else "mlm + replaced_token"
    made = model_of("electra", pieces, model=model, objectives=objectives)
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    again = pretrained.from_pretrained(tmp_path / "out")
    both_ways.same(flat(again), flat(made))


def test_electra_without_its_settings(pieces, tmp_path):
    """As it was released: the sizes are those of the variables, heads one for each 64."""
    made = model_of("electra", pieces, model="electra(layers=2, width=192, heads=3, positions=9)")
    pretrained.save_pretrained(made, tmp_path / "out", form="tensorflow")
    (tmp_path / "out" / "hparams.json").unlink()
    again = pretrained.from_pretrained(tmp_path / "out")
    call = registry.lookup("model", again.config.model)
    assert [call.argument(n) for n in ("heads", "generator_width", "generator_heads")] == [3, 48, 1]
    both_ways.same(flat(again), flat(made))


# ------------------------------------------------------------- what is left, and what is wrong


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
