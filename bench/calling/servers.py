"""The servers that are asked: Runnel, and llama-server, which is compiled from the sources in the package llama-cpp-python."""
import contextlib
import glob
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

from contest.players import BUILD, LLAMA_PACKAGE, Unable, wait_until_healthy

LLAMA_FOLDER = os.path.join(BUILD, "llama-server")
LLAMA_FLAGS = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
               "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"]
CONTEXT = 4096
ASK_TIMEOUT_S = 600


def build_llama_server():
    """The program, compiled when it is not there yet: some minutes. What was compiled before a stop is not compiled again."""
    program = os.path.join(LLAMA_FOLDER, "out", "bin", "llama-server")
    if os.path.exists(program):
        return program
    sources = os.path.join(LLAMA_FOLDER, LLAMA_PACKAGE.replace("-", "_").replace("==", "-"), "vendor", "llama.cpp")
    if not os.path.exists(sources):
        os.makedirs(LLAMA_FOLDER, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", LLAMA_PACKAGE.split("==")[0],
                        "--dest", LLAMA_FOLDER, LLAMA_PACKAGE], check=True)
        (archive,) = glob.glob(os.path.join(LLAMA_FOLDER, "*.tar.gz"))
        subprocess.run(["tar", "-xzf", archive, "-C", LLAMA_FOLDER], check=True)
    print(f"compiling llama-server in {LLAMA_FOLDER}: some minutes", file=sys.stderr)
    out = os.path.join(LLAMA_FOLDER, "out")
    subprocess.run(["cmake", "-S", sources, "-B", out, *LLAMA_FLAGS], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", out, "--target", "llama-server", "-j", str(len(os.sched_getaffinity(0)))], check=True,
                   stdout=subprocess.DEVNULL)
    return program


def runnel_command(program, model, threads, port):
    return [program, "serve", "-m", model, "--ctx", str(CONTEXT), "--threads", str(threads), "--port", str(port)]


def llama_command(program, model, threads, port):
    return [program, "-m", model, "-c", str(CONTEXT), "-np", "1", "-t", str(threads), "--port", str(port), "--jinja", "--no-webui"]


@contextlib.contextmanager
def serving(make_command, program, model, threads):
    """The address of a server that runs meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = make_command(program, model, threads, port)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_healthy(url, process)
            yield url
        finally:
            process.terminate()


def ask(url, question, tools, max_tokens):
    """The first choice of an answer, greedy, the tools given and the choice among them free."""
    body = {"model": "any", "messages": [{"role": "user", "content": question["ask"]}], "temperature": 0, "max_tokens": max_tokens,
            "tools": [{"type": "function", "function": {"name": name, **tools[name]}} for name in question["tools"]],
            "tool_choice": "auto", "parallel_tool_calls": True}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as response:
            return json.load(response)["choices"][0]
    except urllib.error.HTTPError as error:
        raise Unable(f"{question['id']}: status {error.code}: {error.read().decode(errors='replace')}") from error
