"""Answers that are kept to a schema, a pattern, a grammar or one of some texts, under the names that clients have for it: a tiny
model says at random whatever it may."""
import http.client
import json
import re
import threading
import time
from typing import Literal

import openai
import pytest
from pydantic import BaseModel, Field
from serving import BY_THEN, ONE_WORKER, SANITIZED, SLOW, Serving, make_tiny_model

MESSAGES = [{"role": "user", "content": "Where is it?"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "to": {"enum": ["x", "yy"]},
                                           "share": {"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 1}},
          "required": ["n", "to", "share"], "additionalProperties": False}
GRAMMAR = 'root ::= ("<" root ">" | "o"){1,1} # one\n'


class Place(BaseModel):
    n: int = Field(ge=0, le=99)
    to: Literal["x", "yy"]


class Server(Serving):
    def __init__(self, model, *flags):
        super().__init__(model, "--ctx", "2000", "--parallel", "4", *flags, kv_mib=64)
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120 * SLOW)

    def chat(self, **fields):
        fields = {"model": "any", "messages": MESSAGES, "temperature": 2, "max_tokens": 800, "seed": 3, **fields}
        return self.client.chat.completions.create(**fields)

    def text(self, path, **fields):
        """What a route answers."""
        asked = {"messages": MESSAGES} if "chat" in path else {"prompt": "a"}
        status, _, answer = self.post(path, {**asked, "temperature": 2, "max_tokens": 800, **fields})
        assert status == 200, answer
        if path in ("/completion", "/generate"):
            return answer["content" if path == "/completion" else "response"]
        (choice,) = answer["choices"]
        return choice["message"]["content"] if "chat" in path else choice["text"]


ROUTES = ["/v1/chat/completions", "/v1/completions", "/completion", "/generate"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(make_tiny_model(tmp_path_factory.mktemp("model"), "qwen2"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def r1(tmp_path_factory):
    server = Server(make_tiny_model(tmp_path_factory.mktemp("model"), "r1"))
    yield server
    server.stop()


def is_place(text):
    value = json.loads(text)
    assert list(value) == ["n", "to", "share"]
    return value["n"] in range(100) and value["to"] in ("x", "yy") and 0 <= value["share"] <= 1


# Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("fields, good", [
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}}, is_place),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, is_place),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, is_place),
    ({"json_schema": SCHEMA}, is_place), ({"guided_json": SCHEMA}, is_place), ({"guided_json": json.dumps(SCHEMA)}, is_place),
    ({"structured_outputs": {"json": SCHEMA}}, is_place),
    ({"json_schema": {"const": "hello"}}, lambda text: json.loads(text) == "hello"),
    ({"grammar": GRAMMAR}, re.compile("<*o>*").fullmatch), ({"guided_grammar": GRAMMAR}, re.compile("<*o>*").fullmatch),
    ({"structured_outputs": {"grammar": GRAMMAR}}, re.compile("<*o>*").fullmatch),
    ({"guided_regex": "[a-c]{2,4}d"}, re.compile("[a-c]{2,4}d").fullmatch),
    ({"structured_outputs": {"regex": "[a-c]{2,4}d"}}, re.compile("[a-c]{2,4}d").fullmatch),
    ({"guided_choice": ["one", "two"]}, lambda text: text in ("one", "two")),
    ({"structured_outputs": {"choice": ["one", "two"]}}, lambda text: text in ("one", "two")),
], ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "")
def test_every_name_on_every_route(server, path, fields, good, seed):
    assert good(server.text(path, seed=seed, **fields))


def test_json_object(server):
    text = server.chat(response_format={"type": "json_object"}, max_tokens=60, extra_body={"ignore_eos": False}).choices[0].message.content
    assert text.lstrip().startswith("{")


def test_the_clients_own_types(server):
    for seed in range(3):
        answer = server.client.chat.completions.parse(model="any", messages=MESSAGES, response_format=Place, seed=seed,
                                                      temperature=2, max_tokens=800)
        place = answer.choices[0].message.parsed
        assert isinstance(place, Place) and answer.choices[0].finish_reason == "stop"


