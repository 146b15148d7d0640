"""The page and the server together: a real answer as it streams, and the dashboard."""
import re
import time

from selenium.webdriver.common.keys import Keys


def test_a_question_streams_and_the_dashboard_tells(browser, thinking_server):
    server, thinks = thinking_server
    browser.open(server.url + "/")
    browser.forget()
    browser.open(server.url + "/")
    browser.complaints()
    part = ".thoughts .text" if thinks else ".answer > .text"
    browser.run("localStorage.setItem('runnel.settings', JSON.stringify({max_tokens: 100}))")
    browser.ask("Write a C function that counts the bits of a number, and explain each line of it.")
    sizes = set()

    def grows():
        assert not browser.text(".note.error"), browser.text(".note.error")
        sizes.add(len(browser.text(part)))
        return len(sizes) >= 5

    def has_begun():
        return bool(browser.text(".thoughts .count" if thinks else part).strip())

    browser.wait(grows, 120)
    if thinks:
        assert browser.text(".thoughts .title").startswith("Thinking")
    # What runs is on the dashboard, while it runs.
    browser.find("#tab-dashboard").click()
    browser.wait(lambda: browser.text("#tile-running .value") == "1" or not browser.is_shown("#tile-running"), 20,
                 browser.text("#tile-running"))
    browser.find("#tab-chat").click()
    browser.wait_until_answered(300)
    assert browser.text(".answer > .text").strip() or browser.text(".thoughts .text").strip()
    assert re.fullmatch(r"\d+\.\d tokens a second, .* in all", browser.text(".times .speed"))

    # Another one, stopped; the server gives up its work.
    browser.run("localStorage.removeItem('runnel.settings')")
    browser.ask("Write the same in Python, Rust, Go, Java and Perl.")
    browser.wait(lambda: len(browser.find_all(".answer")) == 2 and has_begun(), 120)
    browser.find("#stop").click()
    browser.wait_until_answered()
    assert browser.text(".answer .note") == "Stopped."
    server.wait_until_idle()
    # And again.
    browser.find_all(".retry")[-1].click()
    browser.wait(lambda: browser.is_shown("#stop") and has_begun(), 120)
    browser.press(Keys.ESCAPE)
    browser.wait_until_answered()
    server.wait_until_idle()

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
    assert "Write" not in browser.text("#view-dashboard")
    assert browser.complaints(but=["/props"]) == []


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
