"""The command itself: which subcommand is meant, and how help looks."""
import fcntl
import os
import pty
import resource
import struct
import subprocess
import termios

import pytest


def run(runnel, *arguments):
    return subprocess.run([runnel, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("arguments, said", [
    (("srve",), "did you mean serve?"),
    (("help", "rn"), "did you mean run?"),
    (("frobnicate",), "runnel --help lists them"),
    (("x",), "runnel --help lists them"),
    (("ls",), "did you mean list?"), (("chat", "coder-1.5b"), "did you mean run?"), (("remove", "x"), "did you mean rm?"),
    (("delete",), "did you mean rm?"), (("Download",), "did you mean pull?"), (("start",), "did you mean serve?"),
    (("help", "ls"), "did you mean list?"), (("benchmark",), "did you mean bench?"), (("show",), "did you mean inspect?"),
    (("run", "--temperature", "0"), "did you mean --temp?"), (("run", "--max_tokens=5"), "did you mean --n-tokens?"),
    (("serve", "-n", "5"), "unknown option"), (("serve", "--n-tokens", "5"), "did you mean --max-tokens?"),
    (("serve", "--ctx-size", "5"), "did you mean --ctx?"),
    (("-m", "model"), "`runnel run -m ...`"),
])
def test_no_such_command(runnel, arguments, said):
    done = run(runnel, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_help(runnel):
    overview = run(runnel, "help")
    assert overview.returncode == 0 and overview.stderr == "" and "  serve " in overview.stdout
    assert run(runnel, "--help").stdout == overview.stdout
    for arguments in (("help", "--help"), ("help", "help"), ("--help", "-h"), ("version", "--help")):
        assert run(runnel, *arguments).stdout == overview.stdout, arguments
    alone = run(runnel)
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, "", overview.stdout)
    of_serve = run(runnel, "serve", "--help")
    assert run(runnel, "help", "serve").stdout == of_serve.stdout
    assert "\n\nLimits:\n      --limit-concurrency N" in of_serve.stdout
    assert run(runnel, "version").stdout == run(runnel, "--version").stdout


def read_on_terminal(command, n_columns):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, n_columns, 0, 0))
    with subprocess.Popen(command, stdout=slave, stdin=slave) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                text += os.read(master, 65536)
            except OSError:  # Linux's way of saying that the program closed its end
                break
        assert process.wait() == 0
    os.close(master)
    return text.decode().replace("\r\n", "\n")


def test_help_fits_the_terminal(runnel):
    for n_columns, widest in ((70, 70), (80, 80), (200, 100)):
        widths = [len(line) for line in read_on_terminal([runnel, "serve", "--help"], n_columns).splitlines()]
        assert widest - 10 < max(widths) <= widest
    assert max(len(line) for line in run(runnel, "serve", "--help").stdout.splitlines()) <= 80


def test_a_file_over_the_limit_of_sizes_is_an_error(runnel, tiny, tmp_path):
    """Of any command that writes one: no signal ends the process without a word."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))

    model, ids = tiny(), tmp_path / "ids.json"
    ids.write_text("[1, 2, 3]")
    done = subprocess.run([runnel, "logits", "-m", model, "--ids", ids, "-o", tmp_path / "logits"], capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL, preexec_fn=limit)
    assert done.returncode == 1 and "File too large" in done.stderr
