"""runnel run: what -p, -f, --system and stdin together become, and what is said of what cannot be used."""
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from told import told

GREEDY = ("--temp", "0", "-n", "6")


def run(runnel, *args, **options):
    if "input" not in options:
        options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run([runnel, "run", *map(str, args)], capture_output=True, timeout=120, **options)


def answer(runnel, *args, **options):
    done = run(runnel, *args, *GREEDY, "--json", **options)
    assert (done.returncode, told(done.stderr)) == (0, b"")
    return json.loads(done.stdout)


def same(a, b):
    return all(a[key] == b[key] for key in ("text", "prompt_tokens", "logits_hash"))


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("first note\nsecond note\n")
    return path


def test_the_text_then_the_file_then_what_is_piped(runnel, tiny, notes):
    model, text = tiny(), notes.read_text()
    alone = answer(runnel, model, "-p", "Sum up:")
    both = answer(runnel, model, "-p", "Sum up:\n\n" + text)
    assert both["prompt_tokens"] > alone["prompt_tokens"]
    assert same(answer(runnel, model, "-p", "Sum up:", "-f", notes), both)
    assert same(answer(runnel, model, "-p", "Sum up:\n", "-f", notes), both), "one blank line, not two"
    assert same(answer(runnel, model, "-p", "Sum up:", input=text.encode()), both), "a pipe"
    assert same(answer(runnel, model, "-p", "Sum up:", "-f", "-", input=text.encode()), both)
    with open(notes) as file:
        assert same(answer(runnel, model, "-p", "Sum up:", stdin=file), both), "a file"
    three = answer(runnel, model, "-p", "Sum up:\n\nfirst note\nsecond note\n\npiped")
    assert same(answer(runnel, model, "-p", "Sum up:", "-f", notes, input=b"piped"), three)
    file_and_pipe = answer(runnel, model, "-p", "first note\nsecond note\n\npiped")
    assert same(answer(runnel, model, "-f", notes, input=b"piped"), file_and_pipe)


def test_stdin_that_has_nothing(runnel, tiny, notes):
    model = tiny()
    alone = answer(runnel, model, "-p", "Tell me")
    for options in ({"stdin": subprocess.DEVNULL}, {"input": b""}, {"input": b" \n\n"}):
        assert same(answer(runnel, model, "-p", "Tell me", **options), alone), options
    assert run(runnel, model, "-f", notes, *GREEDY, input=b"").returncode == 0
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", runnel, "run", model, "-p", "Tell me", *GREEDY],
                          capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stdout, "a closed stdin"


def test_stdin_on_a_terminal_is_left_alone(runnel, tiny):
    master, slave = pty.openpty()
    try:
        done = run(runnel, tiny(), "-p", "Tell me", *GREEDY, stdin=slave)
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == 0 and b"stdin" not in done.stderr


