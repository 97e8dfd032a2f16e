"""Tables and page: whole, escaped, traceable, and honest about what is missing."""

from __future__ import annotations

import csv
import io
import math
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from ablate import toy_grid

from bert_variants import cli, config
from bert_variants.ablate import cells, emit, page, results, tables
from bert_variants.ablate.cells import CellError

ARMS = {
    "tokens": {},
    "better": {"corruption.rate": 0.2},
    "same": {"corruption.rate": 0.25},
    "broken": {"corruption.rate": 0.3},
    "nan": {"corruption.rate": 0.35},
    "late": {"corruption.rate": 0.4},
}
SEEDS = (0, 1, 2)
LUCK = (0.0, 0.1, -0.05)


def outcomes() -> dict[tuple[str, int], float | str | None]:
    """A clear effect, none, a failed seed, a result that is not finite, and cells not begun."""
    found: dict[tuple[str, int], float | str | None] = {}
    for seed, luck in zip(SEEDS, LUCK, strict=True):
        found["tokens", seed] = 3.0 + luck
        found["better", seed] = 2.0 + luck + 0.001 * seed
        found["same", seed] = 3.0 + luck + (0.02, -0.03, 0.01)[seed]
        found["broken", seed] = "<script>alert(1)</script> & more" if seed == 1 else 3.1 + luck
        found["nan", seed] = math.nan if seed == 2 else 3.0 + luck
    found["late", 0] = None
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    grid = toy_grid.grid(tmp_path_factory.mktemp("made up"), "g & h", arms=ARMS, seeds=SEEDS)
    toy_grid.made_up(grid, outcomes())
    made = results.gather(grid)
    page.write(made)
    return made


def test_verdicts(found):
    said = {arm: (c.verdict, c.reason) for arm, c in found.primary.items()}
    assert said == {
        "tokens": ("not judged", "the baseline"),
        "better": ("better", ""),
        "same": ("not shown", ""),
        "broken": ("not judged", "failed in 1 of 3 seeds"),
        "nan": ("not judged", "failed in 1 of 3 seeds"),
        "late": ("not judged", "0 of 3 seeds are there"),
    }
    told = tables.conclusion(found)
    assert told.startswith("Better than tokens: better.")
    assert "No difference to tokens is shown for same" in told
    assert "late (0 of 3 seeds are there)" in told
    assert "worse" not in told


def test_text_holds_everything(found):
    text = tables.text(found)
    assert "13 of 18 cells done, 2 failed" in text
    assert "nan/seed-2: pll/mlm/loss is not a finite number at the last step" in text
    assert "broken/seed-1: DivergedError at step 3: <script>" in text
    assert "late/seed-0: unfinished, step 4" in text
    assert "late/seed-1: waiting, step 0" in text
    assert text.count("(decides;") == 1
    widths = {len(line) for line in text.split("\n") if line.startswith("  ---")}
    assert widths


def test_csv_is_whole(found):
    rows = list(csv.DictReader(io.StringIO(tables.csv_comparisons(found))))
    assert len(rows) == len(ARMS) * len(found.grid.judged_by())
    assert all(set(row) == set(tables.COLUMNS) for row in rows)
    (better,) = [r for r in rows if r["arm"] == "better" and r["decides"] == "1"]
    assert float(better["difference"]) == pytest.approx(-0.999)
    assert float(better["corrected_low"]) < float(better["low"]) < float(better["difference"])
    assert (better["bootstrap_low"], better["verdict"]) == ("", "better")
    lines = list(csv.DictReader(io.StringIO(tables.csv_cells(found))))
    assert len(lines) == 18
    for line in lines:
        if line["state"] != "waiting":
            assert (found.grid.dir / line["run_dir"] / "config.json").is_file()
    (broken,) = [x for x in lines if x["state"] == "failed" and x["arm"] == "broken"]
    assert broken["message"].endswith("<script>alert(1)</script> & more")


def test_every_mean_comes_from_its_cells(found):
    lines = list(csv.DictReader(io.StringIO(tables.csv_cells(found))))
    for measure in found.grid.judged_by():
        for arm, c in found.comparisons[measure].items():
            values = [float(x[measure]) for x in lines if x["arm"] == arm and x[measure]]
            assert len(values) == len(c.values)
            if values:
                assert c.mean == pytest.approx(sum(values) / len(values))


