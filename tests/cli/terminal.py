"""A program on a terminal of its own, to type to and to read from."""
import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """stdin, stdout and stderr are the terminal; Ctrl-C typed into it is a SIGINT to the program, unless that takes keys
    as they are. Variables that are None are not set."""

    def __init__(self, command, variables=None, columns=80, rows=24):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.found_modes = termios.tcgetattr(slave)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        environment = {**os.environ, "TERM": "xterm", "HOME": "/nonexistent", "XDG_STATE_HOME": None,
                       "RUNNEL_HISTORY": None, **(variables or {})}
        environment = {name: value for name, value in environment.items() if value is not None}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal,
                                        env=environment)
        os.close(slave)
        self.seen = ""  # since the last wait_for
        self.all = ""  # ever
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text):
        os.write(self.master, text if isinstance(text, bytes) else text.encode())

    def take(self, read):
        text = self.decoder.decode(read)
        self.seen += text
        self.all += text

    def wait_for(self, *words, seconds=60):
        """Reads until one of words is there; returns all that was read until then. What follows is kept."""
        deadline = time.monotonic() + seconds
        while True:
            for word in words:
                place = self.seen.find(word)
                if place >= 0:
                    before, self.seen = self.seen[:place], self.seen[place + len(word):]
                    return before
            assert time.monotonic() < deadline, f"waited for {words}, found {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    read = os.read(self.master, 65536)
                except OSError:  # Linux's way of saying that the program closed its end
                    read = b""
                assert read, f"waited for {words}, the program ended after {self.seen!r}"
                self.take(read)

    def wait_until_quiet(self, seconds=0.3):
        """Reads until nothing has come for that long."""
        while select.select([self.master], [], [], seconds)[0]:
            self.take(os.read(self.master, 65536))

    def wait(self, seconds=60):
        """Reads what is left; returns the exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the program does not end"
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.take(os.read(self.master, 65536))
                except OSError:
                    pass
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)
