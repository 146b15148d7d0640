"""What convert, quantize, imatrix, eval and logits write: never in the place of what they read, by whatever name; never while another
program writes there; a file has its name only when it is whole; where nothing can be written is told before anything is computed."""
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hf_folders import Shape, make_folder
from plain_model import write_text

FOLDER_FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def run(runnel, *arguments, **options):
    return subprocess.run([runnel, *map(str, arguments)], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(runnel, folder, *arguments, words=()):
    """One line with the words; all files are as before, and there are no others."""
    before = contents(folder)
    done = run(runnel, *arguments)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("runnel: "), done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]  # a slow machine says how far it is
    assert len(lines) == 1 and all(str(word) in lines[0] for word in words), done.stderr
    assert contents(folder) == before


# What is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDER_FILES)
@pytest.mark.parametrize("how", ["itself", "link", "its part"])
def test_convert_leaves_its_folder(runnel, tmp_path, name, how):
    folder, out = tmp_path / "folder", tmp_path / "folder" / name
    make_folder(folder, Shape("qwen2", layers=1))
    if how == "link":
        out = tmp_path / "out.gguf"
        os.link(folder / name, out)
    elif how == "its part":
        out = tmp_path / "out.gguf"
        os.link(folder / name, tmp_path / "out.gguf.part")
    refused(runnel, tmp_path, "convert", folder, out, words=[out, "another file"])


def test_convert_into_its_folder(runnel, tmp_path):
    """Beside what it reads is a place like another, and what it wrote there before is replaced."""
    folder = tmp_path / "folder"
    make_folder(folder, Shape("qwen2", layers=1))
    for _ in range(2):
        assert run(runnel, "convert", folder, folder / "out.gguf").returncode == 0
    assert sorted(contents(folder)) == sorted([*FOLDER_FILES, "out.gguf"])


def test_quantize_leaves_its_source(runnel, tiny, tmp_path):
    source, part = Path(tiny("qwen2", "F32")), tmp_path / "new.gguf.part"
    source.rename(part)
    refused(runnel, tmp_path, "quantize", part, part, "Q8_0", words=["another file"])
    refused(runnel, tmp_path, "quantize", part, tmp_path / "new.gguf", "Q8_0", words=[part, "another file"])
    (tmp_path / "link").symlink_to(part)
    refused(runnel, tmp_path, "quantize", part, tmp_path / "link", "Q8_0", words=["another file"])


def split(runnel, model, stem, n):
    subprocess.run([Path(runnel).parent / "tests" / "split_model", model, stem, str(n)], check=True)
    return [Path(f"{stem}-{i + 1:05}-of-{n:05}.gguf") for i in range(n)]


def test_parts_are_left(runnel, tiny, tmp_path):
    first, second, third = split(runnel, tiny("qwen2", "F32"), tmp_path / "m", 3)
    for part in first, second, third:
        refused(runnel, tmp_path, "quantize", first, part, "Q8_0", words=[part, "another file"])
    (tmp_path / "ids.json").write_text("[1, 2, 3]")
    refused(runnel, tmp_path, "logits", "-m", first, "--ids", tmp_path / "ids.json", "-o", third, words=[third, "another file"])


def test_an_importance_file_is_left(runnel, tiny, tmp_path):
    model, text, importance = tiny("qwen2", "F32"), write_text(tmp_path, 20), tmp_path / "importance.gguf"
    assert run(runnel, "imatrix", "-m", model, "-f", text, "-o", importance, "--ctx", 32).returncode == 0
    refused(runnel, tmp_path, "quantize", model, importance, "Q4_0", "--imatrix", importance, words=[importance, "another file"])


def test_logits_leave_what_they_are_of(runnel, tiny, tmp_path):
    model, ids = tiny(), tmp_path / "ids.json"
    ids.write_text(json.dumps([1, 2, 3]))
    for out in model, ids:
        refused(runnel, tmp_path, "logits", "-m", model, "--ids", ids, "-o", out, words=[out, "another file"])


def test_imatrix_leaves_what_it_reads(runnel, tiny, tmp_path):
    """Told before the model is loaded: what stands there is none."""
    text, parts = write_text(tmp_path, 20), split(runnel, tiny("qwen2", "F32"), tmp_path / "m", 3)
    parts[0].write_bytes(b"GGUF")
    (tmp_path / "link").symlink_to(text)
    for out in text, tmp_path / "link", *parts:
        refused(runnel, tmp_path, "imatrix", "-m", parts[0], "-f", text, "-o", out, words=[out, "another file"])


@pytest.mark.parametrize("command", [["imatrix", "-o"], ["eval", "--write-reference"]])
def test_a_text_or_model_that_is_called_part(runnel, tiny, tmp_path, command):
    name, option = command
    model, text = Path(tiny()), write_text(tmp_path, 20)
    for path in text, model:
        path.rename(f"{path}.part")
        arguments = [Path(f"{at}.part") if at == path else at for at in (model, text)]
        refused(runnel, tmp_path, name, "-m", arguments[0], "-f", arguments[1], option, path, words=[f"{path}.part", "another file"])
        Path(f"{path}.part").rename(path)


