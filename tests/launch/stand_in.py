"""A program that records how it was called and answers as a scenario says.

Installed under the names of gcloud, srun, ssh, ... first on PATH (see conftest.py). Each call is
one JSON line in ``calls.jsonl``. The scenario, ``rules.json``, is a list of rules; the first one
whose program and words fit answers, with its replies in turn, the last of them for ever.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["STAND_IN_HOME"])
REAL_PYTHON = sys.executable
KEPT = ("BERT_VARIANTS_", "CUDA_VISIBLE", "SLURM_", "JAX_COMPILATION")


def main(program: str, me: str, argv: list[str]) -> int:
    call = {
        "program": program,
        "argv": argv,
        "cwd": str(Path.cwd()),
        "env": {k: v for k, v in os.environ.items() if k.startswith(KEPT)},
    }
    # One write in append mode: lines of programs that run at the same time do not mix.
    with open(HOME / "calls.jsonl", "ab", buffering=0) as file:
        file.write(json.dumps(call).encode() + b"\n")
    if program.startswith("python") and argv[:2] != ["-m", "uv"]:
        return python(program, me, argv)
    reply = next_reply(program, argv)
    sys.stdout.write(reply.get("stdout", ""))
    sys.stderr.write(reply.get("stderr", ""))
    sys.stdout.flush()
    if "write" in reply:
        write(reply["write"], argv)
    if reply.get("wait_for_term"):
        return wait_for_term(reply)
    time.sleep(reply.get("sleep", 0))
    if reply.get("kill"):
        os.kill(os.getpid(), reply["kill"])
    if reply.get("execute"):
        return execute(program, argv)
    return reply.get("code", 0)


def next_reply(program: str, argv: list[str]) -> dict:
    line = " ".join(argv)
    for number, rule in enumerate(json.loads((HOME / "rules.json").read_text())):
        if rule["program"] == program and all(word in line for word in rule["words"]):
            counter = HOME / f"count-{number}"
            seen = int(counter.read_text()) if counter.exists() else 0
            counter.write_text(str(seen + 1))
            return rule["replies"][min(seen, len(rule["replies"]) - 1)]
    return {}


def write(files: dict[str, str], argv: list[str]) -> None:
    """Create files below the run directory that the command names."""
    folder = Path(argv[argv.index("--run.dir") + 1])
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def wait_for_term(reply: dict) -> int:
    """As training does: run until SIGTERM or SIGINT, then save and exit 75; a second one kills."""
    got = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: got.append(number))
    (HOME / "waiting").write_text("")
    end = time.monotonic() + 60
    while not got and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)  # saving
    return 128 + got[1] if len(got) > 1 else reply.get("code", 75)


def execute(program: str, argv: list[str]) -> int:
    """What ssh, gcloud ssh and srun do: run the command, here in a pretended home directory."""
    home = HOME / "home"
    home.mkdir(exist_ok=True)
    if program == "srun":
        start = next(i for i, word in enumerate(argv) if not word.startswith("-"))
        return subprocess.call(argv[start:], env={**os.environ, "SLURM_PROCID": "0"})
    words = [a.removeprefix("--command=") for a in argv if a.startswith("--command=")]
    return subprocess.call(["bash", "-c", words[0] if words else argv[-1]], cwd=home)


def python(program: str, me: str, argv: list[str]) -> int:
    """A Python that makes pretended environments and hands everything else to the real one."""
    if argv[:2] == ["-m", "venv"]:
        folder = Path(argv[-1])
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").unlink(missing_ok=True)
        (folder / "bin" / "python").symlink_to(me)
        return 0
    if argv[:2] == ["-m", "pip"]:
        reply = next_reply("pip", argv)
        sys.stderr.write(reply.get("stderr", ""))
        script = HOME / "bin" / "bert-variants"
        target = Path(".venv/bin/bert-variants")
        if target.parent.is_dir():
            with contextlib.suppress(FileExistsError):
                target.symlink_to(script)
        return reply.get("code", 0)
    if argv[:2] == ["-m", "pytest"]:
        return next_reply("pytest", argv).get("code", 0)
    if argv[:1] == ["--version"] or (argv[:1] == ["-c"] and "version_info" in argv[1]):
        reply = next_reply("python-version", [program])
        sys.stdout.write(reply.get("stdout", ""))
        return reply.get("code", 0)
    if argv[:1] == ["-c"] and "sys.executable" in argv[1]:
        print(me)
        return 0
    if argv[:1] == ["-c"] and "import" in argv[1] and "print" not in argv[1]:
        return 0
    return subprocess.call([REAL_PYTHON, *argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
