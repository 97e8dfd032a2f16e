"""The page holds what the run's files hold, loads nothing, and survives whatever they hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from report import fake_run

from bert_variants.report import page, plots, run

VOID = {"meta", "br", "hr", "link", "img", "input"}


class Checked(HTMLParser):
    """Every element closed in turn, ids unique, nothing loaded or run."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base")
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#"), value
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check(text: str) -> Checked:
    found = Checked()
    found.feed(text)
    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    # addresses only in names of XML formats, which are never fetched
    assert set(re.findall(r"https?://[^\"' )]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "Content-Security-Policy" in text
    return found


@pytest.fixture
def folder(tmp_path):
    return fake_run.write(tmp_path / "a run", steps=600)


def test_the_page_holds_what_the_run_holds(folder):
    path = page.write(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    said = " ".join(check(text).text)
    rows = run.judgements(run.read(folder).last()[1])
    assert [row.probe for row in rows] == [
        "tokens(rate=0.15)",
        "whole_words(rate=0.15)",
        "held_out",
        "held_out",
    ]
    for row in rows:
        assert f"{row.loss:.3f}" in said
    assert "5.910" in said  # the unigram baseline beside the loss
    assert "bert-variants quickstart --minutes 5" in said
    assert "Started 2 times" in said
    assert "exist" in said
    assert "87.1%" in said
    assert "data.length" in said
    assert text.count("<svg") == 7  # mlm, nsp, masks, accuracy, rate, norm, speed
    assert len(text) < 300_000


def test_the_same_run_gives_the_same_bytes(folder):
    assert page.render(run.read(folder)) == page.render(run.read(folder))


def test_only_what_differs_from_the_defaults_is_marked(folder):
    text = page.render(run.read(folder))
    changed = set(re.findall(r'class="changed"><td class="mono">([^<]*)<', text))
    assert "run.steps" in changed
    assert "data.length" not in changed


def test_names_and_texts_are_escaped(tmp_path):
    bad = '<script>alert(1)</script>"&\u202e'
    folder = fake_run.write(tmp_path, steps=600, name=bad)
    (folder / "fill_mask.json").write_text(
        json.dumps([{"text": bad, "guesses": [[{"token": bad, "probability": 0.5}]]}])
    )
    (folder / "manifest.json").write_text(
        json.dumps({"starts": [{"command": [bad], bad: {bad: bad}}] * 2})
    )
    values = json.loads((folder / "views.json").read_text())
    values["rows"][0]["tokens"][1] = bad
    (folder / "views.json").write_text(json.dumps(values))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 600, f"{bad}/loss": 1.0}) + "\n")
        file.write(json.dumps({"kind": "held_out", "step": 600, f"{bad}/mlm/loss": 1.0}) + "\n")
    text = page.render(run.read(folder))
    said = "".join(check(text).text)
    assert said.count("<script>alert(1)</script>") >= 8
    assert "\u202e" not in said


def test_a_run_that_logged_nothing_yet(tmp_path):
    folder = fake_run.write(tmp_path, steps=600)
    for name in ("metrics.jsonl", "views.json", "fill_mask.json", "manifest.json"):
        (folder / name).unlink()
    text = page.render(run.read(folder))
    check(text)
    assert "nothing was logged yet" in text


def test_damaged_files_are_named_and_the_rest_is_shown(folder):
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    lines[3] = lines[3][:40]
    lines[5] = b'{"kind": "train", "step": "x"}'
    lines.insert(7, b'{"kind": "train", "step": 75, "mlm/loss": NaN}')
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    (folder / "views.json").write_text('{"rows": [{}]}')
    (folder / "fill_mask.json").write_text("{")
    (folder / "manifest.json").write_text('{"starts": [[]]}')
    found = run.read(folder)
    assert found.train[75]["mlm/loss"] is None
    assert 75.0 not in dict(found.series("mlm/loss"))
    text = page.render(found)
    check(text)
    assert "2 unreadable lines were left out (4, 6)" in text
    assert "views.json is not what was expected" in text
    assert "fill_mask.json cannot be read" in text
    assert "manifest.json: starts is not a list of objects" in text
    assert text.count("<svg") == 7


def test_no_run_no_page(tmp_path):
    with pytest.raises(run.ReportError, match=r"config\.json is missing") as error:
        page.write(tmp_path / "absent")
    assert error.value.exit_code == 3
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(run.ReportError, match="holds list, expected dict"):
        page.write(tmp_path)


def test_a_call_with_a_slash_is_one_probe():
    found = run.judgements({'units(file="a/b.txt")/mlm/loss': 2.0})
    assert [(row.probe, row.objective) for row in found] == [('units(file="a/b.txt")', "mlm")]


def test_thinning_keeps_peaks_and_ends():
    points = [(float(i), float(i % 7)) for i in range(50_000)]
    points[31_313] = (31_313.0, 99.0)
    points[40_001] = (40_001.0, -99.0)
    found = plots.thinned(points)
    assert len(found) <= plots.MOST_POINTS
    assert {points[0], points[-1], points[31_313], points[40_001]} <= set(found)
    assert found == sorted(found)
    assert plots.thinned(points[:10]) == points[:10]


def test_smoothing_looks_back_only():
    found = plots.smoothed([(0.0, 2.0), (1.0, 4.0), (2.0, 6.0), (3.0, 8.0)], 2)
    assert found == [(0, 2.0), (1, 3.0), (2, 5.0), (3, 7.0)]


def test_labels_stand_in_a_plot_as_they_are():
    curve = plots.Curve("tokens(rate=0.12345, x='$a_b$') <&> 猫", [(1.0, 2.0), (2.0, 1.0)])
    svg = plots.plot("p", [curve, curve], title="t", unit="nats", log=True)
    assert "mathdefault" not in svg
    assert "tokens(rate=0.12345, x='$a_b$') &lt;&amp;&gt; 猫" in svg
    assert plots.plot("p", [plots.Curve("none", [])], title="t", unit="nats") == ""


def test_a_long_run_stays_small():
    points = [(float(i), 3 + 1 / (1 + i / 999) + (i % 13) / 50) for i in range(100_000)]
    svg = plots.plot("p", plots.with_trend("loss", points, 0), title="t", unit="nats")
    assert len(svg) < 120_000
