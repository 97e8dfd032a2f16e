"""A ``deberta_rtd`` as two directories: what is a sum, what is shared, and what is read again."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from convert import both_ways
from models.parity import assert_close

from bert_variants import config, registry
from bert_variants.convert import directory, families, pairs
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import heads_of, shapes_of
from bert_variants.convert.safetensors_files import read_safetensors
from bert_variants.models import network
from bert_variants.train import leaves
from bert_variants.types import Vocab

ROWS = 96
VOCAB = Vocab(size=ROWS, pad=0, unk=1, cls=2, sep=3, mask=4)
OBJECTIVES = "mlm + 10*replaced_token"
MODELS = {
    "gdes": "deberta_rtd(layers=3, width=12, heads=3, ffn=10, positions=18, segments=2, "
    "relative='deberta_v2(reach=9, buckets=6)', sharing='gdes')",
    "es": "deberta_rtd(layers=2, width=12, heads=2, ffn=10, positions=18, embedding=5, "
    "relative='deberta_v2(reach=9, buckets=6)', sharing='es', absolute='input')",
    "nes": "deberta_rtd(layers=2, width=12, heads=2, ffn=10, positions=18, key_bias=False, "
    "relative='deberta_v1(reach=9)', sharing='nes', generator_layers=3)",
}


def written(name: str, folder) -> tuple[config.Experiment, dict[str, np.ndarray]]:
    """A model with random parameters, in two directories."""
    experiment = config.Experiment(model=MODELS[name], objectives=OBJECTIVES)
    params = both_ways.random_params(experiment, ROWS, 4)
    heads = heads_of(shapes_of(experiment, ROWS))
    family = families.of_model(experiment.model, heads)
    parts = family.split(experiment)
    pairs.write(folder, family.again(experiment), parts, params, VOCAB)
    return experiment, params


@pytest.mark.parametrize("name", ["es", "nes"])
def test_there_and_back(name, tmp_path):
    experiment, params = written(name, tmp_path)
    found = pairs.look(tmp_path)
    assert found.experiment == experiment
    both_ways.same(dict(found.arrays()), params)


def test_differences_are_written_as_sums(tmp_path):
    """The discriminator's directory has what the discriminator reads."""
    experiment, params = written("gdes", tmp_path)
    stored = read_safetensors(tmp_path / "discriminator")
    for ours, theirs in (("word", "word"), ("segment", "token_type")):
        total = params[f"generator_embeddings/{ours}/embedding"]
        total = total + params[f"embeddings/{ours}/embedding"]
        name = f"deberta.embeddings.{theirs}_embeddings.weight"
        np.testing.assert_array_equal(stored[name].load(), total)
    assert "deberta.embeddings.position_embeddings.weight" not in stored
    found = pairs.look(tmp_path)
    assert found.experiment == dataclasses.replace(
        experiment, model=registry.edit(experiment.model, sharing="nes")
    )
    again = dict(found.arrays())
    both_ways.same(
        {path: array for path, array in again.items() if "embeddings/" not in path},
        {path: array for path, array in params.items() if "embeddings/" not in path},
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "gdes" else pytest.mark.slow) for n in MODELS]
)
def test_the_pair_computes_the_same(name, tmp_path):
    """Logits of the generator, and of the discriminator for a text that stays as it is."""
    experiment, params = written(name, tmp_path)
    (tmp_path / directory.OURS).unlink()
    found = pairs.look(tmp_path)
    assert found.experiment.objectives == "1.0*mlm() + 10.0*replaced_token()"
    batch = data.corrupt("tokens(rate=0.3)", data.rows(2, 4, 12))
    outputs = [
        of(experiment, params, batch),
        of(found.experiment, dict(found.arrays()), batch),
    ]
    for field in ("token_logits_BPV", "replaced_logits_BT", "hidden_BTD"):
        first, second = (np.asarray(getattr(one, field)) for one in outputs)
        assert_close(first, second, field)  # tables are added in another order


def test_the_discriminator_alone_is_a_deberta(tmp_path):
    experiment, params = written("gdes", tmp_path)
    found = directory.look(tmp_path / "discriminator")
    assert registry.parse(found.experiment.model)[0] == "deberta"
    assert found.experiment.objectives == "10.0*replaced_token()"
    batch = data.rows(2, 4, 12)
    alone = of(found.experiment, dict(found.arrays()), batch)
    whole = of(experiment, params, batch)
    for field in ("hidden_BTD", "replaced_logits_BT"):
        first, second = (np.asarray(getattr(one, field)) for one in (alone, whole))
        assert_close(first, second, field)  # tables are added in another order


def of(experiment: config.Experiment, params, batch):
    exact = dataclasses.replace(experiment.run, precision="float32")
    net = network.build(dataclasses.replace(experiment, run=exact), ROWS)
    tree = leaves.nested({path: jnp.asarray(array) for path, array in params.items()})
    return data.quickly(net.apply)(tree, jax.tree.map(jnp.asarray, batch))


def test_two_that_make_no_pair_are_refused(tmp_path):
    written("gdes", tmp_path / "one")
    written("es", tmp_path / "two")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "one" / "discriminator").rename(tmp_path / "mixed" / "discriminator")
    (tmp_path / "two" / "generator").rename(tmp_path / "mixed" / "generator")
    with pytest.raises(ConvertError) as error:
        pairs.look(tmp_path / "mixed")
    for part in ("heads is 2 of the generator and 3 of the discriminator", "positions enter one"):
        assert part in str(error.value)
