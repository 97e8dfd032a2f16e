"""The doctor tells what is wrong and what to do, and never falls ill itself."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from bert_variants import doctor

GOOD = {
    "stopped": "",
    "devices": ["NVIDIA H200"] * 2,
    "platform": "gpu",
    "memory": 141 << 30,
    "rows": "32 rows of 128",
    "compile_seconds": 9.25,
    "step_seconds": 0.0042,
    "tokens_per_second": 975238.0,
    "finite": True,
    "precision": "bfloat16",
    "product_flops": 7.9e14,
    "published_flops": 9.894e14,
}
PYTHON, VERSION = sys.executable, doctor.version
NAMES = ["python", "packages", "hardware", "memory", "disk", "cache", "allocator"]
NAMES += ["devices", "step", "speed"]


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.fixture
def machine(monkeypatch):
    """A machine whose devices answer as told; gives the dict that they answer with."""
    told = dict(GOOD)
    monkeypatch.setattr(doctor, "_probe", lambda: told)
    return told


@pytest.mark.usefixtures("machine")
def test_ten_lines_and_a_verdict():
    checks = doctor.doctor()
    assert [check.name for check in checks] == NAMES
    assert all(check.good for check in checks), doctor.render(checks)
    lines = doctor.render(checks).split("\n")
    assert lines[-1] == "ready"
    assert len([line for line in lines if line.startswith("ok")]) == 10
    assert by_name(checks)["devices"].found == "2 x NVIDIA H200 (gpu), 141.0 GiB each"
    assert "4.2 ms a step, 975,238 tokens/s" in by_name(checks)["step"].found
    assert by_name(checks)["speed"].found == "790 TFLOP/s in bfloat16 products, 989 published"


def test_a_device_that_does_not_answer_is_told(machine):
    machine.clear()
    machine["stopped"] = "exit code -6: Fatal Python error: Aborted"
    checks = by_name(doctor.doctor())
    for name in ("devices", "step", "speed"):
        assert not checks[name].good
        assert "Aborted" in checks[name].found
    assert "another process may hold the device" in checks["devices"].hint
    assert doctor.render(list(checks.values())).endswith("not ready: devices, step, speed")


def test_a_step_that_is_not_finite_is_bad(machine):
    machine["finite"] = False
    assert not by_name(doctor.doctor())["step"].good


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", sorted(doctor._HOST))
def test_a_check_that_breaks_is_a_failed_line(monkeypatch, name):
    def broken():
        raise ZeroDivisionError("of all things")

    monkeypatch.setitem(doctor._HOST, name, broken)
    checks = by_name(doctor.doctor())
    assert not checks[name].good
    assert "ZeroDivisionError: of all things" in checks[name].found
    assert all(checks[other].good for other in checks if other != name)


def versions(monkeypatch, **changed):
    names = {key.replace("_", "-"): value for key, value in changed.items()}
    monkeypatch.setattr(doctor, "version", lambda name: names.get(name, VERSION(name)))


@pytest.mark.usefixtures("machine")
def test_packages_that_are_missing_old_or_do_not_fit(monkeypatch):
    versions(monkeypatch, flax=None)
    assert doctor._packages() == doctor.Check(
        "packages", False, doctor._packages().found, "pip install flax"
    )
    versions(monkeypatch, jax="0.9.2", jaxlib="0.9.2")
    assert "jax>=0.10" in doctor._packages().hint
    versions(monkeypatch, jax="0.12.0.1", jaxlib="0.11.2")
    assert "jax 0.12.0.1 and jaxlib 0.11.2 do not belong together" in doctor._packages().hint


def test_hardware_without_its_plugin(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    absent = dict.fromkeys(("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin"))
    versions(monkeypatch, **absent, jax_cuda12_pjrt=None)
    assert 'pip install -U "jax[cuda12]"' in doctor._accelerator().hint
    versions(monkeypatch, jaxlib="0.12.0", jax_cuda12_plugin="0.10.2")
    found = doctor._accelerator()
    assert not found.good
    assert "jax-cuda12-plugin 0.10.2 is not for jaxlib 0.12.0" in found.hint
    versions(monkeypatch, jaxlib="0.12.0.1", jax_cuda12_plugin="0.12.0")
    assert doctor._accelerator().good
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setenv("TPU_NAME", "v5e")
    versions(monkeypatch, libtpu=None)
    assert 'pip install -U "jax[tpu]"' in doctor._accelerator().hint


def test_a_full_disk_and_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_writable", lambda folder: False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    assert not doctor._disk().good
    assert not doctor._cache().good
    monkeypatch.setattr(doctor, "LEAST_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "_writable", lambda folder: True)
    assert "free some space" in doctor._disk().hint
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 1 << 60)
    assert not doctor._memory().good


def fake_python(tmp_path, body):
    program, script = tmp_path / "body.py", tmp_path / "python"
    program.write_text(f"import sys, os, time\n{body}\n")
    # not a shebang of Python itself: its path may have a space
    script.write_text(f"#!/bin/sh\nexec {shlex.quote(PYTHON)} {shlex.quote(str(program))}\n")
    script.chmod(0o755)
    return str(script)


def test_a_probe_that_dies_or_hangs_keeps_what_it_had_said(monkeypatch, tmp_path):
    said = json.dumps({"devices": ["cpu"], "platform": "cpu", "memory": 0})
    dies = f"print('chatter'); print({said!r}, flush=True); print('boom', file=sys.stderr)"
    monkeypatch.setattr(doctor.sys, "executable", fake_python(tmp_path, dies + "; os.abort()"))
    told = doctor._probe()
    assert told["devices"] == ["cpu"]
    assert told["stopped"].startswith("exit code -6: boom")
    hangs = f"print({said!r}, flush=True); time.sleep(60)"
    monkeypatch.setattr(doctor.sys, "executable", fake_python(tmp_path, hangs))
    monkeypatch.setattr(doctor, "PATIENCE", 2.0)
    told = doctor._probe()
    assert told["devices"] == ["cpu"]
    assert "no answer within 2 s" in told["stopped"]
    monkeypatch.setattr(doctor.sys, "executable", str(tmp_path / "absent"))
    assert "No such file" in doctor._probe()["stopped"]


@pytest.mark.slow
def test_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = by_name(doctor.doctor())
    for name in ("devices", "step", "speed"):
        assert checks[name].good, doctor.render(list(checks.values()))
