"""The verbs on a run of a few steps, as a user types them; the Python face on what they made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bert_variants as bv
from bert_variants import cli
from bert_variants.loaded import batch_of

T = 32


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with some text; runs and prepared data go beside it."""
    return tmp_path_factory.mktemp("with a space")


@pytest.fixture(scope="module")
def options(base) -> list[str]:
    """Options of a run of seconds."""
    return [
        *("--size", "tiny", "--data.dir", str(base / "data"), "--data.length", str(T)),
        *("--data.source", "synthetic(documents=60)", "--data.tokenizer", "wordpiece(size=300)"),
        *("--data.held-out", "0.2", "--data.workers", "1"),
        *("--model", f"bert(layers=1, width=16, heads=2, ffn=32, positions={T})"),
        *("--run.dir", str(base / "run"), "--run.steps", "6", "--run.batch", "8"),
        *("--run.log-every", "2", "--run.save-every", "3", "--run.eval-every", "3"),
        *("--run.precision", "float32", "--evals.rows", "8", "--evals.batch", "8"),
    ]


@pytest.fixture(scope="module")
def run(base, options) -> Path:
    """A finished run."""
    assert cli.main(["train", "bert", *options]) == 0
    return base / "run"


def test_training_again_finds_the_run_finished(run, options, capsys):
    before = (run / "metrics.jsonl").read_bytes()
    assert cli.main(["train", "bert", *options]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before
    assert "done" in capsys.readouterr().out


def test_another_setting_in_the_same_directory_is_refused(run, options, capsys):
    assert cli.main(["train", "bert", *options, "--optim.lr", "0.5"]) == 2
    assert "optim.lr" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_a_row_and_trains_nothing(base, options, capsys):
    where = base / "never"
    assert cli.main(["train", "bert", *options, "--run.dir", str(where), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for word in ("parameters", "FLOPs", "memory", "checkpoint", "[CLS]"):
        assert word in out
    assert not where.exists()


def test_evaluate_gives_the_numbers_of_the_end_of_training(run, capsys):
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n") if line]
    last = [line for line in lines if line["kind"] == "held_out"][-1]
    assert last["step"] == found["step"] == 6
    shared = set(found) & set(last) - {"step"}
    assert {"held_out/mlm/loss", "held_out/nsp/loss", "tokens(rate=0.15)/unigram/loss"} <= shared
    for name in shared:
        np.testing.assert_allclose(found[name], last[name], rtol=1e-6, err_msg=name)


def test_fill_mask(run, capsys):
    text = "The [MASK] of the [MASK]."
    assert cli.main(["fill-mask", str(run), text, "--json", "--top", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(one) for one in found["guesses"]] == [3, 3]
    shares = [guess["probability"] for guess in found["guesses"][0]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1


@pytest.mark.parametrize(
    ("text", "says"), [("nothing to guess", "[MASK]"), ("[MASK] " * 40, "at most 32")]
)
def test_fill_mask_refuses(run, text, says, capsys):
    assert cli.main(["fill-mask", str(run), text]) == 2
    assert says in capsys.readouterr().err


def test_show_json_lets_anyone_check_a_corruption(options, capsys):
    assert cli.main(["show", "bert", *options, "--json", "--rows", "4"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.strip().split("\n")]
    assert len(rows) == 4
    for row in rows:
        assert len(row["tokens"]) == len(row["inputs"]) == T
        assert row["positions"]
        changed = [
            i for i, (a, b) in enumerate(zip(row["tokens"], row["inputs"], strict=True)) if a != b
        ]
        assert set(changed) <= set(row["positions"])
        assert [row["tokens"][p] for p in row["positions"]] == row["targets"]


def test_show_draws_rows_and_rates(options, capsys):
    assert cli.main(["show", "bert", *options, "--rows", "2"]) == 0
    assert "[CLS]" in capsys.readouterr().out


def test_report_is_one_file_without_links_elsewhere(run, capsys):
    assert cli.main(["report", str(run)]) == 0
    page = Path(capsys.readouterr().out.strip().split("\n")[-1])
    text = page.read_text()
    assert page.parent == run
    assert "tokens(rate=0.15)" in text
    assert "[CLS]" in text  # the mask views are there
    assert not any(word in text for word in ("src=", "<link", "@import", "<script"))


def test_a_directory_that_is_no_run_is_named(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path)]) == 3
    assert str(tmp_path) in capsys.readouterr().err


def test_a_sequence_longer_than_the_positions_is_refused(options, capsys):
    assert cli.main(["train", "bert", *options, "--data.length", "64"]) == 2
    assert "positions" in capsys.readouterr().err


def test_a_batch_that_the_mesh_cannot_split_is_refused(options, capsys):
    assert cli.main(["train", "bert", *options, "--run.batch", "12"]) == 2
    assert "not divisible by the 8 ways" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(run):
    """The run, loaded."""
    return bv.load(run)


def test_loaded_gives_hidden_states_of_every_layer(model):
    ids = np.asarray([model.ids("the cat")])
    out = model(ids)
    assert out.hidden_BTD.shape == (1, ids.shape[1], 16)
    assert out.layers is None
    layers = model(ids, layers=True).layers
    assert len(layers) == 2
    np.testing.assert_allclose(layers[-1], out.hidden_BTD, rtol=1e-6, atol=1e-6)


def test_the_linen_module_gives_the_same(model):
    ids = np.asarray([model.ids("the cat sat")])
    plain = model.model.apply({"params": model.params}, batch_of(ids))
    np.testing.assert_allclose(plain.hidden_BTD, model(ids).hidden_BTD, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing(model):
    ids = model.ids("the cat sat")
    padded = np.asarray([ids + [model.tokenizer.vocab.pad] * 5])
    mask = np.asarray([[1] * len(ids) + [0] * 5])
    alone = model(np.asarray([ids])).hidden_BTD
    beside = model(padded, attention_mask_BT=mask).hidden_BTD[:, : len(ids)]
    np.testing.assert_allclose(alone, beside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [(([1, 2],), "expected [B, T]"), (([[1, 2]], [[0]]), "segments_BT has shape (1, 1)")],
)
def test_arrays_of_another_shape_are_refused(model, arrays, says):
    with pytest.raises(ValueError, match=r"shape") as refused:
        model(*arrays)
    assert says in str(refused.value)


def test_the_package_names_what_it_offers():
    assert bv.get_config("bert", size="base").name == "bert-base"
    assert "tokens" in bv.names("corruption")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = bv.lod
