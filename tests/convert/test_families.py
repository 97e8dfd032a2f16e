"""Every family's table covers every parameter of every shipped size, once, and nothing twice."""

from __future__ import annotations

import collections
import inspect
import typing

import numpy as np
import pytest
from convert import forms

from bert_variants import config, registry
from bert_variants.convert import families
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import Settings, head_of, heads_of, shapes_of
from bert_variants.convert.matching import uncovered
from bert_variants.convert.rules import LAYER
from bert_variants.convert.tensors import in_memory
from bert_variants.types import Vocab

# Configs whose model transformers has no class for.
NO_FORM = {"transformer_xl"}
VOCAB = Vocab(size=1000, pad=1, unk=3, cls=0, sep=2, mask=4)


def sizes(name: str) -> list[dict[str, str]]:
    function = config.config_module(name).get_config
    if "size" not in inspect.signature(function).parameters:
        return [{}]
    return [{"size": s} for s in typing.get_args(typing.get_type_hints(function)["size"])]


CASES = [
    pytest.param(name, size, id="-".join([name, *size.values()]))
    for name in config.shipped_configs()
    for size in sizes(name)
]


def parts_of(experiment: config.Experiment) -> list[config.Experiment]:
    """The experiment, or those of its parts where it is written as several directories."""
    heads = heads_of(shapes_of(experiment, 1000))
    parts = families.of_model(experiment.model, heads).split(experiment)
    return [part.experiment for part in parts.values()] or [experiment]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_every_parameter_has_one_rule_and_every_tensor_one(name, size):
    experiment = config.get_config(name, **size)
    if registry.parse(experiment.model)[0] in NO_FORM:
        with pytest.raises(ConvertError, match="has no form in Hugging Face's transformers"):
            parts_of(experiment)
        return
    for part in parts_of(experiment):
        shapes = shapes_of(part, 1000)
        heads = heads_of(shapes)
        family = families.of_model(part.model, heads)
        table, classes = family.table_of(part), family.architecture(heads).heads
        inside = {p: s for p, s in shapes.items() if head_of(p, shapes) in ("", *classes)}
        assert uncovered(table, inside) == []
        assert {p for p in shapes if not p.startswith("heads/")} <= set(inside)
        used = [rule for rule in table.rules if rule.paths[0] in inside]
        written = collections.Counter(
            name for rule in used for name in (rule.theirs, *rule.copies, *rule.unread)
        )
        assert set(written.values()) == {1}, "a tensor of theirs is written twice"
        for rule in used:
            if rule.stacked:
                assert "/layers/" in rule.paths[0], rule.theirs


@pytest.mark.parametrize("name", forms.FORMS)
def test_config_json_says_the_model_and_is_read_as_it(name):
    """What is written describes the same model when it is read, up to what theirs cannot say."""
    form = forms.FORMS[name]
    experiment = forms.experiment_of(form.model, form.objectives)
    shapes = shapes_of(experiment, form.vocab.size)
    family = families.of_model(form.model, heads_of(shapes), form.form)
    assert family.model_type == form.model_type
    said = family.hf_config_of(experiment, form.vocab, heads_of(shapes))
    assert said["architectures"] == [form.architecture]
    nothing = np.zeros(0, np.float32)  # the names decide
    names = {
        n.replace(LAYER, "0"): in_memory(n, nothing)
        for r in family.table_of(experiment).rules
        for n in r.names
        if r.paths[0] in shapes
    }
    back = family.experiment_of(Settings(said, "config.json"), names)
    ours, theirs = (registry.lookup("model", e.model) for e in (experiment, back))
    for argument in ours.entry.parameters:
        mine, read = ours.argument(argument), theirs.argument(argument)
        if argument == "ffn":
            mine = mine or 4 * ours.argument("width")
        if argument == "segments":
            mine = mine or (0 if form.model_type == "distilbert" else 1)
        if argument in ("sharing", "groups") and ours.argument("sharing") == "none":
            mine = {"sharing": "all", "groups": ours.argument("layers")}[argument]
        if argument != "initialiser":
            assert read == mine, argument
    if back.objectives:
        config.check(back)


