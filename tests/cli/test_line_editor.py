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

PROMPT, TIMINGS = "> ", "[prompt "
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
    terminal.wait_for(TIMINGS, seconds=seconds)
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
        terminal.wait_for(TIMINGS)
        n_tokens = int(terminal.wait_for(" tokens"))
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
