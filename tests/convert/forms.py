"""Tiny models of every form, with random parameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from bert_variants import config
from bert_variants.config import Experiment
from bert_variants.convert import directory, families, pairs
from bert_variants.convert.directory import Model
from bert_variants.convert.family import heads_of, shapes_of
from bert_variants.types import Vocab

ROBERTA = Vocab(size=47, pad=1, unk=3, cls=0, sep=2, mask=46, specials=(0, 1, 2, 3, 46))
BERT = Vocab(size=61, pad=0, unk=1, cls=2, sep=3, mask=4, specials=(0, 1, 2, 3, 4))
_SIZES = "layers=3, width=12, heads=3, ffn=20, positions=16"


@dataclasses.dataclass(frozen=True)
class Form:
    """A model of ours and what it becomes: the type of model, the class, the heads apart."""

    model: str
    objectives: str
    model_type: str
    architecture: str
    apart: tuple[str, ...] = ()
    vocab: Vocab = BERT
    form: str = ""


FORMS = {
    "bert": Form(f"bert({_SIZES})", "mlm + nsp", "bert", "BertForPreTraining"),
    "bert_three_segments": Form(
        f"bert({_SIZES}, segments=3, activation='gelu_erf', eps=1e-6)",
        "mlm",
        "bert",
        "BertForMaskedLM",
    ),
    "bert_one_segment": Form(
        f"bert({_SIZES}, segments=1, activation='relu')",
        "nsp",
        "bert",
        "BertForNextSentencePrediction",
    ),
    "bert_untied": Form(
        f"bert({_SIZES}, tied=False, activation='relu')", "mlm", "bert", "BertForMaskedLM"
    ),
    "bert_alone": Form(f"bert({_SIZES})", "", "bert", "BertModel"),
    "spanbert": Form(
        f"bert({_SIZES}, activation='gelu_erf')",
        "mlm + span_boundary",
        "bert",
        "BertForMaskedLM",
        ("spans",),
    ),
    "structbert": Form(
        f"bert({_SIZES})",
        "word_order + sentence_structure",
        "bert",
        "BertForMaskedLM",
        ("pair", "pooler"),
    ),
    "ernie": Form(
        "bert(layers=2, width=12, heads=2, ffn=20, positions=17, eps=1e-5, activation='relu')",
        "mlm + nsp",
        "ernie",
        "ErnieForPreTraining",
        form="ernie",
    ),
    "no_segments": Form(f"bert({_SIZES}, segments=0)", "mlm + nsp", "bert", "BertForPreTraining"),
    "distilbert": Form(
        f"bert({_SIZES}, segments=0, activation='gelu_erf')",
        "mlm",
        "distilbert",
        "DistilBertForMaskedLM",
    ),
    "roberta": Form(
        f"bert({_SIZES}, segments=0, first_position=2, activation='gelu_erf', eps=1e-5)",
        "mlm",
        "roberta",
        "RobertaForMaskedLM",
        vocab=ROBERTA,
    ),
    "roberta_pairs": Form(
        f"bert({_SIZES}, segments=2, first_position=2, activation='gelu_erf', eps=1e-5)",
        "mlm + nsp",
        "roberta",
        "RobertaForMaskedLM",
        ("pair", "pooler"),
        vocab=ROBERTA,
    ),
    "albert": Form(f"albert({_SIZES}, embedding=7)", "mlm + sop", "albert", "AlbertForPreTraining"),
    "albert_groups": Form(
        "albert(layers=5, width=12, heads=4, positions=16, embedding=12, groups=2, segments=3)",
        "mlm",
        "albert",
        "AlbertForMaskedLM",
    ),
    "albert_unshared": Form(
        f"albert({_SIZES}, embedding=15, sharing='none')",
        "mlm + sop",
        "albert",
        "AlbertForPreTraining",
    ),
    "discriminator": Form(
        f"electra({_SIZES}, embedding=10, generator='uniform')",
        "50*replaced_token",
        "electra",
        "ElectraForPreTraining",
    ),
    "generator": Form(
        f"electra({_SIZES}, embedding=10, tying='all')",
        "mlm",
        "electra",
        "ElectraForMaskedLM",
    ),
}
# Models that become two directories.
PAIRS = {
    "electra": f"electra({_SIZES}, embedding=10, generator_width=6, generator_heads=2)",
    "electra_wide": f"electra({_SIZES}, generator_width=12, generator_layers=2)",
    "electra_untied": f"electra({_SIZES}, embedding=8, generator_width=6, tying='none')",
}


def experiment_of(model: str, objectives: str) -> Experiment:
    """An experiment whose other fields are none of a model's business."""
    run = config.Run(precision="float32", steps=123)
    return config.Experiment(name="tiny", model=model, objectives=objectives, run=run)


def random_params(experiment: Experiment, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters of a model, all random, float32."""
    rng = np.random.default_rng(seed)
    shapes = shapes_of(experiment, rows)
    return {p: rng.standard_normal(s).astype(np.float32) for p, s in shapes.items()}


def written(folder: Path, form: Form, seed: int = 0, **options) -> dict[str, np.ndarray]:
    """Write a form's model with random parameters, and return them."""
    experiment = experiment_of(form.model, form.objectives)
    params = random_params(experiment, form.vocab.size, seed)
    options = {"form": form.form, "step": 7} | options
    found = directory.write(folder, experiment, params, form.vocab, **options)
    assert (found.model_type, found.architecture) == (form.model_type, form.architecture)
    assert found.apart == form.apart
    return params


def written_pair(folder: Path, model: str, objectives: str) -> tuple[Experiment, dict]:
    """The same of a model of two networks."""
    experiment = experiment_of(model, objectives)
    params = random_params(experiment, BERT.size)
    heads = heads_of({path: array.shape for path, array in params.items()})
    parts = families.of_model(model, heads).split(experiment)
    pairs.write(folder, experiment, parts, params, BERT, step=9)
    return experiment, params


def read(model: Model) -> dict[str, np.ndarray]:
    """Our parameters of a model in files."""
    pairs_of_them = list(model.arrays())
    made = dict(pairs_of_them)
    assert len(made) == len(pairs_of_them), "a parameter is yielded twice"
    return made


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Bit for bit, and no parameter more or less."""
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == np.float32, path
        np.testing.assert_array_equal(found[path], array, err_msg=path)
