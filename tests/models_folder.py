"""The folder of the tests' real models.

The variables that name it and choose what is in it are the tests' own: they are taken out of the environment here, since the
program tells of each RUNNEL_ variable that it does not know."""
import os
from pathlib import Path

import pytest

MODELS = Path(os.environ.pop("RUNNEL_MODELS_DIR", "") or Path(__file__).resolve().parents[1] / "models")
os.environ.pop("RUNNEL_TEST_MODELS", None)


def real_model(name):
    """The path of a real model in the folder of test models; the test is skipped where it is not there."""
    path = MODELS / f"{name}.gguf"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return str(path)
