"""Nothing that was given is ignored without a word: arguments too many, options that make one another void."""
import json
import os
import subprocess

import pytest

from terminal import Terminal


def run(runnel, *args, **options):
    return subprocess.run([runnel, *map(str, args)], capture_output=True, text=True, timeout=60,
                          **{"stdin": subprocess.DEVNULL, **options})


def assert_refused(done, *words):
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("args, words", [
    (("run", "a", "-m", "b"), ("one MODEL", "'a'", "--model 'b'")),
    (("run", "-m", "b", "Why?"), ("one MODEL", "'Why?'", "a question goes behind -p")),
    (("run", "b", "Why?"), ("'Why?'", "an argument too many", "a question goes behind -p")),
    (("serve", "a", "b"), ("'b'", "an argument too many")),
    (("serve", "a", "-m", "b"), ("one MODEL",)),
    (("bench", "-m", "a", "b"), ("one MODEL",)),
    (("tokenize", "a", "b"), ("'b'", "the text is read from stdin: printf '...' | runnel tokenize MODEL")),
    (("tokenize", "-m", "a", "some text"), ("one MODEL", "'some text'", "the text is read from stdin")),
    (("template", "a", "b"), ("'b'", "the request is read from stdin")),
    (("constrain", "a", "b", "--jsonl"), ("'b'", "constraints are read from stdin")),
    (("constrain", "a"), ("--jsonl",)),
    (("logits", "a", "b"), ("'b'", "--ids FILE")),
    (("inspect", "a", "-m", "b"), ("one MODEL",)),
    (("inspect", "-m", "a", "b"), ("one MODEL",)),
    (("pull", "a", "b"), ("'b'",)),
    (("help", "run", "serve"), ("'serve'",)),
    (("--help", "run", "serve"), ("'serve'",)),
    (("--version", "run"), ("'run'",)),
    (("version", "--json"), ("'--json'",)),
    (("serve", "a", "--keep-first", "100"), ("--keep-first", "--keep-last")),
    (("serve", "a", "--max-body-bytes", "5000", "--max-bodies-bytes", "4000"), ("--max-bodies-bytes", "5000", "4000")),
    (("bench", "a", "--json", "--target-ms", "50"), ("--target-ms", "--json")),
    (("serve", "a", "--seed", str(1 << 63)), ("--seed", str((1 << 63) - 1), str(1 << 63))),
    (("serve", "a", "--batch", "8193"), ("--batch", "8192", "8193")),
    (("template", "a", "--now", "tomorrow"), ("--now", "'tomorrow'")),
    (("template", "a", "--file", "-"), ("--file -", "stdin")),
    (("template", "a", "-m", "b"), ("one MODEL",)),
    (("pull", "--list", "a"), ("--list", "MODEL")),
    (("pull", "--list", "--check"), ("--list", "--check")),
    (("pull", "--list", "-o", "x"), ("--list", "--output")),
    (("pull", "--check", "-o", "x", "a"), ("--check", "--output")),
])
def test_what_would_be_ignored_is_refused(runnel, args, words):
    assert_refused(run(runnel, *args), *words)


def test_memory_that_is_not_there_is_not_tried(runnel, tiny):
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >= 1 << 40:
        pytest.skip("this machine has a TiB")
    if "RUNNEL_DEVICE" in os.environ:
        pytest.skip("the cache is in a GPU's memory, which says so in words of its own")
    done = run(runnel, "serve", tiny(), "--port", "0", "--ctx", "10000000", "--kv-cache-mib", str(1 << 20))
    cut, refused = done.stderr.splitlines()
    assert done.returncode == 1
    assert "--ctx 10000000: the model was trained for 1024 tokens" in cut
    assert "--kv-cache-mib 1048576: its KV cache would take 1024.0 GiB, found" in refused