def settings(**values) -> Settings:
    base = {"model_type": "bert", "hidden_size": 12, "num_attention_heads": 3, "vocab_size": 61}
    return Settings(
        base | {"num_hidden_layers": 2, "intermediate_size": 20} | values, "x/config.json"
    )


def test_all_that_cannot_be_read_is_listed():
    bad = settings(
        hidden_act="silu",
        is_decoder=True,
        position_embedding_type="relative_key",
        num_hidden_layers=10**9,
        layer_norm_eps="small",
        favourite_colour="red",
        hidden_size=-1,
    )
    with pytest.raises(ConvertError) as error:
        families.of_model_type("bert", "x").experiment_of(bad, {})
    text = str(error.value)
    assert text.startswith("x/config.json describes a model that cannot be read:")
    for line in (
        "num_hidden_layers is 1000000000, expected a whole number from 0 to 4096.",
        "hidden_size is -1, expected a whole number",
        "layer_norm_eps is 'small', expected a number.",
        "hidden_act is 'silu', expected one of 'gelu'",
        "is_decoder is True, our model 'bert' does False only.",
        "position_embedding_type is 'relative_key', our model 'bert' does 'absolute' only.",
        "favourite_colour is 'red', a field of unknown meaning.",
    ):
        assert line in text, line
    assert len(text.split("\n")) == 8


def test_what_transformers_leaves_out_has_its_defaults():
    """A file says only what differs from the class: the rest is the class's."""
    family = families.of_model_type("albert", "x")
    found = family.experiment_of(Settings({"model_type": "albert", "vocab_size": 30000}, "x"), {})
    call = registry.lookup("model", found.model)
    read = [call.argument(n) for n in ("layers", "width", "heads", "ffn", "embedding", "dropout")]
    assert read == [12, 4096, 64, 16384, 128, 0.0]
    assert call.argument("activation") == "gelu_tanh"
    assert found.objectives == ""


def test_sizes_that_do_not_fit_each_other_are_refused():
    bert = families.of_model_type("bert", "x")
    found = bert.experiment_of(settings(hidden_size=13), {})
    with pytest.raises(ConvertError, match="width 13 is not divisible by heads 3"):
        shapes_of(found, 61)


@pytest.mark.parametrize(
    ("model", "form", "message"),
    [
        ("bert(relative='deberta_v1')", "", "this form knows no distances"),
        ("albert(sharing='ffn')", "", "its layers share their ffn alone"),
        ("bert()", "distilbert", "it has 2 segments, a DistilBERT none"),
        ("bert()", "roberta", "its positions begin at row 0"),
        ("albert()", "bert", "that is the form of our model 'bert'"),
        ("electra(generator='unigram')", "", "a unigram distribution, which is no network"),
        ("bert()", "bart", "model_type 'bart' cannot be read. Did you mean 'bert'"),
    ],
)
def test_a_model_that_a_form_cannot_say_is_refused_with_the_reason(model, form, message):
    with pytest.raises(ConvertError, match=message):
        families.of_model(model, frozenset({"tokens"}), form)


def test_the_rows_of_positions_must_be_behind_padding():
    form = forms.FORMS["roberta"]
    experiment = forms.experiment_of(form.model, form.objectives)
    family = families.of_model(form.model, frozenset({"tokens"}))
    with pytest.raises(ConvertError, match="padding is token 0 of this vocabulary"):
        family.hf_config_of(experiment, forms.BERT, {"tokens"})
    with pytest.raises(ConvertError, match="no row is left behind that of padding, 5"):
        family.experiment_of(
            Settings({"max_position_embeddings": 6, "pad_token_id": 5, "vocab_size": 9}, "x"), {}
        )
