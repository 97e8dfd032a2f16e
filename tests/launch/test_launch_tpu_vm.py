"""tpu_vm.sh against a gcloud without quota or capacity, one that takes TPUs and lines away."""

from __future__ import annotations

import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest

NAME = "my-tpu"
PLACE = ["--zone", "us-central2-b", "--project", "a-project"]
GCLOUD_PLACE = ["--quiet", "--zone=us-central2-b", "--project=a-project"]
RUN_DIR = 'it\'s "my" run'
TRAIN = ["configs/bert.py", "--run.dir", RUN_DIR, "--data.source", 'text("a b/*.txt")']
FAST = ["--backoff", "0", "--poll", "0"]

NOT_FOUND = {
    "code": 1,
    "stderr": "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource "
    "'projects/a-project/locations/us-central2-b/nodes/my-tpu' was not found\n",
}
NO_CAPACITY = {
    "code": 1,
    "stderr": 'ERROR: {"code": 8, "message": "There is no more capacity in the zone '
    '\\"us-central2-b\\"; you can try in another zone where Cloud TPU Nodes are offered"}\n',
}
NO_QUOTA = {
    "code": 1,
    "stderr": "ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit "
    "'TPUV4sPreemptiblePodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 8 in zone.\n",
}
FORBIDDEN = {
    "code": 1,
    "stderr": "ERROR: (gcloud.compute.tpus.tpu-vm.describe) PERMISSION_DENIED: The caller does "
    "not have permission\n",
}
LOST = {"code": 255, "stderr": "ERROR: [/usr/bin/ssh] exited with return code [255].\n"}


def state(name: str) -> dict:
    return {"stdout": f"{name}\n"}


def vm_states(bench, *names: str | dict) -> None:
    replies = [n if isinstance(n, dict) else state(n) for n in names]
    bench.rule("gcloud", "tpu-vm describe", replies=replies)


def queue_states(bench, *names: str | dict) -> None:
    replies = [n if isinstance(n, dict) else state(n) for n in names]
    bench.rule("gcloud", "queued-resources describe", replies=replies)


def verbs(bench) -> list[str]:
    """``tpu-vm create`` and so on, of every call but the looks, in order."""
    found = [" ".join(c["argv"][2:4]) for c in bench.calls("gcloud")]
    return [v for v in found if "describe" not in v]


def tpu(bench, verb: str, *args: str, train: bool = False):
    command = [verb, NAME, *PLACE, *FAST, *args, *(["--", *TRAIN] if train else [])]
    return bench.run("tpu_vm.sh", *command)


def saved(step: int, code: int, **more) -> dict:
    return {"code": code, "write": {f"checkpoints/{step}/state": ""}, **more}


# up


def test_up_finds_a_ready_tpu(bench):
    vm_states(bench, "READY")
    assert tpu(bench, "up").returncode == 0
    assert verbs(bench) == []
    (look,) = bench.calls("gcloud")
    assert look["argv"] == [
        *("compute", "tpus", "tpu-vm", "describe", NAME, "--format=value(state)"),
        *GCLOUD_PLACE,
    ]


def test_up_creates_what_is_not_there_and_waits(bench):
    vm_states(bench, NOT_FOUND, "CREATING", "CREATING", "READY")
    done = tpu(bench, "up", "--type", "v5litepod-16", "--spot", "--create-flag", "--labels=a=b c")
    assert done.returncode == 0, done.stderr
    (create,) = bench.calls("gcloud", "create")
    assert create["argv"] == [
        *("compute", "tpus", "tpu-vm", "create", NAME, "--version=v2-alpha-tpuv5-lite"),
        *("--accelerator-type=v5litepod-16", "--spot", "--labels=a=b c", *GCLOUD_PLACE),
    ]
    assert done.stderr == "my-tpu: NOT_FOUND\nmy-tpu: CREATING\nmy-tpu: READY\n"


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("v6e-8", "v2-alpha-tpuv6e"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v4-8", "tpu-ubuntu2204-base"),
        ("v3-8", "tpu-ubuntu2204-base"),
    ],
)
def test_the_runtime_follows_the_type(bench, kind, version):
    vm_states(bench, NOT_FOUND, "READY")
    tpu(bench, "up", "--type", kind)
    assert f"--version={version}" in bench.calls("gcloud", "create")[0]["argv"]


