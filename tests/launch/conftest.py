"""A bench for shell scripts: a checkout in an awkward place, and stand-ins first on PATH."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STAND_IN = Path(__file__).with_name("stand_in.py")
# What the scripts may use of the system. Nothing else of it is on PATH: no real ssh, no second
# Python that a script could find.
TOOLS = (
    *("basename", "bash", "cat", "cp", "date", "dirname", "find", "git", "grep", "gzip", "head"),
    *("kill", "mkdir", "mktemp", "mv", "nohup", "ps", "rm", "sed", "setsid", "sh", "sleep", "tail"),
    *("tar", "touch", "uname"),
)
PROGRAMS = ("gcloud", "ssh", "rsync", "srun", "scontrol", "nvidia-smi", "python3", "bert-variants")


@dataclasses.dataclass
class Bench:
    """A copy of what the scripts need, and the programs that they call.

    Attributes:
        root: the checkout; its path has a space and quotes.
        folder: of the stand-ins: calls, rules, and ``home``, where remote commands run.
    """

    root: Path
    folder: Path
    rules: list[dict] = dataclasses.field(default_factory=list)

    def rule(self, program: str, *words: str, replies: list[dict]) -> None:
        """Make ``program`` answer calls that contain ``words``. Earlier rules go first."""
        self.rules.append({"program": program, "words": list(words), "replies": replies})
        (self.folder / "rules.json").write_text(json.dumps(self.rules))

    def stand_in(self, script: Path) -> None:
        """Put a stand-in somewhere, known by the file's name."""
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -S "{STAND_IN}" {script.name} "{script}" "$@"\n'
        )
        script.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a fresh shell of a user, with the stand-ins first on PATH."""
        kept = ("HOME", "LANG", "TMPDIR")
        fresh = {k: os.environ[k] for k in kept if k in os.environ}
        path = f"{self.folder / 'bin'}:{self.folder / 'tools'}"
        return {**fresh, "PATH": path, "STAND_IN_HOME": str(self.folder), **more}

    def command(self, script: str, *args: str) -> list[str]:
        return ["bash", str(self.root / "launch" / script), *args]

    def run(
        self, script: str, *args: str, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of launch/ to its end."""
        return subprocess.run(
            self.command(script, *args),
            cwd=cwd or self.folder,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, script: str, *args: str, **env: str) -> subprocess.Popen[str]:
        """Start a script and leave it running, as a session leader."""
        return subprocess.Popen(
            self.command(script, *args),
            cwd=self.folder,
            env=self.environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def bash(self, text: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run shell text after sourcing every library."""
        sources = "".join(
            f'source "{self.folder}/lib/{name}.sh"; '
            for name in ("commands", "environment", "relaunch")
        )
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail; {sources}{text}", "bash", *args],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self, program: str, *words: str) -> list[dict]:
        """The recorded calls of a program that contain ``words``, in order."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().split("\n") if path.exists() else []
        found = [json.loads(line) for line in lines if line]
        return [
            call
            for call in found
            if call["program"] == program and all(w in " ".join(call["argv"]) for w in words)
        ]

    def wait_for(self, path: Path, seconds: float = 20) -> None:
        """Wait until a file is there."""
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, f"{path} did not appear in {seconds} s"
            time.sleep(0.02)

    def move_in(self) -> Path:
        """Put a checkout where the remote scripts expect it, as copying would have done."""
        home = self.folder / "home" / "bert-variants"
        copy_checkout(self.root, home)
        return home


def copy_checkout(source: Path, target: Path) -> None:
    shutil.copytree(source / "launch", target / "launch")
    for name in ("setup.py", "pyproject.toml", ".gitignore"):
        shutil.copy(source / name, target / name)


@pytest.fixture
def bench(tmp_path: Path, repository: Path):
    """See Bench. Whatever a test left running detached is ended."""
    folder = tmp_path / "bench"
    (folder / "bin").mkdir(parents=True)
    root = tmp_path / 'a user\'s "work" place'
    copy_checkout(repository, root)
    (folder / "tools").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"this machine lacks {tool}"
        (folder / "tools" / tool).symlink_to(found)
    (folder / "lib").symlink_to(repository / "launch" / "lib")
    (folder / "rules.json").write_text("[]")
    made = Bench(root, folder)
    for program in PROGRAMS:
        made.stand_in(folder / "bin" / program)
    made.rule("python-version", replies=[{"stdout": "Python 3.12.1\n"}])
    # Unless a test says otherwise, there is no GPU here.
    made.rule("nvidia-smi", replies=[{"code": 9, "stderr": "couldn't communicate with the driver"}])
    yield made
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(tmp_path) in word for word in process.cmdline()):
                process.kill()
