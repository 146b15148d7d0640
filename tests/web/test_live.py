"""The page and the server together: a real answer as it streams, and the dashboard."""
import re
import time

from selenium.webdriver.common.keys import Keys


def open_afresh(browser, server):
    browser.open(server.url + "/")
    browser.forget()
    browser.open(server.url + "/")
    browser.complaints()


def grew(sizes):
    """Piece by piece; marks of Markdown vanish when they are complete."""
    return len(sizes) >= 3 and all(after > before - 12 for before, after in zip(sizes, sizes[1:])) and sizes[-1] > sizes[0]


def sizes_until_answered(browser, selector):
    """The lengths that a text had until its answer was complete."""
    sizes = []
    while not browser.find_all(".answer .foot:not([hidden])"):
        size = len(browser.text(selector).strip())
        if size and size not in sizes:
            sizes.append(size)
        time.sleep(0.02)
    assert not browser.text(".note.error"), browser.text(".note.error")
    return sizes


def test_a_question_streams_and_the_dashboard_tells(browser, real_server):
    open_afresh(browser, real_server)
    browser.run("localStorage.setItem('runnel.settings', JSON.stringify({max_tokens: 120}))")
    browser.ask("Tell me about the history of bread.")
    sizes = sizes_until_answered(browser, ".answer > .text")
    assert grew(sizes), sizes
    assert re.fullmatch(r"\d+\.\d tokens a second, .* in all", browser.text(".times .speed"))

    # A long one, seen on the dashboard while it runs, then stopped: the server gives up its work.
    browser.run("localStorage.setItem('runnel.settings', JSON.stringify({max_tokens: 900}))")
    browser.ask("Write a long story about a baker.")
    browser.wait(lambda: len(browser.find_all(".answer")) == 2 and browser.text(".answer > .text").strip(), 120)
    browser.find("#tab-dashboard").click()
    browser.wait(lambda: browser.text("#tile-running .value") == "1", 20)
    browser.find("#tab-chat").click()
    assert browser.is_shown("#stop"), "it ended before it could be stopped"
    browser.find("#stop").click()
    browser.wait(lambda: browser.text(".answer .note") == "Stopped.")
    real_server.wait_until_idle()
    # And again.
    browser.find_all(".retry")[-1].click()
    browser.wait(lambda: browser.is_shown("#stop") and browser.text(".answer > .text").strip(), 120)
    browser.press(Keys.ESCAPE)
    browser.wait(lambda: browser.is_shown("#send"))
    real_server.wait_until_idle()

    browser.find("#tab-dashboard").click()
    browser.wait(lambda: browser.text("#tile-running .value") == "0")
    values = {tile: browser.text(f"#tile-{tile} .value") for tile in
              ("waiting", "first-50", "first-95", "gap-50", "gap-95", "gap-99", "pages", "memory", "breaker", "cache")}
    assert values["waiting"] == "0" and values["breaker"] == "closed"
    for tile in ("first-50", "first-95", "gap-50", "gap-95", "gap-99"):
        assert re.fullmatch(r"[\d.]+ m?s", values[tile]), values
    for tile in ("pages", "memory", "cache"):
        assert re.fullmatch(r"[\d.]+ %", values[tile]), values
    assert browser.run("return document.querySelectorAll('.chart .line[d]').length") == 11
    assert "baker" not in browser.text("#view-dashboard")
    assert browser.complaints(but=["/props"]) == []


def test_thoughts_stream_and_a_budget_ends_them(browser, thinking_server):
    """The Coder's weights are no thinker: some of its thoughts are blank lines, so it may try again."""
    open_afresh(browser, thinking_server)
    browser.run("localStorage.setItem('runnel.settings', JSON.stringify({max_tokens: 60, thinking_budget_tokens: 30}))")
    browser.ask("List ten animals.")
    sizes = sizes_until_answered(browser, ".thoughts .text")
    for _ in range(5):
        if len(sizes) >= 3:
            break
        browser.find(".retry").click()
        sizes = sizes_until_answered(browser, ".thoughts .text")
    assert grew(sizes), sizes
    assert browser.text(".thoughts .title").startswith("Thought for")
    n = int(browser.text(".thoughts .count").split()[0])
    assert 3 <= n <= 34, "the budget, and the mark that ends the thought"
    assert browser.complaints(but=["/props"]) == []


def test_a_server_with_a_key(browser, locked_server):
    open_afresh(browser, locked_server)
    browser.wait(lambda: "API key" in browser.text("#notice"), what="it says so before anybody has typed a question")
    browser.run("localStorage.setItem('runnel.settings', JSON.stringify({max_tokens: 5}))")
    browser.ask("Hello")
    browser.wait(lambda: "API key" in browser.text(".note.error"))
    browser.find("#notice button").click()
    browser.press("wrong", Keys.ENTER)
    browser.wait(lambda: browser.is_shown("#notice"))
    browser.find("#notice button").click()
    browser.find("[name=key]").clear()
    browser.find("[name=key]").send_keys(locked_server.key, Keys.ENTER)
    browser.wait(lambda: browser.is_shown("#send") and browser.find_all(".answer .times"))
    assert len(browser.find_all(".question")) == 1, "the question that was refused is asked again"
    assert not browser.is_shown("#notice") and not browser.find_all(".note.error")
    browser.find("#tab-dashboard").click()
    browser.wait(lambda: browser.text("#tile-running .value") == "0")
    browser.forget()


def test_the_dashboard_asks_only_while_it_is_seen(page, tiny_server):
    browser = page()
    asked = "return performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('/metrics')).length"
    assert browser.run(asked) == 0
    browser.find("#tab-dashboard").click()
    browser.wait(lambda: browser.run(asked) >= 2)
    browser.find("#tab-chat").click()
    time.sleep(0.3)
    n = browser.run(asked)
    time.sleep(2)
    assert browser.run(asked) == n


def test_figures_of_the_dashboard(page):
    """The reader of Prometheus' text and its percentiles, against figures known by hand."""
    browser = page()
    result = browser.driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        const text = n => `# HELP x y
x_bucket{model_name="a \\\\"b\\\\", {c}",le="0.1"} ${n}
x_bucket{model_name="a",le="1"} ${2 * n}
x_bucket{model_name="a",le="+Inf"} ${2 * n + 1}
c_total{a="1",b="2"} ${n * 10}
c_total{a="2",b="2"} 5
plain 1.5e3
`;
        import("/web/metrics.js").then(({Reading, quantile, rate}) => {
            const before = new Reading(text(10), 0), now = new Reading(text(20), 2000);
            done([quantile("x", 0.5, null, now), quantile("x", 0.5, before, now), quantile("x", 0.25, before, now),
                  quantile("x", 1, null, now), quantile("nothing", 0.5, null, now) ?? null, quantile("x", 0.5, now, now) ?? null,
                  rate("c_total", before, now), now.value("c_total", {a: "1"}), now.value("c_total"), now.value("plain"),
                  rate("c_total", now, new Reading(text(1), 3000))]);
        }, error => done(String(error)));""")
    assert [round(value, 4) if isinstance(value, float) else value for value in result] == [
        0.1225, 0.1, 0.05, 1, None, None, 50, 200, 205, 1500, 0]