def test_latex_is_well_formed(found):
    text = tables.latex(found)
    tabulars = re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S)
    assert len(tabulars) == len(found.grid.judged_by())
    for columns, body in tabulars:
        rows = [row for row in body.split("\n") if row.endswith(r"\\")]
        assert len(rows) == 1 + len(ARMS)
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1
            assert not re.findall(r"(?<!\\)[%#_]", row)
    assert tables.tex("a_b 50 % [-0.1, +2]") == r"a\_b 50 \% [$-$0.1, $+$2]"


class Checked(HTMLParser):
    """Every element closed in turn, ids unique, nothing loaded or run."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base")
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                assert "://" not in value
                if tag == "a":
                    self.links.append(value)
                else:
                    assert value.startswith("#"), value
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br", "hr"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_needs_no_network_and_links_to_every_run(found):
    text = (found.grid.dir / page.NAME).read_text(encoding="utf-8")
    checked = Checked()
    checked.feed(text)
    assert not checked.open
    assert len(checked.ids) == len(set(checked.ids))
    assert set(re.findall(r"https?://[^\"' )]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "Content-Security-Policy" in text
    assert "<script>" not in text
    for target in checked.links:
        assert (found.grid.dir / unquote(target)).exists(), target
    begun = {c.cell.dir for c in found.cells if c.cell.dir.is_dir()}
    assert begun == {(found.grid.dir / unquote(t)).resolve() for t in checked.links}
    for word in (
        "C &amp; C",
        "1 &lt; 2",
        "not a finite number",
        "alert(1)",
        "forest-0",
        "curves-0",
    ):
        assert word in text


def test_the_same_results_give_the_same_bytes(found):
    assert page.render(found) == page.render(results.gather(found.grid))


def test_a_grid_without_any_result_has_a_page(tmp_path):
    grid = toy_grid.grid(tmp_path, "empty")
    found = results.gather(grid)
    text = page.write(found).read_text(encoding="utf-8")
    assert "0 of 4" in text
    assert "0 of 2 seeds are there" in tables.text(found)


@pytest.mark.parametrize("which", ["probes", "store", "tokenizer"])
def test_cells_that_were_judged_otherwise_are_refused(tmp_path, which):
    grid = toy_grid.grid(tmp_path, "g")
    toy_grid.made_up(grid, {("tokens", 0): 1.0, ("half", 0): 1.0})
    toy_grid.made_up(grid, {("tokens", 1): 1.0}, **{which: "q" * 64})
    with pytest.raises(CellError, match=f"cannot be compared: {which} is pppp|sssss|ttttt"):
        results.gather(grid)


def test_a_cell_whose_masks_changed_on_the_way_is_refused(tmp_path):
    grid = toy_grid.grid(tmp_path, "g")
    toy_grid.made_up(grid, {("tokens", 0): 1.0})
    path = grid.cells()[0].dir / "manifest.json"
    text = path.read_text()
    again = '{"step": 2, "probes": "other"}]}'
    path.write_text(text.removesuffix("]}") + ", " + again)
    with pytest.raises(CellError, match="after it was started again"):
        results.gather(grid)


# ---- what is printed for other machines


def parsed(argv: list[str]) -> config.Experiment:
    """What ``bert-variants train`` makes of arguments."""
    seen = []

    class Module:
        from bert_variants.commands.train import Options

        @staticmethod
        def main(experiment, options):
            seen.append(experiment)
            return 0

    assert cli.call(Module, "train", argv) == 0
    return seen[0]


def test_emitted_arguments_make_exactly_the_cell(tmp_path):
    grid = toy_grid.grid(tmp_path / "it's a place", "g", arms=ARMS, seeds=(4,))
    for cell in grid.cells():
        assert parsed(emit.arguments(cell)) == cell.experiment


@pytest.mark.parametrize("name", ["masking", "albert"])
def test_emitted_arguments_of_shipped_grids(name):
    from bert_variants.ablate import grid as grids

    for cell in grids.get_grid(name, steps=60).cells()[:6]:
        assert parsed(emit.arguments(cell)) == cell.experiment


def run_script(text: str, *argv: str, **env: str) -> list[str]:
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        ["bash", "-c", text, "cells", *argv],
        cwd=repository,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_slurm_array_hands_each_task_its_cell(tmp_path):
    grid = toy_grid.grid(tmp_path, "g")
    script = emit.script(grid, grid.cells(), "slurm")
    assert "#SBATCH --array=0-3\n" in script
    for number, cell in enumerate(grid.cells()):
        env = {"SLURM_ARRAY_TASK_ID": str(number), "DRY_RUN": "1", "SLURM_SUBMIT_DIR": "."}
        (line,) = [x for x in run_script(script, **env) if "srun" in x]
        assert line.endswith(f"--run.dir {cell.dir}"), line
        assert f"--run.seed {cell.seed}" in line or cell.seed == 0


def test_tpu_commands_name_a_machine_each(tmp_path):
    grid = toy_grid.grid(tmp_path, "My_Grid")
    script = emit.script(grid, grid.cells(), "tpu")
    names = re.findall(r"tpu_vm.sh watch (\S+) ", script)
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", name) for name in names)
    lines = run_script(script, "--dry-run", "--zone", "z", "--type", "v4-8")
    assert sum("tpu-vm create" in line for line in lines) == 4


# ---- the verb


TOY = """
import sys
sys.path.insert(0, {tests!r})
from ablate import toy_grid
from pathlib import Path

