"""bench/tools: its questions, how answers are judged, and a run against a tiny model and a made-up peer."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
from calling import judge  # noqa: E402 (the path comes first)

ASKED = json.loads((BENCH / "calling" / "questions.json").read_text())
PEER = """#!{python}
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({{"status": "ok"}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["tool_choice"] == "auto" and body["temperature"] == 0, body
        names = [tool["function"]["name"] for tool in body["tools"]]
        message = {{"role": "assistant", "content": "Fine."}}
        if "lock_door" in names:
            message = {{"content": None, "tool_calls": [{{"function": {{"name": "lock_door", "arguments": '{{"door": "back"}}'}}}}]}}
        self.reply({{"choices": [{{"message": message, "finish_reason": "stop"}}]}})

    def reply(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_the_questions():
    questions = ASKED["questions"]
    assert len(questions) == len({question["id"] for question in questions}) == 60
    assert sum(not question["calls"] for question in questions) == 20
    for question in questions:
        assert 2 <= len(question["tools"]) <= 4 and len(set(question["tools"])) == len(question["tools"]), question
        for name, arguments in question["calls"]:
            assert name in question["tools"], question
            parameters = ASKED["tools"][name]["parameters"]
            assert set(arguments) <= set(parameters["properties"]), question
            assert all(key in arguments and None not in arguments[key] for key in parameters.get("required", [])), question
            for key, accepted in arguments.items():
                kinds = {"string": (str, dict), "integer": int, "number": (int, float), "array": list}
                assert all(value in ("*", None) or isinstance(value, kinds[parameters["properties"][key]["type"]]) for value in accepted), question


def called(*calls, content=None):
    return {"content": content, "tool_calls": [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]}


WANTED = {"calls": [["f", {"a": ["Rome", {"words": ["big", "city"]}], "n": [2], "l": [["x", "y"]], "o": ["*", None]}], ["g", {}]]}
RIGHT = '{"a": "rome ", "n": 2.0, "l": ["Y", "x"]}'


@pytest.mark.parametrize("message, why", [
    (called(("f", RIGHT), ("g", "{}")), None),
    (called(("g", "{}"), ("f", '{"a": "A Big old city", "n": 2, "l": ["x", "y"], "o": 5}')), None),
    (called(("f", '{"a": "Rome", "n": 2, "l": ["x", "y"], "p": null}'), ("g", "{}")), None),
    (called(("f", RIGHT)), "called f"),
    (called(("f", RIGHT), ("g", "{}"), ("g", "{}")), "called f, g, g"),
    (called(("f", RIGHT), ("h", "{}")), "called f, h"),
    (called(("f", RIGHT[:-1]), ("g", "{}")), "f: its arguments are no JSON object"),
    (called(("f", "[]"), ("g", "{}")), "f: its arguments are no JSON object"),
    (called(("f", RIGHT), ("g", '{"q": 1}')), "g: q is 1"),
    (called(("f", '{"a": "Romeo", "n": 2, "l": ["x", "y"]}'), ("g", "{}")), 'f: a is "Romeo"'),
    (called(("f", '{"a": "Rome", "n": "2", "l": ["x", "y"]}'), ("g", "{}")), 'f: n is "2"'),
    (called(("f", '{"a": "Rome", "n": true, "l": ["x", "y"]}'), ("g", "{}")), "f: n is true"),
    (called(("f", '{"a": "Rome", "n": 2, "l": ["x", "x"]}'), ("g", "{}")), 'f: l is ["x", "x"]'),
    (called(("f", '{"a": "Rome", "l": ["x", "y"]}'), ("g", "{}")), "f: n is missing"),
    ({"content": "I would call f."}, "called nothing"),
    ({"content": '{"name": "g", "arguments": {}}'}, judge.WROTE),
])
def test_what_counts_as_right(message, why):
    assert judge.why_wrong(WANTED, message) == why


def test_refraining_is_to_answer_without_a_call():
    assert judge.why_wrong({"calls": []}, {"content": "Paris."}) is None
    assert judge.why_wrong({"calls": []}, {"content": " ", "tool_calls": None}) == "said nothing"
    assert judge.why_wrong({"calls": []}, called(("f", "{}"), content="Well.")) == "called f where no tool was needed"
    written = '{"name": "f", "arguments": {"a": 1}}'
    for text in (written, f"```json\n{written}\n```", f"\n```\n{written}```\n", f"<tools>\n{written}\n</tools>", "{" + written + "}"):
        assert judge.why_wrong({"calls": []}, {"content": text}) == judge.WROTE, text
    for text in (f"To call f, send this:\n```json\n{written}\n```", '{"name": "Ann", "age": 3}', "[1]", '"f"'):
        assert judge.why_wrong({"calls": []}, {"content": text}) is None, text



def test_both_are_asked_and_a_record_goes_on(runnel, tiny, tmp_path):
    peer, questions = tmp_path / "peer", tmp_path / "questions.json"
    parameters = {"type": "object", "properties": {"door": {"type": "string"}}}
    questions.write_text(json.dumps({  # short: a tiny model has room for a thousand bytes
        "tools": {"lock_door": {"parameters": parameters}, "open_door": {"parameters": parameters}, "wait": {}},
        "questions": [{"id": "open", "ask": "Open!", "tools": ["open_door", "wait"], "calls": [["open_door", {"door": ["back"]}]]},
                      {"id": "lock", "ask": "Lock!", "tools": ["lock_door", "wait"], "calls": [["lock_door", {"door": ["back"]}]]},
                      {"id": "hello", "ask": "Hello!", "tools": ["open_door", "wait"], "calls": []}]}))
    peer.write_text(PEER.format(python=sys.executable))
    os.chmod(peer, 0o755)

    def bench(*more):
        command = [sys.executable, BENCH / "tools", tiny("r1"), "--runnel", runnel, "--llama-server", peer, "--max-tokens", "8", "--questions", questions,
                   "--json", tmp_path / "record.json", "--markdown", tmp_path / "table.md", *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (tmp_path / "table.md").read_text()
        return done

    done = bench("--only", "lock,open")
    record = json.loads((tmp_path / "record.json").read_text())
    assert [question["id"] for question in record["questions"]] == ["open", "lock"] and record["players"] == ["Runnel", "llama-server"]
    opening, locking = (question["answers"] for question in record["questions"])
    assert (opening["llama-server"]["why_wrong"], locking["llama-server"]["why_wrong"]) == ("called nothing", None)
    assert {opening["Runnel"]["why_wrong"], locking["Runnel"]["why_wrong"]} == {"called nothing"}
    assert "| llama-server | 1 | 0 | 1 |" in done.stdout and "calls missed (0 against 1), refrainings met (0 against 0), together missed (0 against 1)." in done.stdout

    # What stands in the record is not asked again, but judged.
    record["questions"][0]["answers"]["Runnel"]["message"] = called(("open_door", '{"door": "Back"}'))
    (tmp_path / "record.json").write_text(json.dumps(record))
    done = bench()
    assert "| Runnel | 1 |" in done.stdout and "| llama-server | 1 | 1 | 2 |" in done.stdout and "calls met (1 against 1)" in done.stdout
