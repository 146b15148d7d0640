#!/usr/bin/env python3
"""Makes the pictures of the page for docs/images: light, dark and phone-sized. Not a test.

    build/venv/bin/python tests/web/screenshots.py [FOLDER]

Answers and their times are made up, so that the pictures are the same each time; the dashboard is that of a server with
work to do. What it says about the model is true."""
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from browser import Browser, start_chromium  # noqa: E402
from serving import MODELS, ROOT, Serving, make_tiny_model  # noqa: E402

THOUGHT = """The year is a leap year if it is divisible by 4, but not if it is divisible by 100, unless it is also divisible by 400.

So $1900$ is none and $2000$ is one. In code that is one condition. """

ANSWER = """A year is a **leap year** if 4 divides it, except for full centuries, of which only every fourth is one:

```python
def is_leap(year: int) -> bool:
    \"\"\"The rule of the Gregorian calendar.\"\"\"
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
```

In 400 years that makes

\\[
\\frac{400}{4} - \\frac{400}{100} + \\frac{400}{400} = 97
\\]

leap years, so that a year has $365 + \\frac{97}{400} = 365.2425$ days on average.
"""

TIMINGS = {"cache_n": 16, "prompt_n": 21, "prompt_ms": 312.0, "predicted_n": 288, "predicted_ms": 11842.0,
           "predicted_per_second": 24.3, "queue_ms": 84.0, "stall_ms": 920.0, "thinking_n": 96, "thinking_ms": 3840.0}
QUESTION = "Write a Python function that tells whether a year is a leap year. How long is a year on average?"


def pieces(field, text):
    return [[field, text[i:i + 12]] for i in range(0, len(text), 12)]


def save(browser, folder, name):
    path = Path(folder) / f"{name}.png"
    browser.driver.save_screenshot(str(path))
    print(f"{path}: {path.stat().st_size // 1024} KiB")


def chat(browser, server, folder, name, is_answered=True, **how):
    whole = {"pieces": pieces("reasoning_content", THOUGHT) + pieces("content", ANSWER), "timings": TIMINGS}
    slow = {"pieces": pieces("reasoning_content", THOUGHT * 3), "gapMs": 40}
    browser.open(server.url + "/", **how)
    browser.forget()
    browser.open(server.url + "/", answers=[whole if is_answered else slow], **how)
    browser.ask(QUESTION)
    if is_answered:
        browser.wait_until_answered()
        browser.run("document.querySelector('.times').open = true; document.querySelector('.messages').scrollTop = 1e6")
    else:
        time.sleep(1.6)
    time.sleep(0.3)
    save(browser, folder, name)
    if not is_answered:
        browser.run("document.getElementById('stop').click()")


def calls(browser, server, folder, name, **how):
    """One call that has its result and stands open, and one that waits for it."""
    first = {"pieces": [["content", "Let me look at the forecast."], *call("get_forecast", {"city": "K\u00f6ln", "days": 2})],
             "finishReason": "tool_calls", "timings": TIMINGS}
    second = {"pieces": [*pieces("content", "It will rain, at 6 to 9 \u00b0C: take a **coat**. I note that for you."),
                         *call("add_to_list", {"list": "Travel", "items": ["coat", "umbrella"]})], "finishReason": "tool_calls", "timings": TIMINGS}
    browser.open(server.url + "/", **how)
    browser.forget()
    browser.open(server.url + "/", answers=[first, second], **how)
    browser.ask("What shall I wear in Cologne tomorrow?")
    browser.wait_until_answered()
    browser.find(".results textarea").send_keys('{"rain": true}')
    browser.find(".results button").click()
    browser.wait(lambda: len(browser.find_all(".answer .foot:not([hidden])")) == 2)
    browser.run("document.querySelector('.call').open = true; document.querySelector('.messages').scrollTop = 1e6")
    time.sleep(0.3)
    save(browser, folder, name)


def call(tool, arguments):
    return [["tool_calls", [{"index": 0, "id": "call_1", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments, ensure_ascii=False)}}]]]


def dashboard(browser, server, folder, seconds):
    stopped = threading.Event()

    def work(i):
        while not stopped.is_set():
            server.post("/v1/completions", {"prompt": f"Tell story {i % 3} of the " + "brook " * (20 + 10 * (i % 4)),
                                            "max_tokens": 40 + 17 * i, "ignore_eos": True})
            stopped.wait(0.5 * (i % 5))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    browser.open(server.url + "/#dashboard", dark=True)
    time.sleep(seconds)
    save(browser, folder, "page-dashboard-dark")
    browser.open(server.url + "/#dashboard", width=390, height=844)
    time.sleep(6)
    save(browser, folder, "page-dashboard-phone")
    stopped.set()
    for thread in threads:
        thread.join()


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "images"
    Path(folder).mkdir(parents=True, exist_ok=True)
    real = MODELS / "smollm2-135m.gguf"
    server = Serving(str(real) if real.is_file() else make_tiny_model(tempfile.mkdtemp(), "qwen2"), "--parallel", "6",
                     "--ctx", "2048", kv_mib=64)
    browser = Browser(start_chromium())
    try:
        chat(browser, server, folder, "page-light")
        chat(browser, server, folder, "page-dark", dark=True)
        chat(browser, server, folder, "page-phone", width=390, height=844)
        chat(browser, server, folder, "page-thinking", is_answered=False)
        calls(browser, server, folder, "page-calls")
        dashboard(browser, server, folder, 25)
    finally:
        browser.driver.quit()
        server.stop()


if __name__ == "__main__":
    main()
