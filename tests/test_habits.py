"""Habits that a linter does not know: what is banned and where, docstrings, names, sizes, paths.

A ban has an allow list. Each entry says why; an entry that nothing needs any more is a failure.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "bert_variants"

# What runs code that a file brings, or splits text where text has no line end.
MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "torch.load"}
METHODS = {"splitlines"}
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True}

# (file, what) -> why it is all right there.
ALLOWED: dict[tuple[str, str], str] = {}


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository: what git tracks, or everything where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        files = [REPOSITORY / n for n in listed.stdout.decode().split("\0") if n]
    else:
        hidden = (".venv", ".git", "runs", "data", "build", ".jax_cache")
        files = [
            f for f in REPOSITORY.rglob("*") if f.relative_to(REPOSITORY).parts[0] not in hidden
        ]
    return sorted(f for f in files if f.is_file() and (not suffixes or f.suffix in suffixes))


def name_of(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


PYTHON = sorted({*tracked(".py"), *PACKAGE.rglob("*.py"), *(REPOSITORY / "configs").rglob("*.py")})
SHIPPED = [f for f in PYTHON if name_of(f).startswith(("bert_variants/", "configs/"))]


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def banned(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) for every banned thing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [a.name.split(".")[0] for a in node.names]
            yield from ((node.lineno, m) for m in found if m in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS:
                yield node.lineno, called
            if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield node.lineno, node.func.attr
            for keyword in node.keywords:
                given = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in KEYWORDS and given is KEYWORDS[keyword.arg]:
                    yield node.lineno, f"{keyword.arg}={given}"


def test_nothing_banned():
    wrong = [
        f"{name_of(file)}:{line}: {what}"
        for file in PYTHON
        for line, what in banned(parse(file))
        if (name_of(file), what) not in ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_the_allow_list_is_needed():
    found = {(name_of(f), what) for f in PYTHON for _, what in banned(parse(f))}
    assert not set(ALLOWED) - found, "take these out of ALLOWED"
    assert all(len(why) > 10 for why in ALLOWED.values())


def test_the_bans_can_fail():
    code = (
        "import pickle\nfrom marshal import loads\neval('1')\nexec(x)\n'a'.splitlines()\n"
        "run('x', shell=True)\nnp.load(f, allow_pickle=True)\nos.system('x')\nyaml.load(f)\n"
    )
    assert [line for line, _ in banned(ast.parse(code))] == list(range(1, 10))
    fine = "ast.literal_eval('1')\nmodel.eval()\nspec.loader.exec_module(m)\nrun('x', shell=False)"
    assert not list(banned(ast.parse(fine)))


# Configuration is a dataclass: a key that is missing is an error, not a default.
CONFIG_LIKE = re.compile(r"(^|[._])(config|configs|experiment|options|settings|cfg)\w*$", re.I)


def defaults_of_configs(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and len(node.args) == 2
            and CONFIG_LIKE.search(ast.unparse(node.func.value))
        ):
            yield node.lineno
        # getattr(config, "x", default) is the same thing.
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "getattr"
            and len(node.args) == 3
            and CONFIG_LIKE.search(ast.unparse(node.args[0]))
        ):
            yield node.lineno


def test_no_default_at_the_place_of_reading():
    wrong = [
        f"{name_of(file)}:{line}" for file in SHIPPED for line in defaults_of_configs(parse(file))
    ]
    assert not wrong, "\n".join(wrong)


def test_defaults_of_configs_are_seen():
    code = "config.get('a', 1)\nself.experiment.get('a', 1)\ngetattr(options, 'a', None)\n"
    assert list(defaults_of_configs(ast.parse(code))) == [1, 2, 3]
    assert not list(
        defaults_of_configs(ast.parse("os.environ.get('A', '')\nconfig.get_field(a, b)"))
    )


def test_no_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}
    names = {name_of(f): set(Path(name_of(f)).with_suffix("").parts) for f in SHIPPED}
    assert not [name for name, parts in names.items() if parts & drawers]


def names_used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def test_no_flag_named_use():
    """A choice is a name that says what is chosen, not a switch that says that something is."""
    wrong = [
        f"{name_of(file)}:{line}: {name}"
        for file in SHIPPED
        for line, name in names_used(parse(file))
        if name.startswith("use_")
    ]
    assert not wrong, "\n".join(wrong)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions and classes without a docstring, and the module where it has none."""
    if not ast.get_docstring(tree):
        yield "the module"
    for node in tree.body:
        public = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        if public and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{node.name} (line {node.lineno})"


