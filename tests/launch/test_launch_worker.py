"""worker.sh and gpu.sh: starting, following, restarting and stopping a run, here and over ssh."""

from __future__ import annotations

import os
import shlex
import signal
import time

import pytest

RUN_DIR = 'runs/it\'s "my" run'
TRAIN = [
    "configs/bert.py",
    "--size",
    "tiny",
    "--run.dir",
    RUN_DIR,
    "--data.source",
    'text("a b/*.txt")',
]
FAST = ["--backoff", "0"]


def saved(step: int, code: int) -> dict:
    """A life of training that reaches a checkpoint and ends."""
    return {"code": code, "write": {f"checkpoints/{step}/state": ""}}


def test_run_hands_the_arguments_on_unchanged(bench):
    done = bench.run("worker.sh", "run", *FAST, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    (call,) = bench.calls("bert-variants")
    assert call["argv"] == ["train", *TRAIN]
    assert call["cwd"] == str(bench.root)


def test_run_resumes_after_preemption_and_lost_peers(bench):
    replies = [saved(10, 75), saved(20, 76), saved(30, 0)]
    bench.rule("bert-variants", "train", replies=replies)
    done = bench.run("worker.sh", "run", *FAST, "--", *TRAIN)
    assert done.returncode == 0
    calls = bench.calls("bert-variants")
    assert [c["argv"] for c in calls] == [["train", *TRAIN]] * 3
    assert "preempted and saved) at step 10" in done.stderr
    assert "a peer was lost) at step 20" in done.stderr


def test_run_restarts_a_killed_process(bench):
    bench.rule("bert-variants", replies=[{"kill": signal.SIGKILL}, {"kill": signal.SIGABRT}, {}])
    assert bench.run("worker.sh", "run", *FAST, "--", *TRAIN).returncode == 0
    assert len(bench.calls("bert-variants")) == 3


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_run_ends_with_what_no_restart_cures(bench, code):
    bench.rule("bert-variants", replies=[{"code": code}])
    assert bench.run("worker.sh", "run", *FAST, "--", *TRAIN).returncode == code
    assert len(bench.calls("bert-variants")) == 1


def test_run_gives_up_when_the_run_gets_nowhere(bench):
    bench.rule("bert-variants", replies=[saved(10, 76)])
    done = bench.run("worker.sh", "run", *FAST, "--restarts", "2", "--", *TRAIN)
    assert done.returncode == 76
    # The first life reached step 10; two restarts without progress were allowed after that.
    assert len(bench.calls("bert-variants")) == 4
    assert "gave up after 2 restarts without progress beyond step 10" in done.stderr


def test_a_command_without_run_dir_is_refused(bench):
    done = bench.run("worker.sh", "run", "--", "configs/bert.py", "--size", "tiny")
    assert done.returncode == 2
    assert "--run.dir" in done.stderr


def test_start_outlives_its_shell_and_follow_gives_the_exit_code(bench):
    bench.rule("bert-variants", replies=[{"stdout": "step 1 loss 9.0\n", "sleep": 0.5, "code": 4}])
    assert bench.run("worker.sh", "start", *FAST, "--", *TRAIN).returncode == 0
    assert bench.run("worker.sh", "alive").returncode == 0
    assert "running" in bench.run("worker.sh", "status").stdout
    done = bench.run("worker.sh", "follow")
    assert done.returncode == 4
    assert "step 1 loss 9.0" in done.stdout
    assert bench.run("worker.sh", "alive").returncode == 1
    assert "ended with exit 4 (diverged)" in bench.run("worker.sh", "status").stdout
    # And again, when all is over.
    assert bench.run("worker.sh", "follow").returncode == 4


def test_start_again_attaches_to_the_same_run_and_refuses_another(bench):
    bench.rule("bert-variants", replies=[{"wait_for_term": True}])
    bench.run("worker.sh", "start", *FAST, "--", *TRAIN)
    again = bench.run("worker.sh", "start", *FAST, "--", *TRAIN)
    assert again.returncode == 0
    assert "in progress already" in again.stderr
    other = bench.run("worker.sh", "start", *FAST, "--", *TRAIN, "--optim.lr", "1")
    assert other.returncode == 2
    assert "another run is in progress" in other.stderr
    assert len(bench.calls("bert-variants")) == 1


def test_stop_saves_and_is_not_undone_by_a_restart(bench):
    bench.rule("bert-variants", replies=[{"wait_for_term": True}])
    bench.run("worker.sh", "start", *FAST, "--", *TRAIN)
    bench.wait_for(bench.folder / "waiting")
    done = bench.run("worker.sh", "stop")
    assert done.returncode == 0
    assert "ended with exit 75 (preempted and saved)" in done.stdout
    time.sleep(0.3)
    assert len(bench.calls("bert-variants")) == 1
    assert bench.run("worker.sh", "stop").returncode == 1


def test_follow_tells_when_the_supervisor_was_killed(bench):
    bench.rule("bert-variants", replies=[{"sleep": 1}])
    bench.run("worker.sh", "start", *FAST, "--", *TRAIN)
    pid = int((bench.root / "runs/.launch/pid").read_text())
    os.killpg(pid, signal.SIGKILL)
    done = bench.run("worker.sh", "follow")
    assert done.returncode == 137
    assert "killed without an exit code" in bench.run("worker.sh", "status").stdout


def test_step(bench):
    assert bench.run("worker.sh", "step").stdout == "-1\n"
    bench.rule("bert-variants", replies=[saved(40, 0)])
    bench.run("worker.sh", "run", *FAST, "--", *TRAIN)
    assert bench.run("worker.sh", "step").stdout == "40\n"


def test_environment_setup_script_and_python_through_uv(bench):
    bench.rules[:] = [r for r in bench.rules if r["program"] != "python-version"]
    # The machine's own Python is too old; the one that uv brings is not.
    bench.rule("python-version", "python3.12", replies=[{"stdout": "Python 3.12.1\n"}])
    bench.rule("python-version", replies=[{"code": 1, "stdout": "Python 3.10.12\n"}])
    brought = bench.folder / "uv" / "python3.12"
    bench.stand_in(brought)
    bench.rule("python3", "-m uv python find", replies=[{"stdout": f"{brought}\n"}])
    setup = bench.folder / "mount it.sh"
    setup.write_text(f"touch '{bench.folder}/mounted'\n")
    done = bench.run(
        "worker.sh", "run", *FAST, "--fetch-python", "--setup", str(setup),
        "--env", "BERT_VARIANTS_PROCESSES=2", "--env", "BERT_VARIANTS_NOTE=a b", "--", *TRAIN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (bench.folder / "mounted").exists()
    assert bench.calls("python3", "-m pip install --user --quiet uv")
    assert bench.calls("python3", "-m uv python install")
    assert len(bench.calls("python3.12", "-m venv")) == 1
    (call,) = bench.calls("bert-variants")
    assert call["env"]["BERT_VARIANTS_PROCESSES"] == "2"
    assert call["env"]["BERT_VARIANTS_NOTE"] == "a b"


def test_a_failing_setup_script_stops_everything(bench):
    setup = bench.folder / "setup.sh"
    setup.write_text("exit 9\n")
    done = bench.run("worker.sh", "run", "--setup", str(setup), "--", *TRAIN)
    assert done.returncode == 9
    assert not bench.calls("bert-variants")


# gpu.sh


def test_gpu_here(bench):
    bench.rule("bert-variants", replies=[saved(10, 75), saved(20, 0)])
    done = bench.run("gpu.sh", "run", "--gpus", "0,1", *FAST, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    calls = bench.calls("bert-variants")
    assert [c["argv"] for c in calls] == [["train", *TRAIN]] * 2
    assert {c["env"]["CUDA_VISIBLE_DEVICES"] for c in calls} == {"0,1"}
    assert not bench.calls("ssh")


def test_gpu_here_saves_on_a_signal(bench):
    bench.rule("bert-variants", replies=[{"wait_for_term": True}])
    process = bench.start("gpu.sh", "run", *FAST, "--", *TRAIN)
    bench.wait_for(bench.folder / "waiting")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "stopped by a signal" in out


def test_ctrl_c_at_a_terminal_is_one_signal(bench):
    """It goes to the whole process group; training takes a second signal for "at once"."""
    bench.rule("bert-variants", replies=[{"wait_for_term": True}])
    process = bench.start("gpu.sh", "run", *FAST, "--", *TRAIN)
    bench.wait_for(bench.folder / "waiting")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_gpu_over_ssh_end_to_end(bench):
    """The remote commands are really run, in a pretended home directory, by another shell."""
    home = bench.move_in()
    bench.rule("ssh", replies=[{"execute": True}])
    bench.rule("bert-variants", replies=[saved(10, 76), {"sleep": 0.3, **saved(20, 3)}])
    done = bench.run("gpu.sh", "run", "--host", "me@box", *FAST, "--", *TRAIN)
    assert done.returncode == 3, done.stderr
    calls = bench.calls("bert-variants")
    assert [c["argv"] for c in calls] == [["train", *TRAIN]] * 2
    assert {c["cwd"] for c in calls} == {str(home)}
    assert "BERT_VARIANTS_COORDINATOR" not in calls[0]["env"]
    (copy,) = bench.calls("rsync")
    assert copy["argv"][-2:] == [f"{bench.root}/", "me@box:bert-variants/"]
    assert "--delete" in copy["argv"]
    assert "--filter=:- .gitignore" in copy["argv"]
    assert (home / RUN_DIR / "checkpoints/20").is_dir()


def test_gpu_survives_a_connection_that_fails_now_and_then(bench):
    bench.move_in()
    lost = {"code": 255, "stderr": "kex_exchange_identification: Connection reset by peer\n"}
    bench.rule("ssh", "mkdir", replies=[lost, lost, {"execute": True}])
    bench.rule("ssh", "worker.sh follow", replies=[lost, {"execute": True}])
    bench.rule("ssh", replies=[{"execute": True}])
    bench.rule("bert-variants", replies=[{"sleep": 0.3}])
    done = bench.run("gpu.sh", "run", "--host", "box", *FAST, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert len(bench.calls("bert-variants")) == 1
    assert "ssh to box failed; again in 0 s (2 of 5)" in done.stderr


def test_gpu_gives_up_on_a_host_that_never_answers(bench):
    bench.rule("ssh", replies=[{"code": 255}])
    done = bench.run("gpu.sh", "run", "--host", "box", *FAST, "--", *TRAIN)
    assert done.returncode == 255
    assert len(bench.calls("ssh")) == 5
    assert not bench.calls("rsync")


def test_gpu_copy_failing_stops(bench):
    bench.rule("rsync", replies=[{"code": 23, "stderr": "rsync: No space left on device (28)\n"}])
    done = bench.run("gpu.sh", "run", "--host", "box", *FAST, "--", *TRAIN)
    assert done.returncode == 23
    assert not bench.calls("ssh", "worker.sh start")


def test_gpu_several_boxes_are_joined(bench):
    done = bench.run(
        "gpu.sh", "run", "--host", "me@one", "--host", "me@two", "--port", "9000", "--", *TRAIN
    )
    assert done.returncode == 0, done.stderr
    order = [c["argv"][-2] for c in bench.calls("ssh", "worker.sh")]
    verbs = [
        c["argv"][-1].split("worker.sh ")[1].split(" ")[0] for c in bench.calls("ssh", "worker.sh")
    ]
    assert list(zip(order, verbs, strict=True)) == [
        ("me@one", "prepare"),
        ("me@two", "prepare"),
        ("me@one", "start"),
        ("me@two", "start"),
        ("me@one", "follow"),
    ]
    for number, call in enumerate(bench.calls("ssh", "worker.sh start")):
        line = call["argv"][-1]
        assert "--env BERT_VARIANTS_COORDINATOR=one:9000 " in line
        assert "--env BERT_VARIANTS_PROCESSES=2 " in line
        assert f"--env BERT_VARIANTS_PROCESS_ID={number} " in line


def test_gpu_dry_run_is_what_is_run(bench):
    args = ["run", "--host", "me@box", "--gpus", "0", *FAST]
    dry = bench.run("gpu.sh", *args, "--dry-run", "--", *TRAIN)
    assert dry.returncode == 0
    assert not bench.calls("ssh")
    assert not bench.calls("rsync")
    bench.run("gpu.sh", *args, "--", *TRAIN)
    printed = [shlex.split(line) for line in dry.stdout.rstrip("\n").split("\n")]
    really = [[c["program"], *c["argv"]] for c in [*bench.calls("ssh"), *bench.calls("rsync")]]
    assert sorted(printed) == sorted(really)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "--"])
def test_gpu_refuses_a_host_that_is_an_option(bench, host):
    done = bench.run("gpu.sh", "run", "--host", host, "--", *TRAIN)
    assert done.returncode == 2
    assert not bench.calls("ssh")


@pytest.mark.parametrize("folder", ["~/x", "a b", "/etc", "$(date)", "-x"])
def test_gpu_refuses_an_odd_remote_directory(bench, folder):
    done = bench.run("gpu.sh", "run", "--host", "box", "--remote-dir", folder, "--", *TRAIN)
    assert done.returncode == 2
    assert not bench.calls("ssh")


def test_gpu_status_asks_every_box(bench):
    bench.rule("ssh", "two", replies=[{"code": 1}])
    done = bench.run("gpu.sh", "status", "--host", "one", "--host", "two")
    assert done.returncode == 1
    assert [c["argv"][-2] for c in bench.calls("ssh")] == ["one", "two"]
