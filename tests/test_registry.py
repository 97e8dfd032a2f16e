"""Call-strings: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.registry import RegistryError, lookup, parse, register

VALUES = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.tuples(st.integers(), st.text(max_size=3)),
)


@pytest.fixture
def scratch(monkeypatch):
    """Registrations that are forgotten afterwards."""
    registry.names("source")  # loaded for good, and not into what is forgotten
    monkeypatch.setitem(registry._ENTRIES, "source", dict(registry._ENTRIES["source"]))
    return register


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("tokens", ("tokens", [], {})),
        (" tokens() ", ("tokens", [], {})),
        ("tokens(0.2, mask=-1)", ("tokens", [0.2], {"mask": -1})),
        ("f(a='x(y', b=(1, 2), c=None)", ("f", [], {"a": "x(y", "b": (1, 2), "c": None})),
    ],
)
def test_parse(call, expected):
    assert parse(call) == expected


@pytest.mark.parametrize(
    "call",
    [
        "",
        "tokens(",
        "1 + 1",
        "a.b()",
        "f()()",
        "f(x)",
        "f(open('x'))",
        "f(**{'a': 1})",
        "f(a=1, a=2)",
        "__import__('os').system('true')",
        "f(\x00)",
        "(" * 5000,
        "lambda: 1",
    ],
)
def test_parse_refuses(call):
    """Nothing is executed, and the error says what was expected."""
    with pytest.raises(RegistryError, match=r"cannot read .*"):
        parse(call)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), VALUES, max_size=4))
def test_write_and_parse_are_inverse(kwargs):
    kwargs = {k: v for k, v in kwargs.items() if not keyword.iskeyword(k)}
    assert parse(registry.write("name", kwargs)) == ("name", [], kwargs)


def test_edit():
    assert registry.edit("spans(p=0.2)", max_words=5) == "spans(p=0.2, max_words=5)"
    assert registry.edit("bert(12, width=768)", width=64) == "bert(12, width=64)"
    assert registry.edit("mlm", smoothing=0.1) == "mlm(smoothing=0.1)"


def test_lookup_binds():
    call = lookup("corruption", "tokens(rate=0.2, mask=1)")
    assert call.name == "tokens"
    assert dict(call.kwargs) == {"rate": 0.2, "mask": 1}
    assert call.argument("rate") == 0.2
    assert call.argument("random") == 0.1
    assert str(call) == "tokens(rate=0.2, mask=1)"
    assert lookup("corruption", str(call)) == call


def test_positional_arguments_of_a_model():
    assert dict(lookup("model", "bert(3, 48)").kwargs) == {"layers": 3, "width": 48}
    assert lookup("model", "bert(3, 48)").argument("heads") == 12


@pytest.mark.parametrize(
    ("family", "call", "message"),
    [
        (
            "corruption",
            "token",
            r"unknown corruption 'token'. Did you mean 'tokens'\? Known: .*whole",
        ),
        ("corruption", "zzz", r"unknown corruption 'zzz'. Known: "),
        ("corruptio", "tokens", r"unknown family 'corruptio'. Did you mean 'corruption'\?"),
        ("corruption", "tokens(rat=0.1)", r"no parameter 'rat'. Did you mean 'rate'\?"),
        (
            "corruption",
            "tokens(0.1)",
            "1 positional arguments, at most 0 are taken. Name them: rate",
        ),
        ("corruption", "tokens(keys_B=1)", "no parameter 'keys_B'"),
        ("corruption", "tokens(rate='high')", r"'rate' is 'high', expected float \(such as 0.15\)"),
        ("corruption", "tokens(rate=True)", "'rate' is True, expected float"),
        ("corruption", "tokens(rounding='up')", "'rounding' is 'up'. Known: ceil, nearest, random"),
        ("corruption", "tokens(max_predictions=2.5)", "'max_predictions' is 2.5, expected int"),
        ("model", "bert(layers=True)", "'layers' is True, expected int"),
        ("model", "bert(2, layers=3)", "parameter 'layers' is given twice"),
        ("model", "bert(vocab_size=5)", "no parameter 'vocab_size'"),
        ("model", "bert(activation=1)", "'activation' is 1, expected str"),
        ("optimizer", "adamw(bias_correction=0)", "'bias_correction' is 0, expected bool"),
    ],
)
def test_lookup_refuses(family, call, message):
    with pytest.raises(RegistryError, match=message):
        lookup(family, call)


def test_an_int_is_a_float():
    assert lookup("corruption", "tokens(rate=1)").argument("rate") == 1


def test_register_and_call(scratch):
    @scratch("source", flavour="test")
    def made_up(size: int, *, kind: str = "a"):
        return size, kind

    call = lookup("source", "made_up(3)")
    assert call() == (3, "a")
    assert call(kind="b") == (3, "b")
    assert call.traits == {"flavour": "test"}
    assert "made_up" in registry.names("source")
    with pytest.raises(RegistryError, match="source 'made_up' lacks its argument 'size'"):
        lookup("source", "made_up")


def test_two_of_a_name_are_refused_and_the_same_again_is_not(scratch):
    def first():
        return 1

    def second():
        return 2

    scratch("source", name="one")(first)
    scratch("source", name="one")(first)  # a module that is imported again
    with pytest.raises(RegistryError, match=r"'one' is registered twice: by .*first.* by .*second"):
        scratch("source", name="one")(second)
    with pytest.raises(RegistryError, match="unknown family"):
        scratch("sauce")


@pytest.mark.parametrize("family", ["corruption", "objective", "model", "optimizer", "schedule"])
def test_every_family_has_entries_that_explain_themselves(family):
    names = registry.names(family)
    assert names == sorted(names)
    assert names
    for name in names:
        found = registry.entry(family, name)
        assert found.fn.__doc__, name
        for parameter in found.parameters.values():
            assert parameter.default is not parameter.empty, f"{name}.{parameter.name}"