def test_streams_and_choices(server):
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    whole = [choice.message.content for choice in server.chat(response_format=form, n=3).choices]
    assert all(is_place(text) for text in whole) and len(set(whole)) > 1
    pieces = ["", "", ""]
    for event in server.chat(response_format=form, n=3, stream=True):
        for choice in event.choices:
            pieces[choice.index] += choice.delta.content or ""
    assert pieces == whole


def test_logprobs_and_stops(server):
    fields = {"extra_body": {"guided_regex": "[ab]{20}c"}}
    answer = server.chat(logprobs=True, top_logprobs=2, **fields).choices[0]
    assert "".join(token.token for token in answer.logprobs.content) == answer.message.content
    assert "b" not in server.chat(stop="b", **fields).choices[0].message.content
    cut = server.chat(max_tokens=3, **fields).choices[0]
    assert cut.finish_reason == "length" and len(cut.message.content) >= 3


def test_batches(server):
    status, _, answers = server.post("/generate-batch", [{"prompt": "a", "guided_choice": ["one"]}, {"prompt": "a", "guided_regex": "b{3}"}])
    assert status == 200 and [one["response"] for one in answers["results"]] == ["one", "bbb"], answers
    status, _, answer = server.post("/generate-batch", [{"prompt": "a"}, {"prompt": "a", "guided_regex": "("}])
    assert status == 400 and answer["error"]["param"] == "requests[1].guided_regex", answer


# Thoughts -----------------------------------------------------------------------------------------------------


def test_thoughts_are_free(r1):
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    for seed in range(4):
        message = r1.chat(response_format=form, seed=seed, extra_body={"thinking_budget_tokens": 20}).choices[0].message
        assert is_place(message.content) and message.reasoning_content
        message = r1.chat(response_format=form, seed=seed, extra_body={"chat_template_kwargs": {"enable_thinking": False}}).choices[0].message
        assert is_place(message.content) and not getattr(message, "reasoning_content", None)


# Company ------------------------------------------------------------------------------------------------------


def test_the_same_seed_in_company(server):
    """Beside others, some of which have the same schema, and some a pattern of their own."""
    bodies = [{"json_schema": SCHEMA, "seed": 1}, {"json_schema": SCHEMA, "seed": 2}, {"guided_regex": "[a-z ]{30,60}", "seed": 3}, {"seed": 4}]
    alone = [server.text("/completion", **body) for body in bodies]
    for _ in range(3):
        together = [None] * len(bodies)

        def ask(i):
            together[i] = server.text("/completion", **bodies[i])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone


# Refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("param, words, fields", [
    ("json_schema", "uniqueItems", {"json_schema": {"type": "array", "items": {"type": "object"}, "uniqueItems": True}}),
    ("response_format.json_schema.schema", "type", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}}),
    ("grammar", "nothing", {"grammar": "root ::= nothing"}), ("grammar", "", {"grammar": "x"}),
    ("guided_regex", "", {"guided_regex": "(a"}), ("guided_json", "", {"guided_json": "{"}),
    ("grammar", "json_schema", {"grammar": GRAMMAR, "json_schema": SCHEMA}),
    ("structured_outputs", "", {"structured_outputs": {"structural_tag": {"a": 1}}}),
    ("regex", "", {"regex": "a"}), ("format", "", {"format": "json"}),
], ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "")
def test_refusals_name_the_field_and_the_keyword(server, path, param, words, fields):
    asked = {"messages": MESSAGES} if "chat" in path else {"prompt": "a"}
    status, _, answer = server.post(path, {**asked, **fields})
    assert status == 400 and answer["error"]["param"] == param and words in answer["error"]["message"], answer


def test_a_bias_that_forbids_all_that_is_allowed(server):
    """The client's own fault, found when a token is drawn: 400, not 500."""
    status, _, answer = server.post("/completion", {"prompt": "a", "guided_choice": ["<"], "logit_bias": [["<", False]]})
    assert status == 400 and "logit_bias" in answer["error"]["message"], answer
    assert server.text("/completion", guided_choice=["<"], logit_bias=[["<", -50]]) == "<"


