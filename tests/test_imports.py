"""Who may import whom: imports point downward, heavy packages stay where they belong, and lazy."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "bert_variants"

# Rooms from the ground up. A module imports its own room and lower floors; rooms on the same floor
# do not know each other.
FLOORS = [
    {"registry", "types", "keys", "config", "runtime"},
    {"ops"},
    {"text", "corruptions", "models", "objectives", "tasks"},
    {"train"},
    {"loaded"},
    # Turns published weights into what loaded describes, and back.
    {"convert"},
    {"plan"},
    # Progress and doctor tell the share of the device's peak, which plan/ counts.
    {"report", "doctor"},
    {"ablate"},
    {"commands", "cli"},
]
# The ground floor has stairs of its own: config reads the registry, keys know the batch.
GROUND = {
    "registry": set(),
    "types": set(),
    "runtime": set(),
    "keys": {"types"},
    "config": {"registry"},
}

# package -> files (or folders) that may import it at all. Whatever is not listed is free.
ONLY = {
    "flax": {"models"},
    "orbax": {"train/checkpoint.py"},
    # commands/ declares options for cli.py and marks the positional ones with tyro's own marker.
    "tyro": {"cli.py", "commands"},
    "tensorflow_datasets": {"text"},
    "sentencepiece": {"text"},
    "tokenizers": {"text"},
    "rjieba": {"text"},
    "ahocorasick": {"text"},
    "datasets": {"text"},
    "matplotlib": {"report"},
    "tensorboardX": {"train"},
    "wandb": {"train"},
    "safetensors": {"convert"},
    "tensorboard": set(),
    "tensorflow": set(),
    "torch": set(),
    "transformers": set(),
    "clu": set(),
}
# Imported inside functions only, so that `import bert_variants` and `--help` stay quick.
LAZY = {
    *("tensorflow_datasets", "sentencepiece", "tokenizers", "matplotlib", "tensorboardX"),
    *("rjieba", "ahocorasick", "datasets", "wandb"),
}
EXTRAS = (
    *("rjieba", "ahocorasick", "datasets", "wandb", "tensorboard"),
    *("tensorflow", "torch", "transformers"),
)


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module: where, and whether it happens when the file is imported."""

    file: Path
    line: int
    module: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(REPOSITORY)}:{self.line} imports {self.module}"


def imports(file: Path) -> Iterator[Import]:
    """Every import of a file, absolute, those inside functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} has a relative import"
            # `from package import name`: the name may be a module.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(file, node.lineno, name, id(node) in inside)


FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.py"))


def room(file: Path) -> str:
    """``text`` for bert_variants/text/..., ``keys`` for bert_variants/keys.py."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def floor(name: str) -> int | None:
    return next((i for i, rooms in enumerate(FLOORS) if name in rooms), None)


def rooms_imported(file: Path) -> Iterator[tuple[str, Import]]:
    known = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    for one in imports(file):
        parts = one.module.split(".")
        if parts[0] == "bert_variants" and len(parts) > 1 and parts[1] in known | {"configs"}:
            yield parts[1], one


def test_every_room_has_a_floor():
    found = {room(f) for f in FILES} - {"__init__"}
    assert not {name for name in found if floor(name) is None}, "add it to FLOORS"


def points_downward(own: str, other: str) -> bool:
    """Whether a file of the room ``own`` may import the room ``other``."""
    if other == own:
        return True
    if own in GROUND:
        return other in GROUND[own]
    # Together, these two are the command line.
    if {own, other} <= FLOORS[-1]:
        return True
    there = floor(other)
    return there is not None and there < floor(own)


def test_imports_point_downward():
    # The package's face is no room: it imports lazily, by name.
    wrong = [
        str(one)
        for file in FILES
        if room(file) != "__init__"
        for other, one in rooms_imported(file)
        if not points_downward(room(file), other)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("own", "other", "fine"),
    [
        ("text", "config", True),
        ("models", "ops", True),
        ("ops", "models", False),
        ("text", "models", False),
        ("train", "report", False),
        ("report", "train", True),
        ("train", "cli", False),
        ("config", "keys", False),
        ("keys", "types", True),
        ("models", "configs", False),
    ],
)
def test_downward(own, other, fine):
    assert points_downward(own, other) is fine


