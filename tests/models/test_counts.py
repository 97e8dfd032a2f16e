"""Published parameter counts of the variants, by shapes alone. BERT's stand in test_bert.py."""

from __future__ import annotations

import jax
import pytest
from contracts import test_models as battery

from bert_variants import config, keys, registry
from bert_variants.models import network

MLM, PAIR, POOLED = ("token_logits_BPV", 0), ("pair_logits_BC", 2), ("pooled_BD", 0)


def count(model: str, vocab: int, *wanted: tuple[str, int]) -> int:
    """Parameters of a model with the heads of ``wanted``."""
    call = registry.lookup("model", model)
    net = network.Network(call(vocab_size=vocab, wanted=wanted), call.traits["rules"])
    shapes = jax.eval_shape(net.init, keys.root(0), battery.batch())
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def as_configured(experiment: config.Experiment, vocab: int) -> int:
    """Parameters of an experiment, with the heads of its own objectives."""
    return count(experiment.model, vocab, *config.wanted_outputs(experiment))


@pytest.mark.parametrize(
    ("size", "encoder", "full"),
    [("base", 124_054_272, 124_696_665), ("large", 354_309_120, 355_411_033)],
)
def test_roberta(size, encoder, full):
    """fairseq's form, without a segment table and without a pooler."""
    experiment = config.get_config("roberta", size=size)
    assert count(experiment.model, 50_265) == encoder
    assert as_configured(experiment, 50_265) == full


@pytest.mark.parametrize(
    ("size", "encoder", "pooled", "predicting", "full"),
    [
        ("base", 11_092_992, 11_683_584, 11_221_680, 11_813_810),
        ("large", 16_634_368, 17_683_968, 16_795_824, 17_847_474),
        ("xlarge", 54_528_512, 58_724_864, 54_821_040, 59_021_490),
        ("xxlarge", 205_814_272, 222_595_584, 206_368_944, 223_158_450),
    ],
)
def test_albert(size, encoder, pooled, predicting, full):
    model = config.get_config("albert", size=size).model
    assert count(model, 30_000) == encoder
    assert count(model, 30_000, POOLED) == pooled
    assert count(model, 30_000, MLM) == predicting
    assert count(model, 30_000, MLM, PAIR) == full


@pytest.mark.parametrize(
    ("embedding", "sharing", "pooled"),
    [
        (128, "all", 11_683_584),
        (128, "attention", 63_647_232),
        (128, "ffn", 37_686_528),
        (128, "none", 89_650_176),
        (768, "all", 31_114_752),
        (768, "attention", 83_078_400),
        (768, "ffn", 57_117_696),
        (768, "none", 109_081_344),
    ],
)
def test_what_albert_shares(embedding, sharing, pooled):
    """Table 4 of the paper: 12, 64, 38 and 89 M; 31, 83, 57 and 108 M."""
    model = registry.write("albert", {"embedding": embedding, "sharing": sharing})
    assert count(model, 30_000, POOLED) == pooled


def test_albert_in_groups():
    """Each group adds a block: 7,087,872 of 768 / 3072."""
    one, three = (count(f"albert(groups={groups})", 30_000) for groups in (1, 3))
    assert three - one == 2 * 7_087_872


@pytest.mark.parametrize(("size", "full"), [("base", 110_300_480), ("large", 336_998_976)])
def test_spanbert(size, full):
    """The encoder, the head for masked tokens, the head for spans; no pooler."""
    assert as_configured(config.get_config("spanbert", size=size), 28_996) == full


@pytest.mark.parametrize(("size", "pooled"), [("base", 102_267_648), ("large", 325_522_432)])
def test_chinese_bert_wwm(size, pooled):
    experiment = config.get_config("bert_wwm", size=size, recipe="roberta-wwm-ext")
    assert count(experiment.model, 21_128, POOLED) == pooled


def test_ernie_1():
    """ReLU, 513 positions, 18,000 rows of the table."""
    model = "bert(layers=12, width=768, heads=12, activation='relu', positions=513)"
    assert count(model, 18_000, POOLED) == 99_866_112


@pytest.mark.parametrize(
    ("size", "pooled", "full"),
    [("base", 109_482_240, 110_107_197), ("large", 335_141_888, 336_227_133)],
)
def test_structbert(size, pooled, full):
    """A head of three classes beside the masked language model; English uncased vocabulary."""
    experiment = config.get_config("structbert", size=size)
    assert count(experiment.model, 30_522, POOLED) == pooled
    assert as_configured(experiment, 30_522) == full


def test_ernie():
    """18,000 rows as in its configuration, of which its vocabulary fills 17,964."""
    experiment = config.get_config("ernie")
    assert count(experiment.model, 18_000, POOLED) == 99_866_112
    assert count(experiment.model, 17_964, POOLED) == 99_838_464
    assert as_configured(experiment, 18_000) == 100_477_778
