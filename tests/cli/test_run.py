"""runnel run: one answer, on tiny models and, where it is, on a real one. The chat is in test_chat.py."""
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from told import told

GREEDY = ("--temp", "0")


def run(runnel, *args, **options):
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    return subprocess.run([runnel, "run", *map(str, args)], capture_output=True, **{"timeout": 120, **options})


def answer(runnel, *args, **options):
    """The object of --json."""
    done = run(runnel, *args, "--json", **options)
    assert done.returncode == 0, done.stderr
    assert told(done.stderr) == b""
    return json.loads(done.stdout)


def assert_fails(done, status, *words):
    """One line on stderr with all of words, nothing on stdout."""
    line = told(done.stderr).decode()
    assert (done.returncode, done.stdout, line.count("\n")) == (status, b"", 1), line
    for word in words:
        assert str(word) in line, line


def test_answer_and_timings_do_not_mix(runnel, tiny):
    model = tiny()
    done = run(runnel, "-m", model, "-p", "Tell me", "-n", "12", "--seed", "3")
    assert done.returncode == 0, done.stderr
    found = answer(runnel, "-m", model, "-p", "Tell me", "-n", "12", "--seed", "3")
    assert found["text"] and done.stdout == found["text"].encode() + b"\n"
    for words in (b"load ", b"prefill ", b"decode ", b" tok/s", b" GB/s"):
        assert words in done.stderr


def test_json(runnel, tiny):
    found = answer(runnel, "-m", tiny(), "-p", "Tell me", "-n", "9", "--seed", "5")
    shape = {"text": str, "reasoning": str, "finish_reason": str, "prompt_tokens": int, "cached_tokens": int,
             "completion_tokens": int, "reasoning_tokens": int, "thought_end": type(None), "seed": int, "logits_hash": str, "timings": dict}
    assert {name: type(value) for name, value in found.items()} == shape
    assert set(found["timings"]) == {"load_ms", "prefill_ms", "prefill_tok_s", "decode_ms", "decode_tok_s", "decode_gb_s",
                                     "draft_n", "draft_accepted_n"}
    drafts = [found["timings"].pop(name) for name in ("draft_n", "draft_accepted_n")]
    assert all(isinstance(value, int) for value in drafts) and 0 <= drafts[1] <= drafts[0]
    assert all(isinstance(value, float) and value > 0 for value in found["timings"].values())
    assert found["seed"] == 5 and found["finish_reason"] == "length" and found["completion_tokens"] == 9
    assert found["cached_tokens"] == 0 and found["reasoning"] == "" and found["reasoning_tokens"] == 0
    assert len(found["logits_hash"]) == 16 and int(found["logits_hash"], 16) > 0


def test_a_zero_byte_in_the_answer(runnel, tiny):
    """A model can write any character. JSON has a way to say this one, C strings have not."""
    args = ("-m", tiny("long"), "-p", "Tell me", "-n", "800", *GREEDY)
    found = answer(runnel, *args)
    assert "\0" in found["text"]  # else another prompt is needed
    assert run(runnel, *args).stdout == found["text"].encode() + b"\n"


def test_seeds(runnel, tiny):
    model = tiny()

    def text(*args):
        return answer(runnel, "-m", model, "-p", "Tell me", "-n", "24", "--temp", "1", *args)["text"]

    assert text("--seed", "1") == text("--seed", "1")
    assert text("--seed", "1") != text("--seed", "2")
    assert text() != text()


def test_schema(runnel, tiny, tmp_path):
    schema = tmp_path / "place.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                                  "required": ["n"], "additionalProperties": False}))
    for kind in ("qwen2", "r1"):
        for seed in range(3):
            found = answer(runnel, "-m", tiny(kind), "-p", "Tell me", "--temp", "1", "--seed", seed, "--schema", schema, *(["--no-think"] if kind == "r1" else []))
            value = json.loads(found["text"])
            assert list(value) == ["n"] and value["n"] in range(10) and found["finish_reason"] == "stop"
    schema.write_text('{"type": "array", "items": {"type": "object"}, "uniqueItems": true}')
    assert_fails(run(runnel, "-m", tiny(), "-p", "Tell me", "--schema", schema), 1, schema, "uniqueItems")
    assert_fails(run(runnel, "-m", tiny(), "-p", "Tell me", "--schema", tmp_path / "none"), 1, "none")


