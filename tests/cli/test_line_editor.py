"""What is typed in a chat: characters outside ASCII, pasted lines, texts of several lines, and the history over runs.

What arrived is read from the history's file: it holds the texts as they were sent to the model."""
import os
import re
import signal
import stat
import subprocess
import termios
import threading
import time
import unicodedata

import pytest

from terminal import Terminal

PROMPT = "> "
ENDS = ("| complete]", "| cut off]", "| cancelled]")  # of the line behind an answer, whatever else stands in it
LEFT, RIGHT, UP, DOWN, HOME, END, DELETE = "\033[D", "\033[C", "\033[A", "\033[B", "\033[H", "\033[F", "\033[3~"
BACKSPACE = "\x7f"
PASTE_ON, PASTE_OFF = "\033[?2004h", "\033[?2004l"
FAMILY = "👩\u200d👩\u200d👧"
LOCALES = {"C": {"LANG": "C", "LC_ALL": "C"}, "C.UTF-8": {"LANG": "C.UTF-8", "LC_ALL": None},
           "unset": {"LANG": None, "LC_ALL": None, "LC_CTYPE": None}}


def paste(text):
    return f"\033[200~{text}\033[201~"


def read_history(path):
    """The texts of a history's file."""
    if not path.exists():
        return []
    return [re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], line)
            for line in path.read_text().split("\n")[:-1]]


class Screen:
    """The little of a terminal that the editor uses: who reads it sees what a person sees."""

    def __init__(self, columns):
        self.columns, self.rows, self.row, self.column = columns, [[" "] * columns], 0, 0

    def feed(self, text):
        for match in re.finditer(r"\033\[\??([0-9;]*)([A-Za-z])|(.)", text, re.S):
            number, command, char = match.groups()
            if char:
                self.put(char)
            elif command in "ABCGJK":
                self.move(command, int(number or (0 if command in "JK" else 1)))
        return self

    def put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            if self.row == len(self.rows):
                self.rows.append([" "] * self.columns)
        elif char == "\b":
            self.column = max(self.column - 1, 0)
        elif unicodedata.category(char) in ("Mn", "Me", "Cf"):
            self.rows[self.row][self.column - 1] += char
        else:
            width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
            assert self.column + width <= self.columns, f"{char!r} is painted behind the margin"
            self.rows[self.row][self.column:self.column + width] = [char] + [""] * (width - 1)
            self.column += width

    def move(self, command, n):
        if command == "A":
            assert n <= self.row
            self.row -= n
        elif command == "B":
            assert self.row + n < len(self.rows)
            self.row += n
        elif command == "C":
            self.column += n
        elif command == "G":
            self.column = n - 1
        else:
            self.rows[self.row][self.column:] = [" "] * (self.columns - self.column)
            if command == "J":
                del self.rows[self.row + 1:]

    def lines(self):
        return ["".join(row).rstrip() for row in self.rows]


@pytest.fixture
def chat(runnel, tiny, tmp_path):
    """Starts a chat; its history is in tmp_path/history unless variables say otherwise."""
    started = []

    def start(*args, variables=None, kind="qwen2", **size):
        variables = {"RUNNEL_HISTORY": str(tmp_path / "history"), **(variables or {})}
        terminal = Terminal([runnel, "run", "-m", tiny(kind), "--temp", "0", "-n", "2", *args], variables, **size)
        started.append(terminal)
        terminal.wait_for("Type a question.")
        terminal.wait_for(PROMPT)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


def send(terminal, keys, seconds=30):
    """Types keys and Enter, waits for the answer's end and the next prompt."""
    terminal.type(keys)
    terminal.type("\r")
    terminal.wait_for(*ENDS, seconds=seconds)
    terminal.wait_for("\n> ")


def leave(terminal):
    terminal.type("\x04")
    assert terminal.wait() == 0


TEXTS = ["日本 é?", "e\u0301 a\u0308\u0323 composed é", f"{FAMILY} 👍🏽 🇩🇪🇯🇵 ❤\ufe0f", "שָׁלוֹם مَرْحَبًا עולם", "हिन्दी ไทย 한국어 각", "½ → ∑ 𝔘"]


