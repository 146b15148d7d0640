"""The commands of a chat, what it does when the context is full, and how its text fits the terminal."""
import fcntl
import json
import os
import re
import stat
import struct
import subprocess
import termios
import time

import pytest

from terminal import Terminal

PROMPT = "> "
SEED = ("--temp", "1", "-n", "12")


def resize(terminal, n_columns):
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, n_columns, 0, 0))


@pytest.fixture
def chat(runnel):
    started = []

    def start(model, *args):
        started.append(Terminal([runnel, "run", model, *map(str, args)], columns=400))  # no message is broken
        started[-1].wait_for("Type a question.")
        started[-1].wait_for("\n" + PROMPT)
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def say(terminal, line):
    """What is shown between the line that is typed and the next prompt."""
    terminal.type(line + "\r")
    terminal.wait_for("\n")  # the echo's end
    shown = terminal.wait_for("\n" + PROMPT).replace("\r", "")
    return re.sub("\033\\[\\?2004[hl]", "", shown).rstrip("\n") + "\n"  # without the switch of pasting


def prompt_tokens(shown):
    return int(re.search(r"\[prompt (\d+)", shown).group(1))


def answer_of(shown):
    return re.split("\n\\[(?:prompt|answer) ", shown)[0]


def test_help_names_every_command(chat, tiny):
    terminal = chat(tiny())
    shown = say(terminal, "/?")
    for name in ("/help", "/set NAME VALUE", "/system TEXT", "/retry", "/undo", "/drop", "/clear", "/save FILE", "/load FILE",
                 "/quit"):
        assert name in shown
    assert say(terminal, "/help") == shown
    assert all(len(line) <= 80 for line in shown.split("\n"))


@pytest.mark.parametrize("line, said", [
    ("/sytem You are a pirate.", "/sytem: no such command; did you mean /system?"),
    ("/nope", "/nope: no such command; /? lists them."),
    ("/Retyr", "/Retyr: no such command; did you mean /retry?"),
    ("/halp me with C", "/halp: no such command; did you mean /help?"),
    ("/foo bar baz", "/foo: no such command; /? lists them. A space before it makes it a question."),
    ("/sav", "/sav: no such command; did you mean /save?"),
    ("/help!", "/help!: no such command; did you mean /help?"),
    ("/SYSTEM clear", "There is no system prompt now."),
    ("/system CLEAR", "There is no system prompt now."),
    ("/set TEMP 0.5", "temp: 0.5"),
    ("/set verbose ON", "verbose: on"),
    ("/set verbose yes", "/set: verbose: expected on, off or default, found 'yes'"),
    ("/save /no/such/talk.json", "/save: /no/such/talk.json: cannot be written: expected the folder /no/such, found none"),
    ("/save /proc/talk.json", "/save: /proc/talk.json: cannot be written: No such file or directory"),
    ("/läd talk.json", "/läd: no such command"),
    ("/什么", "/什么: no such command; /? lists them. A space before it makes it a question."),
    ("/set temp 0x10", "/set: temp: expected a number from 0 to 100, found '0x10'"),
    ("/load /no/such/talk.json", "/load: /no/such/talk.json: cannot be read: No such file or directory"),
    ("/reset", "/reset: no such command; did you mean /clear?"),
    ("/HALP", "/HALP: no such command; did you mean /help?"),
    ("/UNDO", "There is nothing to undo."),
    ("/Help", "/system TEXT"),
    ("/save /tmp", "/save: /tmp: expected the name of a file, found a directory"),
    ("/set verbose maybe", "/set: verbose: expected on, off or default, found 'maybe'"),
    ("/set think off", "/set: think: expected a model that thinks, found one that does not"),
    ("/undo now", "/undo: expected nothing behind it, found 'now'"),
    ("/clear all", "/clear: expected nothing behind it, found 'all'"),
    ("/undo", "There is nothing to undo."),
    ("/retry", "There is no question to ask again."),
    ("/drop", "There is no turn to drop."),
    ("/save", "/save: expected the name of a file, found none"),
    ("/load", "/load: expected the name of a file, found none"),
    ("/load /dev/null/x", "/load: /dev/null/x: cannot be read: Not a directory"),
    ("/load /tmp", "/load: /tmp: expected a file, found a directory"),
    ("/save /dev/null/x", "/save: /dev/null/x: cannot be written: Not a directory"),
])
def test_what_cannot_be_done_is_said(chat, tiny, line, said):
    shown = say(chat(tiny()), line)
    assert said in shown and "[prompt" not in shown