def get_grid(rate: float = 0.5):
    arms = {{"tokens": {{}}, "half": {{"corruption.rate": rate}}}}
    return toy_grid.grid(Path({base!r}), "verb", arms=arms, seeds=(0, 1))
"""


@pytest.fixture
def file(tmp_path):
    tests = Path(__file__).resolve().parents[1]
    path = tmp_path / "mine.py"
    path.write_text(TOY.format(tests=str(tests), base=str(tmp_path)))
    return path


def test_emit_prints_what_is_left(file, capsys):
    argv = ["ablate", str(file), "--rate", "0.4", "--emit", "slurm", "--seeds", "3", "4", "5"]
    assert cli.main([*argv, "--run.steps", "7"]) == 0
    out = capsys.readouterr().out
    assert "--array=0-5" in out
    assert out.count("--run.steps 7 ") == 6
    assert out.count("tokens(rate=0.4)") == 3


def test_emit_leaves_out_what_is_done(file, tmp_path, capsys):
    grid = toy_grid.grid(tmp_path, "verb")
    toy_grid.made_up(grid, {("tokens", 0): 1.0, ("half", 0): 1.0, ("half", 1): "NaN"})
    argv = ["ablate", str(file), "--emit", "tpu"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^# (\S+/seed-\d)$", out, re.M) == ["tokens/seed-1", "half/seed-1"]
    toy_grid.made_up(grid, {("tokens", 1): 1.0, ("half", 1): 1.0})
    assert cli.main(argv) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "every cell" in told.err


def test_report_only_trains_nothing(file, tmp_path, capsys):
    assert cli.main(["ablate", str(file), "--report-only", "--dir", str(tmp_path / "there")]) == 0
    out = capsys.readouterr().out
    assert "0 of 4 cells done" in out
    assert (tmp_path / "there" / "report.html").is_file()
    assert not (tmp_path / "there" / "cells").exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["ablate"], "ablate needs a grid"),
        (["ablate", "maskin"], "Did you mean 'masking'"),
        (["ablate", "masking", "--corruption.rat", "0.3"], "Did you mean 'rate'"),
        (["ablate", "masking", "--seeds", "1", "1"], "expected distinct ones"),
        (["ablate", "masking", "--evals.masks", "--evals.pll", "0"], "no probe"),
    ],
)
def test_what_the_verb_refuses(argv, says, capsys):
    assert cli.main(argv) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_the_verb_trains_and_reports(file, tmp_path, capsys):
    argv = ["ablate", str(file), "--seeds", "0", "--run.steps", "2", "--run.eval-every", "1"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "2 of 2 cells done, 0 failed" in out
    assert "a single seed has no spread" in out
    folder = tmp_path / "verb"
    for name in ("report.html", "table.txt", "table.csv", "cells.csv", "table.tex", "grid.json"):
        assert (folder / name).is_file()
    assert (folder / "cells" / "half" / "seed-0" / "report.html").is_file()
    assert cli.main(argv) == 0, "again: nothing is trained"
    assert "cell 1 of" not in capsys.readouterr().out
    grid = toy_grid.grid(tmp_path, "verb")
    assert cells.state(grid.cells()[0]) != "done", "of a grid with more steps"