@pytest.mark.parametrize("locale", LOCALES)
def test_characters_arrive_whole(chat, tmp_path, locale):
    terminal = chat(variables=LOCALES[locale])
    for text in TEXTS:
        send(terminal, text)
    for text in TEXTS[:2]:  # recalled
        send(terminal, UP * 6)
    leave(terminal)
    assert read_history(tmp_path / "history") == TEXTS + TEXTS[:2]


def test_the_model_gets_what_was_typed(chat, runnel, tiny):
    """As many tokens as the same text has that comes as an argument."""
    for text in TEXTS:
        terminal = chat()
        terminal.type(text + "\r")
        terminal.wait_for("[prompt ")
        n_tokens = int(terminal.wait_for(" "))
        other = subprocess.run([runnel, "run", "-m", tiny(), "-n", "1", "--json", "-p", text], check=True,
                               capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        assert f'"prompt_tokens": {n_tokens},' in other.stdout, text
        leave(terminal)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("keys, text", [
    ("日本" + LEFT + "x" + LEFT * 2 + "y" + END + "z", "y日x本z"),
    ("日本é" + BACKSPACE * 2 + "語", "日語"),
    ("ae\u0301b" + LEFT * 2 + "X" + RIGHT + "Y", "aXe\u0301Yb"),
    ("ae\u0301b" + LEFT + BACKSPACE, "ab"),
    (f"a{FAMILY}b" + LEFT * 2 + "X", f"aX{FAMILY}b"),
    (f"a{FAMILY}b" + HOME + RIGHT + DELETE, "ab"),
    ("👍🏽🇩🇪🇯🇵" + LEFT + BACKSPACE, "👍🏽🇯🇵"),
    ("שלום" + HOME + "א" + END + "ב", "אשלוםב"),
    ("one two 三" + "\x17" + "four" + "\x01" + "\033d" + "\x05" + "\x19", " two fourone"),
    ("abc" + "\x02" + "\x14", "acb"),
    ("日本" + "\x01" + "\x0b" + "x" + "\x19", "x日本"),
])
def test_editing_moves_by_what_a_reader_calls_a_character(chat, tmp_path, locale, keys, text):
    terminal = chat(variables=LOCALES[locale])
    send(terminal, keys)
    leave(terminal)
    assert read_history(tmp_path / "history") == [text]


def test_what_is_no_utf8_does_not_end_the_chat(chat, tmp_path):
    terminal = chat()
    send(terminal, b"a\xff\xc3(b\xe6\x97 c\xed\xa0\x80d")
    send(terminal, "after")
    leave(terminal)
    assert read_history(tmp_path / "history") == ["a\ufffd\ufffd(b\ufffd c\ufffd\ufffd\ufffdd", "after"]


def expected_screen(text, columns):
    """The rows a person should see, and where the cursor is behind the mark."""
    screen = Screen(columns).feed(PROMPT)
    cursor = None
    for char in text:
        is_wide = unicodedata.east_asian_width(char) in "WF"
        is_joined = unicodedata.category(char) in ("Mn", "Me", "Cf")
        if char == "\n" or (not is_joined and screen.column + 1 + is_wide > columns):
            screen.feed("\r\n")
        screen.feed("... " if char == "\n" else char)
        if char == "¤":
            cursor = screen.row, screen.column
    if cursor[1] == columns:
        cursor = cursor[0] + 1, 0
    return screen.lines(), cursor


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("keys, text", [
    (["日本語 ", "e\u0301", "שָׁלוֹם "] + ["漢x"] * 50 + [LEFT] * 60 + ["木", BACKSPACE, "¤"],
     "日本語 e\u0301שָׁלוֹם " + "漢x" * 20 + "¤" + "漢x" * 30),
    (["漢x"] * 50 + [HOME, RIGHT, "^", DELETE, "¤"], "漢^¤" + "漢x" * 49),
    (["e\u0301"] * 90 + [BACKSPACE] * 10 + [LEFT] * 3 + ["ü¤"], "e\u0301" * 77 + "ü¤" + "e\u0301" * 3),
    (["a" * 38, "¤"], "a" * 38 + "¤"),
    (["a" * 37, "¤"], "a" * 37 + "¤"),
    (["a" * 38, "b", LEFT, "¤"], "a" * 38 + "¤b"),
    (["a" * 38, "漢", LEFT, BACKSPACE, "¤"], "a" * 37 + "¤漢"),
    ([paste("one\ntwo 漢\n" + "three " * 30), UP, UP, HOME, "1¤"], "1¤one\ntwo 漢\n" + "three " * 30),
    ([paste("one\n\n\ntwo"), UP, UP, "x", DELETE, "¤"], "one\nx¤\ntwo"),
    ([paste("one\ntwo"), "\x15", BACKSPACE, "\x15", "¤"], "¤"),
])
def test_the_screen_shows_what_is_there(chat, columns, keys, text):
    terminal = chat(columns=columns)
    start = len(terminal.all) - len(terminal.seen)
    for key in keys:
        terminal.type(key)
        time.sleep(0.002)  # mostly painted one by one
    terminal.wait_for("¤")
    terminal.wait_until_quiet()
    screen = Screen(columns).feed(PROMPT + terminal.all[start:])
    rows, cursor = expected_screen(text, columns)
    assert [row for row in screen.lines() if row] == [row for row in rows if row]
    assert (screen.row, screen.column) == cursor


def test_a_pasted_text_is_one_question(chat, tmp_path):
    terminal = chat()
    texts = ["def f():\n\treturn 'é'\n\nprint(f())\n", '"""Begins like a block."""\nx = 1', "ends in a backslash \\"]
    send(terminal, paste(texts[0].replace("\n", "\r")))
    send(terminal, "see: " + paste("a\r\nb") + " and c")
    for text in texts[1:]:
        send(terminal, paste(text))
    send(terminal, paste("no \x03 key \x04 of \x1a these \x1c \x07 \033[A \x01 \x7f does \x15 anything"))
    send(terminal, UP * 7)  # the first once more: up goes through the lines of a text, too
    leave(terminal)
    assert read_history(tmp_path / "history") == [
        texts[0], "see: a\nb and c", *texts[1:],
        "no  key  of  these   [A   does  anything", texts[0]]


def test_a_long_text_is_pasted_quickly(chat, tmp_path):
    """100 KB of lines: painted once, not line by line."""
    terminal = chat(kind="long")
    line = "Zeile für Zeile: 日本語 " + "x" * 70 + "\n"
    text = line * (100_000 // len(line.encode()))
    typing = threading.Thread(target=terminal.type, args=(paste(text) + "the end",))
    typing.start()
    terminal.wait_for("the end", seconds=60)
    typing.join()
    assert len(terminal.all) < 20_000, "no more was painted than a few screens"
    terminal.type("\r")
    terminal.wait_for(PROMPT, "Ctrl-C stops", *ENDS, "too long", seconds=60)
    assert read_history(tmp_path / "history") == [text + "the end"]


def test_a_text_of_several_lines(chat, tmp_path):
    terminal = chat()
    terminal.type("one \\\r")
    terminal.wait_for("\n... ")
    send(terminal, "two")
    terminal.type('"""\r')
    terminal.wait_for("\n... ")
    terminal.type("a \\\r")
    terminal.wait_for("\n... ")
    terminal.type("/clear\r")
    terminal.wait_for("\n... ")
    send(terminal, '"""')
    send(terminal, '"""in one line"""')
    terminal.type('"""x\r')
    terminal.wait_for("\n... ")
    send(terminal, 'y"""')
    send(terminal, "with Alt\033\rand Enter")
    leave(terminal)
    assert read_history(tmp_path / "history") == [
        "one \ntwo", "a \\\n/clear", "in one line", "x\ny", "with Alt\nand Enter"]


def test_tab_is_a_tab(chat, tmp_path, monkeypatch):
    (tmp_path / "unique_name_of_a_file").touch()
    monkeypatch.chdir(tmp_path)
    terminal = chat()
    send(terminal, "unique_\tis")
    leave(terminal)
    assert read_history(tmp_path / "history") == ["unique_\tis"]


@pytest.mark.parametrize("term", ["xterm", "dumb", "", None])
def test_its_end_leaves_nothing_on_the_screen(chat, tmp_path, term):
    """Also where the terminal knows nothing: then nothing but text is written, from the progress of loading on."""
    terminal = chat(variables={"TERM": term}, columns=40)
    text = "日本語 é " * 10
    send(terminal, text + LEFT * 3 + "x")
    leave(terminal)
    assert "^D" not in terminal.all and "\x04" not in terminal.all
    assert read_history(tmp_path / "history") == [text[:-3] + "x" + text[-3:]]
    assert ("\033" in terminal.all) == (term == "xterm")


def test_ctrl_d_while_an_answer_streams_is_not_shown(chat):
    terminal = chat("-n", "60000", "--ctx", "70000", kind="long")
    terminal.type("Tell me\r")
    terminal.wait_for(PASTE_OFF)
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.wait_for("cancelled")
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert "^D" not in terminal.all and "^C" not in terminal.all


def test_what_is_typed_while_an_answer_streams_is_kept(chat, tmp_path):
    terminal = chat("-n", "60000", "--ctx", "70000", kind="long")
    terminal.type("Tell me\r")
    terminal.wait_for(PASTE_OFF)
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.wait_for(*ENDS)
    terminal.type("日本 early\r")
    terminal.wait_for(PASTE_OFF)
    time.sleep(0.3)
    terminal.type("\x03")
    terminal.wait_for(*ENDS)
    leave(terminal)
    assert read_history(tmp_path / "history") == ["Tell me", "日本 early"]


def test_what_was_typed_before_ctrl_c_stopped_the_answer_is_kept(chat, tmp_path):
    terminal = chat("-n", "60000", "--ctx", "70000", kind="long")
    terminal.type("Tell me\r")
    terminal.wait_for(PASTE_OFF)
    time.sleep(0.5)
    terminal.type("typed early")
    time.sleep(0.3)
    terminal.type("\x03")
    terminal.wait_for("cancelled")
    terminal.wait_for("typed early")
    terminal.type("\x15")  # Ctrl-U
    leave(terminal)
    assert read_history(tmp_path / "history") == ["Tell me"]


def test_ctrl_c_throws_a_text_of_several_lines_away(chat, tmp_path):
    terminal = chat()
    terminal.type('"""\rsome\rlines')
    terminal.wait_for("lines")
    terminal.type("\x03")
    assert "Ctrl-C again" not in terminal.wait_for("\n" + PROMPT)
    send(terminal, "short")
    terminal.type("\x03")
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for("\n" + PROMPT)
    terminal.type("x")  # not an empty line: the count begins anew
    terminal.wait_for("x")
    terminal.type("\x03")
    assert "Ctrl-C again" not in terminal.wait_for("\n" + PROMPT)
    terminal.type("\x03")  # the second of three
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for("\n" + PROMPT)
    assert terminal.process.poll() is None
    terminal.type("\x03")
    assert terminal.wait() == 0
    assert read_history(tmp_path / "history") == ["short"]


@pytest.mark.parametrize("how", ["ctrl-d", "/quit", "interrupts", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_terminal_is_given_back(runnel, tiny, how):
    """As it was, and without bracketed paste, whatever ends the chat; paste is marked only while a text is read."""
    terminal = Terminal([runnel, "run", "-m", tiny(), "-n", "2"], {"RUNNEL_HISTORY": ""})
    try:
        terminal.wait_for("Type a question.")
        terminal.wait_for(PROMPT)
        assert termios.tcgetattr(terminal.master) != terminal.found_modes
        assert terminal.all.count(PASTE_ON) == 1 and PASTE_OFF not in terminal.all
        terminal.type("Tell me\r")
        terminal.wait_for(*ENDS)
        assert PASTE_OFF in terminal.all
        terminal.wait_for(PROMPT)
        assert terminal.all.rindex(PASTE_ON) > terminal.all.rindex(PASTE_OFF)
        if isinstance(how, signal.Signals):
            terminal.process.send_signal(how)
            assert terminal.wait() == -how
        elif how == "interrupts":
            terminal.type("\x03")
            terminal.wait_for("Ctrl-C again")
            terminal.wait_for(PROMPT)
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.wait() == 0
        else:
            terminal.type("\x04" if how == "ctrl-d" else "/quit\r")
            assert terminal.wait() == 0
        try:
            terminal.wait_until_quiet()
        except OSError:
            pass
        assert terminal.all.count(PASTE_ON) == terminal.all.count(PASTE_OFF) >= 2
        assert terminal.all.rindex(PASTE_OFF) > terminal.all.rindex(PASTE_ON)
        assert termios.tcgetattr(terminal.master) == terminal.found_modes
    finally:
        terminal.close()


def test_it_can_be_stopped_and_goes_on(runnel, tiny, tmp_path):
    """Ctrl-Z in a shell with job control, which a program without one has no use for."""
    script = '"$@"; echo "it was stopped"; read -r go; fg'
    terminal = Terminal(["bash", "--norc", "-mc", script, "bash", runnel, "run", "-m", tiny(), "-n", "2"],
                        {"RUNNEL_HISTORY": str(tmp_path / "history")})
    try:
        terminal.wait_for("Type a question.")
        terminal.wait_for(PROMPT)
        terminal.type("half")
        terminal.wait_for("half")
        terminal.type("\x1a")
        assert PASTE_OFF in terminal.wait_for("it was stopped")
        assert termios.tcgetattr(terminal.master)[3] & termios.ICANON
        terminal.type("go\n")
        terminal.wait_for("> half")
        send(terminal, " and half")
        leave(terminal)
        assert read_history(tmp_path / "history") == ["half and half"]
    finally:
        terminal.close()


def test_the_history_survives(chat, tmp_path):
    state = {"RUNNEL_HISTORY": None, "XDG_STATE_HOME": str(tmp_path / "state")}
    terminal = chat(variables=state)
    send(terminal, paste("two\nlines"))
    send(terminal, "one \\ é 日本")
    send(terminal, UP)  # the same again is one entry
    leave(terminal)
    terminal = chat(variables=state)
    send(terminal, UP * 2 + " more")
    send(terminal, UP * 2 + DOWN + UP * 2 + DOWN * 3 + "unfinished")
    send(terminal, "\x12é 日" + "\x05!")  # searched
    leave(terminal)
    path = tmp_path / "state" / "runnel" / "history"
    assert read_history(path) == ["two\nlines", "one \\ é 日本", "two\nlines more", "unfinished", "one \\ é 日本!"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_history_is_in_the_home_where_nothing_else_is_said(chat, tmp_path):
    terminal = chat(variables={"RUNNEL_HISTORY": None, "HOME": str(tmp_path / "home")})
    send(terminal, "x")
    leave(terminal)
    assert read_history(tmp_path / "home" / ".local" / "state" / "runnel" / "history") == ["x"]


def test_several_chats_share_the_history(chat, tmp_path):
    path = tmp_path / "history"
    path.write_text("old\n" * 1200)
    path.chmod(0o644)
    first, second = chat(), chat()
    assert path.read_text().count("\n") == 1000
    for i in range(3):
        send(first, f"first {i}")
        send(second, f"second {i}")
    leave(first)
    leave(second)
    texts = read_history(path)
    assert len(texts) == 1000 and texts[-7:-6] == ["old"] and texts[-6:] == [f"{who} {i}" for i in range(3) for who in ("first", "second")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    leave(chat())
    assert len(read_history(path)) == 1000 and read_history(path)[-6:] == texts[-6:]


@pytest.mark.parametrize("variables", [
    {"RUNNEL_HISTORY": None, "HOME": None}, {"RUNNEL_HISTORY": None, "HOME": "/proc/nowhere"}, {"RUNNEL_HISTORY": ""},
    {"RUNNEL_HISTORY": "/dev/full"}, {"RUNNEL_HISTORY": "/"}, {"RUNNEL_HISTORY": None, "XDG_STATE_HOME": "/proc"},
])
def test_without_a_history_file_the_chat_is_the_same(chat, variables):
    terminal = chat(variables=variables)
    send(terminal, "one")
    send(terminal, UP)
    leave(terminal)
    assert "history" not in terminal.all.lower()


def test_a_broken_history_file_is_harmless(chat, tmp_path):
    path = tmp_path / "history"
    path.write_bytes(b"good\n\xff\xfe bad\n\0zero\nescape \033[31m \\x \\\nno newline")
    terminal = chat()
    send(terminal, UP * 2 + " first")
    send(terminal, UP * 4)
    leave(terminal)
    assert path.read_bytes().endswith(b"no newline\nescape [31m \\\\x \\\\ first\ngood\n")
