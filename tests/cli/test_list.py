"""`runnel list` and `runnel rm`: which models are known, which are here, and removing one."""
import json
import os
import subprocess

import pytest


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
    assert models["other"] == {"name": "other", "path": None, "bytes": 500, "complete": False, "known": False, "text": ""}


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
