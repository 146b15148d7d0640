"""The contestants: each runs as a process of its own and says tokens a second of the works it was given."""
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from contest.rows import LLAMA, LLAMA_AVX2, OPENVINO, RUNNEL, RUNNEL_AVX2

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, "build")
LLAMA_PACKAGE, OPENVINO_PACKAGE = "llama-cpp-python==0.3.36", "openvino-genai==2026.4.1.0"
WITHOUT_AVX512 = ("-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF "
                  "-DLLAVA_BUILD=OFF")
# On a CPU with AMX llama.cpp is compiled twice: by clang with all that the CPU has, as what gcc 12 makes of its AMX code ends with an
# illegal instruction, and by the system's compiler with AVX-512 alone.
WITH_AMX = "-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DLLAVA_BUILD=OFF"
WITHOUT_AMX = ("-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=ON "
               "-DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON -DLLAVA_BUILD=OFF")


class Unable(Exception):
    """A contestant that cannot do the work, and why."""


def environment(name, packages, modules, cmake_args=None):
    """The interpreter of a virtual environment below build/, made and filled when it is not ready. With cmake_args, the first
    package is compiled here: a wheel from the index or pip's cache would have been built for another processor."""
    folder = os.path.join(BUILD, name)
    python = os.path.join(folder, "bin", "python")
    imports = [python, "-c", "import " + ", ".join(modules)]
    if not os.path.exists(python) or subprocess.run(imports, check=False, capture_output=True).returncode:
        print(f"installing {' '.join(packages)} into {folder}; what has to be compiled takes minutes", file=sys.stderr)
        variables = dict(os.environ, CMAKE_ARGS=cmake_args) if cmake_args else None
        compiled = ["--no-cache-dir", "--no-binary", packages[0].split("==")[0]] if cmake_args else []
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *compiled, *packages], check=True, env=variables)
    return python


def run_json(command, variables=None):
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(variables or {})})
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise Unable(lines[-1] if lines else f"{command[0]} ended with status {done.returncode}")
    return json.loads(done.stdout)


class Peer:
    """A peer in one setting: the script that drives it, in its environment."""

    def __init__(self, group, setting, python, script, *flags):
        self.group, self.setting = group, setting
        self.command = [python, os.path.join(HERE, script)]
        self.flags = list(flags)
        self.build = None

    def _run(self, model, options, *more):
        report = run_json([*self.command, model, "--threads", str(options.threads), "--tokens", str(options.tokens),
                           *self.flags, *more])
        self.build = report.pop("build")
        return report

    def measure(self, model, works, options):
        works = [work for work in works if not work.startswith("clients")]
        return self._run(model, options, "--works", ",".join(works)) if works else {}

    def diverge(self, model, reference, options):
        return self._run(model, options, "--reference", reference)["divergence"]