def test_where_the_prompt_comes_from(runnel, tiny, tmp_path):
    prompt = "Grüße aus 東京, 🎈 and\nmore"
    args = ("-m", tiny(), "-n", "8", *GREEDY)
    path = tmp_path / "prompt.txt"
    path.write_bytes(prompt.encode())
    expected = answer(runnel, *args, "-p", prompt)
    for found in (answer(runnel, *args, "-f", path), answer(runnel, *args, "-f", "-", input=prompt.encode()),
                  answer(runnel, *args, input=prompt.encode())):
        for key in ("text", "prompt_tokens", "logits_hash"):
            assert found[key] == expected[key]
    # No locale takes part in this.
    other = answer(runnel, *args, "-p", prompt, env={**os.environ, "LC_ALL": "C"})
    assert other["logits_hash"] == expected["logits_hash"]
    # Every byte is a token of the tiny vocabulary, but for a few merged ones.
    raw = answer(runnel, *args, "--raw", "-p", "東京🎈")
    assert raw["prompt_tokens"] == len("東京🎈".encode())


def test_raw_sends_the_text_without_a_template(runnel, tiny):
    args = ("-m", tiny(), "-n", "4", *GREEDY)
    raw, formatted = answer(runnel, *args, "--raw", "-p", "x!"), answer(runnel, *args, "-p", "x!")
    assert raw["prompt_tokens"] == 2 < formatted["prompt_tokens"]
    assert answer(runnel, *args, "--raw", "-p", "<|im_start|>")["prompt_tokens"] == 1


def test_raw_text_begins_as_the_model_wants(runnel, tiny):
    args = ("-m", tiny("r1"), "-n", "4", "--raw", *GREEDY)
    found, given = (answer(runnel, *args, "-p", text) for text in ("x!", "<\uff5cbegin\u2581of\u2581sentence\uff5c>x!"))
    assert found["prompt_tokens"] == given["prompt_tokens"] == 3
    assert found["logits_hash"] == given["logits_hash"]


def test_a_thought_leaves_room_for_the_answer(runnel, tiny):
    """As much as the rule says, or the option; with none it uses up all of it."""
    args = ("-m", tiny("thinker"), "-p", "Why?", "-n", "64", "--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0")
    for seed in map(str, range(1, 40)):
        endless = answer(runnel, *args, "--seed", seed, "--answer-reserve", "0")
        if endless["thought_end"] is None:
            break
    assert endless["reasoning_tokens"] == 64 and endless["text"] == ""
    for options, n_left in (((), 16), (("--answer-reserve", "40"), 40)):
        found = answer(runnel, *args, "--seed", seed, *options)
        assert found["thought_end"] == "reserve" and found["reasoning"] and endless["reasoning"].startswith(found["reasoning"][:-1])
        assert found["text"] and 0 < found["reasoning_tokens"] <= 64 - n_left


def test_a_thought_in_which_the_model_would_end_has_an_answer(runnel, tiny):
    args = ("-m", tiny("thinker"), "-p", "Why?", "-n", "900", "--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0")
    for seed in map(str, range(1, 40)):
        found = answer(runnel, *args, "--seed", seed)
        assert found["text"].strip(), seed
        if found["thought_end"] == "end_token":
            return
    raise AssertionError("no thought has an end token")


def test_thoughts_are_apart(runnel, tiny):
    args = ("-m", tiny("r1"), "-p", "Tell me", "-n", "16", *GREEDY)
    thinking, plain = answer(runnel, *args), answer(runnel, *args, "--no-think")
    assert thinking["reasoning"] and thinking["reasoning_tokens"] > 0 and "</think>" not in thinking["reasoning"]
    assert plain["reasoning"] == "" and plain["reasoning_tokens"] == 0 and plain["text"]
    assert plain["prompt_tokens"] > thinking["prompt_tokens"]  # the empty thought
    done = run(runnel, *args)
    assert done.returncode == 0 and done.stdout == thinking["text"].encode() + (b"\n" if thinking["text"] else b"")
    assert thinking["reasoning"].encode() not in done.stderr


@pytest.mark.parametrize("args, name", [
    (["--what"], "--what"),
    (["-Z"], "-Z"),
    (["more"], "more"),
    (["-p"], "-p"),
    (["-n", "0"], "--n-tokens"),
    (["-n", "ten"], "--n-tokens"),
    (["-n", "9999999999999"], "--n-tokens"),
    (["--temp", "hot"], "--temp"),
    (["--temp", "-1"], "--temp"),
    (["--temp", "nan"], "--temp"),
    (["--top-p", "2"], "--top-p"),
    (["--top-p", "0"], "--top-p"),
    (["--top-k", "1.5"], "--top-k"),
    (["--min-p="], "--min-p"),
    (["--seed", "-1"], "--seed"),
    (["--ctx", "1"], "--ctx"),
    (["--threads", "100000"], "--threads"),
    (["--json=perhaps"], "--json"),
    (["--chat-template", "alpaca"], "r1|chatml"),
    (["--config", "/nonexistent/file"], "/nonexistent/file"),
])
def test_wrong_usage(runnel, tiny, args, name):
    assert_fails(run(runnel, "-m", tiny(), *args), 2, name)


