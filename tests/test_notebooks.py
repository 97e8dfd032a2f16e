"""Each notebook agrees with its .py, holds no output, and runs from top to bottom at toy size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
# notebook -> assignments that replace those of its cell tagged "parameters"
TOY = {
    "masking_gallery": {"ENGLISH": "synthetic(documents=300)", "TOKENS": 24},
    "quickstart": {"STEPS": 20, "SOURCE": "synthetic(documents=400)"},
}


def read(path: Path):
    jupytext = pytest.importorskip("jupytext")
    return jupytext.read(path)


def cells(path: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """(type, source, tags) of each cell."""
    return [
        (cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ())))
        for cell in read(path).cells
    ]


def test_there_are_notebooks():
    assert {"masking_gallery", "quickstart"} <= {p.stem for p in NOTEBOOKS}
    assert {p.stem for p in NOTEBOOKS} == {p.stem for p in NOTEBOOKS[0].parent.glob("*.py")}, (
        "each notebook is a pair"
    )
    assert set(TOY) == {p.stem for p in NOTEBOOKS}, "each notebook says how it is made small"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_pair_agrees(notebook):
    """If not: jupytext --sync notebooks/*.py"""
    assert cells(notebook) == cells(notebook.with_suffix(".py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_output_is_committed(notebook):
    for cell in read(notebook).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_parameters_exist(notebook):
    (source,) = [source for _, source, tags in cells(notebook) if "parameters" in tags]
    for name in TOY[notebook.stem]:
        assert f"\n{name} = " in f"\n{source}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own machinery
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(notebook, tmp_path: Path, monkeypatch):
    """In a fresh kernel, with one CPU device as on a laptop, from a copy elsewhere."""
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    book = read(notebook)
    at = next(i for i, c in enumerate(book.cells) if "parameters" in c.metadata.get("tags", ()))
    toy = "\n".join(f"{name} = {value!r}" for name, value in TOY[notebook.stem].items())
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(toy))
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=os.environ.copy())
    errors = [
        output
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert not errors
    printed = "".join(
        output.text
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert " x CPU: " in printed
