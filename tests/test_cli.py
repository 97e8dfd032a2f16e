"""The command line: what it reads, what it refuses, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from bert_variants import cli, config


def read(*argv: str) -> tuple[config.Experiment, list[str]]:
    experiment, rest, _ = cli.base_experiment(list(argv))
    return experiment, rest


def test_the_config_comes_first_and_takes_its_own_arguments():
    experiment, rest = read("bert", "--size", "mini", "--run.seed", "3")
    assert experiment.name == "bert-mini"
    assert rest == ["--run.seed", "3"]


def test_a_config_may_be_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\nfrom bert_variants.configs import bert\n"
        "def get_config(rate: float = 0.2):\n"
        "    tiny = bert.get_config('tiny')\n"
        "    return dataclasses.replace(tiny, corruption=f'tokens(rate={rate})')\n"
    )
    experiment, rest = read(str(path), "--rate=0.4")
    assert (experiment.corruption, rest) == ("tokens(rate=0.4)", [])


@pytest.mark.parametrize(
    ("argv", "field", "expected"),
    [
        (["--corruption.rate", "0.3"], "corruption", "tokens(rate=0.3)"),
        (["--corruption.rate=0.3"], "corruption", "tokens(rate=0.3)"),
        (
            ["--corruption", "whole_words()", "--corruption.rate", "0.3"],
            "corruption",
            "whole_words(rate=0.3)",
        ),
        (
            ["--corruption.rate", "0.3", "--corruption", "whole_words()"],
            "corruption",
            "whole_words(rate=0.3)",
        ),
        (["--data.example.short", "0.5"], "data.example", "nsp_pairs(short=0.5)"),
        (
            ["--optim.optimizer.bias-correction", "True", "--optim.optimizer.b2", "0.98"],
            "optim.optimizer",
            "adamw(bias_correction=True, b1=0.9, b2=0.98, eps=1e-06)",
        ),
    ],
)
def test_parameters_of_call_strings_are_options(argv, field, expected):
    experiment, rest = read("bert", "--size", "tiny", *argv)
    assert config.get_field(experiment, field) == expected
    assert rest == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["plan", "brt"], "Did you mean 'bert'?"),
        (["plan", "missing.py"], "missing.py does not exist"),
        (["plan", "bert", "--corruption.rat", "0.3"], "Did you mean 'rate'?"),
        (["plan", "bert", "--corruption", "token()"], "Did you mean 'tokens'?"),
        (["plan", "bert", "--objectives", "mlm + nspp"], "Did you mean 'nsp'?"),
        (["plan", "bert", "--data.example", "single()"], "labels.next_sentence"),
        (["plan", "bert", "--size"], "--size needs a value"),
        (["plan", "bert", "--optim.lr", "-1"], "optim.lr is -1.0"),
        (["plan", "bert", "--run.batch", "30", "--run.microbatches", "4"], "not divisible"),
    ],
)
def test_what_is_wrong_is_named_with_exit_code_2(argv, says, capsys):
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_a_misspelt_field_is_answered_with_the_nearest_one(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["plan", "bert", "--optim.warmpu", "3"])
    assert stopped.value.code == 2
    assert "--optim.warmup" in capsys.readouterr().err


def test_errors_of_text_have_exit_code_3(tmp_path, capsys):
    argv = ["prepare", "bert", "--data.dir", str(tmp_path), "--data.source", "text('nothing*.txt')"]
    assert cli.main(argv) == 3
    assert "nothing*.txt" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"bert-variants {verb}" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from bert_variants import cli; cli.main(['--help']);"
        "heavy = {'jax', 'flax', 'numpy', 'tyro', 'orbax', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in cli.VERBS)
    assert time.monotonic() - started < 20  # half a second on a quiet machine
