"""A grid's cells, trained: by one worker, by two, by one that dies; what becomes of failures."""

from __future__ import annotations

import dataclasses
import json

import pytest
from ablate import toy_grid

from bert_variants import config
from bert_variants.ablate import cells, page, results, tables
from bert_variants.ablate.cells import CellError
from bert_variants.train import record
from bert_variants.train.errors import DivergedError
from bert_variants.train.reporting import Silent

pytestmark = pytest.mark.slow  # compiles a training program and its probes for each arm


def train(grid, store, **more) -> list[str]:
    said: list[str] = []
    assert cells.work(grid, store, note=said.append, poll=0.1, **more) == 0
    return said


class Diverging(Silent):
    """Ends training at step 3, as a loss that stays non-finite does."""

    def step(self, line):
        if line["step"] == 3:
            raise DivergedError("the loss is not finite")


@pytest.fixture(scope="module")
def finished(base, store, compiled):
    """Two arms with two seeds; the first cell of the second arm diverges."""
    grid = toy_grid.grid(base, "finished")
    names = iter(grid.cells())

    def reporter(ready):
        return Diverging() if str(next(names)) == "half/seed-0" else Silent()

    said = train(grid, store, reporter=reporter)
    return grid, said


def test_every_cell_is_done_or_failed_and_none_is_dropped(finished):
    grid, said = finished
    states = {str(c): cells.state(c) for c in grid.cells()}
    assert states == {
        "tokens/seed-0": "done",
        "tokens/seed-1": "done",
        "half/seed-0": "failed",
        "half/seed-1": "done",
    }
    assert any("half/seed-0 FAILED: DivergedError: the loss is not finite" in x for x in said)
    found = results.gather(grid)
    failed = found.of("half")[0]
    assert "DivergedError at step 3: the loss is not finite" in failed.message
    arm = found.primary["half"]
    assert (arm.verdict, arm.reason) == ("not judged", "failed in 1 of 2 seeds")
    assert list(arm.values) == [1]
    for text in (tables.text(found), page.render(found)):
        assert "the loss is not finite" in text


def test_terms_are_equal_and_told(finished):
    grid, _ = finished
    found = results.gather(grid)
    tokens = toy_grid.STEPS * 8 * toy_grid.LENGTH
    assert {t.tokens for t in found.terms.values()} == {tokens}
    assert [c.tokens for c in found.cells if c.state == "done"] == [tokens] * 3
    # more predictions a row are more work in the head
    assert found.terms["half"].predictions == 8 > found.terms["tokens"].predictions
    assert found.terms["half"].flops > found.terms["tokens"].flops


def test_probes_are_judged_at_several_checkpoints_on_equal_masks(finished):
    found = results.gather(finished[0])
    done = [c for c in found.cells if c.state == "done"]
    assert all([s for s, _ in c.curves[toy_grid.LOSS]] == [2, 4] for c in done)
    assert len({c.fingerprints["probes"] for c in found.cells}) == 1
    _, value = done[0].curves[toy_grid.LOSS][-1]
    assert done[0].values[toy_grid.LOSS] == value
    assert results.bands(found, toy_grid.LOSS)[0].seeds == 2


def test_what_is_done_is_skipped_and_what_failed_is_left(finished, store):
    grid, _ = finished
    before = {c: (c.dir / "metrics.jsonl").read_bytes() for c in grid.cells()}
    assert train(grid, store) == []
    assert before == {c: (c.dir / "metrics.jsonl").read_bytes() for c in grid.cells()}


def test_a_failed_cell_is_tried_again_when_asked(base, store, compiled):
    grid = toy_grid.grid(base, "retried", seeds=(0,))
    train(grid, store, reporter=lambda ready: Diverging())
    assert [cells.state(c) for c in grid.cells()] == ["failed", "failed"]
    train(grid, store, retry=True)
    assert [cells.state(c) for c in grid.cells()] == ["done", "done"]


