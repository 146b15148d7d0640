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
    ["<tool_call>", " is a tag."], ["<tool_call>", '\n{"name": "', "get_nothing", '", "arguments": ', '{"city": "'],
    ["<tool_call>", '\n{"name": "', "get_weather"], ["</tool_call>\n", " is a tag."]], ids=len)
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


def test_stops_are_not_looked_for_in_calls(server):
    assert calls_of(server.say(*CALL, stop=["Köln", "\n"]).choices[0]) == [("get_weather", ARGUMENTS)]


def test_probabilities_are_those_of_the_text(server):
    (choice,) = server.say("Let me look.\n", *CALL, logprobs=True).choices
    assert [entry.token for entry in choice.logprobs.content] == ["Let me look.\n"]


def test_several_choices(server):
    answer = server.say(*CALL, n=2)
    assert [calls_of(choice) for choice in answer.choices] == 2 * [[("get_weather", ARGUMENTS)]]
    assert len({choice.message.tool_calls[0].id for choice in answer.choices}) == 2


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


@pytest.mark.parametrize("param, fields", [
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "get_time"}}}),
    ("tools[0].function.strict", {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}),
    ("messages", {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_kept_is_refused(server, param, fields):
    status, _, body = server.post("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS, **fields})
    assert status == 400 and body["error"]["param"] == param, body


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
