"""The benchmark of the newer families, at toy size: equal work, and what is said of it."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import families, ours, peer, step, turns, twins
from bert_variants import keys
from bert_variants.train import setup

TOY = step.TOY["toy"]
ARMS = {
    arm: (family, spec)
    for family, found in families.our_specs(TOY).items()
    for arm, spec in found.items()
}
EQUAL = {family: next(iter(found)) for family, found in families.our_specs(TOY).items()}


def predicted(spec):
    """How many positions an arm of ours predicts in a row."""
    batch = ours.build(spec).batch
    corrupt = setup.bind(spec.corruption, ours.vocab())
    return jax.eval_shape(
        lambda b: corrupt(keys.corruption_keys(keys.root(0), b, 0, 0), b), batch
    ).at_BP.shape


# ------------------------------------------------------------- our arms


@pytest.mark.parametrize("arm", ARMS)
def test_our_arms_predict_as_many_positions_of_the_same_rows(arm):
    spec = ARMS[arm][1]
    bert = ours.Spec(size=TOY.size, batch=TOY.batch, length=TOY.length)
    assert predicted(spec) == predicted(bert) == (TOY.batch, TOY.predictions)
    one, other = (ours.build(s).batch for s in (spec, bert))
    np.testing.assert_array_equal(one.tokens_BT, other.tokens_BT)


def test_only_a_model_with_memory_carries_one():
    carried = {arm: ours.build(spec).shapes.carry for arm, (_, spec) in ARMS.items()}
    assert [arm for arm, carry in carried.items() if carry is not None] == ["ours xlnet"]
    memory, _ = families.remembered(TOY)
    layers, width, _ = step.sizes(TOY.size)
    assert carried["ours xlnet"]["states"].shape == (TOY.batch, layers, memory, width)


def test_rows_of_streams_go_on_and_half_of_them_backwards():
    labels = ours.build(ARMS["ours xlnet"][1]).batch.labels
    np.testing.assert_array_equal(labels["continues"], np.ones(TOY.batch))
    np.testing.assert_array_equal(labels["backward"], [0] * 4 + [1] * 4)
    with pytest.raises(KeyError):
        ours.make_batch(8, 16, ("unheard_of",))


def test_decoders_are_extra():
    """The arm that is compared has none; the published one does."""
    for family in ("deberta_v1", "deberta_v3"):
        plain, published = families.our_specs(TOY)[family].values()
        assert "absolute='none'" in plain.model
        assert "absolute" not in published.model
        assert plain.objectives == published.objectives


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_our_arms_run(arm):
    """Three steps; with a memory, the third over a full one."""
    take_step, parts, facts = ours.prepare(ARMS[arm][1])
    for _ in range(3):
        take_step()
    assert facts["temporaries_mb"] >= 0
    assert parts.mesh.size == 8


# ------------------------------------------------------------- runs and figures


def test_a_machine_that_holds_all_runs_all_at_once():
    (one,) = families.runs(TOY, list(twins.FAMILIES), "auto", 1000.0)
    groups, arms = one
    assert [group.family for group in groups] == list(twins.FAMILIES)
    names = [arm.name for arm in arms]
    assert len(names) == len(set(names)) == 16


def test_a_small_machine_runs_each_family_beside_both_berts(capsys):
    found = families.runs(TOY, ["electra", "xlnet"], "auto", 3.0)
    assert [[group.family for group in groups] for groups, _ in found] == [["electra"], ["xlnet"]]
    for groups, arms in found:
        names = {arm.name for arm in arms}
        assert names == {families.BERT, families.HF_BERT, *groups[0].ours, *groups[0].theirs}
    assert "3 are free" in capsys.readouterr().out


def result(name, ms):
    if ms is None:
        return {"arm": name, "steps": 0, "clean": 0, "died": "no torch"}
    return {"arm": name, "steps": 9, "clean": 9, "died": "", "ms": ms, "cpu_ms": 2 * ms}


def results(**ms):
    group, _ = families.arms(TOY, "deberta_v1")
    names = dict(zip(("mine", "decoder"), group.ours, strict=True))
    names |= {"bf16": group.theirs[0], "float32": group.theirs[1]}
    names |= {"bert": families.BERT, "hf": families.HF_BERT}
    return group, {names[key]: result(names[key], value) for key, value in ms.items()}


def test_the_faster_twin_counts():
    group, found = results(mine=150, decoder=180, bf16=900, float32=600, bert=100, hf=200)
    figures = families.compared(group, found)
    assert figures["twin"] == "HF deberta_v1, float32"
    assert (figures["of_bert"], figures["twin_of_bert"], figures["speed"]) == (1.5, 3, 4)
    assert all(line.endswith("met") for line in families.verdicts(figures))
    shown = families.table([group], list(found.values()))
    assert "loaded" not in shown
    (mine,) = [line for line in shown.split("\n") if line.startswith("ours deberta v1  ")]
    assert mine.split()[3:6] == ["150", "1.50", "4.00"]


def test_goals_can_be_missed():
    group, found = results(mine=700, decoder=800, bf16=900, float32=600, bert=100, hf=200)
    assert [line[-6:] for line in families.verdicts(families.compared(group, found))] == [
        "MISSED",
        "MISSED",
    ]


def test_arms_that_died_are_shown_and_not_compared():
    group, found = results(mine=150, decoder=180, bf16=None, float32=None, bert=100, hf=None)
    figures = families.compared(group, found)
    assert figures == {"family": "deberta_v1", "of_bert": 1.5}
    assert not families.verdicts(figures)
    assert families.table([group], list(found.values())).count("no torch") == 3


@pytest.mark.slow
def test_the_benchmark_in_processes(tmp_path):
    """Twins that cannot run are reported dead."""
    stored = tmp_path / "families.json"
    options = ["--shape", "toy", "--families", "electra", "--rounds", "1", "--patience", "0"]
    found = families.main([*options, "--together", "off", "--json", str(stored)])
    assert json.loads(stored.read_text()) == found
    (run,) = found["runs"]
    assert {arm["arm"] for arm in run["arms"] if arm["died"]} <= {
        families.HF_BERT,
        "HF electra, bf16",
        "HF electra, float32",
    }
    assert run["families"][0]["of_bert"] > 0


# ------------------------------------------------------------- twins


@pytest.fixture(params=list(twins.FAMILIES))
def twin(request):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    spec = families.twin_spec(TOY, request.param)
    model, loss_of = twins.make(spec)
    return request.param, model, loss_of


@pytest.mark.oracle
def test_a_twin_has_the_parameters_of_ours(twin):
    family, model, _ = twin
    params = ours.build(ARMS[EQUAL[family]][1]).shapes.params
    mine = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(p.numel() for p in model.parameters()) == mine


@pytest.mark.oracle
def test_every_parameter_of_a_twin_is_trained_and_it_learns(twin):
    family, model, loss_of = twin
    first = loss_of()
    first.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without, f"{family}: {without}"
    model.zero_grad()
    take_step = peer.train_step(model, loss_of, bfloat16=True, fused=True)
    for _ in range(30):
        take_step()
    assert float(loss_of().detach()) < float(first.detach())


@pytest.mark.oracle
def test_a_twins_memory_fills_and_stays():
    import torch

    spec = families.twin_spec(TOY, "xlnet")
    torch.manual_seed(0)
    given = peer.make_inputs(spec)
    model, loss_of = twins.xlnet(spec, given)
    model.eval()
    losses = [float(loss_of().detach()) for _ in range(8)]
    assert losses[0] != losses[1]  # it began with zeros
    assert losses[6] == losses[7]  # and holds the same rows again and again, layer by layer


@pytest.mark.oracle
def test_a_twins_order_hides_what_is_predicted():
    spec = families.twin_spec(TOY, "xlnet")
    at_BP = np.tile(np.array([1, 4, 9, 20, 30]), (TOY.batch, 1))
    hidden_BTT, mapping_BPT = twins.permuted(spec, at_BP)
    assert hidden_BTT.shape == (TOY.batch, 32, 32)
    np.testing.assert_array_equal(mapping_BPT.argmax(-1), at_BP)
    np.testing.assert_array_equal(mapping_BPT.sum(-1), 1)
    own = np.diagonal(hidden_BTT, axis1=1, axis2=2)
    np.testing.assert_array_equal(own.sum(1), 5)  # a target does not see itself, others do
    assert hidden_BTT[:, :16, 16:].all()  # the first part sees nothing of the second
    assert not hidden_BTT[:, 16:, [0, 2, 3]].any()  # ordinary tokens are seen by all behind them
    later = hidden_BTT[:, at_BP[0]][:, :, at_BP[0]][:, :3, :3]
    np.testing.assert_array_equal(later + later.swapaxes(1, 2) - np.eye(3), 1)  # an order


@pytest.mark.oracle
def test_drawn_ids_have_their_shares():
    import torch

    torch.manual_seed(0)
    shares = np.array([0.5, 0.0, 0.3, 0.2])
    logits = torch.from_numpy(np.log(np.maximum(shares, 1e-30))).float().expand(100, 1000, 4)
    found = np.bincount(twins.drawn(logits).flatten().numpy(), minlength=4) / 100_000
    np.testing.assert_allclose(found, shares, atol=0.006)


@pytest.mark.oracle
@pytest.mark.slow
def test_twins_run_as_workers():
    spec = families.twin_spec(TOY, "xlnet")
    arm = turns.Arm("twin", "twins", dataclasses.asdict(spec))
    (worker,) = turns.run([arm], 1, 0.0, lambda _: None)
    assert not worker.died
    assert worker.ready["parameters"] > 0