@pytest.mark.parametrize("line", ["/etc/hosts what is it?", "/* what is this? */", " /halp", "/ is what in C?"])
def test_what_looks_like_no_command_is_asked(chat, tiny, line):
    assert "[prompt" in say(chat(tiny(), *SEED), line)


def test_a_file_that_may_not_be_read(runnel, tiny, tmp_path):
    """Root may read all, so its power to do so is taken away first."""
    path = tmp_path / "talk.json"
    path.write_text("[]")
    path.chmod(0)
    command = [runnel, "run", tiny()]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] + command
    terminal = Terminal(command, columns=400)
    try:
        terminal.wait_for("Type a question.")
        terminal.wait_for("\n" + PROMPT)
        assert f"/load: {path}: cannot be read: Permission denied" in say(terminal, f"/load {path}")
        shown = say(terminal, f"/save {path}")
        assert f"/save: {path}: is there and cannot be read, so it is left as it is: Permission denied" in shown
    finally:
        terminal.close()


def test_system_prompts(chat, tiny):
    terminal = chat(tiny(), *SEED)
    plain = prompt_tokens(say(terminal, "Tell me"))
    assert "no system prompt" in say(terminal, "/system")
    assert "is set" in say(terminal, "/system x")
    assert "\nx" in say(terminal, "/system")
    assert say(terminal, "/clear").startswith("A new conversation. The system prompt stays.")
    short = prompt_tokens(say(terminal, "Tell me"))
    assert short < plain, "the template's own is longer"
    say(terminal, "/clear")
    say(terminal, "/system a pirate")
    assert prompt_tokens(say(terminal, "Tell me")) == short + len("a pirate") - 1
    assert "no system prompt now" in say(terminal, "/system clear")
    say(terminal, "/clear")
    assert prompt_tokens(say(terminal, "Tell me")) == plain
    given = chat(tiny(), *SEED, "--system", "x")
    assert "\nx" in say(given, "/system")
    assert prompt_tokens(say(given, "Tell me")) == short


def test_settings(chat, tiny):
    terminal = chat(tiny("r1"), *SEED)
    shown = say(terminal, "/set")
    for line in ("temp      1\n", "n-tokens  12\n", "think     on\n", "verbose   off\n", "(by chance)\n"):
        assert line in shown
    assert "top-p     0.95 (the model's own)" in shown
    say(terminal, "/set top-p 0.5")
    say(terminal, "/set temp = 0")
    say(terminal, "/set seed 7")
    say(terminal, "/set n-tokens 3")
    say(terminal, "/set think off")
    shown = say(terminal, "/set")
    for line in ("temp      0\n", "top-p     0.5\n", "seed      7\n", "n-tokens  3\n", "think     off\n"):
        assert line in shown
    shown = say(terminal, "Tell me")
    assert "answer 3," in shown and "\033[2m" not in shown
    say(terminal, "/set top-p default")
    say(terminal, "/set seed default")
    say(terminal, "/set n-tokens default")
    shown = say(terminal, "/set")
    assert "top-p     0.95 (the model's own)" in shown and "(by chance)" in shown and "n-tokens  4096" in shown
    say(terminal, "/set n-tokens 5")
    say(terminal, "/set verbose on")
    shown = say(terminal, "Tell me")
    assert "first token" in shown and "answer 5 tokens" in shown