class Runnel:
    """Runnel, through `runnel bench`, `runnel logits` and `runnel serve`. Without `python`, an interpreter that has numpy, its
    divergence is not measured."""
    setting = ""

    def __init__(self, group, python, cpu=None, device=None):
        self.group, self.python, self.device = group, python, device
        self.program = os.path.join(BUILD, "runnel")
        self.variables = {"RUNNEL_CPU": cpu} if cpu else {}
        self.flags = ["--device", device] if device else []
        self.version = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        self.build = self.version

    def measure(self, model, works, options):
        figures = {}
        numbers = {kind: [int(work.split(":")[1]) for work in works if work.startswith(kind + ":")]
                   for kind in ("prefill", "decode", "batch")}
        for depth in sorted({0, *numbers["decode"]}):  # one of a process; the machine is measured beside depth 0
            prompts, batches = (numbers["prefill"], numbers["batch"]) if depth == 0 else ([], [])
            prompts = [n for n in prompts for _ in range(3 if n < 100 else 1)] or [8]
            report = run_json([self.program, "bench", "-m", model, "-t", str(options.threads), "-r", "1", "--json",
                               "-n", str(options.tokens), "-d", str(depth), "-p", ",".join(map(str, prompts)),
                               "-b", ",".join(map(str, batches or [1])), *self.flags], self.variables)
            if self.device:
                self._read_device(report)
            figures |= self._read(report, depth)
        if any(work.startswith("clients") for work in works):
            figures |= self._serve(model, options)
        return {name: value for name, value in figures.items() if name in works or name.startswith("machine")}

    def _read_device(self, report):
        """What computes, for the record."""
        if "device" not in report:
            raise Unable(f"--device {self.device}: the CPU computed")
        self.build = f"{self.version}, {report['device']['computes']}"

    @staticmethod
    def _read(report, depth):
        """The works of a report; works of a few tokens are in it three times, and the median counts."""
        figures = {f"decode:{depth}": report["decode"]["tok_s"]}
        for kind in ("prefill", "batch"):
            for n in {entry["n"] for entry in report[kind]}:
                values = sorted(entry["tok_s"] for entry in report[kind] if entry["n"] == n)
                figures[f"{kind}:{n}"] = values[len(values) // 2]
        if depth == 0:
            read_gb_s = report.get("device", report["machine"])["read_gb_s"]
            figures |= {"machine:read_gb_s": read_gb_s, "machine:decode_share": report["decode"]["gb_s"] / read_gb_s}
            if "device" not in report:  # how fast a device multiplies is not measured
                figures["machine:int8_gmac_s"] = report["machine"]["int8_gmac_s"]
        return figures

    def _serve(self, model, options):
        """Twelve clients in a closed loop against a server with its defaults."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with subprocess.Popen([self.program, "serve", "-m", model, "--port", str(port), "--threads", str(options.threads),
                               *self.flags], env={**os.environ, **self.variables}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as server:
            try:
                wait_until_healthy(url, server)
                line = run_json([sys.executable, os.path.join(ROOT, "bench", "load", "load.py"), "--url", url, "--clients",
                                 "12", "--requests", str(options.requests), "--json"])
            finally:
                server.terminate()
        return {"clients:answer": line["answer_p95_ms"] / 1e3, "clients:first": line["first_token_ms"]["p95"] / 1e3}

    def diverge(self, model, reference, options):
        if not self.python:
            return None
        with open(reference, encoding="utf-8") as file:
            passages = json.load(file)["passages"].values()
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            outputs = []
            for i, passage in enumerate(passages):
                ids, output = os.path.join(folder, f"{i}.json"), os.path.join(folder, f"{i}.f32")
                with open(ids, "w", encoding="ascii") as file:
                    json.dump(passage["ids"], file)
                subprocess.run([self.program, "logits", "-m", model, "--ids", ids, "-o", output, "-t", str(options.threads),
                                *self.flags], check=True, env={**os.environ, **self.variables})
                outputs.append(output)
            return run_json([self.python, os.path.join(HERE, "divergence.py"), reference, *outputs])


def wait_until_healthy(url, server):
    for _ in range(600):
        if server.poll() is not None:
            raise Unable(f"the server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(url + "/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise Unable("the server was not ready after a minute")


def llama_settings(group, python, build=""):
    return [Peer(group, f"{build}{'repacked' if repack else 'not repacked'}, {'flash attention' if flash else 'plain attention'}",
                 python, "peer_llama_cpp.py", *([] if repack else ["--no-repack"]), *(["--flash"] if flash else []))
            for repack in (True, False) for flash in (True, False)]


def line_up(with_avx2, has_amx, peers):
    """All contestants, in the order of a round. `peers` are the names of those wanted beside Runnel."""
    llama_flags = WITHOUT_AMX if has_amx else None
    python = environment("bench-venv", [LLAMA_PACKAGE, OPENVINO_PACKAGE], ["llama_cpp", "openvino_genai"], llama_flags)
    cache = ["--cache", os.path.join(BUILD, "bench-openvino")]
    players = [Runnel(RUNNEL, python)]
    if LLAMA in peers:
        players += llama_settings(LLAMA, python)
    if LLAMA in peers and has_amx:
        python_amx = environment("bench-venv-amx", [LLAMA_PACKAGE], ["llama_cpp"], WITH_AMX)
        players += llama_settings(LLAMA, python_amx, "AMX, ")
    if OPENVINO in peers:
        players += [Peer(OPENVINO, f"{attention} attention", python, "peer_openvino.py", "--attention", attention, *cache)
                    for attention in ("paged", "sdpa")]
    if with_avx2:
        python_avx2 = environment("bench-venv-avx2", [LLAMA_PACKAGE], ["llama_cpp"], WITHOUT_AVX512)
        players += [Runnel(RUNNEL_AVX2, python, "avx2"), *llama_settings(LLAMA_AVX2, python_avx2)]
    return players