def test_an_unknown_type_needs_a_version(bench):
    vm_states(bench, NOT_FOUND, NOT_FOUND, "READY")
    done = tpu(bench, "up", "--type", "v9-8")
    assert done.returncode == 2
    assert "give --version" in done.stderr
    assert verbs(bench) == []
    assert tpu(bench, "up", "--type", "v9-8", "--version", "v9-base").returncode == 0
    assert "--version=v9-base" in bench.calls("gcloud", "create")[0]["argv"]


def test_creating_needs_a_type(bench):
    vm_states(bench, NOT_FOUND)
    done = tpu(bench, "up")
    assert done.returncode == 2
    assert "--type" in done.stderr


def test_no_quota_ends_at_once_and_says_so(bench):
    vm_states(bench, NOT_FOUND)
    bench.rule("gcloud", "create", replies=[NO_QUOTA])
    done = tpu(bench, "up", "--type", "v4-8")
    assert done.returncode == 1
    assert "quota does not allow v4-8" in done.stderr
    assert "TPUV4sPreemptiblePodPerProjectPerZoneForTPUAPI" in done.stderr
    assert verbs(bench) == ["tpu-vm create"]


def test_no_capacity_is_tried_again_and_then_given_up(bench):
    vm_states(bench, NOT_FOUND)
    bench.rule("gcloud", "create", replies=[NO_CAPACITY])
    done = tpu(bench, "up", "--type", "v4-8", "--restarts", "2")
    assert done.returncode == 1
    assert verbs(bench) == ["tpu-vm create"] * 3
    assert "--queued" in done.stderr


def test_capacity_that_comes_back(bench):
    vm_states(bench, NOT_FOUND, NOT_FOUND, "READY")
    bench.rule("gcloud", "create", replies=[NO_CAPACITY, {}])
    assert tpu(bench, "up", "--type", "v4-8").returncode == 0


def test_no_permission_never_creates(bench):
    vm_states(bench, FORBIDDEN)
    done = tpu(bench, "up", "--type", "v4-8", "--restarts", "1")
    assert done.returncode == 1
    assert "PERMISSION_DENIED" in done.stderr
    assert verbs(bench) == []


def test_a_look_that_fails_once_is_forgiven(bench):
    vm_states(bench, {"code": 1, "stderr": "ERROR: 503 backend error\n"}, "READY")
    assert tpu(bench, "up", "--type", "v4-8").returncode == 0


@pytest.mark.parametrize("gone", ["PREEMPTED", "TERMINATED"])
def test_a_preempted_tpu_is_deleted_and_made_again(bench, gone):
    vm_states(bench, gone, NOT_FOUND, "READY")
    assert tpu(bench, "up", "--type", "v4-8").returncode == 0
    assert verbs(bench) == ["tpu-vm delete", "tpu-vm create"]


def test_a_stopped_tpu_is_started(bench):
    vm_states(bench, "STOPPED", "STARTING", "READY")
    assert tpu(bench, "up").returncode == 0
    assert verbs(bench) == ["tpu-vm start"]


def test_queued_waits_in_line(bench):
    queue_states(
        bench, NOT_FOUND, "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"
    )
    vm_states(bench, "READY")
    done = tpu(bench, "up", "--queued", "--spot", "--type", "v4-8")
    assert done.returncode == 0, done.stderr
    (create,) = bench.calls("gcloud", "create")
    assert create["argv"] == [
        *("compute", "tpus", "queued-resources", "create", NAME, f"--node-id={NAME}"),
        *("--runtime-version=tpu-ubuntu2204-base", "--accelerator-type=v4-8", "--spot"),
        *GCLOUD_PLACE,
    ]


