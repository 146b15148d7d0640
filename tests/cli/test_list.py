"""`runnel list` and `runnel rm`: which models are known, which are here, and removing one."""
import json
import os
import re
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from pulling import MODEL, send_slowly, start_pull, wait_until


@pytest.fixture
def folders(tmp_path):
    """The folder of pulled models, and one in which the program runs and `models` lies."""
    (tmp_path / "pulled").mkdir()
    (tmp_path / "here" / "models").mkdir(parents=True)
    return tmp_path / "pulled", tmp_path / "here" / "models"


@pytest.fixture
def run(runnel, folders):
    def start(*arguments):
        return subprocess.run([runnel, *arguments], env={**os.environ, "RUNNEL_MODELS": str(folders[0])}, text=True,
                              capture_output=True, timeout=60, stdin=subprocess.DEVNULL, cwd=folders[1].parent)

    return start


def fill(path, n_bytes):
    with path.open("wb") as file:
        file.truncate(n_bytes)


def line_of(result, name):
    lines = [line for line in result.stdout.splitlines() if line[2:].split(" ")[0] == name]
    assert len(lines) == 1, result.stdout
    return lines[0]


def test_what_is_here_is_marked(run, folders):
    pulled, here = folders
    fill(pulled / "coder-0.5b.gguf", 491_400_064)
    fill(here / "mine.gguf", 2_500_000_000)
    fill(pulled / "coder-1.5b.gguf.part", 279_330_192)
    fill(pulled / "notes.txt", 10)
    result = run("list")
    assert result.returncode == 0 and result.stderr == ""
    assert line_of(result, "coder-0.5b").startswith("* coder-0.5b") and "491 MB" in line_of(result, "coder-0.5b")
    assert line_of(result, "mine").startswith("* ") and "2.5 GB" in line_of(result, "mine")
    assert line_of(result, "coder-1.5b").startswith(". ") and "25 % has come" in line_of(result, "coder-1.5b")
    assert line_of(result, "r1-1.5b").startswith("  ")
    assert "notes" not in result.stdout and str(pulled) in result.stdout
    long = [line for line in result.stdout.splitlines() if len(line) > 80 and str(pulled.parent) not in line]
    assert not long
    assert run("pull", "--list").stdout == result.stdout


def test_json(run, folders):
    pulled, _ = folders
    fill(pulled / "coder-0.5b.gguf", 1000)
    fill(pulled / "other.gguf.part", 500)
    models = {model["name"]: model for model in json.loads(run("list", "--json").stdout)}
    assert models["coder-0.5b"]["path"] == str(pulled / "coder-0.5b.gguf") and models["coder-0.5b"]["complete"]
    assert models["coder-0.5b"]["bytes"] == 1000 and models["coder-0.5b"]["known"]
    assert models["r1-1.5b"]["path"] is None and not models["r1-1.5b"]["complete"] and models["r1-1.5b"]["bytes"] == 0
    assert models["other"] == {"name": "other", "path": None, "bytes": 500, "memory_bytes": 0, "parts": 1, "complete": False, "known": False, "text": ""}


def test_what_each_needs(run, folders):
    """Weights, a cache for 8192 tokens, work. What needs more than this machine has is marked."""
    result = run("list")
    models = {model["name"]: model for model in json.loads(run("list", "--json").stdout)}
    there = re.search(r"needs: memory for weights, a context of 8192 tokens and work; there are ([\d.]+) GB\.", result.stdout)
    for name, low, high in (("smollm2-135m", 0.35e9, 0.4e9), ("r1-1.5b", 1.4e9, 1.8e9), ("r1-7b", 5.2e9, 6.0e9), ("r1-32b", 22e9, 24e9),
                            ("r1-llama-8b", 6.0e9, 6.9e9), ("r1-llama-70b", 45e9, 47.5e9), ("r1-0528-8b", 6.3e9, 7.0e9)):
        need = models[name]["memory_bytes"]
        assert low < need < high, (name, need)
        said = re.search(r"; needs ([\d.]+) ([MG]B)(, too much)?$", line_of(result, name))
        assert abs(float(said[1]) * {"MB": 1e6, "GB": 1e9}[said[2]] - need) < 0.06 * need
        assert bool(said[3]) == (need > float(there[1]) * 1e9) or abs(need / 1e9 - float(there[1])) < 0.6
    fill(folders[0] / "r1-1.5b.gguf", 3_000_000_000)  # of another type
    here = {model["name"]: model for model in json.loads(run("list", "--json").stdout)}["r1-1.5b"]["memory_bytes"]
    assert here - models["r1-1.5b"]["memory_bytes"] == 1_900_000_000


