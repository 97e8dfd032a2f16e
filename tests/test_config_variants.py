"""The arguments of the variants' configs: each combination is whole and says what was published."""

from __future__ import annotations

import itertools
import typing

import pytest

from bert_variants import config, registry
from bert_variants.config import ConfigError
from bert_variants.configs import albert, bert_wwm, roberta
from bert_variants.train import optim

LAYOUTS = typing.get_args(roberta.Layout)
RECIPES = typing.get_args(bert_wwm.Recipe)


def rate(experiment: config.Experiment, at: int) -> float:
    return float(optim.build(experiment.optim, experiment.run.steps)[1](at))


def argument(experiment: config.Experiment, name: str):
    return registry.lookup("model", experiment.model).argument(name)


# ------------------------------------------------------------- RoBERTa


@pytest.mark.parametrize("masking", ["dynamic", "static"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_roberta_layouts(size, layout, masking):
    """Pairs have next-sentence prediction and segments; static masks are ten copies."""
    experiment = config.get_config("roberta", size=size, layout=layout, masking=masking)
    config.check(experiment)
    pairs = layout in ("segment_pair", "sentence_pair")
    assert ("nsp" in experiment.objectives) == pairs
    assert argument(experiment, "segments") == (2 if pairs else 0)
    assert experiment.data.copies == (10 if masking == "static" else 0)


@pytest.mark.parametrize(
    ("size", "peak", "warmup"), [("base", 6e-4, 24_000), ("large", 4e-4, 30_000)]
)
def test_roberta_table_9(size, peak, warmup):
    experiment = config.get_config("roberta", size=size)
    assert (experiment.data.length, experiment.run.batch, experiment.run.steps) == (
        512,
        8192,
        500_000,
    )
    assert rate(experiment, warmup) == pytest.approx(peak)
    assert rate(experiment, (warmup + 500_000) // 2) == pytest.approx(peak / 2)
    assert rate(experiment, 500_000) == 0
    assert (experiment.optim.no_decay, experiment.optim.clip) == ((), 0)


# ------------------------------------------------------------- ALBERT


@pytest.mark.parametrize("size", typing.get_args(albert.Size))
def test_albert_versions(size):
    """Version 2 has no dropout and is longer; the largest never had any."""
    first, second = (config.get_config("albert", size=size, version=v) for v in ("v1", "v2"))
    for experiment in (first, second):
        config.check(experiment)
        assert argument(experiment, "dropout") == argument(experiment, "attention_dropout")
    assert argument(first, "dropout") == (0 if size == "xxlarge" else 0.1)
    assert argument(second, "dropout") == 0
    if size != "tiny":
        assert first.run.steps == 125_000
        assert second.run.steps == (10_000_000 if size == "base" else 3_000_000)
        assert rate(first, 3_125) == pytest.approx(1.76e-3 * (1 - 3_125 / 125_000))


def test_albert_predicts_twenty_at_most():
    for size in ("tiny", "base"):
        call = registry.lookup("corruption", config.get_config("albert", size=size).corruption)
        assert call.argument("cap") == 20


# ------------------------------------------------------------- SpanBERT


def test_spanbert_as_commanded():
    """Decay on everything, bias correction; the rate drops to .99583e-4 when it is warm."""
    experiment = config.get_config("spanbert", size="large")
    assert (experiment.run.steps, experiment.run.batch, experiment.data.length) == (
        2_400_000,
        256,
        512,
    )
    assert rate(experiment, 10_000) == pytest.approx(0.99583e-4, rel=1e-4)
    assert experiment.optim.no_decay == ()
    assert argument(experiment, "eps") == 1e-12
    assert argument(experiment, "activation") == "gelu_erf"


# ------------------------------------------------------------- BERT-wwm


def phases(recipe: str, size: str) -> int:
    found = 1
    while True:
        try:
            config.get_config("bert_wwm", size=size, recipe=recipe, phase=found + 1)
        except ConfigError:
            return found
        found += 1


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", typing.get_args(bert_wwm.Size))
def test_wwm_recipes(size, recipe):
    """Every phase is whole; Chinese recipes hide the words of a segmenter."""
    last = phases(recipe, size)
    assert last == (2 if recipe in ("wwm", "wwm-ext") else 1)
    for phase in range(1, last + 1):
        experiment = config.get_config("bert_wwm", size=size, recipe=recipe, phase=phase)
        config.check(experiment)
        chinese = recipe != "english"
        assert experiment.data.units == ("chinese_words()" if chinese else "")
        assert experiment.corruption.startswith("whole_units" if chinese else "whole_words")
        assert ("nsp" in experiment.objectives) == (recipe != "roberta-wwm-ext")
        if chinese and size != "tiny":
            assert rate(experiment, experiment.run.steps // 10) == pytest.approx(9e-5)


def test_wwm_runs_have_folders_of_their_own():
    every = [
        config.get_config("bert_wwm", size=size, recipe=recipe, phase=phase).run.dir
        for size, recipe in itertools.product(typing.get_args(bert_wwm.Size), RECIPES)
        for phase in range(1, phases(recipe, size) + 1)
    ]
    assert len(set(every)) == len(every)


def test_wwm_vocabulary():
    file = config.get_config("bert_wwm", recipe="wwm", vocab_file="zh/vocab.txt")
    assert file.data.tokenizer == "wordpiece(file='zh/vocab.txt')"
    assert config.get_config("bert_wwm", recipe="wwm").data.tokenizer == "wordpiece(size=21128)"


def test_wwm_refuses_a_phase_that_is_not_there():
    with pytest.raises(ConfigError, match=r"phase is 2, expected 1 \.\. 1 of recipe 'english'"):
        config.get_config("bert_wwm", phase=2)
    with pytest.raises(ConfigError, match=r"phase is 0, expected 1 \.\. 2"):
        config.get_config("bert_wwm", recipe="wwm", phase=0)


# ------------------------------------------------------------- models with a memory


@pytest.mark.parametrize("length", [64, 256])
def test_memories_are_as_long_as_rows(length):
    """A raw part of half a row, three quarters remembered; Transformer-XL remembers a row."""
    xlnet = config.get_config("xlnet", size="tiny", length=length)
    reads = registry.lookup("model", xlnet.model)
    assert xlnet.data.length == length
    assert (reads.argument("reuse"), reads.argument("memory")) == (length // 2, 3 * length // 4)
    for path in ("data.example", "corruption"):
        family = config.call_fields()[path]
        call = registry.lookup(family, config.get_field(xlnet, path))
        assert call.argument("reuse") == length // 2
    causal = config.get_config("transformer_xl", size="tiny", length=length)
    assert causal.data.length == registry.lookup("model", causal.model).argument("memory") == length
    for experiment in (xlnet, causal):
        config.check(experiment)