@pytest.mark.parametrize("line, said", [
    ("/set temp hot", "/set: temp: expected a number from 0 to 100, found 'hot'"),
    ("/set temp 101", "/set: temp: expected a number from 0 to 100, found '101'"),
    ("/set n-tokens 0", "/set: n-tokens: expected a whole number from 1 to 16777216, found '0'"),
    ("/set top-p", "/set: top-p: expected a value"),
    ("/set ctx 5", "/set: expected one of temp, top-p, top-k, min-p, seed, n-tokens, think, verbose, found 'ctx'"),
    ("/set a-name-that-is-much-too-long 1", "found 'a-name-that-is-"),
    ("/set tmp 0.5", "found 'tmp'; did you mean temp?"), ("/set Temperature 1", "found 'temperature'; did you mean temp?"),
    ("/set max_tokens 5", "found 'max_tokens'; did you mean n-tokens?"), ("/set verb on", "found 'verb'; did you mean verbose?"),
    ("/set think perhaps", "/set: think: expected on, off or default, found 'perhaps'"),
    ("/set think on", "/set: think: expected a model that thinks, found one that does not"),
    ("/set seed -1", "/set: seed: expected a whole number"),
    ("/set seed 9223372036854775808", "/set: seed: expected a number up to 9223372036854775807"),
])
def test_wrong_settings(chat, tiny, line, said):
    terminal = chat(tiny(), *SEED)
    before = say(terminal, "/set")
    assert said in unwrapped(say(terminal, line))
    assert say(terminal, "/set") == before


def test_retry_takes_another_seed(chat, tiny):
    terminal = chat(tiny(), *SEED)
    first = say(terminal, "Tell me")
    second = say(terminal, "/retry")
    assert prompt_tokens(second) == prompt_tokens(first) and answer_of(second) != answer_of(first)
    assert prompt_tokens(say(terminal, "/retry")) == prompt_tokens(first)
    fixed = chat(tiny(), *SEED, "--seed", "5")
    first = say(fixed, "Tell me")
    again = say(fixed, "/retry")
    assert "The seed is set, so the answer may be the same" in again
    assert answer_of(again).split("takes another.\n")[1] == answer_of(first)


def test_undo(chat, tiny):
    terminal = chat(tiny(), *SEED, "--seed", "5")
    first = say(terminal, "Tell me")
    second = say(terminal, "And then?")
    assert "Turns left: 1" in say(terminal, "/undo")
    again = say(terminal, "And then?")
    assert prompt_tokens(again) == prompt_tokens(second) and answer_of(again) == answer_of(second)
    say(terminal, "/undo")
    say(terminal, "/undo")
    assert answer_of(say(terminal, "Tell me")) == answer_of(first)