def test_a_pipe_that_says_nothing_is_waited_for_aloud(runnel, tiny):
    process = subprocess.Popen([runnel, "run", tiny(), "-p", "Tell me", *GREEDY], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"waiting for stdin to end" in process.stderr.readline()
    assert process.poll() is None
    out, _ = process.communicate(b"late, and not lost", timeout=60)
    assert process.returncode == 0
    assert out == run(runnel, tiny(), "-p", "Tell me\n\nlate, and not lost", *GREEDY).stdout


def test_system_prompts(runnel, tiny, smollm2, tmp_path):
    for kind in ("qwen2", "r1"):
        model = tiny(kind)
        plain, pirate = answer(runnel, model, "-p", "Tell me"), answer(runnel, model, "-p", "Tell me", "--system", "A pirate.")
        assert plain["logits_hash"] != pirate["logits_hash"]
        path = tmp_path / "system.txt"
        path.write_text("A pirate.\n")
        assert same(answer(runnel, model, "-p", "Tell me", "--system-file", path), pirate)
        assert same(answer(runnel, model, "-p", "Tell me", "--system-file", "-", input=b"A pirate.\r\n"), pirate)
    # The template's own system text gives way, even to an empty one.
    assert answer(runnel, smollm2, "-p", "x", "--system", "")["prompt_tokens"] < answer(runnel, smollm2, "-p", "x")["prompt_tokens"]


@pytest.mark.parametrize("args, words", [
    (("--system", "x", "--system-file", "y", "-p", "x"), ("--system", "--system-file")),
    (("--raw", "--system", "x", "-p", "x"), ("--raw", "--system")),
    (("--raw", "--system-file", "x", "-p", "x"), ("--raw", "--system-file")),
    (("--raw", "--chat-template", "r1", "-p", "x"), ("--raw", "--chat-template")),
    (("--raw", "--no-think", "-p", "x"), ("--raw", "--no-think")),
    (("--json", "--verbose", "-p", "x"), ("--json", "--verbose")),
    (("--seed", str(1 << 63), "-p", "x"), ("--seed", str((1 << 63) - 1), str(1 << 63))),
    (("-f", "-", "--system-file", "-"), ("-f -", "--system-file")),
    (("--system-file", "-"), ("--system-file",)),
    (("-f", "-", "--chat-template-file", "-"), ("-f -", "--chat-template-file")),
    (("-p", "x", "--system-file", "-", "--chat-template-file", "-"), ("--chat-template-file -", "--system-file")),
    (("--chat-template-file", "-"), ("--chat-template-file",)),
])
def test_options_that_exclude_one_another(runnel, tiny, args, words):
    done = run(runnel, tiny(), *args)
    assert (done.returncode, done.stdout, told(done.stderr).count(b"\n")) == (2, b"", 1)
    assert all(word in done.stderr.decode() for word in words), done.stderr


@pytest.mark.parametrize("args, words", [
    (("-p", "x", "--system-file", "/nonexistent/system"), ("/nonexistent/system",)),
    (("-p", "x", "-f", "/dev/null"), ("/dev/null", "found nothing")),
])
def test_texts_that_cannot_be_had(runnel, tiny, args, words):
    done = run(runnel, tiny(), *args, input=b"piped")
    assert (done.returncode, done.stdout, told(done.stderr).count(b"\n")) == (1, b"", 1)
    assert all(word in done.stderr.decode() for word in words), done.stderr


def test_no_think_without_thoughts_is_said(runnel, tiny):
    assert b"--no-think: this model does not think" in run(runnel, tiny(), "-p", "x", "--no-think", *GREEDY).stderr
    assert b"--no-think" not in run(runnel, tiny("r1"), "-p", "x", "--no-think", *GREEDY).stderr
    for when in ("on", "off"):
        assert b"--reasoning: this model does not think" in run(runnel, tiny(), "-p", "x", "--reasoning", when, *GREEDY).stderr
        assert b"--reasoning" not in run(runnel, tiny("r1"), "-p", "x", "--reasoning", when, *GREEDY).stderr


def test_reasoning_off_is_no_think(runnel, tiny):
    model = tiny("r1")
    off, no_think, on, auto = (answer(runnel, model, "-p", "Why?", *more) for more in
                               (("--reasoning", "off"), ("--no-think",), ("--reasoning", "on"), ()))
    assert same(off, no_think) and same(on, auto) and not same(off, on)
    done = run(runnel, model, "-p", "x", "--reasoning", "off", "--no-think", text=True)
    assert done.returncode == 2 and "--reasoning" in done.stderr and "--no-think" in done.stderr
    assert run(runnel, model, "-p", "x", "--reasoning", "perhaps").returncode == 2


def test_a_context_that_is_too_long_says_what_it_would_take(runnel, tiny):
    done = run(runnel, tiny(), "-p", "x", "--ctx", "10000000", *GREEDY)
    said = done.stderr.decode().splitlines()[0]
    assert done.returncode == 0
    assert re.search(r"--ctx 10000000: the model was trained for 1024 tokens.*take [\d.]+ MiB.*10000000 would take "
                     r"[\d.]+ [MG]iB, and this machine has [\d.]+ [GM]iB", said), said
    assert b"--ctx" not in run(runnel, tiny(), "-p", "x", "--ctx", "1024", *GREEDY).stderr
    assert b"--ctx" not in run(runnel, tiny(), "-p", "x", *GREEDY).stderr, "nobody asked for the default's 8192"


def test_the_line_after_an_answer_is_one_line_of_80_columns(runnel, tiny):
    lines = run(runnel, tiny(), "-p", "Tell me", *GREEDY).stderr.decode().split("\n")
    assert lines[0] == "" and len(lines) == 3 and lines[2] == "" and len(lines[1]) <= 80
    assert re.fullmatch(r"\[load [\d.]+ s \| prefill [\d.]+ tok/s \| decode [\d.]+ tok/s, [\d.]+ GB/s \| cut off\]", lines[1]), lines[1]
    wordy = run(runnel, tiny(), "-p", "Tell me", "--verbose", *GREEDY).stderr.decode()
    assert re.search(r"prompt \d+ tokens, prefill .*first token \d+ ms \| answer 6 tokens, .*cut off at its limit\]", wordy), wordy


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_question_that_is_empty(runnel, tiny, text):
    result = subprocess.run([runnel, "run", tiny(), "-p", text], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                            timeout=60)
    assert result.returncode == 1 and "expected a question, found nothing" in result.stderr and result.stdout == ""


def test_an_answer_that_never_leaves_the_thoughts(runnel, tiny):
    """Nothing on stdout would be a riddle."""
    done = run(runnel, tiny("r1"), "-p", "Why?", "-n", "3", "--answer-reserve", "0", text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert "cut off within its thoughts, so there is no answer: a larger -n" in " ".join(done.stderr.split())
    done = run(runnel, tiny("r1"), "-p", "Why?", "-n", "3", "--no-think", text=True)
    assert done.stdout and "thoughts" not in done.stderr


def test_the_model_is_looked_for_first(runnel, tmp_path):
    """Before stdin is waited for, and whatever stdin is."""
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):
        done = subprocess.run([runnel, "run", "nosuch"], stdin=stdin, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith("runnel: model 'nosuch': expected a file"), done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [
    ("What is 2+2?",), ("What is 2+2?", "-p", "x"), ("-p", "x", "Why is the sky blue"), ("-m", "What is 1/2?"), ("Hello!",), ("什么是猴子",),
    ("Is a/b more than c?", "-n", "3"),
])
def test_a_question_in_the_place_of_the_model(runnel, tmp_path, args):
    done = run(runnel, *args, cwd=tmp_path)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (2, b"", 1)
    assert "expected a model as the first argument" in said and 'a question goes behind -p: runnel run MODEL -p "..."' in said


@pytest.mark.parametrize("args", [("nosuch",), ("-m", "nosuch"), ("nosuch", "-f", "/nonexistent/file"), ("nosuch", "--system-file", "/no")])
def test_no_text_is_read_before_the_model_is_found(runnel, args):
    done = run(runnel, *args)
    assert done.returncode == 1 and b"model 'nosuch'" in done.stderr


def test_a_model_with_a_name_like_a_sentence(runnel, tiny, tmp_path):
    Path(tiny()).rename(tmp_path / "my own model!")
    assert run(runnel, "my own model!", "-p", "x", "-n", "2", cwd=tmp_path).returncode == 0
    missing = run(runnel, "my other.gguf", "-p", "x", cwd=tmp_path)
    assert missing.returncode == 1 and b"model 'my other.gguf'" in missing.stderr


def test_a_template_from_stdin_is_no_question(runnel, tiny):
    template = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    plain = answer(runnel, tiny(), "-p", "Tell me", "--raw")
    assert same(answer(runnel, tiny(), "-p", "Tell me", "--chat-template-file", "-", input=template), plain)


@pytest.mark.parametrize("option", ["--prompt", "--file", "--system", "--system-file"])
def test_a_text_is_given_once(runnel, tiny, option):
    done = run(runnel, tiny(), option, "one", option, "two", text=True)
    assert done.returncode == 2 and f"{option}: expected it once, found 'one' and 'two'" in done.stderr


def test_a_seed_by_chance_survives_readers_with_doubles(runnel, tiny):
    seeds = [json.loads(run(runnel, tiny(), "-p", "x", "-n", "1", "--json").stdout)["seed"] for _ in range(4)]
    assert all(0 <= seed < 1 << 53 for seed in seeds) and len(set(seeds)) > 1
