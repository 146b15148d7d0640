"""The page as Chromium sees it. One browser and one server of the made-up model for all tests of a file."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from browser import Browser, start_chromium  # noqa: E402
from serving import Serving, make_tiny_model, real_model  # noqa: E402


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
def locked_server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("locked"), "qwen2"), "--api-key", "key-of-a-test")
    serving.key = "key-of-a-test"
    yield serving
    serving.stop()


@pytest.fixture(scope="session")
def real_server():
    """SmolLM2: quick, and it does not think."""
    serving = Serving(real_model("smollm2-135m"), "--ctx", "1024", kv_mib=64)
    yield serving
    serving.stop()


@pytest.fixture(scope="session")
def thinking_server():
    """R1's template over the weights of the Coder."""
    serving = Serving(real_model("r1-coder-1.5b"), "--ctx", "1024", kv_mib=64)
    yield serving
    serving.stop()


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
