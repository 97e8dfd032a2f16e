"""The embedded corpus: the English that every Python installation already holds.

The language-reference topics of ``pydoc`` and the docstrings of the standard library and of the
installed numeric packages, taken from the source files without importing them. The text is the
docstring, dedented, examples and sections included; the lines of a wrapped paragraph are joined,
so that sentences can be told. About eight thousand documents and nine million characters.

Documents that repeat others (packages wrap each other and fill templates) are left out before
anybody splits the rest into training and held-out: a held-out figure over repeated text would
flatter. See ``repetition.novel``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import itertools
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from bert_variants.registry import register
from bert_variants.text.sources import REVISION, Document, Part, Reading, Source, SourceError, clean
from bert_variants.text.sources.repetition import novel

PACKAGES = ("numpy", "jax", "flax", "optax", "scipy", "orbax")
_SKIPPED = {"test", "tests", "testing", "site-packages", "dist-packages", "idlelib", "lib2to3"}
_TOPICS = "pydoc_data/topics.py"
_CODE_PER_TEXT = 5  # bytes of source for one of text that is kept, roughly
_WRAPPED = 55  # characters: a shorter line was ended on purpose
_PROSE = re.compile(r"""["'(`]*\w+(?![\w.]*\s*[=:(\[]|\.\s|\))""")


@register("source")
def pydocs(*, min_chars: int = 200) -> Source:
    """Docstrings of at least ``min_chars`` characters and the topics of ``help()``."""
    if min_chars < 1:
        raise SourceError(f"pydocs(min_chars={min_chars}): expected at least 1.")
    return PyDocs(min_chars)


@dataclasses.dataclass(frozen=True)
class PyDocs(Source):
    """One part: what repeats can be seen only with everything in view, and it is 11 MB."""

    min_chars: int

    def parts(self) -> list[Part]:
        size = sum(path.stat().st_size for _, path in _files())
        return [Part("pydocs", 0, 1, size // _CODE_PER_TEXT)]

    def read(self, part: Part) -> Reading:
        def documents(dropped: Counter[str]) -> Iterator[Document]:
            kept, counts = _corpus(self.min_chars)
            dropped.update(counts)
            yield from kept

        return Reading(documents)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{REVISION} pydocs {self.min_chars}".encode())
        for name, path in _files():
            digest.update(f"\0{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _files() -> list[tuple[str, Path]]:
    """(name such as "numpy/linalg/_linalg.py", path) of every source file, in a fixed order."""
    roots = [("", Path(sysconfig.get_path("stdlib")))]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        folders = spec.submodule_search_locations if spec else None
        roots += [(f"{package}/", Path(folder)) for folder in folders or []]
    files = []
    for prefix, root in roots:
        below = sorted((p.relative_to(root) for p in root.rglob("*.py")), key=Path.as_posix)
        files += [
            (prefix + p.as_posix(), root / p) for p in below if not _SKIPPED.intersection(p.parts)
        ]
    return files


@functools.lru_cache(maxsize=1)
def _corpus(min_chars: int) -> tuple[tuple[Document, ...], Counter[str]]:
    dropped: Counter[str] = Counter()
    documents = []
    for name, path in _files():
        source = path.read_bytes()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other people's escapes
                tree = ast.parse(source)
        except (SyntaxError, ValueError):
            dropped["Python file that does not parse"] += 1
            continue
        found = _topics(tree) if name == _TOPICS else _docstrings(tree.body, tree)
        seen: Counter[str] = Counter()
        for qualified, text in found:
            seen[qualified] += 1
            again = f"#{seen[qualified]}" if seen[qualified] > 1 else ""
            text = unwrap(clean(text, dropped))
            if len(text) < min_chars:
                dropped[f"shorter than {min_chars} characters"] += 1
            else:
                documents.append(Document(f"{name}:{qualified}{again}", text))
    keep, repeats = novel([d.text for d in documents])
    dropped.update(repeats)
    return tuple(documents[i] for i in keep), dropped


def unwrap(text: str) -> str:
    """Join the lines of wrapped paragraphs. No other character changes.

    A line goes on in the next one if it is nearly as long as lines get here and the next is
    indented alike and begins like prose: not like a list, a table, code or markup.
    """
    lines = text.split("\n")
    joined = lines[:1]
    for before, line in itertools.pairwise(lines):
        indent = len(line) - len(line.lstrip())
        alike = indent == len(before) - len(before.lstrip())
        if alike and len(before) >= _WRAPPED and _PROSE.match(line, indent):
            joined[-1] += " " + line[indent:]
        else:
            joined.append(line)
    return "\n".join(joined)


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, value in ast.literal_eval(node.value).items():
                yield key, inspect.cleandoc(value)


def _docstrings(
    body: Iterable[ast.AST], owner: ast.AST, path: str = ""
) -> Iterator[tuple[str, str]]:
    """(qualified name, dedented docstring) of a module, class or function and all within."""
    if isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(owner)
        if text:
            yield path, text
    for node in body:
        name = getattr(node, "name", None) if not isinstance(node, ast.ExceptHandler) else None
        below = f"{path}.{name}" if path and name else name or path
        for field in ("body", "orelse", "handlers", "finalbody"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                owner_of = node if field == "body" else ast.Pass()
                yield from _docstrings(inner, owner_of, below)
