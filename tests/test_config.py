"""The experiment as a value: read, written, changed, compared, refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bert_variants import config, registry
from bert_variants.config import ConfigError, Experiment


def changed(path: str, value) -> Experiment:
    return config.set_field(Experiment(), path, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlm", ((1.0, "mlm()"),)),
        ("mlm + nsp", ((1.0, "mlm()"), (1.0, "nsp()"))),
        ("0.5*mlm + 2*nsp()", ((0.5, "mlm()"), (2.0, "nsp()"))),
        (" a(x=1)+b + 3 * c(y='+') ", ((1.0, "a(x=1)"), (1.0, "b()"), (3.0, "c(y='+')"))),
        ("", ()),
        (" ", ()),
    ],
)
def test_objective_terms(text, expected):
    assert config.objective_terms(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlm +", "cannot be read"),
        ("mlm - nsp", "cannot read"),
        ("mlm*0.5", "a weight is a number in front"),
        ("w*mlm", "a weight is a number in front"),
        ("mlm + mlm", "stands there twice"),
        ("mlm(0.1)", "name the parameters"),
        ("mlm + 3", "cannot read"),
    ],
)
def test_objective_terms_refuses(text, message):
    with pytest.raises(ConfigError, match=message):
        config.objective_terms(text)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.length", 3, "data.length is 3, expected at least 4"),
        ("data.copies", -1, "data.copies is -1"),
        ("data.held_out", 1.0, "expected 0 <= x < 1"),
        ("data.held_out", 0.0, "every run is judged on held-out text"),
        ("run.steps", 0, "run.steps is 0, expected at least 1"),
        ("run.microbatches", 3, "run.batch is 256, not divisible by run.microbatches 3"),
        ("mesh", config.Mesh(-1, -1, 1), "at most one of them -1"),
        ("mesh", config.Mesh(0, 1, 1), "axes are positive numbers"),
        ("mesh.tensor", -2, "axes are positive numbers"),
        ("corruption", "tokens(", r"corruption \(corruption\): cannot read"),
        ("corruption", "", "cannot read"),
        ("evals.masks", ("tokens", "x("), r"evals.masks \(corruption\)"),
        ("objectives", "mlm - nsp", "cannot read"),
        ("optim.clip", -0.1, "optim.clip is -0.1"),
    ],
)
def test_refuses_when_made(path, value, message):
    with pytest.raises(ConfigError, match=message):
        changed(path, value)


def test_optional_calls_may_be_empty():
    assert changed("data.units", "").data.units == ""
    assert set(config.call_fields()) >= {"corruption", "model", "data.source", "evals.masks"}


def test_get_and_set():
    new = changed("optim.lr", 0.5)
    assert config.get_field(new, "optim.lr") == 0.5
    assert config.differences(Experiment(), new) == {"optim.lr": (1e-4, 0.5)}
    assert config.set_field(new, "optim.lr", 1e-4) == Experiment()
    assert Experiment().optim.lr == 1e-4, "values are never changed in place"
    with pytest.raises(dataclasses.FrozenInstanceError):
        new.name = "x"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("optim.rl", r"unknown field 'rl'. Did you mean 'lr'\?"),
        ("opptim.lr", r"unknown field 'opptim.lr'. Did you mean 'optim'\?"),
        ("run.step", r"Did you mean 'steps'\?"),
    ],
)
def test_set_refuses_unknown_fields(path, message):
    with pytest.raises(ConfigError, match=message):
        changed(path, 1)


def test_dict_round_trip_through_json():
    new = changed("evals.masks", ("tokens(rate=0.3)",))
    new = config.set_field(new, "mesh.fsdp", 4)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(new)))) == new


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nme": "x"}, r"unknown field 'nme'. Did you mean 'name'\?"),
        ({"optim": {"lrr": 1.0}}, r"unknown field 'optim.lrr'. Did you mean 'lr'\?"),
        ({"optim": 3}, "optim is 3, expected an object"),
        ({"optim": {"lr": "fast"}}, "optim.lr is 'fast', expected float"),
        ({"optim": {"lr": True}}, "optim.lr is True, expected float"),
        ({"run": {"steps": 1.5}}, "run.steps is 1.5, expected int"),
        ({"run": {"steps": True}}, "run.steps is True, expected int"),
        ({"run": {"remat": 1}}, "run.remat is 1, expected bool"),
        ({"run": {"precision": "float16"}}, "run.precision is 'float16', expected one of"),
        ({"evals": {"masks": "tokens"}}, "evals.masks is 'tokens', expected a list"),
        ({"evals": {"masks": ["tokens", 3]}}, r"evals.masks\[1\] is 3, expected str"),
        ({"data": {"length": 2}}, "data.length is 2, expected at least 4"),
    ],
)
def test_from_dict_is_strict(values, message):
    with pytest.raises(ConfigError, match=message):
        config.from_dict(values)


def test_a_whole_number_is_a_float():
    assert config.from_dict({"optim": {"lr": 1}}).optim.lr == 1.0
    assert isinstance(config.from_dict({"optim": {"lr": 1}}).optim.lr, float)


# ------------------------------------------------------------- combinations


def test_check_refuses_objectives_whose_labels_nobody_gives():
    config.check(Experiment())
    with pytest.raises(ConfigError) as caught:
        config.check(changed("data.example", "single()"))
    message = str(caught.value)
    assert "objective 'nsp' needs labels.next_sentence" in message
    assert "neither example 'single' nor corruption 'tokens' gives" in message
    alone = config.set_field(changed("data.example", "single()"), "objectives", "mlm")
    config.check(alone)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("corruption", "tokns()", r"unknown corruption 'tokns'. Did you mean 'tokens'\?"),
        ("corruption", "tokens(rats=1)", r"Did you mean 'rate'\?"),
        ("model", "brt()", r"unknown model 'brt'. Did you mean 'bert'\?"),
        ("objectives", "mln", r"unknown objective 'mln'. Did you mean 'mlm'\?"),
        ("optim.optimizer", "adam()", r"Did you mean 'adamw'\?"),
        ("optim.schedule", "bertlinear()", r"Did you mean 'bert_linear'\?"),
        ("evals.masks", ("whole_word()",), r"Did you mean 'whole_words'\?"),
        ("data.tokenizer", "wordpieces()", r"Did you mean 'wordpiece'\?"),
    ],
)
def test_check_names_the_nearest(path, value, message):
    with pytest.raises(ConfigError, match=message):
        config.check(changed(path, value))


def test_check_refuses_outputs_that_the_model_does_not_make(monkeypatch):
    bert = registry.entry("model", "bert")
    poorer = dataclasses.replace(bert, traits={**bert.traits, "outputs": ("hidden_BTD",)})
    monkeypatch.setitem(registry._ENTRIES["model"], "bert", poorer)
    with pytest.raises(
        ConfigError, match="'mlm' reads token_logits_BPV, which model 'bert' does not"
    ):
        config.check(Experiment())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("tokens(rate=0.0)", "rate is 0.0, expected 0 < rate < 1: nothing would be predicted"),
        ("spans(rate=0)", "rate is 0, expected 0 < rate < 1: nothing would be predicted"),
        ("units(rate=1.0)", "rate is 1.0, .*: no text would be left to predict from"),
        ("tokens(rate=1.5)", "rate is 1.5, .*: it is a share of the text"),
        ("ngrams(rate=-0.1)", "rate is -0.1, .*: it is a share of the text"),
        ("stages(parts=['tokens()', 'spans(rate=1)'], until=[5])", r"'spans\(rate=1\)': rate is 1"),
        (
            "stages(parts=['tokens()', \"ramp(part='tokens(max_predictions=-1)')\"], until=[5])",
            "max_predictions=-1.': max_predictions is -1",
        ),
        ("tokens(max_predictions=-1)", "max_predictions is -1, expected a number of positions"),
    ],
)
def test_rates_that_leave_nothing_are_refused(call, message):
    check_refused(call, message)


def check_refused(call, message):
    """As the corruption of training and as a mask of evaluation."""
    experiment = config.set_field(changed("corruption", call), "data.units", "words()")
    with pytest.raises(ConfigError, match=message):
        config.check(experiment)
    masked = config.set_field(changed("evals.masks", (call,)), "data.units", "words()")
    with pytest.raises(ConfigError, match=message):
        config.check(masked)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "tokens(max_predictions=18)",
            r"asks for 20 of 128 tokens, but max_predictions has room for 18, 14.1% of a full row",
        ),
        ("stages(parts=['spans(rate=0.5, max_predictions=20)', 'tokens()'], until=[5])", "for 64"),
        ("ngrams(max_predictions=5)", r"lower the rate or, if so few are meant, write cap=5"),
    ],
)
def test_room_below_the_rate_is_refused(call, message):
    assert Experiment().data.length == 128
    check_refused(call, message)


@pytest.mark.parametrize(
    "call",
    ["tokens(max_predictions=19)", "tokens(max_predictions=90)", "ngrams(cap=5)"],
)
def test_room_for_the_rate_is_enough(call):
    config.check(changed("corruption", call))


def test_wanted_outputs():
    assert config.wanted_outputs(Experiment()) == (("pair_logits_BC", 2), ("token_logits_BPV", 0))
    assert config.wanted_outputs(changed("objectives", "mlm")) == (("token_logits_BPV", 0),)


def test_wanted_outputs_refuses_two_sizes_of_a_head(monkeypatch):
    nsp = registry.entry("objective", "nsp")
    three = dataclasses.replace(
        nsp, name="three_way", traits={**nsp.traits, "reads": {"pair_logits_BC": 3}}
    )
    monkeypatch.setitem(registry._ENTRIES["objective"], "three_way", three)
    with pytest.raises(ConfigError, match="pair_logits_BC for 2 and for 3 classes"):
        config.wanted_outputs(changed("objectives", "nsp + three_way"))


# ------------------------------------------------------------- files


def test_config_files(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from bert_variants.config import Experiment\n"
        "def get_config(size='tiny'):\n"
        "    return Experiment(name=f'mine-{size}')\n",
        encoding="utf-8",
    )
    assert config.get_config(str(path), size="big").name == "mine-big"
    with pytest.raises(ConfigError, match=r"'bert': size is 'huge'\. Known: base, large, medium"):
        config.get_config("bert", size="huge")
    with pytest.raises(ConfigError, match=r"takes no 'siz'. Did you mean 'size'\?"):
        config.get_config(str(path), siz="big")
    with pytest.raises(ConfigError, match="does not exist"):
        config.get_config(str(tmp_path / "other.py"))
    path.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no function get_config\(\)"):
        config.get_config(str(path))
    with pytest.raises(ConfigError, match=r"unknown config 'brt'. Did you mean 'bert'\?"):
        config.get_config("brt")