def test_public_things_are_documented():
    wrong = [
        f"{name_of(file)}: {what}"
        for file in SHIPPED
        if file.read_text(encoding="utf-8").strip()
        for what in undocumented(parse(file))
    ]
    assert not wrong, "\n".join(wrong)


def test_undocumented_is_seen():
    code = "def f(): pass\nclass A: pass\ndef _g(): pass\ndef h():\n    'Says.'\n"
    assert list(undocumented(ast.parse(code))) == ["the module", "f (line 1)", "A (line 2)"]


# What has been looked at and is one thing, however long.
LONG: dict[str, str] = {}
LINES_OF_A_FUNCTION, LINES_OF_A_FILE = 60, 350


def lines_of(node: ast.AST, first: int, last: int) -> int:
    """Lines from first to last, docstrings not counted: they may be as long as they have to be."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [ast.get_docstring(n, clean=False) for n in ast.walk(node) if isinstance(n, kinds)]
    return last - first + 1 - sum(len(text.split("\n")) for text in documented if text)


def too_long(name: str, text: str) -> Iterator[str]:
    tree = ast.parse(text)
    if lines_of(tree, 1, len(text.split("\n"))) > LINES_OF_A_FILE:
        yield name
    for node in ast.walk(tree):
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if function and lines_of(node, node.lineno, node.end_lineno) > LINES_OF_A_FUNCTION:
            yield f"{name}:{node.name}"


def test_files_and_functions_fit_on_screens():
    long = {x for f in SHIPPED for x in too_long(name_of(f), f.read_text(encoding="utf-8"))}
    assert not long - set(LONG), "split by meaning"
    assert not set(LONG) - long, "take these out of LONG"


def test_length_is_seen():
    body = "    x = 1\n"
    assert list(too_long("a", "def f():\n" + body * 60)) == ["a:f"]
    assert not list(too_long("a", "def f():\n" + body * 59))
    assert not list(too_long("a", 'def f():\n    """' + "\n" * 70 + '"""\n' + body))
    assert list(too_long("a", "x = 1\n" * 351)) == ["a"]


# Places of one machine. Written in pieces, so that this file does not match itself.
PLACES = re.compile(
    r"(?<![\w.])/("
    + "|".join(["wor" + "k/", "tm" + "p/envs", "roo" + "t/", r"home/(?!\$)\w+/", "User" + "s/"])
    + ")"
)


def test_no_place_of_one_machine():
    wrong = []
    for file in tracked():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # binary: golden arrays, images
        for number, line in enumerate(text.split("\n"), 1):
            if PLACES.search(line):
                wrong.append(f"{name_of(file)}:{number}: {line.strip()[:80]}")
    assert not wrong, "\n".join(wrong)


def test_places_are_seen():
    for path in ("wor" + "k/main/x", "roo" + "t/.cache", "home/" + "ann/x", "tm" + "p/envs/a"):
        assert PLACES.search(f"see /{path}")
    for fine in ("net/work/x", "a/root/b", "/home/$USER/x", "../shared/data"):
        assert not PLACES.search(fine)


def test_version_stands_in_one_value():
    setup = re.search(r'^VERSION = "(.+)"$', (REPOSITORY / "setup.py").read_text(), re.M)
    face = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(), re.M)
    assert setup
    assert face
    assert setup[1] == face[1]
    assert f"[{setup[1]}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
