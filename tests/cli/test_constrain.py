"""runnel constrain: which texts keep to a constraint, and what is no constraint, no line, no model; and all that docs/schemas.md says."""
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

def run(runnel, model, text, *args, **options):
    return subprocess.run([runnel, "constrain", "-m", model, *(args or ["--jsonl"])], input=text, capture_output=True, timeout=60, **options)


def constrain(runnel, model, *questions):
    lines = [question if isinstance(question, str) else json.dumps(question) for question in questions]
    done = run(runnel, model, "".join(line + "\n" for line in lines).encode())
    assert (done.returncode, done.stderr) == (0, b"")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(questions)
    return answers


def accepted(answer):
    assert answer["error"] is None and answer["compile_ms"] >= 0
    for result in answer["results"]:
        assert 0 <= len(result["mask_us"]) <= result["tokens"] and all(time >= 0 for time in result["mask_us"])
        assert len(result["mask_us"]) == result["tokens"] or not result["accepted"]
    return [result["accepted"] for result in answer["results"]]


PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}}, "required": ["name"],
          "additionalProperties": False}


@pytest.mark.parametrize("constraint, good, bad", [
    ({"schema": PERSON}, ['{"name":"é東"}', '{ "name": "x",\n"age": 7 }'], ['{"name":"x","age":-1}', '{"age":7}', '{"name":1}', "[]", "x"]),
    ({"schema": True}, ["1", '{"a": [null]}'], ["nul", "01"]),
    ({"regex": "[a-c]+7"}, ["a7", "cab7"], ["7", "ad7", "a7 "]),
    ({"choice": ["yes", "no, \"never\""]}, ["yes", "no, \"never\""], ["no", "maybe"]),
    ({"grammar": 'root ::= "<" root ">" | "\\n"'}, ["\n", "<<\n>>"], ["<\n>>", "<>"]),
])
def test_texts(runnel, tiny, constraint, good, bad):
    answer, = constrain(runnel, tiny(), {**constraint, "texts": good + bad})
    assert accepted(answer) == [True] * len(good) + [False] * len(bad)


def test_masks_up_to_the_token_that_may_not_come(runnel, tiny):
    """The tiny vocabulary has a token for each byte and none for these words."""
    answer, = constrain(runnel, tiny(), {"regex": "~!~!", "texts": ["~!~!", "~!~", "~!!!", "!", "", "~!~!~"]})
    assert [len(result["mask_us"]) for result in answer["results"]] == [4, 3, 3, 1, 0, 5]
    assert [result["tokens"] for result in answer["results"]] == [4, 3, 4, 1, 0, 5]
    assert accepted(answer) == [True, False, False, False, False, False]


def test_what_is_no_constraint_is_told_and_the_next_line_answered(runnel, tiny):
    wrong = [{"schema": {"type": "nonsense"}}, {"schema": 5}, {"regex": "("}, {"grammar": "root ::= missing"}, {"choice": []}, {"regex": "東" * 400 + "("}]
    *refused, last = constrain(runnel, tiny(), *({**constraint, "texts": ["x"]} for constraint in wrong), {"regex": "x", "texts": ["x"]})
    for answer in refused:
        assert answer["error"] and answer["results"] == [], answer
    assert "nonsense" in refused[0]["error"] or "type" in refused[0]["error"]
    assert accepted(last) == [True]


def test_numbers_of_a_schema_lose_no_digit(runnel, tiny):
    """A reader of JSON would make 12345678901234567000 and 0.10000000000000001 of these."""
    big, small = '{"const":12345678901234567891}', '{"const":0.1}'
    answers = constrain(runnel, tiny(), f'{{"texts":["12345678901234567891","12345678901234567000"],"schema":{big}}}',
                        f'{{"schema": {small} , "texts": ["0.1","0.10000000000000001"]}}')
    assert [accepted(answer) for answer in answers] == [[True, False]] * 2


