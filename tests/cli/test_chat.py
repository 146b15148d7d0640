"""runnel run without a prompt: a chat on a terminal."""
import re
import signal
import termios
import time
from pathlib import Path

import pytest

from terminal import Terminal

PROMPT, TIMINGS = "> ", "[prompt "


@pytest.fixture
def chat(runnel):
    started = []

    def start(model, *args):
        started.append(Terminal([runnel, "run", "-m", model, "--temp", "0", *args]))
        started[-1].wait_for("Type a question.")
        started[-1].wait_for(PROMPT)
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def ask(terminal, question):
    """Returns what was shown, and the timings: tokens of the prompt, those cached, why it ended."""
    terminal.type(question + "\r")
    shown = terminal.wait_for(TIMINGS)
    line = terminal.wait_for("]")
    terminal.wait_for(PROMPT)
    cached = re.search(r"\((\d+) cached", line)
    return shown, int(line.split()[0]), int(cached.group(1)) if cached else 0, line.split()[-1]


def test_history_and_its_end(chat, tiny):
    terminal = chat(tiny(), "-n", "8")
    _, first, cached, _ = ask(terminal, "Tell me")
    assert cached == 0
    _, second, cached, _ = ask(terminal, "Tell me")
    assert second > first and cached >= 16
    terminal.type("/clear\r")
    terminal.wait_for("A new conversation.")
    terminal.wait_for(PROMPT)
    assert ask(terminal, "Tell me")[1] == first
    terminal.type("/quit\r")
    assert terminal.wait() == 0


def test_what_is_typed_while_the_model_loads_is_kept_and_not_shown(runnel, smollm2):
    terminal = Terminal([runnel, "run", smollm2, "--temp", "0", "-n", "2"])
    try:
        terminal.wait_for("loading")
        terminal.type("zq")
        assert "zq" not in terminal.wait_for("Type a question.")
        terminal.wait_for(PROMPT)
        terminal.wait_for("zq")
        terminal.type("\x15/bye\r")
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_ctrl_c_while_the_model_loads_gives_the_terminal_back(runnel, smollm2):
    terminal = Terminal([runnel, "run", smollm2])
    try:
        terminal.wait_for("loading")
        terminal.type("\x03")
        assert terminal.wait() == -signal.SIGINT
        assert terminal.all.replace("\033[?2004l", "").endswith("\r\033[K"), "the bar is erased"
        assert termios.tcgetattr(terminal.master) == terminal.found_modes
    finally:
        terminal.close()


def test_ctrl_d_ends_it(chat, tiny):
    terminal = chat(tiny(), "-n", "4")
    ask(terminal, "Tell me")
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_ctrl_c_ends_the_answer_and_not_the_chat(chat, tiny):
    terminal = chat(tiny("long"), "-n", "60000", "--ctx", "70000")
    for _ in range(3):
        terminal.type("Tell me\r")
        terminal.wait_for("\n")  # the echo of the line
        time.sleep(0.7)  # the answer is on its way
        assert TIMINGS not in terminal.seen
        terminal.type("\x03")
        terminal.wait_for(TIMINGS, seconds=30)
        assert "cancelled" in terminal.wait_for("]")
        terminal.wait_for(PROMPT)
    assert terminal.process.poll() is None


def pause(process):
    """Stops the program and lets it go on."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline, "the program does not stop"
        time.sleep(0.01)
    process.send_signal(signal.SIGCONT)


def test_an_answer_with_a_pause_has_no_speed(chat, tiny):
    """The clock goes on while the program is stopped."""
    terminal = chat(tiny("long"), "-n", "60000", "--ctx", "70000")
    for pauses in (False, True, False):
        terminal.type("Tell me\r")
        terminal.wait_for("\n")  # the echo of the line
        time.sleep(0.7)  # the answer is on its way
        if pauses:
            pause(terminal.process)
        terminal.type("\x03")
        terminal.wait_for(TIMINGS, seconds=30)
        line = terminal.wait_for("]")
        assert ("tok/s" in line, " in " in line) == (not pauses, not pauses) and "cancelled" in line, line
        terminal.wait_for(PROMPT)


def test_ctrl_c_at_the_prompt_drops_the_line(chat, tiny):
    terminal = chat(tiny(), "-n", "4")
    terminal.type("half a line")
    terminal.wait_for("half a line")
    terminal.type("\x03")
    assert "Ctrl-C again" not in terminal.wait_for("\n" + PROMPT), "the text goes, no more"
    terminal.type("/clear\r")  # were the half line still there, this were a question
    terminal.wait_for("A new conversation.")
    terminal.wait_for(PROMPT)
    for hint in (True, False):
        terminal.type("\x03")
        if hint:
            terminal.wait_for("Ctrl-C again")
            terminal.wait_for(PROMPT)
    assert terminal.wait() == 0


def test_what_is_no_question_is_not_asked(chat, tiny):
    terminal = chat(tiny(), "-n", "4")
    for line, said in (("/help", "/clear starts anew"), ("/nope", "/nope: no such command"), ("   ", None), ("", None)):
        terminal.type(line + "\r")
        shown = (terminal.wait_for(said) if said else "") + terminal.wait_for(PROMPT)
        assert TIMINGS not in shown
    assert ask(terminal, "/etc/hosts, what is it?")[1] > 4, "a path is a question"
    terminal.type("/bye\r")
    assert terminal.wait() == 0


def test_thoughts_are_dimmed(chat, tiny):
    shown = ask(chat(tiny("r1"), "-n", "12"), "Tell me")[0]
    assert "\033[2m" in shown and "\033[0m" in shown
    plain = ask(chat(tiny("r1"), "-n", "12", "--no-think"), "Tell me")[0]
    assert "\033[2m" not in plain


def test_a_model_without_a_template(chat, tiny):
    terminal = chat(tiny("bare"), "-n", "4")
    terminal.type("Hello\r")
    assert "choose one with --chat-template (r1, chatml)" in " ".join(terminal.wait_for("send the prompt raw").split())
    terminal.type("/quit\r")
    assert terminal.wait() == 0


def test_a_question_that_is_too_long(chat, tiny):
    terminal = chat(tiny(), "-n", "4", "--ctx", "130")
    ask(terminal, "Tell me")
    terminal.type("~" * 100 + "\r")
    terminal.wait_for("The question is too long by itself")
    assert "the context has room for 129" in " ".join(terminal.wait_for("--ctx gives more room").split())
    terminal.wait_for(PROMPT)
    terminal.type("/clear\r")
    terminal.wait_for(PROMPT)
    ask(terminal, "Tell me")
    terminal.type("/quit\r")
    assert terminal.wait() == 0


def test_utf8_and_a_real_model(chat, smollm2):
    terminal = chat(smollm2, "-n", "24")
    shown = ask(terminal, "Hello! Please answer: what is the capital of France?")[0]
    assert "Paris" in shown
    _, tokens, cached, _ = ask(terminal, "Et où est-ce? 日本")
    assert tokens > cached > 0
    terminal.type("/quit\r")
    assert terminal.wait() == 0