def test_configs_import_only_config_registry_and_configs():
    fine = {"config", "registry", "configs"}
    # A grid also imports what a grid is: bert_variants/ablate/grid.py, which needs no jax.
    grids = {"ablate"}
    wrong = [
        str(one)
        for f in CONFIGS
        for name, one in rooms_imported(f)
        if name not in (fine | grids if f.parent.name == "ablations" else fine)
    ]
    assert not wrong, "\n".join(wrong)


def may_import(file: Path, package: str) -> bool:
    inside = file.relative_to(PACKAGE).as_posix()
    return any(inside == place or inside.startswith(f"{place}/") for place in ONLY[package])


def test_packages_stay_in_their_rooms_and_lazy():
    wrong = []
    for one in (one for file in FILES for one in imports(file)):
        package = one.module.split(".")[0]
        if package in ONLY and not may_import(one.file, package):
            wrong.append(f"{one}; only {sorted(ONLY[package])} may")
        if package in LAZY and not one.lazy:
            wrong.append(f"{one} when it is imported; do it in the function that needs it")
    assert not wrong, "\n".join(wrong)


def test_text_is_host_side():
    """Text preparation starts many processes; none of them shall wait for jax to start."""
    files = [f for f in FILES if room(f) == "text"]
    wrong = [str(o) for f in files for o in imports(f) if o.module.split(".")[0] == "jax"]
    assert not wrong, "\n".join(wrong)


def test_the_rules_can_fail(tmp_path):
    """The reader of imports sees what it has to see."""
    file = tmp_path / "a.py"
    file.write_text(
        "import flax.linen as nn\n"
        "from bert_variants import train\n"
        "def f():\n    import orbax\n    from bert_variants.models import bert\n"
        "class A:\n    import torch\n"
    )
    assert sorted((o.line, o.module, o.lazy) for o in imports(file)) == [
        (1, "flax.linen", False),
        (2, "bert_variants.train", False),
        (4, "orbax", True),
        (5, "bert_variants.models.bert", True),
        (7, "torch", False),
    ]


def python(code: str) -> str:
    """Run code in a fresh process, without what the tests themselves import."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_the_package_is_light():
    heavy = "jax flax orbax optax tensorflow_datasets tensorboardX matplotlib tyro rich numpy"
    out = python(
        "import sys, bert_variants, bert_variants.cli\n"
        f"print(sorted(set({heavy.split()!r}) & set(sys.modules)))"
    )
    assert out == "[]\n"


def test_a_config_is_read_without_jax():
    out = python(
        "import sys, bert_variants as bv\n"
        "from bert_variants.ablate import grid\n"
        "bv.get_config('bert', size='tiny')\n"
        "grid.get_grid('masking').cells()\n"
        "print('jax' in sys.modules)"
    )
    assert out == "False\n"


BLOCK = f"""
import importlib.abc, importlib, pkgutil, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Block())
"""


def test_the_core_imports_without_any_extra():
    """Every module of the package, and every registered entry, with all extras blocked."""
    out = python(
        BLOCK + "import bert_variants\n"
        "from bert_variants import registry\n"
        "found = pkgutil.walk_packages(bert_variants.__path__, 'bert_variants.')\n"
        "names = [module.name for module in found]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    # Configs are a package of their own in the tree, so walking may find them or not.
    assert int(out) >= len([f for f in FILES if f.name != "__init__.py"])


@pytest.mark.parametrize("name", ["torch", "torch.nn", "datasets"])
def test_the_block_blocks(name):
    assert (
        python(BLOCK + f"\ntry:\n    import {name}\nexcept ImportError as e:\n    print(e)")
        == f"blocked: {name.split('.')[0]}\n"
    )


def test_preparing_text_imports_no_tensorflow():
    out = python(
        "import sys\n"
        "from bert_variants import registry\n"
        "registry.names('source'), registry.names('tokenizer')\n"
        "print(sorted({'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    assert out == "[]\n"
