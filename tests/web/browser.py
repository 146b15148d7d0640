"""A headless Chromium that looks at the page, and what it complained about."""
import json
import shutil
import time

import pytest

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")

# Answers /v1/chat/completions in place of the server: window.pieces are [field, text] or {event}, one a `gapMs`. Of one that may be
# controlled, `control` is what /v1/chat/completions/control answers, after `controlMs`: {status} refuses, success ends the thought.
FAKE_CHAT = """
const realFetch = window.fetch;
window.violations = [];
document.addEventListener("securitypolicyviolation", event => window.violations.push(
    `${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
window.requests = [];
window.controls = [];
window.fetch = async (path, options = {}) => {
    if (window.answers && path === "/v1/chat/completions/control") {
        const {control = {success: true, message: ""}, controlMs = 0} = window.running;
        window.controls.push({body: JSON.parse(options.body), headers: {...options.headers}});
        await new Promise(done => setTimeout(done, controlMs));
        window.running.isThoughtEnded = control.success;
        return new Response(JSON.stringify(control.status ? {error: {message: control.message}} : control), {status: control.status ?? 200});
    }
    if (!window.answers || path !== "/v1/chat/completions")
        return realFetch(path, options);
    window.requests.push({body: JSON.parse(options.body), headers: {...options.headers}});
    const answer = window.answers.length > 1 ? window.answers.shift() : window.answers[0];
    if (answer.status)
        return new Response(JSON.stringify({error: {message: answer.message ?? "no", code: answer.status}}),
                            {status: answer.status, headers: answer.headers ?? {}});
    const encoder = new TextEncoder();
    const id = `chatcmpl-${window.requests.length}`;
    window.running = answer;
    return new Response(new ReadableStream({
        async start(controller) {
            const send = data => controller.enqueue(encoder.encode(`data: ${data}\\n\\n`));
            const wait = ms => new Promise(done => setTimeout(done, ms));
            let aborted = false;
            options.signal?.addEventListener("abort", () => {
                aborted = true;
                controller.error(new DOMException("stopped", "AbortError"));
            });
            let n = 0;
            for (const [field, text] of answer.pieces) {
                if (answer.gapMs || n++ % 50 === 0)
                    await wait(answer.gapMs ?? 0);
                if (aborted)
                    return;
                if (answer.isThoughtEnded && field === "reasoning_content")
                    continue;
                send(JSON.stringify({id, choices: [{index: 0, delta: {[field]: text}, finish_reason: null}]}));
            }
            if (answer.lost)
                return controller.close();
            send(JSON.stringify({choices: [{index: 0, delta: {}, finish_reason: answer.finishReason ?? "stop"}],
                                 timings: answer.timings, ...answer.fields}));
            send("[DONE]");
            controller.close();
        },
    }), {status: 200, headers: {"Content-Type": "text/event-stream"}});
};
"""


def start_chromium():
    """A selenium driver; the test is skipped, and says so, where Chromium or its driver is not installed."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium or chromedriver is not installed (packages.txt, [test-web])")
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
                     "--no-first-run", "--disable-background-networking", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


class Browser:
    """One tab. `complaints` are what the console has said since it was last asked."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, width=1280, height=860, dark=False, scale=1, answers=None):
        if script := getattr(self.driver, "runnel_script", None):
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})
        fake = f"window.answers = {json.dumps(answers)};" + FAKE_CHAT
        self.driver.runnel_script = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument",
                                                               {"source": fake})["identifier"]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600})
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        self.driver.get("about:blank")
        self.driver.get(url)
        self.wait(lambda: self.run("return document.getElementById('model').textContent"))

    def forget(self):
        self.run("localStorage.clear(); sessionStorage.clear()")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def click_moving(self, selector):
        """What text that still grows pushes along: a pointer may miss it."""
        self.run("arguments[0].click()", self.find(selector))

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        """Of the last one that fits; also if it is not shown. '' if none fits."""
        return self.run("return [...document.querySelectorAll(arguments[0])].at(-1)?.textContent ?? ''", selector)

    def is_shown(self, selector):
        return bool(self.run("return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector))

    def focused(self):
        return self.run("return document.activeElement.id")

    def press(self, *keys):
        """Keys to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def ask(self, text):
        from selenium.webdriver.common.keys import Keys
        self.find("#question").send_keys(text, Keys.ENTER)

    def wait(self, condition, timeout=30, what=None):
        """Until condition() is true; its value."""
        end = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, what or self.text("#messages")
            time.sleep(0.02)

    def wait_until_answered(self, timeout=120):
        self.wait(lambda: self.is_shown("#send") and self.find_all(".answer .foot:not([hidden])"), timeout)

    def complaints(self, but=()):
        """Console errors and broken rules of the Content-Security-Policy, but those that contain one of these texts."""
        entries = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        entries += self.run("const all = window.violations; window.violations = []; return all")
        return [entry for entry in entries if not any(text in entry for text in but)]

    def widest(self):
        """How far the page reaches past the right border, in pixels."""
        return self.run("return document.documentElement.scrollWidth - window.innerWidth")