def test_a_folder_that_is_not_there_yet(run, folders):
    folders[0].rmdir()
    result = run("list")
    assert result.returncode == 0 and "coder-1.5b" in result.stdout


def test_rm(run, folders):
    pulled, here = folders
    for name in ("mine.gguf", "mine.gguf.part", "mine.gguf.part.from", "other.gguf"):
        fill(pulled / name, 1_000_000)
    fill(here / "mine.gguf", 10)
    result = run("rm", "mine")
    assert result.returncode == 0 and str(pulled / "mine.gguf") in result.stderr and "1 MB" in result.stderr
    assert sorted(path.name for path in pulled.iterdir()) == ["other.gguf"]
    assert run("rm", "mine.gguf").returncode == 0, "the next one of this name, as -m would open it"
    assert list(here.iterdir()) == []
    fill(pulled / "half.gguf.part", 10)
    assert run("rm", "half").returncode == 0
    assert [path.name for path in pulled.iterdir()] == ["other.gguf"]


def test_rm_refuses(run, folders, tmp_path):
    pulled, here = folders
    fill(pulled / "other.gguf", 10)
    fill(tmp_path / "outside.gguf", 10)
    result = run("rm", "mine")
    assert result.returncode == 1 and "no model 'mine' is here; there is other" in result.stderr
    for name in ("../../outside", str(tmp_path / "outside.gguf"), "models/other"):
        result = run("rm", name)
        assert result.returncode == 1 and "found a path; the shell's own rm removes a file" in result.stderr, name
    assert run("rm").returncode == 2
    assert (tmp_path / "outside.gguf").exists() and (pulled / "other.gguf").exists()


def test_rm_removes_a_link_and_not_what_it_points_to(run, folders, tmp_path):
    fill(tmp_path / "far.gguf", 10)
    (folders[0] / "link.gguf").symlink_to(tmp_path / "far.gguf")
    assert run("rm", "link").returncode == 0
    assert (tmp_path / "far.gguf").exists() and not (folders[0] / "link.gguf").is_symlink()


@pytest.mark.parametrize("n_bytes, shown", [
    (0, "0 B"), (512, "512 B"), (1_000, "1 kB"), (340_200, "340 kB"), (999_600, "1 MB"), (1_500_000, "1.5 MB"),
    (9_960_000, "10 MB"), (491_400_064, "491 MB"), (999_700_000, "1.0 GB"), (1_117_320_768, "1.1 GB"),
])
def test_sizes(run, folders, n_bytes, shown):
    fill(folders[0] / "mine.gguf", n_bytes)
    assert line_of(run("list"), "mine") == f"* {'mine':14} {shown:>8}  not a GGUF file: {folders[0]}/mine.gguf"
    assert f"removed ({shown})" in run("rm", "mine").stderr


def test_a_size_is_shown_once(run, folders):
    """Of each known model, here or not, and in the same place."""
    for here in (False, True):
        for name, size in (("coder-1.5b", 1_117_320_768), ("r1-1.5b", 1_100_000_000)):
            if here:
                fill(folders[0] / f"{name}.gguf", size)
            line = line_of(run("list"), name)
            said, needs = line.split("; needs ")
            assert said.count("GB") == 1 and line[:25].endswith("1.1 GB"), line
            assert needs == "1.5 GB", line