@pytest.mark.parametrize("command", ["convert", "quantize", "imatrix", "eval"])
def test_stdout_is_no_place(runnel, tiny, tmp_path, command):
    """`-` is stdout where a command can write there: none of these makes a file of that name."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    model, text = tiny("qwen2", "F32"), write_text(tmp_path, 20)
    before = contents(tmp_path)
    done = run(runnel, *{"convert": ["convert", "folder", "-"], "quantize": ["quantize", model, "-", "Q8_0"],
                         "imatrix": ["imatrix", "-m", model, "-f", text, "-o", "-"],
                         "eval": ["eval", "-m", model, "-f", text, "--write-reference", "-"]}[command], cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("runnel: -: expected the name of a file"), done
    assert contents(tmp_path) == before


# What others write -------------------------------------------------------------------------------------------------


def test_two_writers(runnel, tiny, tmp_path):
    """Another run, or a download, has the file with .part: it is locked."""
    part = tmp_path / "out.gguf.part"
    part.write_bytes(b"of another")
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    model = tiny("qwen2", "F32")
    with open(part, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(runnel, tmp_path, "quantize", model, tmp_path / "out.gguf", "Q8_0", words=[part, "another program"])
        refused(runnel, tmp_path, "convert", tmp_path / "folder", tmp_path / "out.gguf", words=[part, "another program"])
    assert run(runnel, "quantize", model, tmp_path / "out.gguf", "Q8_0").returncode == 0 and not part.exists()


def test_a_part_that_is_a_link(runnel, tiny, tmp_path):
    """What it leads to is nobody's to empty."""
    (tmp_path / "other").write_text("of another")
    (tmp_path / "out.gguf.part").symlink_to(tmp_path / "other")
    refused(runnel, tmp_path, "quantize", tiny("qwen2", "F32"), tmp_path / "out.gguf", "Q8_0", words=["out.gguf.part"])


def test_an_output_that_is_a_link(runnel, tiny, tmp_path):
    """The file comes in its place; what it leads to stays as it was."""
    out, other, model, text = tmp_path / "out", tmp_path / "other", tiny("qwen2", "F32"), write_text(tmp_path, 20)
    (tmp_path / "ids.json").write_text("[1, 2, 3]")
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    for content, arguments in (
        ("of another", ["quantize", model, out, "Q8_0"]), ("of another", ["convert", tmp_path / "folder", out]),
        ("of another", ["logits", "-m", model, "--ids", tmp_path / "ids.json", "-o", out]),
        ("", ["eval", "-m", model, "-f", text, "--ctx", 32, "--write-reference", out]),
        (None, ["imatrix", "-m", model, "-f", text, "--ctx", 32, "-o", out]),  # it leads nowhere: imatrix goes on with a file
    ):
        other.unlink(missing_ok=True)
        out.unlink(missing_ok=True)
        if content is not None:
            other.write_text(content)
        out.symlink_to(other)
        assert run(runnel, *arguments).returncode == 0 and out.is_file() and not out.is_symlink(), arguments
        assert content is None and not other.exists() or other.read_text() == content, arguments


# Whole or not there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_reference_has_its_name_when_it_is_whole(runnel, tiny, tmp_path, how):
    model, text, reference = tiny(), write_text(tmp_path, 4000), tmp_path / "reference"
    reference.write_bytes(b"")  # may be written over
    arguments = [runnel, "eval", "-m", model, "-f", str(text), "--ctx", "64", "--write-reference", str(reference)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part, until = Path(f"{reference}.part"), time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 1 << 20) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(how)
    process.communicate(timeout=120)
    assert process.returncode != 0 and reference.read_bytes() == b""
    assert part.exists() == (how == signal.SIGKILL)
    done = run(runnel, *arguments[1:])
    assert done.returncode == 0 and not part.exists() and reference.stat().st_size > 1 << 20, done.stderr


def test_a_reference_that_is_a_fifo(runnel, tiny, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    refused(runnel, tmp_path, "eval", "-m", tiny(), "--reference", tmp_path / "fifo", words=["fifo", "expected a reference"])


# Where nothing can be written --------------------------------------------------------------------------------------


def places(tmp_path):
    (tmp_path / "file").write_text("")
    return [(tmp_path / "nowhere" / "out", "No such file"), (tmp_path / "file" / "out", "Not a directory"), ("", "an empty one")]


def test_places_that_are_none(runnel, tiny, tmp_path):
    """Told before the model is loaded: what stands there is no model."""
    model, text = tmp_path / "none.gguf", write_text(tmp_path, 20)
    model.write_bytes(b"GGUF")
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    (tmp_path / "folder" / "config.json").write_text("{")
    for out, word in places(tmp_path):
        for arguments in (["quantize", model, out, "Q8_0"], ["convert", tmp_path / "folder", out],
                          ["imatrix", "-m", model, "-f", text, "-o", out], ["eval", "-m", model, "-f", text, "--write-reference", out]):
            if out or arguments[0] != "eval":
                refused(runnel, tmp_path, *arguments, words=[out, word])


def test_imatrix_keeps_what_it_says(runnel, tiny, tmp_path):
    """Nothing is kept if nothing could be written."""
    model, text, out = tiny(), write_text(tmp_path, 200), tmp_path / "out"

    def limit():
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = run(runnel, "imatrix", "-m", model, "-f", text, "-o", out, "--ctx", 32, "--save-every", 2, preexec_fn=limit)
    assert done.returncode == 1 and "cannot write" in done.stderr and "are kept" not in done.stderr, done.stderr
    assert not out.exists()
