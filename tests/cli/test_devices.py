"""runnel devices, and what --device says where nothing is found. What is computed on one is in tests/gpu and tests/server/test_gpu.py."""
import json
import os
import subprocess

NOTHING = {"OCL_ICD_VENDORS": "/nonexistent"}  # where OpenCL's loader looks for drivers


def run(runnel, *arguments, env=None):
    clean = {name: value for name, value in os.environ.items() if name != "RUNNEL_DEVICE"}
    return subprocess.run([runnel, *arguments], capture_output=True, text=True, timeout=280, env={**clean, **(env or {})})


def listed(runnel, env=None):
    done = run(runnel, "devices", "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_cpu_comes_first(runnel):
    devices = listed(runnel)
    assert devices[0]["id"] == "cpu" and not devices[0]["is_gpu"] and devices[0]["problem"] == ""
    assert "ref" in devices[0]["can"] and devices[0]["driver"] in devices[0]["can"]
    ids = [device["id"] for device in devices[1:] if device["id"]]
    assert ids == [f"gpu{i}" for i in range(len(ids))]
    for device in devices:
        assert set(device) == {"id", "name", "driver", "can", "problem", "memory_bytes", "is_gpu"}


def test_text_says_the_same(runnel):
    text = run(runnel, "devices").stdout
    for device in listed(runnel):
        assert device["name"] in text and device["driver"] in text


def test_without_a_driver(runnel, tiny, tmp_path):
    """An error in one line, before anything is written; the CPU, if it is auto."""
    if any(device["id"].startswith("gpu") for device in listed(runnel, NOTHING)):
        return  # a card that needs no OpenCL
    ids, out = tmp_path / "ids.json", tmp_path / "out"
    ids.write_text("[5, 6, 7]")
    common = ("-m", tiny(), "--ids", str(ids), "-o", str(out))
    done = run(runnel, "logits", *common, "--device", "gpu", env=NOTHING)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "device gpu: there is none" in done.stderr and not out.exists()
    done = run(runnel, "logits", *common, "--device", "auto", env=NOTHING)
    assert (done.returncode, done.stdout) == (0, "") and out.stat().st_size > 0


def test_a_driver_that_cannot_be_loaded(runnel, tiny, tmp_path):
    """It is told what is wrong with it, with and without another device; of one that is not installed nothing is said."""
    (tmp_path / "libcuda.so.1").write_text("This is no library.\n" * 200)
    broken = {"LD_LIBRARY_PATH": str(tmp_path)}
    told = [device["problem"] for device in listed(runnel, {**NOTHING, **broken}) if not device["id"]]
    assert len(told) == 1 and told[0].startswith(f"libcuda.so.1 cannot be loaded: {tmp_path}/libcuda.so.1: "), told
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "-n", "4", "--device", "gpu", env={**NOTHING, **broken})
    assert done.returncode == 1 and "there is none; libcuda.so.1 cannot be loaded: " in done.stderr, done.stderr
    others = [device for device in listed(runnel, broken) if device["id"].startswith("gpu")]
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "-n", "4", "--device", "gpu", env=broken)
    if others:  # a CPU in disguise takes the card's place, and that is said
        is_card = any(device["is_gpu"] for device in others)
        assert done.returncode == 0 and ("no card computes; libcuda.so.1 cannot be loaded: " in done.stderr) != is_card, done.stderr
    if not any(device["is_gpu"] for device in listed(runnel)):
        assert "libcuda" not in "".join(device["problem"] for device in listed(runnel))


def test_a_driver_that_lists_nothing(runnel, tmp_path):
    """OpenCL's loader is there, and no driver behind it: no word of it."""
    assert all(device["id"] or "OpenCL" not in device["problem"] for device in listed(runnel, NOTHING))


def test_options_that_change_nothing_are_refused(runnel, tiny):
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "--gpu-layers", "3")
    assert done.returncode == 2 and "--gpu-layers" in done.stderr and "--device" in done.stderr
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "--device", "cpu", "--gpu-layers", "3")
    assert done.returncode == 1 and "--gpu-layers: 3 without a --device" in done.stderr
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "--gpu-approximate")
    assert done.returncode == 2 and "--gpu-approximate" in done.stderr and "--device" in done.stderr
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "--device", "cpu", "--gpu-approximate")
    assert done.returncode == 1 and "--gpu-approximate: expected a --device beside it" in done.stderr
    done = run(runnel, "run", "-m", tiny(), "-p", "x", "--device", "")
    assert done.returncode == 1 and "--device: expected cpu, gpu, auto or" in done.stderr
