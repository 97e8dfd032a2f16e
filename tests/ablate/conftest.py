"""A toy grid that takes seconds, and made-up cells that take none."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest
from ablate import toy_grid

from bert_variants.text.prepare import prepare
from bert_variants.text.store import Store


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
    """Where prepared data are, and directories of grids."""
    return tmp_path_factory.mktemp("ablate")


@pytest.fixture(scope="session")
def store(base: Path) -> Store:
    """The prepared text."""
    return prepare(toy_grid.experiment(base).data)
