"""Models in parts (NAME-00001-of-00003.gguf): every command opens them by the first, and by the name that they have in common;
`list` shows one model, `rm` removes all parts."""
import fcntl
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from pulling import gguf_part, part_name

N_PARTS = 3


@pytest.fixture
def parts(runnel, tiny, tmp_path):
    """A model in the folder `here`, whole and in parts: the folder."""
    here = tmp_path / "here"
    here.mkdir()
    whole = Path(tiny())
    tool = Path(runnel).parent / "tests" / "split_model"
    subprocess.run([tool, whole, here / "m", str(N_PARTS)], check=True)
    whole.rename(here / "whole.gguf")
    return here


def run(runnel, parts, *arguments, **options):
    return subprocess.run([runnel, *arguments], cwd=parts, env={**os.environ, "RUNNEL_MODELS": str(parts)}, capture_output=True,
                          timeout=600, **({"stdin": subprocess.DEVNULL} | options if "input" not in options else options))


NAMES = ["m", "m-00001-of-00003", "m-00001-of-00003.gguf", "./m-00001-of-00003.gguf"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_logits(runnel, parts, name):
    (parts / "ids.json").write_text(json.dumps(list(range(3, 40))))
    for model, out in (("whole", "a"), (name, "b")):
        result = run(runnel, parts, "logits", "-m", model, "--ids", "ids.json", "-o", out)
        assert result.returncode == 0, result.stderr
    assert (parts / "a").read_bytes() == (parts / "b").read_bytes() != b""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command, text", [
    (["run", "-p", "once upon a time", "-n", "8", "--seed", "3", "--temp", "0"], None),
    (["tokenize"], b"some words"),
    (["template"], b'{"messages": [{"role": "user", "content": "a"}]}'),
])
def test_the_same_output(runnel, parts, name, command, text):
    options = {"input": text} if text else {}
    expected = run(runnel, parts, command[0], "-m", "whole", *command[1:], **options)
    found = run(runnel, parts, command[0], "-m", name, *command[1:], **options)
    assert expected.returncode == 0 and found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout != b""


def test_inspect_tells_of_the_parts(runnel, parts):
    text = run(runnel, parts, "inspect", "m").stdout.decode()
    n_bytes = sum(path.stat().st_size for path in parts.glob("m-*"))
    assert "in 3 parts" in text and f"({n_bytes} bytes)" in text
    found = json.loads(run(runnel, parts, "inspect", "m", "--json").stdout)
    whole = json.loads(run(runnel, parts, "inspect", "whole", "--json").stdout)
    assert found["parts"] == 3 and whole["parts"] == 1 and found["file_bytes"] == n_bytes
    same = {key: value for key, value in found.items() if key not in ("parts", "path", "file_bytes")}
    assert same == {key: value for key, value in whole.items() if key in same}
    assert "parts" not in run(runnel, parts, "inspect", "whole").stdout.decode()


