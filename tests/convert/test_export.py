"""Programs that run with jax alone, in a process that cannot import this package."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from convert.test_pretrained import TOKENS, made

import bert_variants as bv
from bert_variants import cli
from bert_variants.convert import export
from bert_variants.convert.errors import ConvertError
from bert_variants.loaded import Loaded

LENGTH = 12

# What a user of an export writes; nothing but jax and numpy can be imported.
ALONE = """
import importlib.abc, json, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"bert_variants", "flax", "orbax", "optax", "safetensors"}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Block())
try:
    import bert_variants
except ModuleNotFoundError as error:
    assert "blocked" in str(error)
else:
    raise AssertionError("it can be imported")

import jax, jax.export, numpy as np

folder, program, rows = sys.argv[1:]
with open(folder + "/export.json") as file:
    about = json.load(file)
with open(folder + "/" + program, "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
parameters = dict(np.load(folder + "/" + about["parameters"]))
given = np.load(rows)
found = program.call(parameters, *[given[one["name"]] for one in about["inputs"]])
np.savez(rows + ".out.npz", **{name: np.asarray(x) for name, x in found.items()})
print(sorted(set(sys.modules) & {"bert_variants", "flax"}))
"""


def rows(count: int) -> dict[str, np.ndarray]:
    """Rows of several lengths."""
    rng = np.random.default_rng(count)
    valid = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (count, 1))
    tokens = np.where(valid, rng.integers(5, len(TOKENS), (count, LENGTH)), 0).astype(np.int32)
    segments = np.where(valid, np.arange(LENGTH) > 5, 0).astype(np.int32)
    return {"tokens": tokens, "segments": segments, "valid": valid}


def expected(model: Loaded, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = model(given["tokens"], given["segments"], given["valid"])
    return {name: np.asarray(x) for name, x in export.named_arrays(outputs).items()}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, x in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Loaded, Path]:
    model, folder = made(), tmp_path_factory.mktemp("export") / "out"
    export.export(model, folder, batches=(2, export.ANY), length=LENGTH)
    return model, folder


@pytest.mark.parametrize(("program", "count"), [("2x12", 2), ("anyx12", 3)])
def test_it_runs_without_this_package(exported, tmp_path, program, count):
    model, folder = exported
    given = rows(count)
    np.savez(tmp_path / "rows.npz", **given)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, folder, f"{program}.stablehlo", tmp_path / "rows.npz"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[]\n"
    found = dict(np.load(tmp_path / "rows.npz.out.npz"))
    same(found, expected(model, given))
    assert found["hidden"].shape[:2] == (count, LENGTH)


def test_what_stands_in_the_folder(exported):
    model, folder = exported
    said = json.loads((folder / export.ABOUT).read_text())
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(said["sha256"]) == files - {export.ABOUT}
    for name, sha256 in said["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert said["programs"] == ["2x12.stablehlo", "anyx12.stablehlo"]
    assert said["platforms"] == ["cpu", "cuda", "tpu"]
    assert said["vocabulary"]["sha256"] == model.tokenizer.fingerprint
    assert said["vocabulary"]["size"] == len(TOKENS)
    assert [one["name"] for one in said["inputs"]] == ["tokens", "segments", "valid"]
    outputs = {one["name"]: one["shape"] for one in said["outputs"]}
    given = expected(model, rows(3))
    assert outputs == {name: ["B", *x.shape[1:]] for name, x in given.items()}
    assert said["step"] == 7
    assert {p.name for p in (folder / "tokenizer").iterdir()} == set(model.tokenizer.files())
    assert not [p for p in folder.parent.iterdir() if p.name.endswith(".part")]


def test_each_platform_is_in_each_program(exported):
    _, folder = exported
    for file in folder.glob("*.stablehlo"):
        program = jax.export.deserialize(bytearray(file.read_bytes()))
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert file.stat().st_size < 300_000  # no parameters in it


def test_other_rows_than_a_program_takes(exported):
    _, folder = exported
    program = jax.export.deserialize(bytearray((folder / "2x12.stablehlo").read_bytes()))
    parameters = dict(np.load(folder / export.PARAMETERS))
    with pytest.raises(ValueError, match=r"Shape mismatch|shape"):
        program.call(parameters, *rows(3).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["albert", "discriminator", "roberta"])
def test_other_models(tmp_path, name):
    model = made(name)
    (path,) = export.export(model, tmp_path / "x", batches=(3,), length=LENGTH, platforms=("cpu",))
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    given = rows(3)
    found = program.call(dict(np.load(path.parent / export.PARAMETERS)), *given.values())
    same({n: np.asarray(x) for n, x in found.items()}, expected(model, given))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"length": 0}, "the length is 0, the model takes 1 to"),
        ({"length": 10_000}, "the length is 10000, the model takes 1 to"),
        ({"batches": ()}, r"the batch sizes are \[\]"),
        ({"batches": (2, 2)}, r"the batch sizes are \[2, 2\]"),
        ({"batches": (-1,)}, r"the batch sizes are \[-1\]"),
    ],
)
def test_what_is_refused(tmp_path, changes, what):
    with pytest.raises(ConvertError, match=what):
        export.export(made(), tmp_path / "x", **{"batches": (1,), "length": LENGTH, **changes})
    assert list(tmp_path.iterdir()) == []


def test_bfloat16(tmp_path, monkeypatch):
    model = made()
    sizes = {"batches": (3,), "length": LENGTH, "precision": "bfloat16"}
    (path,) = export.export(model, tmp_path / "x", **sizes)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert "bf16" in program.mlir_module()
    found = program.call(dict(np.load(path.parent / export.PARAMETERS)), *rows(3).values())
    for name, x in expected(model, rows(3)).items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], x, rtol=0.05, atol=0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConvertError, match="Set JAX_PLATFORMS=cpu for the export"):
        export.export(model, tmp_path / "y", **sizes)


def test_the_command_line(tmp_path, capsys):
    """Of a directory of transformers, which is read as a run is."""
    bv.save_pretrained(made(), tmp_path / "published")
    out = tmp_path / "out"
    argv = ["export", str(tmp_path / "published"), "--batch", "3", "--length", str(LENGTH)]
    assert cli.main([*argv, "--out", str(out)]) == 0
    assert f"{out / '3x12.stablehlo'} (" in capsys.readouterr().out
    program = jax.export.deserialize(bytearray((out / "3x12.stablehlo").read_bytes()))
    given = rows(3)
    found = program.call(dict(np.load(out / export.PARAMETERS)), *given.values())
    same({n: np.asarray(x) for n, x in found.items()}, expected(made(), given))
    assert cli.main([*argv, "--out", str(out)]) == 3
    assert "holds out already" in capsys.readouterr().err


def test_nothing_is_overwritten(exported):
    model, folder = exported
    with pytest.raises(ConvertError, match="holds out already"):
        export.export(model, folder, batches=(1,), length=LENGTH)


def test_batch_sizes_on_a_command_line():
    assert export.read_batches("1,8") == (1, 8)
    assert export.read_batches("any, 4") == (export.ANY, 4)
    for wrong in ("", "0", "-1", "1,1", "x", "1,,2", "1.5", "²"):
        with pytest.raises(ConvertError, match="expected such as 1,8 or any"):
            export.read_batches(wrong)