def test_queued_and_suspended_is_asked_for_again(bench):
    queue_states(bench, "SUSPENDING", "SUSPENDED", NOT_FOUND, "ACTIVE")
    vm_states(bench, "READY")
    assert tpu(bench, "up", "--queued", "--type", "v4-8").returncode == 0
    assert verbs(bench) == ["queued-resources delete", "queued-resources create"]
    (delete,) = bench.calls("gcloud", "delete")
    assert "--force" in delete["argv"]


def test_queued_active_with_its_tpu_gone(bench):
    queue_states(bench, "ACTIVE", NOT_FOUND, "ACTIVE")
    vm_states(bench, "PREEMPTED", "READY")
    assert tpu(bench, "up", "--queued", "--type", "v4-8").returncode == 0
    assert verbs(bench) == ["queued-resources delete", "queued-resources create"]


def test_queued_failing_twice_is_an_error(bench):
    queue_states(bench, "FAILED", NOT_FOUND, "PROVISIONING", "FAILED")
    done = tpu(bench, "up", "--queued", "--type", "v4-8")
    assert done.returncode == 1
    assert "the request for my-tpu failed" in done.stderr
    assert verbs(bench) == ["queued-resources delete", "queued-resources create"]


# run, follow, watch


def test_run_copies_the_code_and_starts_on_all_workers(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh alive", replies=[{"code": 127}])
    setup = bench.folder / "mount it.sh"
    setup.write_text("true\n")
    done = tpu(bench, "run", "--setup", str(setup), train=True)
    assert done.returncode == 0, done.stderr
    copies = [c["argv"] for c in bench.calls("gcloud", "tpu-vm scp")]
    assert [c[5] for c in copies] == [
        f"{NAME}:bert-variants.tgz",
        f"{NAME}:bert-variants/runs/setup.sh",
    ]
    assert all("--worker=all" in c for c in copies)
    (start,) = bench.calls("gcloud", "worker.sh start")
    assert "--worker=all" in start["argv"]
    (command,) = [a for a in start["argv"] if a.startswith("--command=")]
    words = shlex.split(command.removeprefix("--command="))
    assert words[words.index("--") + 1 :] == TRAIN
    assert words[words.index("--setup") + 1] == "bert-variants/runs/setup.sh"
    assert "--fetch-python" in words


def remote_home(bench) -> Path:
    """A home directory in which gcloud's ssh and scp really happen."""
    bench.rule("gcloud", "tpu-vm ssh", replies=[{"execute": True}])
    home = bench.move_in()
    (home.parent / "bert-variants.tgz").symlink_to(bench.folder / "sent.tgz")
    return home


def test_run_end_to_end(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "rm -rf", replies=[{}])
    bench.rule("gcloud", "tar -xzf", replies=[{}])
    home = remote_home(bench)
    bench.rule("bert-variants", replies=[saved(10, 76), saved(20, 0, sleep=0.3)])
    assert tpu(bench, "run", train=True).returncode == 0
    done = tpu(bench, "follow")
    assert done.returncode == 0, done.stderr
    calls = bench.calls("bert-variants")
    assert [c["argv"] for c in calls] == [["train", *TRAIN]] * 2
    assert {c["cwd"] for c in calls} == {str(home)}
    assert (home / RUN_DIR / "checkpoints/20").is_dir()


def test_the_code_that_is_sent(bench):
    """Tracked and new files as they are now, nothing that git ignores; old code goes first."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    for args in (
        ["init", "-q"],
        ["add", "setup.py", "launch", ".gitignore"],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*git, *args], cwd=bench.root, check=True)
    (bench.root / "launch" / "gpu.sh").unlink()  # tracked and gone
    (bench.root / "new file's.py").write_text("new")
    (bench.root / "runs").mkdir()
    (bench.root / "runs" / "big").write_text("ignored")
    keep = bench.folder / "kept.tgz"
    # The stand-in for tar: the real one, then a copy of what it made.
    real = (bench.folder / "tools" / "tar").readlink()
    (bench.folder / "tools" / "tar").unlink()
    (bench.folder / "tools" / "tar").write_text(
        f'#!/bin/sh\n"{real}" "$@" || exit\n'
        f'for a; do case $a in *code.tgz) cp "$a" "{keep}";; esac; done\n'
    )
    (bench.folder / "tools" / "tar").chmod(0o755)
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh alive", replies=[{"code": 127}])
    assert tpu(bench, "run", train=True).returncode == 0
    with tarfile.open(keep) as archive:
        names = set(archive.getnames())
    assert {"setup.py", "new file's.py", "launch/worker.sh"} <= names
    assert "launch/gpu.sh" not in names
    assert not [n for n in names if n.startswith(("runs", ".git/"))]
    (remove,) = bench.calls("gcloud", "rm -rf")
    (command,) = [a for a in remove["argv"] if a.startswith("--command=")]
    removed = shlex.split(command.removeprefix("--command="))
    assert removed[:3] == ["rm", "-rf", "--"]
    assert set(removed[3:]) == {f"bert-variants/{n.split('/')[0]}" for n in names}


def test_run_attaches_to_a_run_in_progress(bench):
    vm_states(bench, "READY")
    assert tpu(bench, "run", train=True).returncode == 0
    assert not bench.calls("gcloud", "tpu-vm scp")
    assert len(bench.calls("gcloud", "worker.sh start")) == 1


def test_copying_that_fails_starts_nothing(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh alive", replies=[{"code": 127}])
    bench.rule("gcloud", "tpu-vm scp", replies=[{"code": 1, "stderr": "No space left on device\n"}])
    done = tpu(bench, "run", train=True)
    assert done.returncode == 1
    assert not bench.calls("gcloud", "worker.sh start")


def test_follow_reconnects_while_the_tpu_is_there(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh follow", replies=[LOST, LOST, {"code": 4}])
    assert tpu(bench, "follow").returncode == 4
    assert len(bench.calls("gcloud", "worker.sh follow")) == 3


def test_follow_ends_when_the_tpu_is_gone(bench):
    vm_states(bench, "PREEMPTED")
    bench.rule("gcloud", "worker.sh follow", replies=[LOST])
    assert tpu(bench, "follow").returncode == 255


def test_watch_resumes_after_preemptions(bench):
    # Ready, then taken away while running; made again; taken again; made again; done.
    queue_states(
        bench,
        *(NOT_FOUND, "WAITING_FOR_RESOURCES", "ACTIVE"),  # first life
        *("SUSPENDED", NOT_FOUND, "ACTIVE"),  # second
        *("SUSPENDED", NOT_FOUND, "ACTIVE"),  # third
    )
    vm_states(
        bench,
        *("READY", "PREEMPTED", "PREEMPTED"),  # found up; looked at after the loss, twice
        *("READY", "PREEMPTED", "PREEMPTED"),
        "READY",
    )
    bench.rule("gcloud", "worker.sh alive", replies=[{"code": 127}])
    bench.rule("gcloud", "worker.sh step", replies=[state("-1"), state("400"), state("900")])
    bench.rule("gcloud", "worker.sh follow", replies=[LOST, LOST, {"stdout": "all done\n"}])
    done = tpu(bench, "watch", "--queued", "--spot", "--type", "v4-8", train=True)
    assert done.returncode == 0, done.stderr
    assert "all done" in done.stdout
    assert verbs(bench).count("queued-resources create") == 3
    assert verbs(bench).count("queued-resources delete") == 2
    starts = bench.calls("gcloud", "worker.sh start")
    assert len(starts) == 3
    assert len({tuple(s["argv"]) for s in starts}) == 1
    assert "goes on costing" in done.stderr


def test_watch_ends_with_what_no_restart_cures(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh follow", replies=[{"code": 4}])
    done = tpu(bench, "watch", train=True)
    assert done.returncode == 4
    assert len(bench.calls("gcloud", "worker.sh follow")) == 1


def test_watch_gives_up_when_preempted_again_and_again_at_the_same_step(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh step", replies=[state("100")])
    bench.rule("gcloud", "worker.sh follow", replies=[{"code": 75}])
    done = tpu(bench, "watch", "--restarts", "2", train=True)
    assert done.returncode == 75
    assert "gave up after 2 restarts without progress beyond step 100" in done.stderr
    assert len(bench.calls("gcloud", "worker.sh follow")) == 4


def test_watch_without_quota_ends(bench):
    vm_states(bench, NOT_FOUND)
    bench.rule("gcloud", "create", replies=[NO_QUOTA])
    done = tpu(bench, "watch", "--type", "v4-8", train=True)
    assert done.returncode == 1
    assert verbs(bench)[0] == "tpu-vm create"
    assert len([v for v in verbs(bench) if v == "tpu-vm create"]) == 1


@pytest.mark.parametrize("code", [0, 4])
def test_watch_deletes_afterwards_when_asked(bench, code):
    queue_states(bench, NOT_FOUND)
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh follow", replies=[{"code": code}])
    done = tpu(bench, "watch", "--delete-after", train=True)
    assert done.returncode == code
    assert verbs(bench)[-1] == "tpu-vm delete"


# the rest


def test_delete_takes_the_queued_resource_along(bench):
    queue_states(bench, "ACTIVE")
    assert tpu(bench, "delete").returncode == 0
    (delete,) = bench.calls("gcloud", "delete")
    assert delete["argv"][2:6] == ["queued-resources", "delete", NAME, "--force"]


def test_delete_without_one(bench):
    queue_states(bench, NOT_FOUND)
    assert tpu(bench, "delete").returncode == 0
    (delete,) = bench.calls("gcloud", "delete")
    assert delete["argv"][2:5] == ["tpu-vm", "delete", NAME]


def test_status_of_a_tpu_and_its_workers(bench):
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh status", replies=[state("w-0: running, process 7, step 40")])
    done = tpu(bench, "status")
    assert done.stdout == "my-tpu: READY\nw-0: running, process 7, step 40\n"


def test_status_of_one_that_is_not_there(bench):
    vm_states(bench, NOT_FOUND)
    assert tpu(bench, "status").stdout == "my-tpu: NOT_FOUND\n"


def test_stop_reaches_all_workers(bench):
    assert tpu(bench, "stop").returncode == 0
    (call,) = bench.calls("gcloud", "worker.sh stop")
    assert "--worker=all" in call["argv"]


@pytest.mark.parametrize("verb", ["up", "run", "watch", "follow", "status", "stop", "delete"])
def test_dry_run_calls_nothing(bench, verb):
    train = verb in ("run", "watch")
    done = tpu(bench, verb, "--dry-run", "--type", "v4-8", train=train)
    assert done.returncode == 0, done.stderr
    assert not bench.calls("gcloud")
    lines = [shlex.split(line) for line in done.stdout.rstrip("\n").split("\n")]
    gcloud = [line for line in lines if line[0] == "gcloud"]
    assert gcloud
    assert all(line[-3:] == GCLOUD_PLACE for line in gcloud)


def test_dry_run_of_watch_is_what_is_run(bench):
    args = ("watch", "--type", "v4-8", "--spot", "--queued")
    dry = tpu(bench, *args, "--dry-run", train=True)
    queue_states(bench, NOT_FOUND, "ACTIVE")
    vm_states(bench, "READY")
    bench.rule("gcloud", "worker.sh alive", replies=[{"code": 127}])
    bench.rule("gcloud", "worker.sh step", replies=[state("0")])
    assert tpu(bench, *args, train=True).returncode == 0

    def seen(argv: list[str]) -> list[str]:
        return ["TEMPORARY" if a.endswith("code.tgz") else a for a in argv]

    printed = [seen(shlex.split(x)[1:]) for x in dry.stdout.split("\n") if x.startswith("gcloud")]
    really = [seen(c["argv"]) for c in bench.calls("gcloud")]
    # Two questions are left out of a dry run, whose answers it cannot pretend.
    left_out = ("worker.sh alive", "worker.sh step")
    really = [r for r in really if not any(x in " ".join(r) for x in left_out)]
    printed = [p for p in printed if not any(x in " ".join(p) for x in left_out)]
    assert printed == really


def test_without_gcloud(bench):
    (bench.folder / "bin" / "gcloud").unlink()
    done = tpu(bench, "up")
    assert done.returncode == 1
    assert "gcloud is not on PATH" in done.stderr
