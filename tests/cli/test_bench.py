"""runnel bench: the shape of its reports. How fast a machine under test is, is nobody's business here."""
import json
import re
import subprocess
from pathlib import Path

import pytest

from told import told

SMALL = ("-p", "4,20", "-n", "6", "-b", "1,3", "-t", "2")


def bench(runnel, *args):
    return subprocess.run([runnel, "bench", *args], capture_output=True, text=True, timeout=280)


def test_json(runnel, tiny):
    done = bench(runnel, "-m", tiny(), *SMALL, "--json")
    assert (done.returncode, told(done.stderr)) == (0, "")
    found = json.loads(done.stdout)
    assert set(found) == {"model", "threads", "machine", "prefill", "decode", "batch"}
    assert isinstance(found["model"], str) and found["threads"] == 2
    assert set(found["machine"]) == {"read_gb_s", "int8_gmac_s", "int8_unit", "neighbour"}
    assert re.fullmatch(r"[A-Za-z0-9 -]+", found["machine"].pop("int8_unit"))
    neighbour = found["machine"].pop("neighbour")  # whether this machine has one is nobody's business here
    assert neighbour is None or set(neighbour) == {"sign", "found", "possible"}
    assert set(found["decode"]) == {"n", "tok_s", "gb_s"} and found["decode"]["n"] == 6
    assert [entry["n"] for entry in found["prefill"]] == [4, 20]
    assert [entry["n"] for entry in found["batch"]] == [1, 3]
    for entry in found["prefill"] + found["batch"]:
        assert set(entry) == {"n", "tok_s"}
    for value in (*found["machine"].values(), found["decode"]["tok_s"], found["decode"]["gb_s"],
                  *(entry["tok_s"] for entry in found["prefill"] + found["batch"])):
        assert isinstance(value, float) and value > 0


def test_text(runnel, tiny):
    done = bench(runnel, "-m", tiny("llama"), *SMALL, "--target-ms", "60000")
    assert (done.returncode, told(done.stderr)) == (0, "")
    assert re.search(r"reads [0-9.]+ GB/s and multiplies [0-9]+ GMAC/s \(8 bits, [A-Za-z0-9 -]+\)$", done.stdout, re.M)
    assert "limit" in done.stdout and "reached" in done.stdout
    rows = re.findall(r"^(prefill|decode|batch) +(\d+) +([0-9.]+) +([0-9.]+) +(\d+) % +([0-9.]+)", done.stdout, re.M)
    assert [(row[0], int(row[1])) for row in rows] == [("prefill", 4), ("prefill", 20), ("decode", 6), ("batch", 1),
                                                       ("batch", 3)]
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)
    for work, n, tok_s, _, _, milliseconds in rows:  # to the first token of a prompt; between tokens of a stream
        expected = (1 if work == "decode" else int(n)) / float(tok_s) * 1e3
        assert float(milliseconds) == pytest.approx(expected, rel=0.1, abs=0.1)
    # Everything is faster than a minute a token: the largest batch is recommended.
    assert re.search(r"60000 ms .*--parallel 3 --threads 2", done.stdout)


def test_a_model_s_name_does_not_steer_the_terminal(runnel, tiny):
    path = Path(tiny())
    path.write_bytes(path.read_bytes().replace(b"Tiny random model", b"Tiny\033[2Jdom model"))
    assert bench(runnel, "-m", path, *SMALL, "--repeat", "1").stdout.startswith("Tiny?[2Jdom model, ")


def test_temperature(runnel, tiny):
    done = bench(runnel, "-m", tiny(), *SMALL, "--temp", "0", "--repeat", "1")
    assert done.returncode == 0 and "\ntokens are drawn at temperature 0\n" in done.stdout, done.stderr
    done = bench(runnel, "-m", tiny(), *SMALL, "--temp", "-1")
    assert done.returncode == 2 and "--temp" in done.stderr


def test_depth(runnel, tiny):
    done = bench(runnel, "-m", tiny(), *SMALL, "--depth", "600", "--repeat", "1")
    assert (done.returncode, told(done.stderr)) == (0, "")
    assert "decode starts behind 600 tokens" in done.stdout
    limits = {row[0]: float(row[1]) for row in re.findall(r"^(decode|batch) +\d+ +[0-9.]+ +([0-9.]+)", done.stdout, re.M)[:2]}
    # One stream and a batch of one differ in their depth alone: the cache must be read, too.
    assert limits["decode"] < limits["batch"]


@pytest.mark.parametrize("n", ["1", "2"])
def test_repeat(runnel, tiny, n):
    done = bench(runnel, "-m", tiny(), *SMALL, "--repeat", n, "--json")
    assert (done.returncode, told(done.stderr)) == (0, "")
    found = json.loads(done.stdout)
    assert all(value > 0 for value in (found["machine"]["read_gb_s"], found["machine"]["int8_gmac_s"], found["decode"]["tok_s"]))


@pytest.mark.parametrize("args, name", [
    (["-p", "0"], "--prefill"), (["-p", "1,,2"], "--prefill"), (["-b", "257"], "--batch"), (["-b", "1;2"], "--batch"),
    (["-n", "0"], "--n-tokens"), (["-d", "-1"], "--depth"), (["--shared", "-1"], "--shared"), (["-r", "0"], "--repeat"), (["-r", "101"], "--repeat"),
    (["-t", "x"], "--threads"), (["--target-ms", "0"], "--target-ms"), (["more"], "more"),
    (["-p", ",".join(["1"] * 33)], "--prefill"),
])
def test_wrong_usage(runnel, tiny, args, name):
    done = bench(runnel, "-m", tiny(), *args)
    assert (done.returncode, done.stdout, told(done.stderr).count("\n")) == (2, "", 1) and name in done.stderr


def test_failures(runnel, tiny, tmp_path):
    for args, word in ((["-m", str(tmp_path)], "directory"), (["-m", "missing.gguf"], "missing.gguf"),
                       (["-m", tiny(), "-p", "5000"], "1024"), (["-m", tiny(), "-d", "5000"], "1024"),
                       (["-m", tiny(), "--shared", "5000"], "1024")):  # past the model's context
        done = bench(runnel, *args)
        assert (done.returncode, done.stdout, told(done.stderr).count("\n")) == (1, "", 1) and word in done.stderr
    with open("/dev/full", "wb") as full:
        for args in ((), ("--json",)):
            done = subprocess.run([runnel, "bench", "-m", tiny(), *SMALL, *args], stdout=full, stderr=subprocess.PIPE,
                                  timeout=280)
            assert done.returncode == 1 and b"stdout" in done.stderr


@pytest.mark.parametrize("shared", ["0", "600"])
def test_many_streams(runnel, tiny, shared):
    done = bench(runnel, "-m", tiny("long"), "-p", "4", "-n", "4", "-b", "32,64", "--shared", shared, "--repeat", "1")
    assert (done.returncode, told(done.stderr)) == (0, "")
    assert re.findall(r"^batch +(\d+) +[0-9.]+", done.stdout, re.M) == ["32", "64"]
    assert ("the sequences of a batch begin with the same 600 tokens" in done.stdout) == (shared == "600")
