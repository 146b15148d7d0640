"""`runnel serve --device` where there is no GPU, or none that a driver shows. On one: test_gpu.py."""
import json
import os
import subprocess

import pytest

from serving import RUNNEL, run_serve

NO_DRIVER = {"OCL_ICD_VENDORS": "/nonexistent"}  # where OpenCL's loader looks for drivers


def has_a_card():
    """One of which CUDA's driver tells."""
    clean = {name: value for name, value in os.environ.items() if name not in ("RUNNEL_DEVICE", "RUNNEL_WORKERS")}
    done = subprocess.run([RUNNEL, "devices", "--json"], capture_output=True, text=True, check=True, env={**clean, **NO_DRIVER})
    return any(device["id"].startswith("gpu") for device in json.loads(done.stdout))


def test_without_one_there_is_no_metric_of_it(serve, tiny):
    serving = serve(tiny(), "--device", "cpu", "--workers", "1")
    assert ("deepseek_gpu_memory_percent",) not in serving.metrics()


def test_no_driver(tiny):
    if has_a_card():
        pytest.skip("there is a card that needs no OpenCL")
    done = run_serve("-m", tiny(), "--device", "gpu", "--workers", "1", "--port", "0", env=NO_DRIVER)
    assert done.returncode == 1 and "device gpu: there is none" in done.stderr
    assert len([line for line in done.stderr.splitlines() if "there is none" in line]) == 1


def test_auto_goes_on_without(serve, tiny):
    """As if nobody had asked for one."""
    if has_a_card():
        pytest.skip("there is a card that needs no OpenCL")
    serving = serve(tiny(), "--device", "auto", "--workers", "1", env=NO_DRIVER)
    assert any("--device auto: there is no GPU, or it has no room: the CPU computes" in line for line in serving.lines), serving.lines
    assert ("deepseek_gpu_memory_percent",) not in serving.metrics()
    assert serving.complete("Say it", 12, temperature=1, seed=0)
