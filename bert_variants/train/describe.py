"""What a run's directory says of the run: config.json, tokenizer/, manifest.json."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import jax

from bert_variants import config
from bert_variants.train import fixed, record, resume
from bert_variants.train.begin import Beginning
from bert_variants.train.setup import Setup


def write(setup: Setup, start: Beginning) -> None:
    """Write the config and the tokenizer, and add this start of the run to manifest.json."""
    folder = Path(setup.experiment.run.dir)
    record.write_json(folder / "config.json", config.to_dict(setup.experiment))
    for name, data in setup.tokenizer.files().items():
        record.write_bytes(folder / "tokenizer" / name, data)
    path = folder / "manifest.json"
    earlier = _starts(path)
    probes = fixed.digest(setup.experiment, setup.store)
    now = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": start.step,
        "origin": start.origin,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "command": sys.argv,
        "processes": jax.process_count(),
        "devices": jax.device_count(),
        "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(setup.abstract_state.params)),
        "versions": resume.versions(),
        "revision": _revision(),
        "probes": probes,
    }
    fingerprints = {
        "store": setup.store.fingerprint,
        "tokenizer": setup.tokenizer.fingerprint,
        "probes": probes,
    }
    record.write_json(path, {"fingerprints": fingerprints, "starts": [*earlier, now]})


def _starts(path: Path) -> list[dict[str, object]]:
    """Earlier starts; none if the file is missing or damaged, for it is only told to people."""
    try:
        return list(json.loads(path.read_bytes())["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _revision() -> str | None:
    """The commit of the code, if it runs from a checkout."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
