"""The contestants on a GPU: Runnel with --device, and of its peers those that this machine has everything for."""
import ctypes
import glob
import os
import shutil
import subprocess

from contest.players import LLAMA_PACKAGE, Peer, Runnel, Unable, environment
from contest.rows import LLAMA, RUNNEL, TRANSFORMERS

TRANSFORMERS_PACKAGES = ["torch==2.9.1", "transformers==4.57.1", "gguf==0.17.1", "accelerate==1.12.0", "numpy==2.2.6"]
PLACES_OF_NVCC = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
VULKAN_HEADER = "/usr/include/vulkan/vulkan.h"
NVIDIA_CARD = "NVIDIA card with its driver"


def has_nvidia_card():
    """Whether NVIDIA's driver shows a card."""
    try:
        driver, n = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(n)) == 0 and n.value > 0
    except OSError:
        return False


def demand(wanted):
    """Unable with what is missing. `wanted`: by its name, whether it is there."""
    missing = [name for name, is_there in wanted.items() if not is_there]
    if missing:
        raise Unable(f"there is no {' and no '.join(missing)}")


def make_environment(name, packages, modules, cmake_args=None):
    """See environment(); whatever keeps it from being made leaves out its contestant alone."""
    try:
        return environment(name, packages, modules, cmake_args)
    except subprocess.CalledProcessError as error:
        raise Unable(f"{' '.join(packages)} cannot be installed: pip ended with status {error.returncode}, see above") from error


def llama_with_cuda():
    """Its interpreter, or Unable with what is missing."""
    nvcc = shutil.which("nvcc", path=PLACES_OF_NVCC)
    demand({"nvcc (the CUDA toolkit)": nvcc, NVIDIA_CARD: has_nvidia_card()})
    return make_environment("bench-venv-cuda", [LLAMA_PACKAGE], ["llama_cpp"],
                            f"-DGGML_CUDA=ON -DCMAKE_CUDA_COMPILER={nvcc} -DLLAVA_BUILD=OFF")


def llama_with_vulkan():
    """Likewise."""
    demand({"glslc": shutil.which("glslc"), "vulkan.h (libvulkan-dev)": os.path.exists(VULKAN_HEADER),
            "card in /dev/dri": glob.glob("/dev/dri/renderD*")})
    return make_environment("bench-venv-vulkan", [LLAMA_PACKAGE], ["llama_cpp"], "-DGGML_VULKAN=ON -DLLAVA_BUILD=OFF")


def llama_settings():
    """By CUDA where it can be compiled for that, else by Vulkan."""
    reasons = []
    for name, make in (("CUDA", llama_with_cuda), ("Vulkan", llama_with_vulkan)):
        try:
            python = make()
        except Unable as reason:
            reasons.append(f"{name}: {reason}")
            continue
        return [Peer(LLAMA, f"{name}, {'flash attention' if flash else 'plain attention'}", python, "peer_llama_cpp.py", "--gpu",
                     *(["--flash"] if flash else [])) for flash in (True, False)]
    raise Unable("; ".join(reasons))


def transformers_settings():
    """PyTorch of the package index computes on NVIDIA's cards."""
    demand({NVIDIA_CARD: has_nvidia_card()})
    python = make_environment("bench-venv-transformers", TRANSFORMERS_PACKAGES, ["torch", "transformers", "gguf"])
    return [Peer(TRANSFORMERS, setting, python, "peer_transformers.py", *flags)
            for setting, flags in (("plain", ()), ("compiled", ("--compiled",)))]


def line_up(device, peers):
    """All contestants, in the order of a round, and a line for each of `peers` that cannot take part."""
    found, left_out = [], []
    for name, settings in ((LLAMA, llama_settings), (TRANSFORMERS, transformers_settings)):
        if name not in peers:
            continue
        try:
            found += settings()
        except Unable as reason:
            left_out.append(f"{name} is left out: {reason}")
    with_numpy = found[0].command[0] if found else None
    return [Runnel(RUNNEL, with_numpy, device=device), *found], left_out
