"""Tools and structured answers through LangChain and instructor, the libraries that people call the API with. The tiny model says what a
test wants, as in test_tools.py."""
from collections.abc import Iterable

import instructor
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from serving import SLOW, make_tiny_model
from test_tools import ARGUMENTS, CALL, END, MESSAGES, SECOND, TEMPLATES, Server

QUESTION = HumanMessage(MESSAGES[0]["content"])


class get_weather(BaseModel):  # its name is the tool's
    """The weather of a city."""
    city: str
    days: int


class get_time(BaseModel):
    """How late it is."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "qwen.jinja").write_text(TEMPLATES["qwen2.5-coder"])
    server = Server(make_tiny_model(folder, "words"), "--chat-template-file", str(folder / "qwen.jinja"))
    yield server
    server.stop()


def saying(server, *pieces):
    """The fields of a request whose answer is these pieces."""
    n = len(pieces) + 1
    return {"temperature": 0, "logit_bias": {str(server.id_of(piece)): 100 - 5 * i for i, piece in enumerate([*pieces, END])},
            "extra_body": {"repeat_penalty": 100, "repeat_last_n": n}, "max_tokens": n}


def langchain(server, *pieces, **more):
    return ChatOpenAI(model="any", base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120 * SLOW, **saying(server, *pieces), **more)


def made(calls):
    return [(call["name"], call["args"], call["type"]) for call in calls]


CALLS = [("get_weather", {"city": "Köln", "days": 2}, "tool_call"), ("get_time", {}, "tool_call")]


def test_langchain_binds_tools(server):
    answer = langchain(server, "Let me look.\n", *CALL, *SECOND).bind_tools([get_weather, get_time]).invoke([QUESTION])
    assert answer.content == "Let me look." and made(answer.tool_calls) == CALLS and not answer.invalid_tool_calls
    assert len({call["id"] for call in answer.tool_calls}) == 2
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    assert answer.usage_metadata["output_tokens"] == 1 + len(CALL) + len(SECOND) + 1


def test_langchain_streams_calls(server):
    chunks = list(langchain(server, "Let me look.\n", *CALL, *SECOND).bind_tools([get_weather, get_time]).stream([QUESTION]))
    assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) > 4
    answer = chunks[0]
    for chunk in chunks[1:]:
        answer += chunk
    assert answer.content == "Let me look." and made(answer.tool_calls) == CALLS


def test_langchain_tells_a_result(server):
    tools = [get_weather, get_time]
    said = langchain(server, *CALL).bind_tools(tools).invoke([QUESTION])
    result = ToolMessage("21 degrees", tool_call_id=said.tool_calls[0]["id"])
    answer = langchain(server, " is a tag.").bind_tools(tools).invoke([QUESTION, said, result])
    assert answer.content == " is a tag." and not answer.tool_calls
    assert answer.usage_metadata["input_tokens"] > said.usage_metadata["input_tokens"]


@pytest.mark.parametrize("more", [{"disabled_params": {"tool_choice": None}}, {}], ids=["auto", "named"])
def test_langchain_structured_output(server, more):
    model = langchain(server, *CALL, **more).with_structured_output(get_weather, method="function_calling")
    assert model.invoke([QUESTION]) == get_weather(city="Köln", days=2)


# What the model would say first stands first. It is kept to JSON, or to the schema, only if the server keeps it to that: then the text
# without quotes can come nowhere but in the city's name, and the member that the schema has not, nowhere.
ANY_JSON = [" is a tag.", *CALL[4:8]]
OF_SCHEMA = [" is a tag.", '{"town": "', *CALL[4:8]]
KEPT = {"city": " is a tag.Köln", "days": 2}


def test_langchain_json_schema(server):
    """The method that it takes unless told otherwise: of a class, strict or not, and of a schema."""
    model = langchain(server, *OF_SCHEMA)
    for more in ({}, {"method": "json_schema"}, {"strict": True}, {"strict": False}):
        assert model.with_structured_output(get_weather, **more).invoke([QUESTION]) == get_weather(**KEPT), more
    assert model.with_structured_output(get_weather.model_json_schema()).invoke([QUESTION]) == KEPT
    told = model.with_structured_output(get_weather, include_raw=True).invoke([QUESTION])
    assert told["parsed"] == get_weather(**KEPT) and told["parsing_error"] is None
    assert not told["raw"].tool_calls and told["raw"].response_metadata["finish_reason"] == "stop"


def test_langchain_json_mode(server):
    model = langchain(server, *ANY_JSON).with_structured_output(get_weather, method="json_mode")
    assert model.invoke([QUESTION]) == get_weather(**KEPT)


@pytest.mark.parametrize("mode, pieces", [(instructor.Mode.JSON_SCHEMA, OF_SCHEMA), (instructor.Mode.JSON, ANY_JSON)], ids=["schema", "any"])
def test_instructor_json(server, mode, pieces):
    client = instructor.from_openai(server.client, mode=mode)
    found = client.chat.completions.create(model="any", messages=[*MESSAGES], response_model=get_weather, max_retries=0, **saying(server, *pieces))
    assert isinstance(found, get_weather) and found.model_dump() == KEPT  # of a class made from it


def test_instructor_parallel_tools(server):
    """The mode that leaves the choice to the model."""
    client = instructor.from_openai(server.client, mode=instructor.Mode.PARALLEL_TOOLS)
    found = client.chat.completions.create(model="any", messages=MESSAGES, response_model=Iterable[get_weather | get_time], max_retries=0,
                                           **saying(server, *CALL, *SECOND))
    assert list(found) == [get_weather(city="Köln", days=2), get_time()]


def test_instructor_tools(server):
    client = instructor.from_openai(server.client, mode=instructor.Mode.TOOLS)
    found, answer = client.chat.completions.create_with_completion(model="any", messages=MESSAGES, response_model=get_weather, max_retries=0,
                                                                   **saying(server, *CALL))
    assert isinstance(found, get_weather) and found.model_dump() == {"city": "Köln", "days": 2}  # of a class made from it
    assert answer.choices[0].message.tool_calls[0].function.arguments == ARGUMENTS
