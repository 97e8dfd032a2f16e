"""Original TensorFlow checkpoints: names and shapes as published, and the same bits back."""

from __future__ import annotations

import numpy as np
import pytest
from convert import both_ways
from convert import tensorflow_published as published
from convert.tensorflow_cases import (
    CASES,
    COMMON,
    experiment_of,
    flat,
    model_of,
    small_pieces,
)

from bert_variants import config, registry
from bert_variants.convert import pretrained, tensorflow_checkpoints, tensorflow_forms
from bert_variants.convert.family import resolved, shapes_of
from bert_variants.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A small SentencePiece model."""
    return small_pieces()


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


def test_through_a_run(pieces, tmp_path):
    """A checkpoint becomes a run, and the run the same files again, byte for byte."""
    pretrained.save_pretrained(model_of("bert", pieces), tmp_path / "first", form="tensorflow")
    pretrained.convert(tmp_path / "first" / "bert_model.ckpt", tmp_path / "run")
    pretrained.convert(tmp_path / "run", tmp_path / "second", form="tensorflow")
    for path in sorted((tmp_path / "first").iterdir()):
        if path.name != pretrained.README:
            assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes(), path.name
