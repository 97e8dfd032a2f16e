"""slurm.sbatch: what it gives srun, when it asks to be requeued, and when it stops asking."""

from __future__ import annotations

import shlex
import signal

import pytest

RUN_DIR = 'it\'s "my" run'
TRAIN = ["configs/bert.py", "--run.dir", RUN_DIR, "--data.source", 'text("a b/*.txt")']
FAST = {"BERT_VARIANTS_BACKOFF": "0"}
JOB = {
    "SLURM_JOB_ID": "40123",
    "SLURM_JOB_NODELIST": "node[07-10]",
    "SLURM_JOB_NUM_NODES": "4",
    **FAST,
}


@pytest.fixture
def installed(bench):
    """A checkout with its environment, and nodes with names."""
    (bench.root / ".venv" / "bin").mkdir(parents=True)
    script = bench.root / ".venv" / "bin" / "bert-variants"
    script.symlink_to(bench.folder / "bin" / "bert-variants")
    names = "".join(f"node{n:02}\n" for n in range(7, 11))
    bench.rule("scontrol", "show hostnames", replies=[{"stdout": names}])
    return bench


def submit(bench, **env: str):
    return bench.run("slurm.sbatch", *TRAIN, **{**JOB, "SLURM_SUBMIT_DIR": str(bench.root), **env})


def saved(step: int, code: int) -> dict:
    return {"code": code, "write": {f"checkpoints/{step}/state": ""}}


def test_four_nodes_are_one_run(installed):
    installed.rule("srun", replies=[{"execute": True}])
    done = submit(installed)
    assert done.returncode == 0, done.stderr
    (srun,) = installed.calls("srun")
    assert srun["argv"][:5] == [
        *("--nodes=4", "--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=90", "--label"),
    ]
    assert srun["env"]["BERT_VARIANTS_COORDINATOR"] == "node07:20123"
    assert srun["env"]["BERT_VARIANTS_PROCESSES"] == "4"
    (call,) = installed.calls("bert-variants")
    assert call["argv"] == ["train", *TRAIN]
    assert call["env"]["BERT_VARIANTS_PROCESS_ID"] == "0"
    assert call["cwd"] == str(installed.root)


def test_one_node_needs_no_coordinator(installed):
    installed.rule("srun", replies=[{"execute": True}])
    assert submit(installed, SLURM_JOB_NUM_NODES="1").returncode == 0
    (call,) = installed.calls("bert-variants")
    assert "BERT_VARIANTS_COORDINATOR" not in call["env"]
    assert "BERT_VARIANTS_PROCESS_ID" not in call["env"]
    assert not installed.calls("scontrol")


def test_the_script_is_run_from_slurms_copy(installed):
    """Slurm spools the script elsewhere; the checkout is where it was submitted from."""
    spooled = installed.folder / "spool" / "launch"
    spooled.mkdir(parents=True)
    (spooled / "slurm.sbatch").write_text((installed.root / "launch/slurm.sbatch").read_text())
    copy = type(installed)(spooled.parent, installed.folder, installed.rules)
    env = {**JOB, "SLURM_SUBMIT_DIR": str(installed.root)}
    assert copy.run("slurm.sbatch", *TRAIN, **env).returncode == 0
    assert len(installed.calls("srun")) == 1
    lost = copy.run("slurm.sbatch", *TRAIN, **{**env, "SLURM_SUBMIT_DIR": "/nowhere"})
    assert lost.returncode == 2
    assert "BERT_VARIANTS_ROOT" in lost.stderr


def test_preempted_goes_back_to_the_queue(installed):
    installed.rule("srun", replies=[saved(10, 75)])
    done = submit(installed)
    assert done.returncode == 75
    assert [c["argv"] for c in installed.calls("scontrol", "requeue")] == [["requeue", "40123"]]
    assert len(installed.calls("srun")) == 1


def test_a_lost_peer_restarts_within_the_job(installed):
    installed.rule("srun", replies=[saved(10, 76), saved(20, 137), saved(30, 0)])
    assert submit(installed).returncode == 0
    assert len(installed.calls("srun")) == 3
    assert not installed.calls("scontrol", "requeue")


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_other_codes_end_the_job(installed, code):
    installed.rule("srun", replies=[{"code": code}])
    assert submit(installed).returncode == code
    assert len(installed.calls("srun")) == 1
    assert not installed.calls("scontrol", "requeue")


def test_requeues_without_progress_end(installed):
    installed.rule("srun", replies=[saved(10, 75)])
    for _ in range(5):
        done = submit(installed, BERT_VARIANTS_RESTARTS="2")
    # The first life got to step 10 and two more were allowed to get no further.
    assert len(installed.calls("scontrol", "requeue")) == 3
    assert "gave up: 2 requeues without progress beyond step 10" in done.stderr


def test_requeues_with_progress_go_on(installed):
    installed.rule("srun", replies=[saved(step, 75) for step in range(10, 60, 10)])
    for _ in range(5):
        submit(installed, BERT_VARIANTS_RESTARTS="0")
    assert len(installed.calls("scontrol", "requeue")) == 5


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_warning_before_the_time_limit_saves_and_requeues(installed, number):
    installed.rule("srun", replies=[{"wait_for_term": True}])
    env = {**JOB, "SLURM_SUBMIT_DIR": str(installed.root)}
    process = installed.start("slurm.sbatch", *TRAIN, **env)
    installed.wait_for(installed.folder / "waiting")
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 75
    assert len(installed.calls("scontrol", "requeue")) == 1


def test_killed_in_the_grace_time_requeues_all_the_same(installed):
    installed.rule("srun", replies=[{"wait_for_term": True, "code": 137}])
    env = {**JOB, "SLURM_SUBMIT_DIR": str(installed.root)}
    process = installed.start("slurm.sbatch", *TRAIN, **env)
    installed.wait_for(installed.folder / "waiting")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=20)
    assert process.returncode == 137
    assert len(installed.calls("srun")) == 1
    assert len(installed.calls("scontrol", "requeue")) == 1


def test_without_an_environment_it_says_what_to_do(bench):
    done = submit(bench, SLURM_JOB_NUM_NODES="1")
    assert done.returncode == 2
    assert "launch/install.sh" in done.stderr


def test_dry_run_is_what_is_run(installed):
    dry = submit(installed, DRY_RUN="1")
    assert dry.returncode == 0
    assert not installed.calls("srun")
    assert submit(installed).returncode == 0
    (srun,) = installed.calls("srun")
    lines = dry.stdout.rstrip("\n").split("\n")
    assert shlex.split(lines[-1]) == ["srun", *srun["argv"]]
    assert "export BERT_VARIANTS_PROCESSES=4" in lines


def test_bad_settings_are_usage_errors(installed):
    done = submit(installed, BERT_VARIANTS_RESTARTS="many")
    assert done.returncode == 2
    assert "BERT_VARIANTS_RESTARTS is 'many'" in done.stderr
    assert installed.run("slurm.sbatch", "configs/bert.py", **JOB).returncode == 2


def test_directives_stand_before_the_first_command(repository):
    lines = (repository / "launch/slurm.sbatch").read_text().split("\n")
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(directives) >= 5
    assert max(directives) < first
    assert "#SBATCH --requeue" in lines
    assert any(line.startswith("#SBATCH --signal=B:USR1@") for line in lines)