def test_no_model_is_wrong_usage(runnel):
    assert_fails(run(runnel, "-p", "x"), 2, "--model")


def test_wrong_model_files(runnel, tiny, tmp_path):
    whole = Path(tiny()).read_bytes()
    for name, content in (("empty", b""), ("garbage", b"\x1b[31mno model\n" * 100), ("cut", whole[:2000]),
                          ("short", whole[:-4096]), ("zeros", bytes(5000)), ("magic", b"GGUF")):
        path = tmp_path / name
        path.write_bytes(content)
        done = run(runnel, "-m", path, "-p", "x")
        assert_fails(done, 1, path)
        assert b"\x1b" not in done.stderr
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert_fails(run(runnel, "-m", fifo, "-p", "x", timeout=20), 1, fifo, "FIFO")
    assert_fails(run(runnel, "-m", tmp_path, "-p", "x"), 1, tmp_path, "directory")
    assert_fails(run(runnel, "-m", tmp_path / "missing.gguf", "-p", "x"), 1, "missing.gguf")
    assert_fails(run(runnel, "-m", "no-such-name", "-p", "x"), 1, "no-such-name")
    assert_fails(run(runnel, "-m", "", "-p", "x"), 1, "''")


def test_wrong_prompts(runnel, tiny, tmp_path):
    model = tiny()
    assert_fails(run(runnel, "-m", model, "-f", tmp_path / "missing"), 1, tmp_path / "missing")
    assert_fails(run(runnel, "-m", model, "-f", tmp_path), 1, tmp_path)
    assert_fails(run(runnel, "-m", model, "--raw", "-p", ""), 1, "prompt", "empty")
    assert_fails(run(runnel, "-m", model, input=b" \n"), 1, "stdin", "expected a question")
    (tmp_path / "blank.txt").write_text("")
    assert_fails(run(runnel, "-m", model, "-f", tmp_path / "blank.txt"), 1, "blank.txt", "expected a question")
    assert_fails(run(runnel, "-m", model, input=b"half of this\0would be lost"), 1, "stdin", "12")


def test_texts_that_are_not_utf8(runnel, tiny, tmp_path):
    """A vocabulary may have no tokens for such bytes: they must not vanish without a word."""
    model, wrong, path = tiny(), b"caf\xe9", tmp_path / "latin1"
    path.write_bytes(wrong)
    for name, args, stdin in (("stdin", (), wrong), ("stdin", ("--raw",), wrong), ("stdin", ("-p", "x"), wrong), (str(path), ("-f", path), b""),
                              ("-p", ("-p", wrong), b""), ("--system", ("-p", "x", "--system", wrong), b""),
                              (str(path), ("-p", "x", "--system-file", path), b""), ("stdin", ("-p", "x", "--system-file", "-"), wrong),
                              (str(path), ("-p", "x", "--chat-template-file", path), b"")):
        done = subprocess.run([runnel, "run", model, *args], input=stdin, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, b""), (name, args)
        assert done.stderr.decode() == f"runnel: {name}: expected UTF-8 text, found byte 0xE9 at offset 3\n", args
    assert answer(runnel, "-m", model, "--raw", "-n", "1", input="é".encode())["prompt_tokens"] == 2


def test_prompt_and_context(runnel, tiny):
    args = ("-m", tiny(), "--raw", *GREEDY)
    assert_fails(run(runnel, *args, "--ctx", "16", "-p", "~" * 40), 1, "prompt", 40, 15)
    found = answer(runnel, *args, "--ctx", "16", "-p", "~" * 10)  # fills what is left
    assert (found["prompt_tokens"], found["completion_tokens"], found["finish_reason"]) == (10, 6, "length")
    assert_fails(run(runnel, *args, "-p", "~" * 5000), 1, "prompt", 5000, 1023)  # the model's own


