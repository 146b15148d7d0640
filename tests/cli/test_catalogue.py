"""Where pulled models are kept, and how the other commands find them."""
import os
import subprocess

import pytest


def run(runnel, *arguments, folder="/", **environment):
    keep = {name: value for name, value in os.environ.items()
            if name not in ("RUNNEL_MODELS", "XDG_DATA_HOME", "HOME")}
    return subprocess.run([runnel, *arguments], env={**keep, **environment}, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, cwd=folder)


@pytest.mark.parametrize("environment, folder", [
    ({"RUNNEL_MODELS": "/a/models", "XDG_DATA_HOME": "/b", "HOME": "/c"}, "/a/models"),
    ({"XDG_DATA_HOME": "/b", "HOME": "/c"}, "/b/runnel/models"),
    ({"XDG_DATA_HOME": "relative", "HOME": "/c"}, "/c/.local/share/runnel/models"),
    ({"RUNNEL_MODELS": "", "HOME": "/c"}, "/c/.local/share/runnel/models"),
])
def test_folder(runnel, environment, folder):
    result = run(runnel, "pull", "--list", **environment)
    assert result.returncode == 0
    assert result.stdout.endswith(f"Pulled models are kept in {folder}\n")


def test_no_folder(runnel):
    result = run(runnel, "pull", "r1-1.5b")
    assert result.returncode == 2
    assert "RUNNEL_MODELS" in result.stderr


def test_known_but_not_pulled(runnel, tmp_path):
    result = run(runnel, "run", "-m", "coder-0.5b", "-p", "x", RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 1
    assert "runnel pull coder-0.5b" in result.stderr


def test_unknown_name(runnel, tmp_path):
    result = run(runnel, "run", "-m", "no-such-model", "-p", "x", RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 1
    assert "no-such-model" in result.stderr and str(tmp_path) in result.stderr


@pytest.mark.parametrize("name", ["mine", "mine.gguf"])
def test_pulled_model_is_found_by_name(runnel, tmp_path, name):
    (tmp_path / "mine.gguf").write_bytes(b"not a model")
    result = run(runnel, "run", "-m", name, "-p", "x", RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 1
    assert str(tmp_path / "mine.gguf") in result.stderr, "found, opened and refused"


def test_models_of_this_folder_are_found_by_name(runnel, tmp_path):
    """What `make demo` has got: it puts the model into the folder models."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "coder-0.5b.gguf").write_bytes(b"not a model")
    result = run(runnel, "run", "-m", "coder-0.5b", "-p", "x", RUNNEL_MODELS="/nowhere", folder=tmp_path)
    assert result.returncode == 1
    assert "models/coder-0.5b.gguf: the header" in result.stderr, "found, opened and refused"


@pytest.mark.parametrize("command", [("run", "-p", "x"), ("inspect",), ("tokenize",), ("bench",), ("serve", "--port", "0")])
@pytest.mark.parametrize("name", ["mine", "mine.gguf"])
def test_every_command_finds_models_of_this_folder(runnel, tmp_path, command, name):
    (tmp_path / "models").mkdir()
    (tmp_path / "mine").mkdir()  # of the same name, and no model
    (tmp_path / "models" / "mine.gguf").write_bytes(b"not a model")
    for environment in ({"RUNNEL_MODELS": "/nowhere"}, {}):
        result = run(runnel, *command, "-m", name, folder=tmp_path, **environment)
        assert result.returncode == 1
        assert "models/mine.gguf: the header" in result.stderr, "found, opened and refused"


@pytest.mark.parametrize("name, nearest", [
    ("codr-1.5b", "coder-1.5b"),  # known
    ("Coder-1.5B.gguf", "coder-1.5b"),
    ("smollm2", "smollm2-135m"),  # the beginning of one
    ("my-own-model-with-quite-a-long-name-q4_k", "My-own-model-with-quite-a-long-name-Q4_K"),  # pulled
    ("here-2", "here-1"),  # in models
])
def test_the_nearest_name_is_suggested(runnel, tmp_path, name, nearest):
    (tmp_path / "models").mkdir()
    (tmp_path / "My-own-model-with-quite-a-long-name-Q4_K.gguf").write_bytes(b"")
    (tmp_path / "models" / "here-1.gguf").write_bytes(b"")
    result = run(runnel, "run", "-m", name, "-p", "x", folder=tmp_path, RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert f"'{name}'" in result.stderr and result.stderr.endswith(f"did you mean {nearest}?\n")


@pytest.mark.parametrize("name", ["zebra", "x", "", "models", "a" * 300])
def test_nothing_is_suggested_that_is_far(runnel, tmp_path, name):
    result = run(runnel, "run", "-m", name, "-p", "x", folder=tmp_path, RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 1
    assert f"'{name[:80]}" in result.stderr and "`runnel list` shows the names" in result.stderr


def test_what_cannot_be_opened_is_not_suggested(runnel, tmp_path):
    """A link to nothing, one to itself and a folder have the name that was asked for: it is not told once more."""
    (tmp_path / "dead.gguf").symlink_to("nowhere")
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for name in "dead", "loop", "folder":
        result = run(runnel, "inspect", "-m", name, folder=tmp_path, RUNNEL_MODELS=str(tmp_path))
        assert result.returncode == 1 and f"'{name}'" in result.stderr and "did you mean" not in result.stderr, result.stderr


def test_pull_suggests_a_name(runnel, tmp_path):
    result = run(runnel, "pull", "codr-1.5b", RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 2 and "did you mean coder-1.5b?" in result.stderr


def test_path_is_a_path(runnel, tmp_path):
    """What has a slash is never looked for among the pulled models."""
    (tmp_path / "mine.gguf").write_bytes(b"not a model")
    result = run(runnel, "run", "-m", "./mine", "-p", "x", RUNNEL_MODELS=str(tmp_path))
    assert result.returncode == 1
    assert "./mine" in result.stderr and str(tmp_path) not in result.stderr


@pytest.mark.parametrize("name", ["other", "other.gguf"])
def test_a_file_of_this_folder_by_its_whole_name(runnel, tmp_path, name):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.gguf").write_bytes(b"not a model")
    result = subprocess.run([runnel, "run", name, "-p", "x"], capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL,
                            env={**os.environ, "RUNNEL_MODELS": str(tmp_path / "nowhere")})
    assert "models/other.gguf" in result.stderr and "expected a file or the name" not in result.stderr


@pytest.mark.parametrize("name, near", [("smollm", "smollm2-135m"), ("Coder-0.5B", "coder-0.5b"), ("othr", "other"), ("nothing-like-it", None)])
def test_near_names_are_told(runnel, tmp_path, name, near):
    (tmp_path / "other.gguf").write_bytes(b"")
    result = subprocess.run([runnel, "inspect", name], capture_output=True, text=True, cwd=tmp_path,
                            env={**os.environ, "RUNNEL_MODELS": str(tmp_path)})
    assert result.returncode == 1
    assert (f"did you mean {near}?" in result.stderr) if near else ("did you mean" not in result.stderr), result.stderr