def test_what_the_library_refuses_is_told_of_the_option(runnel, tiny, tmp_path):
    """The library names its fields, n_kv_bytes and n_context; who typed a command knows its options."""
    model = tiny()
    (tmp_path / "ids").write_text(str([5] * 5000))
    for words, *args in ((("--kv-cache-mib: 1 MiB", "--ctx"), "serve", model, "--port", "0", "--kv-cache-mib", "1"),
                         (("--ids: number of tokens: 5000", "1024"), "logits", model, "--ids", tmp_path / "ids", "-o", tmp_path / "out"),
                         (("the context that -p, -n", "--depth", "5001"), "bench", model, "-p", "5000")):
        done = run(runnel, *args)
        assert done.returncode == 1 and all(word in done.stderr for word in words), done.stderr
        assert not any(field in done.stderr for field in ("n_kv_bytes", "n_context")), done.stderr


def test_a_window_that_does_not_fit_the_cache(runnel, tiny):
    """Answers would end with an error once the pages are used up."""
    done = run(runnel, "serve", tiny("long"), "--port", "0", "--ctx", "256", "--kv-cache-mib", "1", "--keep-last", "1000")
    assert done.returncode == 1 and "--keep-first and --keep-last: 64 and 1000 take 35 pages" in done.stderr
    assert "expected 64 and at most 896" in done.stderr and "keep_" not in done.stderr


def test_a_model_without_its_flag(runnel, tiny, tmp_path):
    model = tiny()
    assert run(runnel, "run", model, "-p", "Tell me", "-n", "3").returncode == 0
    assert run(runnel, "run", "-p", "Tell me", "-n", "3", model).returncode == 0
    assert run(runnel, "inspect", model).stdout == run(runnel, "inspect", "--model", model).stdout
    assert run(runnel, "tokenize", model, stdin=None, input="Tell me").stdout.startswith("[")
    request = {"stdin": None, "input": '{"messages": [{"role": "user", "content": "Tell me"}]}'}
    assert "Tell me" in run(runnel, "template", model, **request).stdout
    assert run(runnel, "template", model, **request).stdout == run(runnel, "template", "-m", model, **request).stdout
    (tmp_path / "ids").write_text("[1, 2]")
    assert run(runnel, "logits", model, "--ids", tmp_path / "ids", "-o", tmp_path / "out").returncode == 0
    done = run(runnel, "bench", model, "-p", "4", "-n", "2", "-b", "1", "-r", "1")
    assert done.returncode == 0, done.stderr
    done = run(runnel, "serve", tmp_path / "missing.gguf", "--port", "0")
    assert done.returncode == 1 and "missing.gguf" in done.stderr


@pytest.mark.parametrize("args", [("tokenize",), ("run", "--json"), ("run", "--raw", "-n", "2")])
def test_a_terminal_that_is_read_says_so(runnel, tiny, args):
    terminal = Terminal([runnel, args[0], tiny(), *args[1:]])
    try:
        terminal.wait_for("type the text; Ctrl-D ends it")
        terminal.type("Tell me\n\x04")
        assert terminal.wait() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("flags, why", [
    (("--host", "127.0.0.1"), "127.0.0.1 is reached from this machine alone"),
    (("--host", "0.0.0.0", "--api-key", "a-key-of-the-test"), "a key was given, and is asked for"),
])
def test_insecure_that_changes_nothing_is_said(runnel, tiny, flags, why):
    done = run(runnel, "serve", tiny() + ".missing", "--port", "0", "--insecure", *flags)
    assert done.returncode == 1 and f"--insecure changes nothing: {why}" in done.stderr


@pytest.mark.parametrize("args", [("list",), ("list", "--json"), ("pull", "--list"), ("help",), ("help", "run"), ("--help",), ("run", "--help"),
                                  ("--version",), ("version",), ("inspect", "MODEL"), ("inspect", "MODEL", "--json"),
                                  ("template", "MODEL")])
