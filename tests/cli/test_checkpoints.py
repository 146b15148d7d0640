"""Small models of Hugging Face's form (tests/data/checkpoints, made by make_checkpoints.py): converted, and their logits beside those
that transformers computes in F32."""
import json
import shutil

import pytest

import checkpoints

BOUND = 1e-6  # of the mean KL divergence


def test_all_are_there():
    found = sorted(path.name for path in checkpoints.CHECKPOINTS.iterdir())
    assert found == sorted(checkpoints.NAMES), "tests/data/make_checkpoints.py makes them"


@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_logits_are_those_of_transformers(runnel, tmp_path, name):
    """And in steps of 1, 37 and 64 tokens the same bits."""
    reference, model = checkpoints.read_reference(name), tmp_path / "model.gguf"
    checkpoints.convert(runnel, checkpoints.CHECKPOINTS / name, model)
    content = checkpoints.logits(runnel, model, reference.ids)
    mean, others = checkpoints.compare(reference, content)
    assert mean < BOUND, mean
    assert not others, f"another token is likeliest after {others}"
    for chunk in (1, 37, 64):
        assert checkpoints.logits(runnel, model, reference.ids, "--chunk", chunk) == content, f"in steps of {chunk}"


@pytest.mark.parametrize("name", checkpoints.NAMES)
def test_both_forms_of_config(runnel, tmp_path, name):
    """The file is the same, whichever form config.json has."""
    files = []
    for form in ("own", "other"):
        folder = tmp_path / form / name
        shutil.copytree(checkpoints.CHECKPOINTS / name, folder)
        if form == "other":
            config = json.loads((folder / "config.json").read_text())
            other = checkpoints.to_other_form(config)
            assert ("rope_parameters" in config) != ("rope_parameters" in other)
            (folder / "config.json").write_text(json.dumps(other))
        checkpoints.convert(runnel, folder, tmp_path / f"{form}.gguf")
        files.append((tmp_path / f"{form}.gguf").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("name, mistake", checkpoints.MISTAKES)
def test_mistakes_show(runnel, tmp_path, name, mistake):
    """The bound above is one that a reader with this mistake would not pass."""
    reference, model = checkpoints.read_reference(name), tmp_path / "model.gguf"
    checkpoints.spoil(name, mistake, tmp_path / "folder")
    checkpoints.convert(runnel, tmp_path / "folder", model)
    mean, _ = checkpoints.compare(reference, checkpoints.logits(runnel, model, reference.ids))
    assert mean > 20 * BOUND, mean