def test_not_beside_tools(server):
    tools = [{"type": "function", "function": {"name": "f"}}]
    status, _, answer = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": tools, "guided_regex": "a"})
    assert status == 400
    status, _, answer = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": tools, "tool_choice": "none", "guided_regex": "a"})
    assert status == 200 and answer["choices"][0]["message"]["content"] == "a"


def test_a_hostile_schema_holds_up_nobody(server):
    """It is compiled beside the loop, within bounds; others are answered meanwhile, and after it."""
    deep = {"type": "string", "pattern": "^(([ab]{1,200}){1,200}c){1,200}$"}
    done = threading.Event()
    status = []

    def ask():
        status.append(server.post("/completion", {"prompt": "a", "json_schema": deep, "max_tokens": 5})[0])
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    while not done.is_set():
        assert server.get("/health")[0] == 200
    thread.join()
    assert status[0] in (200, 400)
    assert server.text("/completion", guided_choice=["one"]) == "one"


# What is left of the lengths that only one of them allows would be too large; to find that out takes a third of a second.
HOSTILE = {"type": "string", "oneOf": [{"minLength": n} for n in range(400)]}


def longest_gap(events, done):
    """Between two of the events that come until then, in seconds."""
    longest, latest = 0, time.monotonic()
    while not done.is_set():
        next(events)
        now = time.monotonic()
        longest, latest = max(longest, now - latest), now
    return longest


def test_a_hostile_schema_holds_up_no_stream(serve, tiny):
    """A stream of another client goes on meanwhile: were it held up, it would be for as long as that takes. How long is the machine's
    affair, and so is what else it does: one of some turns is enough."""
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", kv_mib=128)  # one engine for both
    stream = serving.stream("a", 60000)
    assert stream.read_head() == 200
    events = stream.events()
    next(events)
    found = []
    for _ in range(10):
        done = threading.Event()
        told = []

        def ask():
            began = time.monotonic()
            status = serving.post("/completion", {"prompt": "a", "json_schema": HOSTILE, "max_tokens": 5})[0]
            told.extend([status, time.monotonic() - began])
            done.set()

        thread = threading.Thread(target=ask)
        thread.start()
        gap = longest_gap(events, done)
        thread.join()
        status, took = told
        assert status == 400
        found.append((gap, took))
        if gap < took / 2:
            break
    else:
        pytest.fail(f"the longest gaps, and how long the schema took: {found}")
    stream.leave()


def test_what_is_compiled_waits_for_nobody_and_is_its_keys_own(tmp_path):
    """While the thread that compiles reads a long body, a schema that is compiled already passes by; for another key it is not, and
    waits. runnel_long_bodies counts what the thread has or has waiting. It may be done before all was asked: then once more."""
    long = b'{"prompt":[1' + b',"a"' * (40000 if SANITIZED else 500000) + b'],"max_tokens":1}'
    serving = Server(make_tiny_model(tmp_path, "qwen2"), *ONE_WORKER, "--api-key", "one,two")
    serving.key = "one"

    def n_there():
        return serving.metric("runnel_long_bodies")

    def look(turn):
        text = "x" * (turn + 1)
        assert json.loads(serving.text("/completion", json_schema={"const": text})) == text
        client = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=BY_THEN)
        client.request("POST", "/v1/completions", long, {"Content-Type": "application/json", "Authorization": "Bearer one"})
        serving.wait_for(lambda now: now[("runnel_long_bodies",)] == 1)
        assert json.loads(serving.text("/completion", json_schema={"const": text})) == text
        passed_by = n_there() == 1
        other = serving.stream("a", 200, key="two", json_schema={"const": text})
        most = 0
        while now := n_there():
            most = max(most, now)
        response = client.getresponse()
        response.read()
        client.close()
        assert response.status == 400  # it does not fit the context
        assert json.loads(other.text()) == text
        return passed_by, most

    try:
        found = []
        while (True, 2) not in found:
            assert len(found) < 8, found
            found.append(look(len(found)))
    finally:
        serving.stop()
