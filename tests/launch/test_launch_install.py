"""install.sh, quickstart.sh and test.sh: a pretended Python, a checkout with an awkward path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def pip_targets(bench) -> list[str]:
    return [call["argv"][-1] for call in bench.calls("python3", "-m pip install")]


def test_quickstart_installs_and_calls_one_verb(bench):
    done = bench.run("quickstart.sh")
    assert done.returncode == 0, done.stderr
    assert pip_targets(bench) == ["."]
    (pip,) = bench.calls("python3", "-m pip install")
    assert pip["cwd"] == str(bench.root)
    (call,) = bench.calls("bert-variants")
    expected = ["quickstart", "--minutes", "5", "--dir", f"{bench.root}/runs/quickstart"]
    assert call["argv"] == expected
    assert call["cwd"] == str(bench.root)
    assert call["env"]["JAX_COMPILATION_CACHE_DIR"] == f"{bench.root}/.jax_cache"


def test_quickstart_again_installs_nothing(bench):
    for _ in range(2):
        assert bench.run("quickstart.sh").returncode == 0
    assert len(bench.calls("python3", "-m venv")) == 1
    assert len(pip_targets(bench)) == 1
    assert len(bench.calls("bert-variants")) == 2


def test_a_named_python_of_the_same_version_keeps_the_environment(bench):
    for _ in range(2):
        assert bench.run("quickstart.sh", "--python", "python3").returncode == 0
    assert len(bench.calls("python3", "-m venv")) == 1
    assert len(pip_targets(bench)) == 1


@pytest.mark.parametrize("name", ["setup.py", "pyproject.toml"])
def test_changed_packaging_installs_again_in_the_same_environment(bench, name):
    bench.run("quickstart.sh")
    with open(bench.root / name, "a") as file:
        file.write("# changed\n")
    bench.run("quickstart.sh")
    assert len(bench.calls("python3", "-m venv")) == 1
    assert pip_targets(bench) == [".", "."]


def test_a_moved_checkout_installs_again(bench):
    bench.run("quickstart.sh")
    shutil.move(bench.root, bench.root.with_name("moved"))
    # The pretended Python answers with the real one's prefix; a real one's moves with it.
    stamp = bench.root.with_name("moved") / ".venv" / "installed"
    before = stamp.read_text()
    key = before.split("\n")[0]
    assert len(key) == 64
    stamp.write_text(before.replace(key, "0" * 64))
    bench.root = bench.root.with_name("moved")
    bench.run("quickstart.sh")
    assert len(pip_targets(bench)) == 2


def test_extras_add_up_and_are_kept(bench):
    assert bench.run("install.sh", "--extra", "dev").returncode == 0
    assert bench.run("install.sh", "--extra", "zh", "--extra", "dev").returncode == 0
    assert bench.run("quickstart.sh").returncode == 0
    assert pip_targets(bench) == [".[dev]", ".[dev,zh]"]
    with open(bench.root / "setup.py", "a") as file:
        file.write("# changed\n")
    bench.run("quickstart.sh")
    assert pip_targets(bench)[-1] == ".[dev,zh]"


def test_a_gpu_gets_its_extra_unless_told_otherwise(bench):
    bench.rules[:] = [r for r in bench.rules if r["program"] != "nvidia-smi"]
    bench.rule("nvidia-smi", replies=[{"stdout": "GPU 0: NVIDIA H100\n"}])
    bench.run("quickstart.sh", "--extra", "none")
    bench.run("quickstart.sh")
    assert pip_targets(bench) == [".", ".[cuda]"]


def test_arguments_reach_the_verb_from_any_directory(bench):
    elsewhere = bench.folder / "else where"
    elsewhere.mkdir()
    done = bench.run("quickstart.sh", "--minutes", "0.5", "--dir", "it's here", cwd=elsewhere)
    assert done.returncode == 0
    (call,) = bench.calls("bert-variants")
    assert call["argv"] == ["quickstart", "--minutes", "0.5", "--dir", f"{elsewhere}/it's here"]


def test_the_verbs_exit_code_is_the_scripts(bench):
    bench.rule("bert-variants", replies=[{"code": 75}])
    assert bench.run("quickstart.sh").returncode == 75


def test_pip_failing_shows_why_and_leaves_no_stamp(bench):
    why = "ERROR: No matching distribution found for jax\n"
    bench.rule("pip", "install", replies=[{"code": 1, "stderr": why}, {}])
    done = bench.run("quickstart.sh")
    assert done.returncode == 1
    assert why in done.stderr
    assert "install.log" in done.stderr
    assert not bench.calls("bert-variants")
    assert bench.run("quickstart.sh").returncode == 0
    assert len(pip_targets(bench)) == 2


def test_an_old_python_is_named(bench):
    bench.rules[:] = [r for r in bench.rules if r["program"] != "python-version"]
    bench.rule("python-version", replies=[{"code": 1, "stdout": "Python 3.9.18\n"}])
    done = bench.run("quickstart.sh")
    assert done.returncode == 1
    assert "no Python >= 3.11" in done.stderr
    assert "python3 is Python 3.9.18" in done.stderr
    assert "--python" in done.stderr


def test_a_named_python_that_is_not_there(bench):
    done = bench.run("quickstart.sh", "--python", "/no/such/python")
    assert done.returncode == 1
    assert "/no/such/python" in done.stderr


@pytest.mark.parametrize(
    "script", ["quickstart.sh", "install.sh", "gpu.sh", "tpu_vm.sh", "worker.sh"]
)
def test_unknown_arguments_are_usage_errors(bench, script):
    done = bench.run(script, *(["run"] if script != "quickstart.sh" else []), "--minuets", "3")
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert not (bench.root / ".venv").exists()


def test_an_option_without_its_value(bench):
    done = bench.run("quickstart.sh", "--minutes")
    assert done.returncode == 2
    assert "--minutes needs a value" in done.stderr


@pytest.mark.parametrize(
    "script",
    ["quickstart.sh", "install.sh", "test.sh", "gpu.sh", "tpu_vm.sh", "worker.sh", "slurm.sbatch"],
)
def test_help(bench, script):
    done = bench.run(script, "--help")
    assert done.returncode == 0
    assert f"launch/{script}" in done.stdout
    assert "set -euo" not in done.stdout
    assert not bench.calls("python3")


def test_test_runs_the_default_suite_with_the_dev_extra(bench):
    done = bench.run("test.sh", "-k", "a b")
    assert done.returncode == 0, done.stderr
    assert pip_targets(bench) == [".[dev]"]
    (call,) = bench.calls("python3", "-m pytest")
    assert call["argv"] == [
        *("-m", "pytest", "-m", "not slow and not oracle", "-n", "2", "--dist", "loadfile"),
        *("--max-worker-restart=0", "-k", "a b"),
    ]
    assert call["cwd"] == str(bench.root)
    assert call["env"]["JAX_COMPILATION_CACHE_DIR"] == f"{bench.root}/.jax_cache"


def test_test_in_one_process_and_its_exit_code(bench):
    bench.rule("pytest", replies=[{"code": 1}])
    done = bench.run("test.sh", PYTEST_WORKERS="0")
    assert done.returncode == 1
    (call,) = bench.calls("python3", "-m pytest")
    assert "-n" not in call["argv"]


@pytest.mark.slow
def test_a_real_environment_in_an_awkward_place(bench, tmp_path: Path):
    """The stamp, the editable install and the console script, with a real Python and a real pip.

    The package is replaced by an empty one, so that nothing is downloaded but setuptools.
    """
    (bench.root / "setup.py").write_text(
        "from setuptools import setup\n"
        "setup(name='bert-variants', version='0', py_modules=['small'],\n"
        "      entry_points={'console_scripts': ['bert-variants = small:main']})\n"
    )
    (bench.root / "small.py").write_text("import sys\n\ndef main():\n    print(sys.argv[1:])\n")
    # pip writes the interpreter's path between double quotes into the script that it installs, so
    # those are beyond us.
    root = bench.root.rename(tmp_path / "a user's place")
    command = ["bash", str(root / "launch" / "quickstart.sh"), "--python", sys.executable]
    environment = {**os.environ, "STAND_IN_HOME": str(bench.folder)}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--extra", "none"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        expected = ["quickstart", "--minutes", "5", "--dir", f"{root}/runs/quickstart"]
        assert done.stdout == f"{expected}\n"
        said.append("installing" in done.stderr)
    assert said == [True, False]