def test_a_file_without_gguf_at_its_end(run, folders):
    """-m opens it by its name, in both folders; so it is listed and removed by that name."""
    pulled, here = folders
    (pulled / "plain").write_bytes(b"GGUF" + b"\0" * 1996)
    (pulled / "plain.gguf").write_bytes(b"GGUF" + b"\0" * 2996)
    (pulled / "alone.bin").write_bytes(b"GGUF" + b"\0" * 96)
    (pulled / "alone.bin.part").write_bytes(b"GGUF" + b"\0" * 46)
    (pulled / "notes").write_text("no model")
    (here / "elsewhere").write_bytes(b"GGUF" + b"\0" * 96)
    result = run("list")
    assert "notes" not in result.stdout, "it is no model"
    assert line_of(result, "elsewhere").endswith("models/elsewhere")
    assert [line.split()[:4] for line in result.stdout.splitlines() if str(pulled) in line and line[0] in "*."] == [
        ["*", "alone.bin", "100", "B"], [".", "alone.bin", "50", "B"], ["*", "plain", "3", "kB"], ["*", "plain", "2", "kB"]]
    assert run("rm", "plain").returncode == 0 and (pulled / "plain").exists(), "NAME.gguf first, as -m looks for it"
    assert run("rm", "plain.gguf").returncode == 1, "-m plain.gguf does not open plain"
    assert run("rm", "plain", "alone.bin").returncode == 0
    assert [path.name for path in pulled.iterdir()] == ["notes"]
    assert run("rm", "notes").returncode == 1 and (pulled / "notes").exists()


@pytest.mark.parametrize("file", ["gone.gguf", "gone"])
def test_a_link_to_nothing(run, folders, tmp_path, file):
    link = folders[0] / file
    link.symlink_to(tmp_path / "nowhere.gguf")
    result = run("list")
    assert line_of(result, "gone").startswith("! gone") and f"a link to nothing: {link} -> {tmp_path}/nowhere.gguf" in \
        line_of(result, "gone")
    assert "!: a link" in result.stdout
    listed = {model["name"]: model for model in json.loads(run("list", "--json").stdout)}["gone"]
    assert not listed["complete"] and listed["path"] is None and listed["bytes"] == 0
    removed = run("rm", "gone")
    assert removed.returncode == 0 and "the link is removed" in removed.stderr
    assert not link.is_symlink() and "!" not in run("list").stdout


def test_a_known_name_that_is_a_link_to_nothing(run, folders, tmp_path):
    (folders[0] / "r1-1.5b.gguf").symlink_to(tmp_path / "nowhere.gguf")
    assert line_of(run("list"), "r1-1.5b").startswith("! r1-1.5b") and "a link to nothing" in run("list").stdout


def test_rm_leaves_nothing_of_a_pull(run, folders):
    """Neither the package that was coming, nor what stood beside it, with or without a part."""
    pulled, _ = folders
    for name in (".part", ".part.from", ".part.wheel", ".part.wheel.from"):
        fill(pulled / f"one.gguf{name}", 1_000_000)
    fill(pulled / "two.gguf.part.wheel", 2_000_000)
    fill(pulled / "two.gguf.part.wheel.from", 10)
    result = run("list")
    assert line_of(result, "one").startswith(". one") and "2 MB" in line_of(result, "one")
    assert line_of(result, "two").startswith(". two") and "2 MB" in line_of(result, "two")
    assert run("rm", "one", "two").returncode == 0
    assert list(pulled.iterdir()) == []