def test_the_numbers_are_those_of_a_run_alone(finished, base, store):
    """A cell is an ordinary run: ``train`` with its config gives the same metrics."""
    from bert_variants.train import loop, setup

    grid, _ = finished
    cell = grid.cells()[0]
    alone = config.set_field(cell.experiment, "run.dir", str(base / "alone"))
    loop.train(setup.make(alone, store), Silent())
    mine = [record.reproducible(line) for line in record.read(cell.dir)]
    theirs = [record.reproducible(line) for line in record.read(base / "alone")]
    assert mine == theirs


def test_cells_of_another_grid_are_refused(finished, store):
    grid, _ = finished
    other = dataclasses.replace(grid, base=config.set_field(grid.base, "optim.lr", 0.5))
    for attempt in (lambda: train(other, store), lambda: results.gather(other)):
        with pytest.raises(CellError, match=r"trained with optim.lr = 0.01, the grid says 0.5"):
            attempt()
    # what changes no number may differ
    cells.check_same(
        dataclasses.replace(grid, base=config.set_field(grid.base, "run.keep", 9)).cells()
    )


def test_a_worker_that_is_told_to_stop_says_so(base, store, compiled):
    import os
    import signal

    grid = toy_grid.grid(base, "stopped", seeds=(0,))

    class Stopping(Silent):
        def step(self, line):
            if line["step"] == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    code = cells.work(grid, store, reporter=lambda ready: Stopping(), note=lambda text: None)
    assert code == 75
    assert [cells.state(c) for c in grid.cells()] == ["unfinished", "waiting"]
    said = train(grid, store)
    assert any("tokens/seed-0: taken over" in x for x in said)
    assert [cells.state(c) for c in grid.cells()] == ["done", "done"]


def steps_of(lines: list[str]) -> list[str]:
    return [line for line in lines if " step " in line]


def test_a_killed_workers_cell_is_taken_over(base, store, compiled):
    grid = toy_grid.grid(base, "killed")
    code, lines = toy_grid.ended(toy_grid.start(base, "killed", "kill@3"))
    assert code == -9, lines
    first = grid.cells()[0]
    assert cells.state(first) == "unfinished"
    said = train(grid, store)
    assert said[0] == f"{first}: taken over"
    assert {cells.state(c) for c in grid.cells()} == {"done"}
    train_lines = [x["step"] for x in record.read(first.dir) if x["kind"] == "train"]
    assert train_lines == [1, 2, 3, 4], "it went on from its checkpoint"


def test_two_workers_never_train_the_same_cell(base, store, compiled):
    workers = [toy_grid.start(base, "shared") for _ in range(2)]
    ends = [toy_grid.ended(worker) for worker in workers]
    assert [code for code, _ in ends] == [0, 0], ends
    grid = toy_grid.grid(base, "shared")
    assert {cells.state(c) for c in grid.cells()} == {"done"}
    for cell in grid.cells():
        starts = json.loads((cell.dir / "manifest.json").read_bytes())["starts"]
        assert len(starts) == 1, f"{cell} was begun {len(starts)} times"
        assert [x["step"] for x in record.read(cell.dir) if x["kind"] == "train"] == [1, 2, 3, 4]
    trained = [sum("cell " in line for line in lines) for _, lines in ends]
    assert sum(trained) == 4


def test_seeds_share_their_programs(base, store, tmp_path):
    """Two arms are two training programs, whatever the seeds; equal probes are compiled once."""
    code, lines = toy_grid.ended(toy_grid.start(base, "programs", compiled=tmp_path))
    assert code == 0, lines
    found = [p.name.split("-")[0] for p in tmp_path.glob("*-cache")]
    assert found.count("jit_train_step") == len(toy_grid.ARMS)
    assert found.count("jit_init") == 1
    # each arm's own masks, one fixed set, pseudo-log-likelihood; the first arm's own is the set,
    # but judged without the unigram baseline
    assert found.count("jit_step") == 4
