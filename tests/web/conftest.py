"""The page as Chromium sees it. One browser and one server of the made-up model for all tests of a file."""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from browser import Browser, start_chromium  # noqa: E402
from serving import ROOT, Serving, make_tiny_model  # noqa: E402


@pytest.fixture(scope="session")
def driver():
    driver = start_chromium()
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver):
    return Browser(driver)


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("models"), "qwen2"))
    yield serving
    serving.stop()


@pytest.fixture(scope="session")
def thinking_server():
    """R1's template over real weights where that file is, else SmolLM2, which does not think. (server, thinks)"""
    folder = Path(os.environ.get("RUNNEL_MODELS_DIR", ROOT / "models"))
    for name, thinks in (("r1-coder-1.5b", True), ("smollm2-135m", False)):
        if (folder / f"{name}.gguf").is_file():
            serving = Serving(str(folder / f"{name}.gguf"), "--ctx", "1024", kv_mib=64)
            yield serving, thinks
            serving.stop()
            return
    pytest.skip(f"no real model in {folder}")


@pytest.fixture
def page(browser, tiny_server):
    """page(answers, **how) opens the page, with these answers in place of the server's, and nothing kept from before."""

    def open_page(answers=None, **how):
        browser.open(tiny_server.url + "/", **how)
        browser.forget()
        browser.open(tiny_server.url + "/", answers=answers, **how)
        browser.complaints()
        return browser

    return open_page
