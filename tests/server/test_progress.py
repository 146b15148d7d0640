"""return_progress: streams tell how much of the prompt is computed, as llama-server's do, before the first text."""
import json

import pytest
from serving import Serving, make_tiny_model

BATCH = 32
TEXT = "All work and no play makes a long prompt. " * 12
CHAT, COMPLETIONS, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
FIELDS = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "r1"), "--ctx", "2000", "--parallel", "4",
                      "--batch", str(BATCH))
    yield serving
    serving.stop()


def body_of(path, text, **fields):
    prompt = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}
    return {**FIELDS, **prompt, **fields}


def stream(server, path, text, **fields):
    """The events of a stream as they come, without [DONE]."""
    status, headers, data = server.post(path, body_of(path, text, stream=True, **fields))
    assert status == 200 and headers.get_content_type() == "text/event-stream", data
    events = [event.removeprefix("data: ") for event in data.decode().split("\n\n") if event.startswith("data: ")]
    return [json.loads(event) for event in events if event != "[DONE]"]


def index_of(event):
    return event["index"] if "index" in event else event["choices"][0]["index"]


def check_progress(events):
    """The progress that one choice's events tell."""
    told = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert len(told) >= 2
    for progress in told:
        assert set(progress) == {"total", "cache", "processed", "time_ms"}
        assert all(type(value) is int and value >= 0 for value in progress.values())
        assert progress["total"] == told[0]["total"] and progress["cache"] <= progress["processed"] <= progress["total"]
    processed = [progress["processed"] for progress in told]
    assert processed == sorted(set(processed)) and processed[-1] == told[0]["total"]
    times = [progress["time_ms"] for progress in told]
    assert times == sorted(times)
    places = [place for place, event in enumerate(events) if "prompt_progress" in event]
    role = int("choices" in events[0] and "role" in events[0]["choices"][0].get("delta", {}))
    assert places == list(range(role, role + len(places)))  # before all text
    return told


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, NATIVE])
def test_it_comes_while_the_prompt_is_computed(server, path):
    text = path + TEXT  # nothing of it is in the cache
    with server.on_one_connection():
        check_while_it_is_computed(server, path, text)


def check_while_it_is_computed(server, path, text):
    events = stream(server, path, text, return_progress=True, **({} if path == NATIVE else {"stream_options": {"include_usage": True}}))
    told = check_progress([event for event in events if event.get("choices") != []])
    assert told[0]["processed"] == told[0]["cache"] <= BATCH
    assert len(told) > (told[0]["total"] - told[0]["cache"]) // BATCH
    total = events[-1]["tokens_evaluated"] if path == NATIVE else events[-1]["usage"]["prompt_tokens"]
    assert total == told[0]["total"] > 3 * BATCH
    for event in events:
        if "prompt_progress" not in event:
            continue
        if path == NATIVE:
            assert event["content"] == "" and event["tokens"] == [] and event["stop"] is False and event["index"] == 0
            continue
        (choice,) = event["choices"]
        assert choice["finish_reason"] is None and choice["index"] == 0
        assert choice["delta"] == {} if path == CHAT else choice["text"] == ""
        assert event["id"] == events[-1]["id"] and event["object"] == events[-1]["object"]
    again = check_progress(stream(server, path, text, return_progress=True))
    assert again[0]["cache"] == again[0]["processed"] > told[0]["total"] // 2


@pytest.mark.parametrize("fields", [{}, {"reasoning_format": "none"}, {"reasoning_format": "deepseek-legacy"}, {"logprobs": True}],
                         ids=json.dumps)
def test_the_answer_is_the_same(server, fields):
    def deltas(**more):
        events = stream(server, CHAT, TEXT, **fields, **more)
        return [event["choices"][0] for event in events if "prompt_progress" not in event]

    plain = deltas()
    assert deltas(return_progress=True) == plain
    if fields.get("reasoning_format"):
        assert any((choice["delta"].get("content") or "").startswith("<think>\n") for choice in plain)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, NATIVE])
def test_each_choice_tells_its_own(server, path):
    events = stream(server, path, "two" + path + TEXT, n=2, return_progress=True)
    for index in range(2):
        check_progress([event for event in events if index_of(event) == index])


def test_a_prompt_that_is_only_computed(server):
    events = stream(server, NATIVE, "only" + TEXT, return_progress=True, n_predict=0, max_tokens=None)
    check_progress(events)
    assert events[-1]["stop"] is True and len(events) == sum("prompt_progress" in event for event in events) + 1


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, NATIVE])
def test_it_is_told_only_to_who_asks(server, path):
    assert not any("prompt_progress" in event for event in stream(server, path, "no" + path + TEXT))
    for value in (False, None):
        assert not any("prompt_progress" in event for event in stream(server, path, "no" + TEXT, return_progress=value))
    plain = server.post(path, body_of(path, TEXT))[2]
    status, _, whole = server.post(path, body_of(path, TEXT, return_progress=True))  # without stream it changes nothing
    assert status == 200 and set(whole) == set(plain)
    assert (whole["content"] == plain["content"]) if path == NATIVE else (whole["choices"] == plain["choices"])


def test_what_is_refused(server):
    for path in (CHAT, COMPLETIONS, NATIVE):
        status, _, answer = server.post(path, body_of(path, "a", stream=True, return_progress=1))
        assert status == 400 and answer["error"]["param"] == "return_progress"
    status, _, answer = server.post("/generate", {"prompt": "a", "return_progress": True})
    assert status == 400 and answer["error"]["param"] == "return_progress"
