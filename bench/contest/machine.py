"""What the machine is and allows: facts for the record, and the limit of each work from measured speeds."""
import os
import platform
import subprocess


def describe(root):
    """Facts that do not change during a run."""
    with open("/proc/cpuinfo", encoding="ascii") as file:
        lines = [line.split(":", 1) for line in file if ":" in line]
    facts = {key.strip(): value.strip() for key, value in reversed(lines)}
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_kib = int(file.readline().split()[1])
    isa = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if
           name in facts.get("flags", "").split()]
    return {"cpu": facts.get("model name", "?"), "family": facts.get("cpu family"), "model": facts.get("model"),
            "cores": len(os.sched_getaffinity(0)), "isa": isa, "l3": facts.get("cache size"),
            "memory_gib": round(memory_kib / 2**20, 1), "kernel": platform.release(), "system": _system(),
            "compiler": _output("cc", "--version").split("\n", maxsplit=1)[0],
            "commit": _output("git", "-C", root, "describe", "--always", "--dirty")}


def _system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.platform()


def _output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"


def load():
    """How busy the machine is: programs that want to run, and the share of time something waited for a CPU."""
    pressure = None
    try:
        with open("/proc/pressure/cpu", encoding="ascii") as file:
            pressure = float(file.readline().split("avg60=")[1].split()[0])
    except (OSError, IndexError):
        pass
    return {"load_average": os.getloadavg()[0], "cpu_pressure_percent": pressure}


class Limits:
    """The most tokens a second that reading the weights and multiplying allow, at the speeds that were measured. Without the
    second one, prompts have no limit."""

    def __init__(self, shape, read_gb_s, int8_gmac_s, n_tokens):
        self.read, self.multiply, self.n_tokens = read_gb_s * 1e9, int8_gmac_s * 1e9 if int8_gmac_s else None, n_tokens
        self.weight_bytes, self.kv_bytes = shape["bytes_per_token"], shape["kv_bytes_per_token"]
        width, kv_width = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
        layer = shape["hidden"] * (2 * width + 2 * kv_width + 3 * shape["ffn"])
        self.layers, self.head = layer * shape["layers"], shape["hidden"] * shape["vocab"]
        self.attention = 2 * width * shape["layers"]  # a token and each position before it

    def tok_s(self, work):
        kind, number = work.split(":")
        if kind == "clients" or (kind == "prefill" and not self.multiply):
            return None
        number = int(number)
        rows, heads, sequences, depth = {
            "prefill": (number, 1, 1, number / 2), "decode": (1, 1, 1, number + self.n_tokens / 2),
            "batch": (number, number, number, 32 + self.n_tokens / 2)}[kind]
        read_s = (self.weight_bytes + sequences * depth * self.kv_bytes) / self.read
        if not self.multiply:
            return rows / read_s
        multiply_s = (rows * (self.layers + depth * self.attention) + heads * self.head) / self.multiply
        return rows / max(read_s, multiply_s)
