"""JSON of others, within limits, and errors that name file and field."""

from __future__ import annotations

import json

import pytest
from convert.hand_made import measured

from bert_variants.convert.errors import ConvertError
from bert_variants.convert.json_files import Fields, parse, read_json


def test_what_is_fine():
    said = {"a": 1, "b": [1.5, None, True, "é", {"c": {}}], "😀": "\u2028", "e": 10**29}
    for written in (json.dumps(said), json.dumps(said, ensure_ascii=False, indent=2)):
        assert parse(written.encode(), "x.json") == said


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"{} x", "is not JSON"),
        (b'{"a": 1,}', "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b"[1]", "is a JSON list, expected an object"),
        (b"null", "is a JSON null, expected an object"),
        (b'"x"', "is a JSON string, expected an object"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands in one object twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', r"holds a number beyond 1e\+40"),
        (b'{"a": [-1e41]}', r"holds a number beyond 1e\+40"),
        (b'{"a": ' + b"9" * 41 + b"}", r"holds a number beyond 1e\+40"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is not JSON: Exceeds the limit"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "is not JSON"),
        (b'{"a": "\\ud800"}', "is half a character"),
        (b'{"a": [{"\\udc00": 1}]}', "is half a character"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "deeper than 32"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "deeper than 32"),
        (b'{"a":' + b"[" * 200_000, "is not JSON|deeper than 32"),
        (b'{"a": [' + b"0," * 500_000 + b"0]}", "holds about 500,00. values, expected at most"),
    ],
)
def test_what_is_refused(data, what):
    with pytest.raises(ConvertError, match=what) as caught:
        parse(data, "x.json")
    assert "x.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.slow
def test_the_largest_takes_bounded_memory_and_time():
    """As many small values as fit, of each kind."""
    cases = [
        (
            "from bert_variants.convert.json_files import MOST_BYTES, MOST_VALUES, parse\n"
            f"one = {one!r}\n"
            "values = sum(one.count(c) for c in b'[{,')\n"
            "count = min(MOST_BYTES // len(one), MOST_VALUES // values) - 10\n"
            "data = b'{\"x\": [' + one * count + b'0]}'",
            "parse(data, 'x.json')",
        )
        for one in (b"[],", b"{},", b'"",', b"1.25,", b'"\xc3\xa9",', b"[[[]]],", b'{"a":0},')
    ]
    for done, (case, _) in zip(measured(cases), cases, strict=True):
        assert done.error == "", case
        assert done.bytes < 64e6, case
        assert done.seconds < 2, case


def test_files(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(ConvertError, match=r"there is no file .*config.json"):
        read_json(path)
    path.write_text('{"a": 2}')
    assert read_json(path) == {"a": 2}
    with pytest.raises(ConvertError, match="has 8 bytes, expected at most 7"):
        read_json(path, most_bytes=7)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConvertError, match="is not a file"):
        read_json(path)


SAID = Fields(
    "config.json",
    {
        "name": "bert",
        "layers": 12,
        "rate": 0.1,
        "tied": True,
        "kinds": ["p2c", "c2p"],
        "none": None,
        "inner": {"size": -1, "deep": {"x": "y"}},
    },
)


def test_fields_are_read():
    assert SAID.string("name") == "bert"
    assert SAID.integer("layers", least=1, most=12) == 12
    assert SAID.number("rate", least=0, most=1) == 0.1
    assert SAID.number("layers") == 12.0
    assert SAID.boolean("tied") is True
    assert SAID.strings("kinds") == ["p2c", "c2p"]
    assert SAID.any("none") is None
    assert SAID.fields("inner").fields("deep").string("x") == "y"
    assert SAID.has("name")
    assert not SAID.has("none")
    assert not SAID.has("absent")


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda f: f.string("absent"), "has no field absent"),
        (lambda f: f.string("layers"), "layers is 12, expected a string"),
        (lambda f: f.integer("rate"), "rate is 0.1, expected a whole number"),
        (lambda f: f.integer("tied"), "tied is True, expected a whole number"),
        (lambda f: f.integer("none"), "none is None, expected a whole number"),
        (lambda f: f.integer("name"), "name is 'bert', expected a whole number"),
        (lambda f: f.integer("layers", most=11), "layers is 12, expected at most 11"),
        (lambda f: f.number("rate", least=0.5), "rate is 0.1, expected at least 0.5"),
        (lambda f: f.number("tied"), "tied is True, expected a number"),
        (lambda f: f.boolean("layers"), "layers is 12, expected true or false"),
        (lambda f: f.strings("inner"), "inner is object, expected a list of strings"),
        (lambda f: f.fields("kinds"), "kinds is list, expected an object"),
        (lambda f: f.fields("inner").integer("size", least=0), "inner.size is -1, expected at l"),
        (lambda f: f.fields("inner").fields("deep").any("z"), "has no field inner.deep.z"),
    ],
)
def test_errors_name_the_field(read, what):
    with pytest.raises(ConvertError, match=f"config.json.*{what}"):
        read(SAID)


def test_what_nobody_asked_for():
    said = Fields("c.json", {"a": 1, "b": None, "c": {"d": 1, "e": 2}})
    said.integer("a")
    said.has("b")
    inner = said.fields("c")
    inner.any("e")
    assert said.unread() == []
    assert inner.unread() == ["c.d"]
