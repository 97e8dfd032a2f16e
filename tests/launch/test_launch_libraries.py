"""The shell libraries: quoting, the restart loop, choosing Python and extras."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

AWKWARD = [
    "",
    "plain",
    "a b",
    "it's",
    '"double"',
    "back\\slash",
    "$HOME `date` $(date)",
    "a;b&&c|d>e",
    "~/x",
    "*",
    "line\nbreak",
    "trailing\n",
    "-n",
    "中文 é 🙂",
    'text("wiki/*.txt")',
    "a=b",
    "!history",
    "'",
    "''''",
    "\t",
    "&",
]


def test_quote_survives_another_shell(bench):
    done = bench.bash('quote "$@"', *AWKWARD)
    for shell in ("sh", "bash"):
        again = subprocess.run(
            [shell, "-c", f"printf '%s\\0' {done.stdout}"], capture_output=True, check=True
        )
        assert again.stdout.decode().split("\0")[:-1] == AWKWARD


def test_quote_leaves_plain_words_alone(bench):
    assert bench.bash('quote "$@"', "--zone=us-central2-b", "a/b.py", "x:y").stdout == (
        "--zone=us-central2-b a/b.py x:y"
    )


def test_dry_run_prints_and_does_not_run(bench):
    done = bench.bash('DRY_RUN=1; run touch "$1"', f"{bench.folder}/a b")
    assert done.stdout == f"touch '{bench.folder}/a b'\n"
    assert not (bench.folder / "a b").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["c.py", "--run.dir", "a b"], "a b"),
        (["c.py", "--run.dir=x=y"], "x=y"),
        (["c.py", "--run.dir", "first", "--run.dir=last"], "last"),
        (["c.py", "--run.directory", "x"], ""),
    ],
)
def test_run_dir_of(bench, args, expected):
    assert bench.bash('run_dir_of "$@"', *args).stdout == expected


# The attempts' codes are in $1; each attempt notes that it happened, and pauses only note how long.
LOOP = """
pause() { echo "pause $1"; }
read -r -a codes <<<"$1"; n=0
attempt() { echo attempt; local code=${codes[n]:-0}; n=$((n + 1)); return "$code"; }
read -r -a steps <<<"$2"
step() { echo "${steps[n]:-${steps[${#steps[@]}-1]}}"; }
RELAUNCH_LIMIT=$3
code=0; relaunch step attempt || code=$?
echo "end $code"
"""


@pytest.mark.parametrize("code", [75, 76, 134, 137, 143])
def test_restarts_what_may_be_restarted(bench, code):
    out = bench.bash(LOOP, f"{code} 0", "-1 10", "5").stdout.split("\n")
    assert out.count("attempt") == 2
    assert "end 0" in out


@pytest.mark.parametrize("code", [1, 2, 3, 4, 74, 77, 127, 130, 139, 255])
def test_leaves_the_rest(bench, code):
    out = bench.bash(LOOP, f"{code} 0", "-1 10", "5").stdout.split("\n")
    assert out.count("attempt") == 1
    assert f"end {code}" in out


def test_gives_up_without_progress(bench):
    done = bench.bash(LOOP, "76 " * 20, "7", "3")
    out = done.stdout.split("\n")
    assert out.count("attempt") == 4  # the first, and three restarts
    assert [x for x in out if x.startswith("pause")] == ["pause 10", "pause 20", "pause 40"]
    assert "end 76" in out
    assert "gave up after 3 restarts without progress beyond step 7" in done.stderr


def test_progress_starts_the_count_and_the_backoff_afresh(bench):
    # Steps after each attempt: nothing, nothing, 5, nothing new, nothing new, nothing new.
    done = bench.bash(LOOP, "75 " * 20, "0 0 0 5 5 5 5 5", "2")
    out = done.stdout.split("\n")
    assert out.count("attempt") == 6
    assert [x for x in out if x.startswith("pause")] == [
        "pause 10",
        "pause 20",
        "pause 10",
        "pause 20",
        "pause 40",
    ]


def test_a_lost_step_is_no_progress(bench):
    # A crash at 120, 90, 110, ... for ever: only more than ever before counts.
    out = bench.bash(LOOP, "137 " * 20, "0 120 90 110 100 119", "2").stdout.split("\n")
    assert out.count("attempt") == 4


def test_backoff_is_bounded(bench):
    out = bench.bash(LOOP, "76 " * 20, "0", "8").stdout.split("\n")
    assert max(int(x.split()[1]) for x in out if x.startswith("pause")) == 300


def metrics(*records: object) -> str:
    return "".join(x if isinstance(x, str) else json.dumps(x) + "\n" for x in records)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, -1),
        ({"metrics.jsonl": ""}, -1),
        ({"metrics.jsonl": metrics({"step": 5, "loss": 1.0}, {"step": 30, "loss": 0.5})}, 30),
        ({"metrics.jsonl": metrics({"loss": 1.0, "step": 12})}, 12),
        # A line torn by a kill does not count.
        ({"metrics.jsonl": metrics({"step": 5}, '{"step": 90')}, 5),
        # Checkpoints are what a restart continues from, so they count before lines of a log.
        ({"metrics.jsonl": metrics({"step": 130}), "checkpoints/100/x": ""}, 100),
        ({"checkpoints/900/x": "", "checkpoints/1000/x": ""}, 1000),
        ({"checkpoints/0100/x": "", "checkpoints/0099/x": ""}, 100),
        ({"checkpoints/100/x": "", "checkpoints/200.orbax-checkpoint-tmp/x": ""}, 100),
        ({"checkpoints/best/x": ""}, -1),
    ],
)
def test_newest_step(bench, files, expected):
    folder = bench.folder / "it's a run"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert bench.bash('newest_step "$1"', str(folder)).stdout == f"{expected}\n"


SUPERVISE = """
step() { echo 0; }
code=0; relaunch step run_child "$@" || code=$?
echo "end $code"
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_reaches_the_child_and_ends_the_loop(bench, number):
    bench.rule("bert-variants", replies=[{"wait_for_term": True}])
    lib = bench.folder / "lib"
    text = "".join(f'source "{lib}/{n}.sh"; ' for n in ("commands", "relaunch")) + SUPERVISE
    # As at a terminal, where SIGINT is not ignored from the start.
    process = subprocess.Popen(
        ["bash", "-c", text, "bash", "bert-variants", "train"],
        env=bench.environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    bench.wait_for(bench.folder / "waiting")
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert out == "end 75\n"
    assert len(bench.calls("bert-variants")) == 1


def test_a_signal_between_restarts_ends_the_loop(bench):
    bench.rule("bert-variants", replies=[{"code": 76}])
    lib = bench.folder / "lib"
    text = "".join(f'source "{lib}/{n}.sh"; ' for n in ("commands", "relaunch"))
    text += "RELAUNCH_BACKOFF=50;" + SUPERVISE
    process = subprocess.Popen(
        ["bash", "-c", text, "bash", "bert-variants", "train"],
        env=bench.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "starting again in 50 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert out == "end 76\n"
    assert len(bench.calls("bert-variants")) == 1


def test_the_accelerator_decides_the_extra(bench, tmp_path):
    bare = tmp_path / "bare machine"
    bare.mkdir()
    ask = 'accelerator_extra "$1"; echo end'
    assert bench.bash(ask, str(bare)).stdout == "end\n"
    tpu = tmp_path / "tpu"
    (tpu / "dev").mkdir(parents=True)
    (tpu / "dev" / "accel0").touch()
    assert bench.bash(ask, str(tpu)).stdout == "tpu\nend\n"


@pytest.mark.parametrize(
    ("vendor", "device", "expected"),
    [("0x1ae0", "0x006f", "tpu\n"), ("0x1ae0", "0x0042", ""), ("0x10de", "0x006f", "")],
)
def test_vfio_is_a_tpu_by_its_pci_identity(bench, tmp_path: Path, vendor, device, expected):
    (tmp_path / "m/dev/vfio").mkdir(parents=True)
    (tmp_path / "m/dev/vfio/0").touch()
    pci = tmp_path / "m/sys/bus/pci/devices/0000:00:04.0"
    pci.mkdir(parents=True)
    (pci / "vendor").write_text(vendor + "\n")
    (pci / "device").write_text(device + "\n")
    done = bench.bash('accelerator_extra "$1"; echo end', str(tmp_path / "m"))
    assert done.stdout == f"{expected}end\n"


def test_a_gpu_needs_a_driver_that_answers(bench):
    assert bench.bash("accelerator_extra /nowhere; echo end").stdout == "end\n"
    bench.rules.clear()
    bench.rule("nvidia-smi", "-L", replies=[{"stdout": "GPU 0: NVIDIA H100 (UUID: GPU-1)\n"}])
    assert bench.bash("accelerator_extra /nowhere; echo end").stdout == "cuda\nend\n"