def test_a_template_that_nobody_knows(runnel, tiny):
    args = ("-p", "Tell me", "-n", "8", *GREEDY)
    model = Path(tiny())
    expected = answer(runnel, "-m", model, *args)
    content = model.read_bytes()
    changed = content.replace(b"message['role']", b"message['ruse']")
    assert changed != content
    model.write_bytes(changed)
    done = run(runnel, "-m", model, *args)
    assert_fails(done, 1, "template", "r1", "chatml", "--chat-template")
    assert answer(runnel, "-m", model, *args, "--raw")["completion_tokens"] == 8
    found = answer(runnel, "-m", model, *args, "--chat-template", "chatml")
    assert found["completion_tokens"] == 8
    # The known one adds a system text of its own, the one that is chosen by name does not.
    assert found["prompt_tokens"] <= expected["prompt_tokens"]
    assert answer(runnel, "-m", model, *args, "--chat-template", "r1")["reasoning"]


def test_threads_change_nothing(runnel, tiny):
    for model in (tiny("qwen2"), tiny("llama")):
        hashes = {answer(runnel, "-m", model, "-p", "Tell me of it", "-n", "30", "--seed", "9", "--threads", n)["logits_hash"]
                  for n in ("1", "2", "4")}
        assert len(hashes) == 1


def long_run(runnel, model, **options):
    """Starts an answer that takes long, and reads its first byte."""
    process = subprocess.Popen([runnel, "run", "-m", model, "-p", "Tell me", "-n", "60000", "--ctx", "70000", *GREEDY],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    assert process.stdout.read(1)
    return process


@pytest.mark.parametrize("ignores", [False, True])
def test_a_reader_that_leaves(runnel, tiny, ignores):
    """As in `runnel run ... | head -c 1`; a parent may have SIGPIPE ignored."""
    process = long_run(runnel, tiny("long"), restore_signals=False,
                       preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN if ignores else signal.SIG_DFL))
    process.stdout.close()
    written = told(process.stderr.read()).decode()
    status = process.wait(timeout=30)
    if ignores:
        assert status == 1 and "stdout" in written.splitlines()[-1]
    else:
        assert (status, written) == (-signal.SIGPIPE, "")


def one_cpu():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_more_threads_than_cpus_are_remarked_by_every_command(runnel, tiny, tmp_path):
    (tmp_path / "ids").write_text("[1, 2]")
    said, options = "--threads 2: this process may use 1 CPU; more threads make it slow", {"capture_output": True, "text": True, "timeout": 60}
    for args in (("serve", tiny() + ".missing", "--port", "0"), ("bench", tiny(), "-p", "4", "-n", "2", "-b", "1", "-r", "1"),
                 ("logits", tiny(), "--ids", tmp_path / "ids", "-o", tmp_path / "out")):
        for threads, n in (("2", 1), ("1", 0)):
            done = subprocess.run([runnel, *args, "-t", threads], preexec_fn=one_cpu, **options)
            assert done.stderr.count(said) == n, done.stderr
    if len(os.sched_getaffinity(0)) > 1:
        cpu = str(min(os.sched_getaffinity(0)))
        done = subprocess.run([runnel, "serve", tiny() + ".missing", "--port", "0", "-t", "2", "--cpu-affinity", cpu, "--log-json"], **options)
        assert f'"message":"{said}"' in done.stderr, done.stderr


def test_more_threads_than_cpus_are_remarked(runnel, tiny):
    args = (tiny(), "-p", "Tell me", "-n", "2", "-t", "2")
    done = run(runnel, *args, preexec_fn=one_cpu)
    assert done.returncode == 0 and b"--threads 2: this process may use 1 CPU; more threads make it slow" in done.stderr
    assert run(runnel, *args, "-t", "1", preexec_fn=one_cpu).stderr.count(b"CPU") == 0
    assert answer(runnel, *args, preexec_fn=one_cpu)["completion_tokens"] == 2, "programs get the object alone"


def test_an_interrupt_ends_the_answer(runnel, tiny):
    """Half an answer is no success: the status is that of a shell for the signal. What came is written."""
    process = long_run(runnel, tiny("long"))
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, timings = process.communicate(timeout=30)
    assert process.returncode == 130 and b"cancelled" in timings
    assert time.monotonic() - started < 10


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(caught.group(1), 16) >> (number - 1) & 1


