"""Settings made before jax is imported: what is set, and what a user's own setting prevents."""

from __future__ import annotations

import os

import pytest

from bert_variants import runtime


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """The environment of a user without any setting; the allocator is left alone."""
    for name in ("JAX_COMPILATION_CACHE_DIR", runtime.CACHE_OFF):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(runtime.OFF, "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    # restored at the end, whatever ``tune`` sets
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "x")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    return monkeypatch


def test_compiled_programs_are_kept_in_the_users_cache(environment, tmp_path):
    lines = runtime.tune()
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert folder.startswith(str(tmp_path / "bert-variants" / "compiled-"))
    assert os.path.isdir(folder)
    assert any(folder in line for line in lines)
    assert runtime.tune() == []  # a second call finds the setting made


def test_the_users_folder_stands(environment):
    environment.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert runtime.tune() == []
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


def test_off_keeps_none(environment, tmp_path):
    environment.setenv(runtime.CACHE_OFF, "off")
    assert runtime.tune() == []
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert not list(tmp_path.iterdir())


def test_no_place_for_a_cache_is_no_error(environment, tmp_path):
    (tmp_path / "file").write_text("in the way")
    environment.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert runtime.tune() == []
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_machines_with_other_instructions_do_not_share(monkeypatch):
    here = runtime._instructions()
    assert runtime._instructions() == here
    monkeypatch.setattr(runtime.platform, "machine", lambda: "another")
    assert runtime._instructions() != here
