#!/usr/bin/env python3
"""Renders real models' chat templates with Runnel and with jinja2, and compares every byte.

    compare_templates.py RENDER_TEMPLATE [--folder DIR] [-v]

RENDER_TEMPLATE is build/tests/render_template. The templates are those of llama.cpp (models/templates), which the source
package of llama-cpp-python holds; without --folder it is got with pip into build/templates. jinja2 is set up as
Hugging Face's transformers do. Eight conversations each; where jinja2 refuses, Runnel must.
"""
import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
from llama_cpp_sources import ROOT, fetch_files

NOW = 1785931200  # 2026-08-05 12:00 UTC


class Generation(jinja2.ext.Extension):
    """{% generation %}: what the assistant says; it renders as it is."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "What's the \"weather\" <now>? ü",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "A city"},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {"type": "integer", "description": "How many"}}, "required": ["city"]}}},
    {"type": "function", "function": {
        "name": "search", "description": "Searches.",
        "parameters": {"type": "object", "properties": {
            "words": {"type": "array", "items": {"type": "string"}},
            "options": {"type": "object", "properties": {"deep": {"type": "boolean"}}}}, "required": ["words"]}}},
]
CALL = {"id": "call00001", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2, "unit": None}}}
CALL_2 = {"id": "call00002", "type": "function", "function": {"name": "search", "arguments": {"words": ["a", "b\n"]}}}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def conversations():
    """name, the values given to the template"""
    turns = [say("user", " Hi there\n"), say("assistant", "Hello! <b> & \"x\""), say("user", "你好 {{ x }} <|im_end|>")]
    yield "plain", {"messages": [say("user", "Why is the sky blue?")]}
    yield "system", {"messages": [say("system", "Be brief."), say("user", "Hi")]}
    yield "turns", {"messages": [say("system", "S"), *turns]}
    yield "thoughts", {"messages": [
        say("user", "q"), say("assistant", "<think>\nhm\n</think>\n\nanswer", reasoning_content="let me see\n"),
        say("user", "r"), say("assistant", "<think>one</think>two"), say("user", "s")]}
    yield "thinking off", {"messages": turns, "enable_thinking": False, "thinking": False, "reasoning_effort": "low"}
    yield "tools", {"messages": [say("system", "S"), say("user", "Weather?")], "tools": TOOLS}
    yield "calls", {"messages": [
        say("user", "Weather in Köln?"), say("assistant", "", tool_calls=[CALL]),
        say("tool", "{\"t\": 21}", name="get_weather", tool_call_id="call00001"),
        say("assistant", "21 degrees."), say("user", "And then?"),
        say("assistant", "I look.", reasoning_content="two calls", tool_calls=[CALL_2]),
        say("tool", "none", name="search", tool_call_id="call00002")], "tools": TOOLS}
    yield "continued", {"messages": [say("user", "Count."), say("assistant", "One, two,")],
                        "add_generation_prompt": False}


def reference(text, inputs):
    """What jinja2 renders, or its exception."""
    try:
        return environment().from_string(text).render(**inputs)
    except Exception as error:  # noqa: BLE001: whatever it raises is a refusal
        return error


class Renderer:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def render(self, text, inputs):
        self.process.stdin.write(json.dumps({"template": text, "inputs": inputs, "now": NOW}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or '{"error": "the program ended"}')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("-v", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder or fetch_files("/models/templates/", ROOT / "build" / "templates")
    renderer, n_equal, n_refused, n = Renderer(arguments.program), 0, 0, 0
    files = sorted(folder.glob("*.jinja"))
    for path in files:
        text = path.read_text()
        for name, more in conversations():
            inputs = {"tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", **more}
            expected, got = reference(text, inputs), renderer.render(text, inputs)
            refused = isinstance(expected, Exception)
            equal = "error" in got if refused else got.get("text") == expected
            n, n_equal, n_refused = n + 1, n_equal + equal, n_refused + refused
            if not equal or (arguments.v and refused):
                print(f"{'same' if equal else 'DIFFERENT'}: {path.name}, {name}\n  jinja2: {expected!r:.1500}\n  runnel: "
                      f"{got.get('text', got)!r:.1500}")
    print(f"{len(files)} templates, {n} renderings: {n_equal} equal ({n_refused} of them refusals), {n - n_equal} different")
    return n_equal < n or not files


if __name__ == "__main__":
    sys.exit(main())