def test_an_interrupted_object_says_so(runnel, tiny):
    if "RUNNEL_DEVICE" in os.environ:
        pytest.skip("a driver's compiler catches the signal, too, and before us")
    process = subprocess.Popen([runnel, "run", "-m", tiny("long"), "-p", "Tell me", "-n", "60000", "--ctx", "70000", *GREEDY, "--json"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not catches(process.pid, signal.SIGINT):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(out)["finish_reason"] == "cancelled"


def test_full_disk(runnel, tiny):
    with open("/dev/full", "wb") as full:
        for args in ((), ("--json",)):
            done = subprocess.run([runnel, "run", "-m", tiny(), "-p", "x", "-n", "4", *GREEDY, *args], stdout=full,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60)
            assert done.returncode == 1 and b"stdout" in done.stderr.splitlines()[-1]


def test_closed_descriptors(runnel, tiny, tmp_path):
    """A file that is opened must not become stdout or stderr."""
    (tmp_path / "ids").write_text("[1, 2, 3]")

    def shell(command):
        return subprocess.run(["sh", "-c", command, "sh", runnel, tiny(), tmp_path], capture_output=True, timeout=60)

    done = shell('"$1" run -m "$2" -p x -n 4 >&-')
    assert done.returncode == 1 and b"stdout" in done.stderr.splitlines()[-1]
    assert_fails(shell('"$1" run -m "$2" -n 4 <&-'), 1, "-")
    assert shell('"$1" logits -m "$2" --ids "$3/ids" -o "$3/whole"').returncode == 0
    done = shell('"$1" logits -m "$2" --ids "$3/ids" -o "$3/out" <&- >&- 2>&-')
    assert done.returncode == 0 and (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    done = shell('"$1" run -m "$2" -p x -n 4 --temp 0 2>&-')
    assert done.returncode == 0 and done.stdout


def test_little_memory(runnel, tiny):
    """Less and less of it: at some point one line says what there was none for."""
    def limited(kib, *args):
        return subprocess.run(["sh", "-c", 'ulimit -v "$1"; shift; exec "$@"', "sh", str(kib), runnel, *args],
                              capture_output=True, timeout=60)

    if limited(80000, "--version").returncode:
        pytest.skip("this build cannot start with little memory")  # sanitizers reserve much
    model, failed = tiny(), 0
    for kib in range(80000, 20000, -2000):
        done = limited(kib, "run", "-m", model, "-p", "x", "-n", "4", "-t", "2", *GREEDY)
        if done.returncode == 127:
            break  # not even the libraries fit
        if done.returncode:
            failed += 1
            assert_fails(done, 1)
    assert failed


def test_a_template_that_is_missing_or_cannot_be_run(runnel, tiny, tmp_path):
    """The library names its fields, the command its options."""
    template = tmp_path / "t.jinja"
    template.write_text("a\n{% if x %}")
    done = run(runnel, "-m", tiny("bare"), "-p", "x")
    assert (done.returncode, told(done.stderr)) == (1, b"runnel: the model has no chat template: choose one with --chat-template (r1, chatml), "
                                                       b"or send the prompt raw\n")
    done = run(runnel, "-m", tiny(), "-p", "x", "--chat-template-file", str(template))
    assert done.returncode == 1
    assert b".gguf: --chat-template-file: the chat template cannot be run (chat template, line 2: " in done.stderr
    assert done.stderr.endswith(b"): choose another with --chat-template (r1, chatml)\n")


def test_a_text_that_is_too_much_for_the_template(runnel, tiny, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}{% if messages[0].content|length > 100 %}{{ 'x' * 1000000000 }}{% endif %}")
    long, short = (run(runnel, "-m", tiny(), "-p", n * "a", "--ctx", "100", "--chat-template-file", str(template)) for n in (20000, 101))
    assert long.returncode == 1 and b"the prompt has 20000 bytes, the context of 100 tokens has room for" in long.stderr
    assert short.returncode == 1 and b"chat template, line 1: more than" in short.stderr


def test_environment_and_config_file(runnel, tiny, tmp_path):
    config = tmp_path / "runnel.conf"
    config.write_text(f"model = {tiny()}\nn-tokens = 3\ntemp = 0\n")
    assert answer(runnel, "--config", config, "-p", "x")["completion_tokens"] == 3
    environment = {**os.environ, "RUNNEL_N_TOKENS": "5"}
    assert answer(runnel, "--config", config, "-p", "x", env=environment)["completion_tokens"] == 5
    assert answer(runnel, "--config", config, "-p", "x", "-n", "7", env=environment)["completion_tokens"] == 7


def test_a_real_model(runnel, smollm2):
    args = ("-m", smollm2, "-p", "Hello! Please answer: what is the capital of France?", "-n", "24", *GREEDY)
    found = answer(runnel, *args)
    assert "Paris" in found["text"] and found["finish_reason"] in ("stop", "length")
    done = run(runnel, *args)
    assert done.stdout.decode() == found["text"] + "\n"
    assert answer(runnel, *args, "--threads", "4")["logits_hash"] == answer(runnel, *args, "--threads", "1")["logits_hash"]