def test_a_stdout_that_cannot_be_written_is_told(runnel, tiny, args):
    args = [tiny() if word == "MODEL" else word for word in args]
    chat = '{"messages": [{"role": "user", "content": "x"}]}'
    with open("/dev/full", "w") as full:
        done = subprocess.run([runnel, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, input=chat)
    assert (done.returncode, done.stderr) == (1, "runnel: stdout could not be written\n")


def variables_told(done):
    return [line for line in done.stderr.splitlines() if "RUNNEL_" in line]


@pytest.mark.parametrize("name, near", [
    ("RUNNEL_NTOKENS", "RUNNEL_N_TOKENS"), ("RUNNEL_TEMPP", "RUNNEL_TEMP"), ("RUNNEL_PROT", "RUNNEL_PORT"), ("RUNNEL_HISTROY", "RUNNEL_HISTORY"),
    ("RUNNEL_MODELS_DIR", "RUNNEL_MODELS"), ("RUNNEL_MODEL_DIR", "RUNNEL_MODELS"), ("RUNNEL_TEST_MODELS", None), ("RUNNEL_APIKEY", "RUNNEL_API_KEY"), ("RUNNEL_ZEBRA", None), ("RUNNEL_", None),
    ("RUNNEL_" + "Z" * 300, None),
])
@pytest.mark.parametrize("command", [("run", "MODEL", "-p", "x", "-n", "1"), ("list",), ("inspect", "MODEL"), ("pull",), ("run", "--nonsense"),
                                     ("serve", "/nowhere/model.gguf", "--port", "0")])
def test_a_variable_that_nobody_reads_is_told(runnel, tiny, name, near, command):
    """Once, on stderr, without its value, which may be a key; nothing else changes."""
    command = [tiny() if word == "MODEL" else word for word in command]
    done, plain = run(runnel, *command, env={**os.environ, name: "the-value"}), run(runnel, *command)
    line, = variables_told(done)
    assert f"{name[:87]}: no option" in line and "the-value" not in done.stderr
    assert line.endswith(f"did you mean {near}?" if near else "it is ignored")
    assert done.returncode == plain.returncode and len(done.stderr.splitlines()) == len(plain.stderr.splitlines()) + 1
    assert command[0] == "run" or done.stdout == plain.stdout


@pytest.mark.parametrize("name", ["RUNNEL_KV_CACHE_MIB", "RUNNEL_RAW", "RUNNEL_MODELS", "RUNNEL_CPU", "RUNNEL_CONFIG",
                                  "RUNNEL_SERVICE_HOST", "RUNNEL_PORT_8080_TCP", "NOT_RUNNEL_X", "RUNNELX"])
def test_a_variable_that_somebody_reads_is_not_told(runnel, name):
    """Another command's option, what is no option but read, and what Kubernetes sets for a service that is called runnel."""
    done = run(runnel, "list", env={**os.environ, name: "1"})
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_variable_and_help_are_silent(runnel):
    assert run(runnel, "list", env={**os.environ, "RUNNEL_NTOKENS": ""}).stderr == ""
    misspelt = {**os.environ, "RUNNEL_NTOKENS": "5"}
    for args in (("run", "--help"), ("help", "serve"), ("--help",), ("--version",)):
        assert run(runnel, *args, env=misspelt).stderr == ""
        assert run(runnel, *args, env=misspelt).stdout == run(runnel, *args).stdout


def test_the_server_tells_variables_in_its_log(runnel):
    done = run(runnel, "serve", "/nowhere/model.gguf", "--port", "0", "--log-json", env={**os.environ, "RUNNEL_PROT": "1"})
    line = json.loads(variables_told(done)[0])
    assert line["event"] == "environment" and "did you mean RUNNEL_PORT?" in line["message"]


@pytest.mark.parametrize("args", [("logits", "nosuch", "--ids", "/nonexistent", "-o", "/nonexistent/out"), ("template", "nosuch", "--file", "/nonexistent")])
def test_the_model_is_looked_for_before_other_files(runnel, args):
    done = run(runnel, *args)
    assert done.returncode == 1 and "model 'nosuch'" in done.stderr
