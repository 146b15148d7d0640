"""Servers for the files of deploy/."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from serving import Serving, make_tiny_model  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The path of a tiny model."""
    return make_tiny_model(tmp_path_factory.mktemp("models"), "qwen2")


@pytest.fixture
def serve(tiny):
    """serve(flags...) starts `runnel serve` on it, ready unless wait=False."""
    servings = []

    def start_serving(*flags, **options):
        servings.append(Serving(tiny, *flags, **options))
        return servings[-1]

    yield start_serving
    for serving in servings:
        serving.stop()