def test_save_and_load(chat, tiny, tmp_path):
    path = tmp_path / "talk.json"
    terminal = chat(tiny(), *SEED, "--seed", "5", "--system", "Grüße, 日本")
    say(terminal, "Tell me")
    assert f"Saved 1 turn to {path}" in say(terminal, f"/save {path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    messages = json.loads(path.read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert [message["content"] for message in messages[:2]] == ["Grüße, 日本", "Tell me"]
    second = say(terminal, "And then?")
    say(terminal, f"/save {path}")
    assert len(json.loads(path.read_text())["messages"]) == 5, "a conversation is replaced"
    assert os.listdir(tmp_path).count("talk.json") == 1 and not list(tmp_path.glob("talk.json.*"))

    path.write_text(json.dumps(messages))  # a bare list will do
    other = chat(tiny(), *SEED, "--seed", "5")
    assert "Loaded 1 turn and a system prompt" in say(other, f"/load {path}")
    loaded = say(other, "And then?")
    assert prompt_tokens(loaded) == prompt_tokens(second) and answer_of(loaded) == answer_of(second)

    path.write_text(json.dumps({"messages": messages[:2]}))
    assert "/retry asks it" in say(other, f"/load {path}")
    assert "[prompt" in say(other, "/retry")


@pytest.mark.parametrize("content, said", [
    ("", "expected a conversation as JSON; line 1: "),
    ("{", "expected a conversation as JSON; line 1: "),
    ("3", "expected a conversation as JSON"),
    ('{"text": 3}', "expected a list of messages, found nothing"),
    ('{"messages": {}}', "expected a list of messages, found an object"),
    ("[3]", "message 1: expected an object, found a number"),
    ('[{"content": "x"}]', "message 1: expected the role system or user, found nothing"),
    ('[{"role": "assistant", "content": "x"}]', "message 1: expected the role system or user, found 'assistant'"),
    ('[{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]',
     "message 2: expected the role assistant, found 'user'"),
    ('[{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]', "message 2: expected the role assistant, found 'tool'"),
    ('[{"role": "user", "content": ["x"]}]', "message 1: expected a text as its content, found a list"),
    ('[{"role": "user"}]', "message 1: expected a text as its content, found nothing"),
])
def test_files_that_are_no_conversation(chat, tiny, tmp_path, content, said):
    path = tmp_path / "other.json"
    path.write_text(content)
    terminal = chat(tiny(), *SEED)
    tokens = prompt_tokens(say(terminal, "Tell me"))
    shown = say(terminal, f"/load {path}")
    assert str(path) in shown and said in unwrapped(shown)
    assert "is left as it is" in unwrapped(say(terminal, f"/save {path}")) and path.read_text() == content
    assert prompt_tokens(say(terminal, "Tell me")) > tokens, "the conversation goes on"


def unwrapped(shown):
    """What was shown, without the line breaks that the width of the terminal made."""
    return " ".join(shown.split())


def test_a_full_context(chat, tiny):
    terminal = chat(tiny(), "-n", "4", "--temp", "0", "--ctx", "180", "--system", "x")
    while "[prompt" in (shown := say(terminal, "~" * 30)):
        pass
    offered = re.search(r"/drop forgets the oldest (\d+) of its (\d+) turns and asks again, /clear starts a new one",
                        unwrapped(shown))
    assert offered, shown
    n_dropped, n_turns = map(int, offered.groups())
    assert 0 < n_dropped < n_turns
    shown = say(terminal, "/drop")
    assert f"Dropped the oldest {n_dropped} of {n_turns} turns; the system prompt stays." in unwrapped(shown)
    assert "[prompt" in shown, "the question is asked"
    assert "\nx" in say(terminal, "/system")
    shown = say(terminal, "~" * 200)
    assert "The question is too long by itself" in shown and "/drop" not in shown
    assert "[prompt" in say(terminal, "y") or "/drop" in say(terminal, "y")


def test_a_context_that_one_turn_fills(chat, tiny):
    terminal = chat(tiny(), "--temp", "0", "--ctx", "180")
    say(terminal, "Tell me")  # is cut off by the end of the context
    assert "/drop forgets the oldest 1 of its 1 turn and asks again" in unwrapped(say(terminal, "y"))


def test_an_answer_that_fills_the_context(chat, tiny):
    terminal = chat(tiny("long"), "--temp", "0", "--ctx", "130")
    shown = say(terminal, "Tell me")
    assert "cut off" in shown and "full with this turn alone: /clear starts anew" in shown and "/drop" not in shown


def test_drop_leaves_what_retry_asks(chat, tiny):
    terminal = chat(tiny(), "--temp", "0", "--ctx", "180")
    say(terminal, "/set n-tokens 8")
    say(terminal, "first")
    say(terminal, "second")
    say(terminal, "/set n-tokens 4096")
    shown = say(terminal, "Tell me")
    assert "The context is full: /drop forgets the oldest turns, /retry then asks again" in unwrapped(shown), shown
    assert "Dropped the oldest 2 of 3 turns." in say(terminal, "/drop")
    again = say(terminal, "/retry")
    assert "[prompt" in again and prompt_tokens(again) < prompt_tokens(shown)


def test_retry_asks_what_was_refused(chat, tiny, tmp_path):
    """And leaves the answer of the question before alone."""
    terminal, path = chat(tiny(), "-n", "4", "--temp", "0", "--ctx", "180"), tmp_path / "talk.json"
    say(terminal, "Tell me")
    say(terminal, f"/save {path}")
    before = path.read_text()
    long = "~" * 250
    shown = unwrapped(say(terminal, long))
    assert "The question is too long by itself (the prompt has" in shown and shown.count("the prompt has") == 1
    assert "The question is too long by itself" in unwrapped(say(terminal, "/retry")), "it is asked, not the one before"
    assert "[prompt" not in terminal.seen
    say(terminal, f"/save {path}")
    assert path.read_text() == before
    assert "[prompt" in say(terminal, "more")
    assert json.loads(path.read_text())["messages"][0]["content"] == "Tell me"
    say(terminal, "/retry")
    say(terminal, f"/save {path}")
    assert [m["content"] for m in json.loads(path.read_text())["messages"]][::2] == ["Tell me", "more"]


def saved(terminal, path):
    """The texts of the conversation, questions and answers in turn."""
    say(terminal, f"/save {path}")
    return [message["content"] for message in json.loads(path.read_text())["messages"]]


def test_drop_of_the_only_turn_leaves_its_question(chat, tiny, tmp_path):
    terminal = chat(tiny("long"), "--temp", "0", "--ctx", "130")
    first = say(terminal, "Tell me")
    shown = say(terminal, "/drop")
    assert "Dropped the oldest 1 of 1 turn. /retry asks its question again." in shown and "[prompt" not in shown
    assert prompt_tokens(say(terminal, "/retry")) == prompt_tokens(first)
    assert saved(terminal, tmp_path / "talk.json")[0] == "Tell me"


def test_a_refused_question_outlives_clear_and_undo_but_not_load(chat, tiny, tmp_path):
    terminal, path = chat(tiny(), "--temp", "0", "--ctx", "180"), tmp_path / "talk.json"
    for forget in ("/clear", "/undo"):
        say(terminal, "Tell me")  # is cut off by the end of the context
        assert "/drop" in say(terminal, "why")
        assert "/retry asks the question that was refused." in say(terminal, forget)
        assert "[prompt" in say(terminal, "/retry")
        assert saved(terminal, path)[0] == "why"
        say(terminal, "/clear")
    say(terminal, "Tell me")
    assert "/drop" in say(terminal, "why")
    path.write_text(json.dumps([{"role": "user", "content": "from the file"}]))
    assert "/retry asks it" in say(terminal, f"/load {path}")
    say(terminal, "/retry")
    assert saved(terminal, path)[0] == "from the file"


def test_drop_for_a_question_that_is_too_long_drops_nothing(chat, tiny, tmp_path):
    terminal, path = chat(tiny(), "-n", "4", "--temp", "0", "--ctx", "180"), tmp_path / "talk.json"
    say(terminal, "Tell me")
    before = saved(terminal, path)
    say(terminal, "~" * 250)
    assert "too long by itself, so nothing was dropped" in say(terminal, "/drop")
    assert saved(terminal, path) == before


def test_drop_asks_a_refused_retry_again_in_its_place(chat, tiny, tmp_path):
    terminal, path = chat(tiny(), "-n", "4", "--temp", "0", "--ctx", "180", "--system", "x"), tmp_path / "talk.json"
    for question in ("~" * 15, "~" * 15, "last"):
        assert "[prompt" in say(terminal, question)
    say(terminal, "/system " + "~" * 80)
    shown = unwrapped(say(terminal, "/retry"))
    dropped, turns = map(int, re.search(r"/drop forgets the oldest (\d+) of its (\d+) turns? and asks again", shown).groups())
    assert turns == 2 and saved(terminal, path)[-2] == "last", "the answer that there was stays"
    assert "[prompt" in say(terminal, "/drop")
    texts = saved(terminal, path)
    assert texts.count("last") == 1 and texts[-2] == "last" and len(texts) == 1 + 2 * (turns - dropped + 1)


def test_a_thought_that_is_cut_off_is_said_once(chat, tiny):
    terminal = chat(tiny("r1"), "--temp", "0", "-n", "5", "--answer-reserve", "0")
    shown = say(terminal, "Tell me")
    assert "/set n-tokens N gives room" in shown and "--no-think" not in shown
    full = say(chat(tiny("r1"), "--temp", "0", "--ctx", "60"), "Tell me")
    assert full.count("The context is full") == 1 and "within its thoughts" not in full


def test_a_failed_retry_keeps_the_answer(chat, tiny, tmp_path):
    terminal, path = chat(tiny(), "-n", "4", "--temp", "0", "--ctx", "130", "--system", "x"), tmp_path / "talk.json"
    say(terminal, "Tell me")
    say(terminal, f"/save {path}")
    before = path.read_text()
    say(terminal, "/system " + "~" * 120)
    assert "the context has room for" in say(terminal, "/retry")
    say(terminal, "/system x")
    say(terminal, f"/save {path}")
    assert path.read_text() == before
    path.write_text(json.dumps([{"role": "user", "content": "Tell me"}]))
    say(terminal, f"/load {path}")
    say(terminal, "/system " + "~" * 120)
    assert "the context has room for" in say(terminal, "/retry")
    assert "Turns left: 0" in say(terminal, "/undo"), "the question without an answer was kept, too"


def load_long_question(terminal, path):
    """A turn whose question takes seconds to read, and of which nothing is cached."""
    path.write_text(json.dumps([{"role": "user", "content": "~" * 60000}, {"role": "assistant", "content": "An answer."}]))
    say(terminal, f"/load {path}")


def test_a_retry_that_brings_nothing_keeps_the_answer(chat, tiny, tmp_path):
    """Interrupted while the prompt was read, or cut off in its thoughts."""
    path = tmp_path / "talk.json"
    terminal = chat(tiny("long"), "--ctx", "70000", "--seed", "5")
    load_long_question(terminal, path)
    terminal.type("/retry\r")
    terminal.wait_for("takes another.")
    time.sleep(0.7)  # the prompt is being read
    terminal.type("\x03")
    shown = terminal.wait_for("\n" + PROMPT)
    assert "answer 0" in shown and "The answer before stays" in shown, shown
    say(terminal, f"/save {path}")
    assert json.loads(path.read_text())["messages"][1]["content"] == "An answer."

    thinks = chat(tiny("r1"), "--temp", "0", "-n", "5", "--answer-reserve", "0")
    path.write_text(json.dumps([{"role": "user", "content": "Tell me"}, {"role": "assistant", "content": "An answer."}]))
    say(thinks, f"/load {path}")
    shown = say(thinks, "/retry")
    assert "Cut off within its thoughts" in shown and "The answer before stays" in shown
    say(thinks, f"/save {path}")
    assert json.loads(path.read_text())["messages"][1]["content"] == "An answer."


@pytest.mark.parametrize("question, answer, shown", [
    ("Why?", "Because.\n", "Last question: Why?\nIts answer: Because.\n"),
    ("Why?", None, "Last question: Why?\n"),
    ("  one\n\n\ntwo\nthree\nfour", "x", "Last question: one\ntwo\nthree ...\nIts answer: x\n"),
    ("日" * 100, "a" * 240, f"Last question: {'日' * 80} ...\nIts answer: {'a' * 240}\n"),
    ("é" * 119 + "日日", "\033[2J", f"Last question: {'é' * 119} ...\nIts answer: \u241b[2J\n"),
    ("one\ntwo\nthree\n", "a\r\n\r\nb", "Last question: one\ntwo\nthree\nIts answer: a"),
])
def test_load_shows_where_the_conversation_stood(chat, tiny, tmp_path, question, answer, shown):
    path, messages = tmp_path / "talk.json", [("user", "first"), ("assistant", "of old"), ("user", question), ("assistant", answer)]
    path.write_text(json.dumps([{"role": role, "content": text} for role, text in messages if text is not None]))
    said = say(chat(tiny()), f"/load {path}")
    assert f"Loaded 2 turns from {path}" in said and "of old" not in said
    assert shown in said, said


def test_an_empty_answer_in_a_file_is_none(chat, tiny, tmp_path):
    """The model never sees one: at the end its question is one without an answer, before that the file is refused."""
    terminal, path = chat(tiny(), *SEED), tmp_path / "talk.json"
    asked = prompt_tokens(say(terminal, "Why?"))
    path.write_text(json.dumps([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": ""}]))
    assert "Loaded 1 turn" in (said := say(terminal, f"/load {path}")) and "The last question has no answer: /retry asks it" in said
    assert saved(terminal, tmp_path / "other.json") == ["Why?"]
    assert prompt_tokens(say(terminal, "/retry")) == asked
    path.write_text(json.dumps([{"role": role, "content": text} for role, text in
                                (("user", "Why?"), ("assistant", ""), ("user", "So?"), ("assistant", "Yes."))]))
    assert "message 2: expected an answer, found an empty one; only the last may be empty" in say(terminal, f"/load {path}")


def stop_before_the_answer(terminal, line):
    terminal.type(line + "\r")
    terminal.wait_for("\n")  # the echo's end
    time.sleep(0.7)  # the prompt is being read, which takes seconds
    terminal.type("\x03")
    shown = terminal.wait_for("\n" + PROMPT)
    assert "answer 0" in shown, shown
    return shown


def test_a_question_that_is_stopped_before_its_answer_can_be_asked_again(chat, tiny, tmp_path):
    """It has no answer then, not an empty one: neither in a file nor for the model. Another question takes its place."""
    system, path = tmp_path / "system.txt", tmp_path / "talk.json"
    system.write_text("~" * 60000)
    terminal = chat(tiny("long"), "--ctx", "70000", "--temp", "0", "-n", "4", "--system-file", system)
    assert "There is no answer: /retry asks again, another question takes its place." in stop_before_the_answer(terminal, "Why?")
    assert saved(terminal, path)[1:] == ["Why?"]
    say(terminal, "/system x")
    asked = prompt_tokens(say(terminal, "/retry"))
    assert saved(terminal, path)[:2] == ["x", "Why?"] and len(saved(terminal, path)) == 3
    assert "Turns left: 0" in say(terminal, "/undo")

    path.write_text(json.dumps([{"role": "user", "content": "~" * 60000}]))
    say(terminal, f"/load {path}")
    stop_before_the_answer(terminal, "/retry")
    assert saved(terminal, path) == ["~" * 60000]
    say(terminal, "/system x")
    assert prompt_tokens(say(terminal, "Why?")) == asked, "the other question is alone, and no answer is before it"
    assert saved(terminal, path)[:2] == ["x", "Why?"]


def test_an_answer_that_is_all_thought_is_none(chat, tiny, tmp_path):
    terminal, path = chat(tiny("r1"), "--temp", "0", "-n", "5", "--answer-reserve", "0"), tmp_path / "talk.json"
    first = say(terminal, "Tell me")
    assert "Cut off within its thoughts, so there is no answer" in first
    assert saved(terminal, path) == ["Tell me"]
    assert prompt_tokens(say(terminal, "Tell me")) == prompt_tokens(first)
    assert saved(terminal, path) == ["Tell me"]
    assert "Turns left: 0" in say(terminal, "/undo")


# How it looks -----------------------------------------------------------------------------------------------------------

def lines_of(terminal, line):
    return [re.sub("\033\\[[0-9;]*m", "", shown) for shown in say(terminal, line).split("\n")]


@pytest.mark.parametrize("n_columns", [80, 40])
def test_nothing_is_wider_than_the_terminal(runnel, tiny, smollm2, n_columns):
    """From the bar while the model loads on; the size is known before the program starts."""
    terminal = Terminal(["sh", "-c", 'read go; exec "$@"', "sh", runnel, "run", smollm2, "--temp", "0", "-n", "60"])
    resize(terminal, n_columns)
    terminal.type("go\r")
    try:
        terminal.wait_for("\n")
        banner = terminal.wait_for("\n" + PROMPT)
        assert "Type a question" in banner
        widths = [len(line) for line in re.split("[\r\n]+", re.sub("\033\\[K", "", banner))]
        assert max(widths) <= n_columns, banner
        for line in ("/system Be brief.", "Why is the sky blue?", "/?", "/set", "/nope"):
            shown = lines_of(terminal, line)
            assert max(map(len, shown)) <= n_columns, shown
    finally:
        terminal.close()


@pytest.mark.parametrize("n_columns, whole", [(80, True), (40, False)])
def test_the_figures_fit_in_a_line(chat, tiny, n_columns, whole):
    terminal = chat(tiny(), *SEED)
    say(terminal, "Tell me")
    resize(terminal, n_columns)
    figures = [line for line in lines_of(terminal, "And then?") if " tok/s | cut off]" in line]
    assert len(figures) == 1 and len(figures[0]) <= n_columns
    assert figures[0].startswith("[prompt " if whole else "[answer 12, ")


def test_figures_in_a_narrow_terminal_never_break_before_a_unit(chat, tiny):
    terminal = chat(tiny(), *SEED, "--verbose")
    resize(terminal, 40)
    lines = lines_of(terminal, "Tell me")
    begin = next(i for i, line in enumerate(lines) if line.startswith("[prompt "))
    figures = [line for line in lines[begin:] if line]
    assert len(figures) > 2 and max(map(len, figures)) <= 40
    assert not any(re.match(" *(tok/s|GB/s|ms|tokens)", line) for line in figures[1:]), figures
    joined = " ".join(line.strip() for line in figures)
    assert re.fullmatch(r"\[prompt \d+ tokens, prefill [\d.]+ tok/s, first token \d+ ms \| answer 12 tokens, "
                        r"decode [\d.]+ tok/s, [\d.]+ GB/s(, guessed \d+ of \d+)? \| cut off at its limit\]", joined), joined


def test_the_figures_have_no_speed_of_what_was_not_measured(chat, tiny, tmp_path):
    terminal = chat(tiny("long"), "--ctx", "70000", "--seed", "5")
    load_long_question(terminal, tmp_path / "talk.json")
    for verbose, figures in (("off", r"\[prompt \d+( \(\d+ cached\))? \| answer 0 \| cancelled\]"),
                             ("on", r"\[prompt \d+ tokens( \(\d+ cached\))? \| answer 0 tokens \| cancelled\]")):
        say(terminal, f"/set verbose {verbose}")
        terminal.type("/retry\r")
        terminal.wait_for("takes another.")
        time.sleep(0.7)  # the prompt is being read
        terminal.type("\x03")
        shown = terminal.wait_for("\n" + PROMPT)
        assert re.search(figures, shown), shown
    single = chat(tiny(), "-n", "1", "--seed", "5")
    assert re.search(r"\[prompt \d+ in \d+\.\d s \| answer 1 \| cut off\]", say(single, "Tell me"))
    say(single, "/set verbose on")
    assert re.search(r"first token \d+ ms \| answer 1 token \| cut off at its limit\]", say(single, "Tell me"))


def test_the_figures_leave_out_what_is_worth_least(chat, tiny):
    terminal = chat(tiny(), *SEED)
    say(terminal, "Tell me")
    assert re.search(r"\[prompt \d+ \(\d+ cached\) in ", say(terminal, "/retry"))
    resize(terminal, 56)
    line = next(line for line in lines_of(terminal, "/retry") if line.startswith("["))
    assert len(line) <= 56 and line.startswith("[prompt ") and "cached" not in line


def test_a_text_does_not_steer_the_terminal(chat, tiny, tmp_path):
    """Whoever wrote it, a model or a file: an answer goes the same way."""
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"role": "system", "content": "a\033]0;title\007\033[2J\x9b1m b"}]))
    terminal = chat(tiny())
    say(terminal, f"/load {path}")
    shown = say(terminal, "/system")
    assert "a\u241b]0;title\u2407\u241b[2J\ufffd1m b\n" in shown
    assert not any(character in shown for character in "\033\007\x9b")


def test_lines_break_between_words(chat, runnel, smollm2):
    """As wide as the terminal is, also after a change; what goes to a pipe has no such breaks."""
    question, flags = "Why is the sky blue?", ("--temp", "0", "-n", "80")
    plain = subprocess.run([runnel, "run", smollm2, "-p", question, *flags], capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=120).stdout
    assert max(map(len, plain.split("\n"))) > 80
    terminal = chat(smollm2, *flags)
    for n_columns in (40, 72):
        resize(terminal, n_columns)
        shown = answer_of("\n".join(lines_of(terminal, question)))
        widths = [len(line) for line in shown.split("\n")]
        assert n_columns - 15 < max(widths) <= n_columns, shown
        assert shown.split() == plain.split()
        say(terminal, "/clear")