def test_bench(runnel, parts):
    result = run(runnel, parts, "bench", "-m", "m", "-p", "16", "-n", "4", "-b", "1", "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["decode"]["n"] == 4, result.stderr


def test_serve(runnel, parts):
    """Its name is that which the parts have in common, where the file says none."""
    first = parts / part_name(1, 3)
    first.write_bytes(first.read_bytes().replace(b"general.name", b"general.nama"))
    process = subprocess.Popen([runnel, "serve", "-m", "./m-00001-of-00003.gguf", "--port", "0", "--ctx", "128"], cwd=parts, stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL, text=True, env={**os.environ, "RUNNEL_MODELS": str(parts)})
    try:
        address = next(line.split("http://")[1].split()[0].rstrip("/,.") for line in process.stderr if "http://" in line)
        deadline = time.monotonic() + 60
        while True:
            try:
                models = json.load(urllib.request.urlopen(f"http://{address}/v1/models", timeout=60))
                break
            except urllib.error.HTTPError:  # it is loading
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert models["data"][0]["id"] == "m"
        pids = [process.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        assert len(pids) >= 3  # the keeper and a worker
        open_files = [os.readlink(path) for pid in pids for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists()]
        assert not [path for path in open_files if path.endswith(".gguf")], "a loaded model holds no files"
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.close()
        process.wait(timeout=60)


@pytest.mark.parametrize("command", [["run", "-p", "x"], ["inspect"], ["tokenize"], ["bench"], ["serve", "--port", "0"]])
def test_damage_is_told(runnel, parts, command):
    (parts / part_name(2, 3)).unlink()
    result = run(runnel, parts, command[0], "-m", "m", *command[1:])
    assert result.returncode == 1 and result.stderr.count(b"\n") == 1
    assert b"part 2 of 3: " in result.stderr and b"m-00002-of-00003.gguf: cannot open: No such file" in result.stderr
    result = run(runnel, parts, command[0], "-m", part_name(3, 3), *command[1:])
    assert result.returncode == 1
    assert b"is part 3 of 3; a model is opened by its first part, m-00001-of-00003.gguf" in result.stderr


def test_a_whole_model_of_the_name_comes_first(runnel, parts):
    """And of several in parts that of the fewest."""
    (parts / part_name(1, 2)).write_bytes(b"not a model")
    assert b"m-00001-of-00002.gguf: the header" in run(runnel, parts, "inspect", "m").stderr
    (parts / "m.gguf").write_bytes(b"not a model")
    assert b"/m.gguf: the header" in run(runnel, parts, "inspect", "m").stderr


def test_near_names(runnel, parts):
    (parts / "whole.gguf").unlink()
    for number in (1, 2, 3):
        (parts / part_name(number, 3)).rename(parts / part_name(number, 3, "large-model"))
    result = run(runnel, parts, "inspect", "larg-model")
    assert result.stderr.endswith(b"did you mean large-model?\n")
    assert run(runnel, parts, "inspect", "large-model").returncode == 0


@pytest.mark.parametrize("command", [["run", "-p", "x"], ["inspect"]])
def test_the_first_part_is_missing(runnel, parts, command):
    (parts / part_name(1, 3)).unlink()
    result = run(runnel, parts, command[0], "-m", "m", *command[1:])
    assert result.returncode == 1 and result.stderr.count(b"\n") == 1
    assert b"/m-00001-of-00003.gguf: not there, only other parts of the model are" in result.stderr


# list and rm ---------------------------------------------------------------------------------------------------------

def line_of(result, name):
    lines = [line for line in result.stdout.decode().splitlines() if line[2:].split(" ")[0] == name]
    assert len(lines) == 1, result.stdout
    return lines[0]


def json_of(runnel, parts, name):
    return [model for model in json.loads(run(runnel, parts, "list", "--json").stdout) if model["name"] == name]


def test_list_shows_one_model(runnel, parts):
    n_bytes = sum(path.stat().st_size for path in parts.glob("m-*"))
    result = run(runnel, parts, "list")
    assert line_of(result, "m").startswith("* m ") and line_of(result, "m").endswith(f"in 3 parts: {parts}/{part_name(1, 3)}")
    assert line_of(result, "whole").startswith("* whole ") and "parts" not in line_of(result, "whole")
    [model] = json_of(runnel, parts, "m")
    assert model["complete"] and model["path"] == str(parts / part_name(1, 3)) and model["bytes"] == n_bytes
    assert model["parts"] == 3


def test_list_tells_what_is_missing(runnel, parts):
    (parts / part_name(1, 3)).rename(parts / (part_name(1, 3) + ".part"))
    (parts / (part_name(1, 3) + ".part.from")).write_text("of a server\n")
    (parts / part_name(2, 3)).unlink()
    line = line_of(run(runnel, parts, "list"), "m")
    assert line.startswith(". m ") and f"1 of 3 parts are here: {parts}/{part_name(1, 3)}" in line
    [model] = json_of(runnel, parts, "m")
    assert not model["complete"] and model["path"] is None


def test_list_looks_into_the_parts(runnel, parts):
    """Parts of two models: each is whole, together they are not."""
    (parts / part_name(3, 3)).write_bytes(gguf_part(3, 3))
    line = line_of(run(runnel, parts, "list"), "m")
    assert line.startswith(". m ") and "not a whole file: in 3 parts: " in line
    assert not json_of(runnel, parts, "m")[0]["complete"]


def test_two_counts_are_two_models(runnel, parts):
    for number in (1, 2):
        (parts / part_name(number, 2)).write_bytes(gguf_part(number, 2))
    assert [model["parts"] for model in json_of(runnel, parts, "m")] == [2, 3]
    assert run(runnel, parts, "rm", "m").returncode == 0, "the one that -m would open"
    assert [model["parts"] for model in json_of(runnel, parts, "m")] == [3]


@pytest.mark.parametrize("name", ["m", "m-00001-of-00003", "m-00001-of-00003.gguf"])
def test_rm_removes_all_parts(runnel, parts, name):
    (parts / part_name(2, 3)).rename(parts / (part_name(2, 3) + ".part"))
    (parts / (part_name(2, 3) + ".part.from")).write_text("of a server\n")
    (parts / "m-00001-of-00004.gguf").write_bytes(b"GGUF, of another")
    result = run(runnel, parts, "rm", name)
    assert result.returncode == 0 and b"all parts are removed" in result.stderr, result.stderr
    assert sorted(path.name for path in parts.iterdir()) == ["m-00001-of-00004.gguf", "whole.gguf"]


def test_rm_wants_no_other_part(runnel, parts):
    result = run(runnel, parts, "rm", part_name(2, 3))
    assert result.returncode == 1 and b"no model 'm-00002-of-00003.gguf' is here" in result.stderr
    assert len(list(parts.iterdir())) == 4


@pytest.mark.parametrize("held", [part_name(1, 3), part_name(3, 3), part_name(2, 3) + ".part"])
def test_rm_takes_nothing_from_a_pull(runnel, parts, held):
    if held.endswith(".part"):
        (parts / part_name(2, 3)).rename(parts / held)
    before = sorted(path.name for path in parts.iterdir())
    with (parts / held).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = run(runnel, parts, "rm", "m")
    assert result.returncode == 1 and b"m is being downloaded" in result.stderr
    assert sorted(path.name for path in parts.iterdir()) == before
    assert run(runnel, parts, "rm", "m").returncode == 0