def test_answers_come_line_by_line(runnel, tiny):
    with subprocess.Popen([runnel, "constrain", tiny(), "--jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for text in ("x", "y"):
            process.stdin.write(json.dumps({"choice": ["x"], "texts": [text]}) + "\n")
            process.stdin.flush()
            assert accepted(json.loads(process.stdout.readline())) == [text == "x"]
        process.stdin.close()
        assert process.wait(60) == 0


def test_sentencepiece(runnel, tiny):
    """No space is set before a text: it would be no part of it."""
    answer, = constrain(runnel, tiny("sentencepiece"), {"choice": ["hello world", "~!"], "texts": ["hello world", "~!", " ~!", "hello"]})
    assert accepted(answer) == [True, True, False, False]


# docs/schemas.md ---------------------------------------------------------------------------------------------------------


def rows_of_the_page(head):
    """(section, row) of the tables with this head; a row has what stands in each of its cells as code, by the cell's head."""
    rows, section, heads = [], None, None
    for line in (ROOT / "docs" / "schemas.md").read_text().splitlines():
        section = line.lstrip("# ") if line.startswith("#") else section
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else None
        if not cells or not heads:
            heads = cells
        elif head in heads and set(cells) != {"---"}:
            rows.append((section, dict(zip(heads, (re.findall("`([^`]+)`", cell.replace("\\|", "|")) for cell in cells)))))
    return rows


def question(section, row, *texts):
    """A line for `runnel constrain`; schemas word for word, as a reader of JSON would change their numbers."""
    kind, constraint = {"JSON Schema": lambda: ("schema", row["schema"][0]),
                        "Formats": lambda: ("schema", json.dumps({"type": "string", "format": row["format"][0]})),
                        "Regular expressions": lambda: ("regex", json.dumps(row["pattern"][0])),
                        "Grammars": lambda: ("grammar", json.dumps("\n".join(row["grammar"])))}[section]()
    return f'{{"{kind}": {constraint}, "texts": {json.dumps(texts)}}}'


def test_what_the_page_calls_kept_is_kept(runnel, tiny):
    rows = rows_of_the_page("takes")
    assert len(rows) > 55
    answers = constrain(runnel, tiny(), *(question(section, row, row["takes"][0], row["refuses"][0]) for section, row in rows))
    for (_, row), answer in zip(rows, answers):
        assert answer["error"] is None, (row, answer)
        assert accepted(answer) == [True, False], (row, answer)


def test_what_the_page_calls_refused_is_refused_in_these_words(runnel, tiny):
    rows = rows_of_the_page("message")
    assert len(rows) > 35
    answers = constrain(runnel, tiny(), *(question(section, row, "x") for section, row in rows))
    for (_, row), answer in zip(rows, answers):
        assert row["message"][0] in (answer["error"] or "it is taken") and answer["results"] == [], (row, answer)


def test_the_page_has_every_keyword_and_format():
    rows = [row for section, row in rows_of_the_page("keyword") if section == "JSON Schema"]
    for row in rows:
        for keyword in row["keyword"]:
            assert f'"{keyword}":' in row["schema"][0], row
    rules, strings = ((ROOT / "src" / "constrain" / f"schema_{name}.c").read_text() for name in ("rules", "string"))
    keywords = set(re.findall(r'^    \{"([^"]+)", KEYWORD_', rules, re.M))
    assert len(keywords) > 35 and keywords - {keyword for row in rows for keyword in row["keyword"]} == set()
    formats = dict(re.findall(r'^    \{"([a-z0-9-]+)",\s(""|)', strings, re.M))
    refused = {name for name, pattern in formats.items() if pattern == '""'}
    assert len(formats) > 15 and set(formats) - refused == {row["format"][0] for _, row in rows_of_the_page("format")}
    assert refused == {name for row in rows if row["keyword"] == ["format"] for name in row.get("what is refused", [])}


# Lines and files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line, words", [
    ("", ["JSON object"]), ("[]", ["JSON object"]), ("{", ["member"]), ('{"texts": []}', ["one of schema", "found 0"]),
    ('{"regex": "x", "choice": ["x"], "texts": []}', ["one of schema", "found 2"]), ('{"regex": "x", "texts": [], "n": 1}', ["'n'"]),
    ('{"regex": "x", "texts": [], "texts": []}', ["'texts'", "twice"]), ('{"regex": "x"}', ["texts", "list of strings"]),
    ('{"regex": "x", "texts": [1]}', ["texts", "list of strings"]), ('{"regex": "x", "texts": ["x"}', ["the end of a JSON object"]),
    ('{"regex": 1, "texts": []}', ["regex", "string"]), ('{"choice": "x", "texts": []}', ["choice", "list of strings"]),
    ('{"regex": "x", "texts": []} x', ["nothing behind", "offset 28"]), ('{"regex": "x" "texts": []}', ["texts", "list of strings"]),
    ('{"regex": "x", "texts": []', ["the end of a JSON object"]), ('{"regex": "x, "texts": []}', ["offset"]), ('{"choice": ["\\u0000"], "texts": []}', ["zero"]),
])
def test_lines_that_are_none(runnel, tiny, line, words):
    done = run(runnel, tiny(), b'{"regex": "x", "texts": ["x"]}\n' + line.encode() + b'\n{"unread"}\n')
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr.count(b"\n")) == (1, 1, 1), done.stderr
    for word in ["runnel: stdin, line 2: ", *words]:
        assert word in done.stderr.decode(), done.stderr


def test_failures(runnel, tiny):
    model, line = tiny(), b'{"regex": "x", "texts": ["x"]}\n'
    done = run(runnel, model, line + b'{"regex": "\xff", "texts": []}\n')
    assert done.returncode == 1 and b"line 2" in done.stderr and b"0xFF" in done.stderr
    done = run(runnel, "missing.gguf", line)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1) and b"missing.gguf" in done.stderr
    done = run(runnel, model, line, "model-too-many")
    assert (done.returncode, done.stdout) == (2, b"") and b"model-too-many" in done.stderr
    done = subprocess.run([runnel, "constrain", model], input=line, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1) and b"--jsonl" in done.stderr
    assert run(runnel, model, b"").stdout == b""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([runnel, "constrain", model, "--jsonl"], input=line, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"runnel: stdout could not be written\n")
