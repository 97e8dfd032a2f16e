"""A corpus of a few hundred words, prepared once, and runs over it that take a second."""

from __future__ import annotations

import os
import random
from pathlib import Path

import jax
import pytest
import tiny_runs as tiny

from bert_variants.text.prepare import prepare
from bert_variants.text.store import Store
from bert_variants.train import loop, setup
from bert_variants.train.setup import Setup

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "ran", "fast", "slow", "over", "under"]
WORDS += ["moon", "tree", "river", "and", "then", "it", "was"]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled programs, shared by this process and those that it starts."""
    folder = Path(
        os.environ.get("JAX_COMPILATION_CACHE_DIR") or tmp_path_factory.mktemp("compiled")
    )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where text and prepared data are."""
    base = tmp_path_factory.mktemp("tiny")
    choose = random.Random(0)
    (base / "text").mkdir()
    for i in range(20):
        sentences = [
            " ".join(choose.choice(WORDS) for _ in range(choose.randint(4, 9))).capitalize() + "."
            for _ in range(12)
        ]
        (base / "text" / f"{i}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return base


@pytest.fixture(scope="session")
def store(base: Path) -> Store:
    """The prepared text."""
    return prepare(tiny.experiment(base, "none").data)


@pytest.fixture(scope="session")
def ready(base: Path, store: Store, compiled: Path) -> Setup:
    """A set-up whose run fields may be replaced (``tiny.at``) without compiling anything anew."""
    return setup.make(tiny.experiment(base, "none"), store)


@pytest.fixture(scope="session")
def reference(ready: Setup, base: Path) -> Path:
    """The directory of a run that nothing interrupted, with every checkpoint kept."""
    there = tiny.at(ready, base / "reference", keep=100)
    assert loop.train(there, loop.Silent()).exit_code == 0
    return base / "reference"
