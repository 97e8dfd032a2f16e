"""Every shell script: shellcheck finds nothing, and nothing is evaluated."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    [
        *REPOSITORY.glob("launch/**/*.sh"),
        *REPOSITORY.glob("launch/*.sbatch"),
        REPOSITORY / ".ci/run",
    ]
)


def test_there_are_scripts():
    assert len(SCRIPTS) >= 10


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_shellcheck(script):
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("shellcheck", path=search)
    assert program, "shellcheck is missing: install the extra 'dev'"
    done = subprocess.run(
        [program, "--external-sources", str(script)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_eval_and_strict_mode(script):
    code = [line for line in script.read_text().split("\n") if not line.lstrip().startswith("#")]
    assert not [line for line in code if re.search(r"(^|[;&|(\s])eval\s", line)]
    # What bash 3.2, the one on macOS, does not know.
    newer = r"mapfile|readarray|(declare|local) -[An]|\$\{\w+(@[A-Za-z]|,,|\^\^)\}|wait -n"
    assert not [line for line in code if re.search(newer, line)]
    if script.parent.name != "lib":
        assert "set -euo pipefail" in code