def test_rm_beside_a_running_pull(run, runnel, server, folders):
    pulled, _ = folders
    part = pulled / "model.gguf.part"
    server.respond = send_slowly
    process = start_pull(runnel, server, pulled, f"{server.url}/model.gguf")
    wait_until(lambda: part.exists() and part.stat().st_size == 200_000, "a part has come")
    fill(pulled / "model.gguf", 10)  # a file of that name, too: it is not taken away from under the pull
    refused = run("rm", "model")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert refused.returncode == 1 and "model is being downloaded" in refused.stderr
    assert part.read_bytes() == MODEL[:200_000] and (pulled / "model.gguf").exists()
    assert run("rm", "model").returncode == 0
    assert list(pulled.iterdir()) == []


def test_rm_takes_several_names(run, folders):
    pulled, _ = folders
    for name in ("one", "two", "three"):
        fill(pulled / f"{name}.gguf", 10)
    result = run("rm", "one", "tree", "two.gguf", "../three")
    assert result.returncode == 1
    assert "no model 'tree' is here; did you mean three?" in result.stderr and "found a path" in result.stderr
    assert [path.name for path in pulled.iterdir()] == ["three.gguf"], "one that is wrong does not keep the others"
    assert "NAME..." in run("rm", "--help").stdout


def test_a_file_that_cannot_be_run_is_told_apart(run, folders, tiny):
    """A vocabulary alone, which tokenize and template open, and what ends before its header says."""
    pulled, here = folders
    model = Path(tiny()).read_bytes()
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<II", 4, 7)
    (here / "words.gguf").write_bytes(header)
    (here / "whole.gguf").write_bytes(model)
    (here / "cut.bin").write_bytes(model[:len(model) // 2])
    (pulled / "smollm2-135m.gguf").write_bytes(header)
    result = run("list")
    assert line_of(result, "words") == f"* {'words':14} {len(header):6} B  vocabulary only: models/words.gguf"
    assert line_of(result, "cut.bin").endswith("  not a whole file: models/cut.bin") and line_of(result, "cut.bin").startswith(". ")
    models = {model["name"]: model for model in json.loads(run("list", "--json").stdout)}
    assert {name: models[name]["complete"] for name in ("words", "whole", "cut.bin")} == {"words": True, "whole": True, "cut.bin": False}
    assert line_of(result, "whole").endswith("B  models/whole.gguf")
    assert "  vocabulary only: SmolLM2" in line_of(result, "smollm2-135m")
    assert "truncated" in run("inspect", "cut.bin").stderr or "expected" in run("inspect", "cut.bin").stderr
    assert run("inspect", "words").returncode == 0


def test_files_that_are_no_models(run, folders, runnel, tiny):
    """`-m NAME` would open none of them; inspect shows what they are."""
    pulled, here = folders
    (here / "text").write_text("the sky is blue because air scatters short waves " * 4)
    done = subprocess.run([runnel, "imatrix", "-m", tiny("qwen2", "F32"), "-f", here / "text", "-o", pulled / "importance.gguf"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (pulled / "junk.gguf").write_bytes(b"ab")
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 12) + b"general.type" + struct.pack("<IQ", 8, 7) + b"adapter"
    (pulled / "more.gguf").write_bytes(header)
    for name, said in (("junk", "not a GGUF file"), ("importance", "importance file"), ("more", "not a model by itself")):
        assert line_of(run("list"), name).endswith(f"  {said}: {pulled}/{name}.gguf"), run("list").stdout


def test_a_name_does_not_command_the_terminal(run, folders):
    (folders[0] / "a\x1b[2Jb\n.gguf").write_bytes(b"GGUF")
    result = run("list")
    assert "\x1b" not in result.stdout and line_of(result, "a?[2Jb?").startswith(". ")


@pytest.mark.parametrize("typed", ["modle", "mode", "MODEL", "mo"])
def test_rm_suggests_the_nearest(run, folders, typed):
    fill(folders[0] / "model.gguf", 10)
    result = run("rm", typed)
    assert result.returncode == 1 and f"no model '{typed}' is here; did you mean model?" in result.stderr
