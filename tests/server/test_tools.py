"""Tools through the official client of the OpenAI API. A tiny model calls none by itself: it is made to say what a test wants by
biases on tokens that are pieces of calls (make_tiny_model's kind "words"), each of which can be said once."""
import json
import sys

import openai
import pytest
from serving import ROOT, SLOW, Serving, make_tiny_model

sys.path.insert(0, str(ROOT / "tests" / "tools"))
from compare_templates import environment  # noqa: E402

END = "<|endoftext|>"
MESSAGES = [{"role": "user", "content": "What is the weather in Cologne, and how late is it there?"}]
CALL = ["<tool_call>", '\n{"name": "', "get_weather", '", "arguments": ', '{"city": "', "Köln", '", "days": ', "2}", "}\n</tool_call>"]
ARGUMENTS = '{"city": "Köln", "days": 2}'
SECOND = ['\n<tool_call>\n{"name": "get_time", ', '"arguments": {}}\n', "</tool_call>\n"]
TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather <now>, \"here\" ü",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                       "required": ["city"]}}},
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}},
]
TEMPLATES = {entry["name"]: entry["template"] for entry in json.loads((ROOT / "tests/data/chat-templates.json").read_text())}


class Server(Serving):
    def __init__(self, model, *flags):
        super().__init__(model, "--ctx", "4000", *flags, kv_mib=64)
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120 * SLOW)

    def id_of(self, piece):
        _, _, body = self.post("/tokenize", {"content": piece, "parse_special": True})
        (token,) = body["tokens"]
        return token

    def say(self, *pieces, **fields):
        """An answer of these pieces, which then ends."""
        bias = {str(self.id_of(piece)): 100 - 5 * i for i, piece in enumerate([*pieces, END])}
        fields = {"model": "any", "messages": MESSAGES, "tools": TOOLS, "max_tokens": len(bias), **fields}
        return self.client.chat.completions.create(**fields, temperature=0, logit_bias=bias,
                                                   extra_body={"repeat_penalty": 100, "repeat_last_n": len(bias)})

    def prompt(self, messages, **fields):
        status, _, body = self.post("/apply-template", {"messages": messages, **fields})
        assert status == 200, body
        return body["prompt"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "qwen.jinja").write_text(TEMPLATES["qwen2.5-coder"])
    server = Server(make_tiny_model(folder, "words"), "--chat-template-file", str(folder / "qwen.jinja"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def r1(tmp_path_factory):
    server = Server(make_tiny_model(tmp_path_factory.mktemp("model"), "r1"))
    yield server
    server.stop()


def calls_of(choice):
    return [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]


# Answers ------------------------------------------------------------------------------------------------------


def test_a_whole_call(server):
    answer = server.say(*CALL)
    (choice,) = answer.choices
    assert choice.message.content is None and choice.finish_reason == "tool_calls"
    assert calls_of(choice) == [("get_weather", ARGUMENTS)]
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_") and len(call.id) <= 40
    assert answer.usage.completion_tokens == len(CALL) + 1


def test_text_and_two_calls(server):
    (choice,) = server.say("Let me look.\n", *CALL, *SECOND).choices
    assert choice.message.content == "Let me look."
    assert calls_of(choice) == [("get_weather", ARGUMENTS), ("get_time", "{}")]
    assert len({call.id for call in choice.message.tool_calls}) == 2


def test_a_stream(server):
    chunks = list(server.say("Let me look.\n", *CALL, *SECOND, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "Let me look."
    calls = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    assert all(len(delta.tool_calls) == 1 and delta.content is None for delta in deltas if delta.tool_calls)
    begun = [call for call in calls if call.id]
    assert [(call.index, call.function.name, call.function.arguments, call.type) for call in begun] == [
        (0, "get_weather", "", "function"), (1, "get_time", "", "function")]
    pieces = [[call.function.arguments for call in calls if call.index == i] for i in (0, 1)]
    assert pieces[0] == ["", '{"city": "', "Köln", '", "days": ', "2}"] and "".join(pieces[1]) == "{}"
    assert [call.index for call in calls] == sorted(call.index for call in calls)
    assert len({call.id for call in begun}) == 2 and all(call.function.name is None for call in calls if not call.id)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == "tool_calls" and set(reasons[:-1]) == {None}


def test_one_call_at_most(server):
    answer = server.say(*CALL, *SECOND, parallel_tool_calls=False)
    assert calls_of(answer.choices[0]) == [("get_weather", ARGUMENTS)] and answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage.completion_tokens == len(CALL)


@pytest.mark.parametrize("pieces", [
    ["<tool_call>", " is a tag."], ['\n{"name": "', "get_nothing", '", "arguments": ', '{"city": "'],
    ['\n{"name": "', "get_weather"], ["</tool_call>\n", " is a tag."]], ids=len)
def test_what_only_looks_like_a_call_is_text(server, pieces):
    (choice,) = server.say(*pieces).choices
    assert choice.message.content == "".join(pieces) and not choice.message.tool_calls
    assert choice.finish_reason == "stop"
    streamed = server.say(*pieces, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "".join(pieces)


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": openai.NOT_GIVEN}], ids=["none", "no tools"])
def test_without_tools_a_call_is_text(server, fields):
    (choice,) = server.say(*CALL, **fields).choices
    assert choice.message.content == "".join(CALL) and not choice.message.tool_calls and choice.finish_reason == "stop"


def test_a_call_that_is_cut(server):
    (choice,) = server.say(*CALL, max_tokens=6).choices
    assert calls_of(choice) == [("get_weather", '{"city": "Köln')] and choice.finish_reason == "length"
    (choice,) = server.say(*CALL, max_tokens=3).choices
    assert choice.message.content == "".join(CALL[:3]) and choice.finish_reason == "length"
    (choice,) = server.say(*CALL, max_tokens=3, tool_choice="required").choices  # it is no text, as the answer is calls
    assert not choice.message.content and not choice.message.tool_calls and choice.finish_reason == "length"


def test_stops_are_not_looked_for_in_calls(server):
    assert calls_of(server.say(*CALL, stop=["Köln", "\n"]).choices[0]) == [("get_weather", ARGUMENTS)]


def test_probabilities_are_those_of_the_text(server):
    (choice,) = server.say("Let me look.\n", *CALL, logprobs=True).choices
    assert [entry.token for entry in choice.logprobs.content] == ["Let me look.\n"]


def test_several_choices(server):
    answer = server.say(*CALL, n=2)
    assert [calls_of(choice) for choice in answer.choices] == 2 * [[("get_weather", ARGUMENTS)]]
    assert len({choice.message.tool_calls[0].id for choice in answer.choices}) == 2


# Calls that must be made, and what they are kept to ------------------------------------------------------------

BOUNDED = [
    {"type": "function", "function": {
        "name": "get_weather", "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Ulm", "Köln"]}, "days": {"type": "integer", "minimum": 1,
                                                                                                   "maximum": 7}},
                       "required": ["city", "days"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {},
                                                                         "additionalProperties": False}}},
]


def check_bounded(name, arguments):
    value = json.loads(arguments)
    if name == "get_time":
        assert value == {}
    else:
        assert name == "get_weather" and list(value) == ["city", "days"]
        assert value["city"] in ("Ulm", "Köln") and value["days"] in range(1, 8)


def ask(server, seed, **fields):
    """At a temperature at which anything may come."""
    fields = {"tools": BOUNDED, "max_tokens": 600, "extra_body": {"enable_thinking": False}, **fields}
    return server.client.chat.completions.create(model="any", messages=MESSAGES, seed=seed, temperature=2, **fields)


@pytest.mark.parametrize("which", ["server", "r1"])
def test_required(which, request):
    server = request.getfixturevalue(which)
    names = set()
    for seed in range(10):
        (choice,) = ask(server, seed, tool_choice="required", parallel_tool_calls=False).choices
        ((name, arguments),) = calls_of(choice)
        assert choice.finish_reason == "tool_calls" and not choice.message.content
        check_bounded(name, arguments)
        names.add(name)
    assert names == {"get_weather", "get_time"}


def test_required_of_several(server):
    """As many as the model likes, one after the other."""
    ends = [{"type": "function", "function": {"name": "get_time", "parameters": BOUNDED[1]["function"]["parameters"]}}]
    numbers = set()
    for seed in range(10):
        (choice,) = ask(server, seed, tool_choice="required", tools=ends, max_tokens=300).choices
        found = calls_of(choice)
        assert found and {name for name, _ in found} == {"get_time"}
        complete = found if choice.finish_reason == "tool_calls" else found[:-1]
        assert all(json.loads(arguments) == {} for _, arguments in complete)
        numbers.add(len(found))
    assert len(numbers) > 1


@pytest.mark.parametrize("which", ["server", "r1"])
@pytest.mark.parametrize("name", ["get_weather", "get_time"])
def test_a_tool_by_name(which, name, request):
    server = request.getfixturevalue(which)
    choice = {"type": "function", "function": {"name": name}}
    for seed in range(3):
        ((called, arguments),) = calls_of(ask(server, seed, tool_choice=choice).choices[0])
        assert called == name
        check_bounded(name, arguments)


def test_required_streams_as_other_calls_do(server):
    whole = ask(server, 5, tool_choice="required", parallel_tool_calls=False).choices[0]
    chunks = list(ask(server, 5, tool_choice="required", parallel_tool_calls=False, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert calls[0].function.name and calls[0].id and not any(call.function.name or call.id for call in calls[1:])
    assert [(calls[0].function.name, "".join(call.function.arguments or "" for call in calls))] == calls_of(whole)
    assert not any(delta.content for delta in deltas) and chunks[-1].choices[0].finish_reason == "tool_calls"


def test_thoughts_before_a_required_call(r1):
    (choice,) = ask(r1, 1, tool_choice="required", parallel_tool_calls=False, extra_body={"thinking_budget_tokens": 8}).choices
    ((name, arguments),) = calls_of(choice)
    check_bounded(name, arguments)
    assert choice.message.reasoning_content


@pytest.mark.parametrize("pieces, arguments", [
    (CALL, '{"city": "Köln", "days": 2}'),  # what is allowed comes as it would
    ([*CALL[:4], '{"town": "', '{"city": "', "Bonn", "Köln", '", "days": ', "9}", "2}", "}\n</tool_call>"], ARGUMENTS),
], ids=["right", "wrong"])
def test_arguments_of_a_call_within_text(server, pieces, arguments):
    """The model would rather say something else, and cannot."""
    (choice,) = server.say("Let me look.\n", *pieces, tools=BOUNDED, parallel_tool_calls=False).choices
    assert choice.message.content == "Let me look." and calls_of(choice) == [("get_weather", arguments)]


def test_a_name_behind_a_tag(server):
    """The model would rather call what there is not."""
    pieces = ["<tool_call>", '\n{"name": "', "get_nothing", "get_weather", *CALL[3:]]
    (choice,) = server.say(*pieces, tools=BOUNDED, parallel_tool_calls=False).choices
    assert choice.message.content is None and calls_of(choice) == [("get_weather", ARGUMENTS)]


def test_a_schema_beside_tools(server):
    """The answer is one of them."""
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["fine", 17]}}}
    n_called = 0
    for seed in range(20):
        (choice,) = ask(server, seed, response_format=schema, parallel_tool_calls=False).choices
        if calls_of(choice):
            check_bounded(*calls_of(choice)[0])
            assert not choice.message.content and choice.finish_reason == "tool_calls"
            n_called += 1
        else:
            assert json.loads(choice.message.content) in ("fine", 17) and choice.finish_reason == "stop"
    assert 0 < n_called < 20


LLAMA = """{{ tools|tojson }}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.tool_calls %}{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments|tojson }}}\
{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def test_a_form_with_a_control_token(tmp_path):
    (tmp_path / "llama.jinja").write_text(LLAMA)
    server = Server(make_tiny_model(tmp_path, "words"), "--chat-template-file", str(tmp_path / "llama.jinja"))
    call = ["<|python_tag|>", '{"name": "get_time", "parameters": {}}']
    try:
        (choice,) = server.say(*call).choices
        assert calls_of(choice) == [("get_time", "{}")] and choice.message.content is None
        (choice,) = server.say(*call, tool_choice="none").choices  # the token is no text then, as elsewhere
        assert choice.message.content == call[1] and not choice.message.tool_calls
        (choice,) = server.say(call[0], " is a tag.").choices
        assert choice.message.content == call[0] + " is a tag."
    finally:
        server.stop()


# Prompts ------------------------------------------------------------------------------------------------------


def rendered(name, messages, **inputs):
    """What jinja2 makes of them."""
    return environment().from_string(TEMPLATES[name]).render(
        messages=messages, bos_token="", eos_token="", add_generation_prompt=True, documents=None, **inputs)


def test_a_round_trip(server):
    (choice,) = server.say("Let me look.\n", *CALL).choices
    said = choice.message.model_dump(exclude_none=True)
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": '{"t": 21}'}
    for_template = json.loads(json.dumps(said))
    for call in for_template["tool_calls"]:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    expected = rendered("qwen2.5-coder", [*MESSAGES, for_template, result], tools=TOOLS)
    assert server.prompt([*MESSAGES, said, result], tools=TOOLS) == expected
    (choice,) = server.say(" is a tag.", messages=[*MESSAGES, said, result]).choices
    assert choice.message.content == " is a tag."


def test_nulls_are_as_if_absent(server):
    call = {"type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    plain = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "x"}]
    nulls = [{**MESSAGES[0], "name": None, "tool_calls": None},
             {"role": "assistant", "content": None, "tool_calls": [{**call, "id": None}], "function_call": None},
             {"role": "tool", "content": "x", "tool_call_id": None, "name": None}]
    tools = json.loads(json.dumps(TOOLS))
    tools[1]["function"].update(description=None, strict=None)
    assert server.prompt(nulls, tools=tools, tool_choice=None, parallel_tool_calls=None) == server.prompt(plain, tools=TOOLS)
    assert server.prompt(MESSAGES, tools=TOOLS, tool_choice="none") == server.prompt(MESSAGES)


def test_a_template_that_says_nothing_of_tools(r1):
    call = {"id": "a", "type": "function", "function": {"name": "get_time", "arguments": '{"a":1}'}}
    messages = [{"role": "system", "content": "Be kind."}, *MESSAGES, {"role": "assistant", "content": "Well.", "tool_calls": [call]},
                {"role": "tool", "content": "noon"}]
    prompt = r1.prompt(messages, tools=TOOLS)
    system = prompt[:prompt.index("<｜User｜>")]
    assert system.startswith("<｜begin▁of▁sentence｜>Be kind.\n\n") and json.dumps(TOOLS, separators=(",", ":"),
                                                                                  ensure_ascii=False) in system
    given = [{"role": "system", "content": system.removeprefix("<｜begin▁of▁sentence｜>")}, *MESSAGES,
             {"role": "assistant", "content": "Well."}, {"role": "assistant", "content": None, "tool_calls": [call]}, messages[-1]]
    expected = environment().from_string(TEMPLATES["r1"]).render(
        messages=given, bos_token="<｜begin▁of▁sentence｜>", add_generation_prompt=True)
    assert prompt.removesuffix("<think>\n") == expected


# Refusals -----------------------------------------------------------------------------------------------------


UNIQUE = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}, "uniqueItems": True}}}


@pytest.mark.parametrize("param, fields", [
    ("tool_choice", {"tool_choice": "sometimes"}),
    ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "get_nothing"}}}),
    ("tool_choice", {"tool_choice": "required", "tools": []}),
    ("tools[0].function.strict", {"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]}),
    ("tools", {"tools": [{"type": "function", "function": {"name": "f", "parameters": UNIQUE}}]}),
    ("tools", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]}),
    ("structured_outputs.regex", {"structured_outputs": {"regex": "a+"}}),
    ("messages", {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}),
    ("tool_choice", {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[1]]}}}),
    ("functions", {"functions": [{"name": "get_time", "parameters": {"type": "object", "properties": {}}}]}),
    ("function_call", {"functions": [{"name": "get_time"}], "function_call": {"name": "get_time"}}),
    ("messages[1].role", {"messages": [*MESSAGES, {"role": "function", "name": "get_time", "content": "x"}]}),
    ("messages[1].function_call", {"messages": [*MESSAGES, {"role": "assistant", "content": None,
                                                            "function_call": {"name": "get_time", "arguments": "{}"}}]}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_kept_is_refused(server, param, fields):
    status, _, body = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS, **fields})
    assert status == 400 and body["error"]["param"] == param, body


def test_a_refusal_names_tool_and_keyword(server):
    tools = [{"type": "function", "function": {"name": "find_it", "parameters": UNIQUE}}]
    _, _, body = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": tools})
    assert "find_it" in body["error"]["message"] and "uniqueItems" in body["error"]["message"]


def test_a_template_without_calls_refuses_tools(tmp_path):
    server = Server(make_tiny_model(tmp_path, "qwen2"))
    try:
        status, _, body = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS})
        assert status == 400 and body["error"]["param"] == "tools", body
        status, _, body = server.post("/v1/chat/completions", {"messages": [*MESSAGES, {"role": "tool", "content": "x"}]})
        assert status == 400 and "role" in body["error"]["message"], body
        status, _, body = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "none",
                                                               "max_tokens": 4})
        assert status == 200, body
    finally:
        server.stop()
