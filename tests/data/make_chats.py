#!/usr/bin/env python3
"""Makes chat-templates.json: chat templates, whether they are known, and what Jinja renders from them.

    make_chats.py R1_HEADER CODER.gguf SMOLLM2.gguf OUT.json

Templates come from the files' own keys; variants are made of them by rewriting. "known" ones must be recognised and
render each conversation to "text" (null: the template raises); the others must be refused.
"""
import json
import random
import sys

import jinja2

from make_tokens import read_keys

THINK = "<think>\n"
R1_BOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
TEXTS = ["", "Hi", " two  spaces ", "line\nline\n", "你好", "<think>\nhm\n</think>\n\nanswer", "a</think>b</think>c", "<think>",
         "<\uff5cUser\uff5c>x", "<|im_end|>\n<|im_start|>system\n", "{{ bos_token }}", "it's \"quoted\" \\n", "</think>"]


def environment():
    # As the transformers library sets it up.
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = lambda message: (_ for _ in ()).throw(jinja2.TemplateError(message))
    return env


def render(template, messages):
    try:
        return environment().from_string(template).render(
            messages=messages, bos_token=R1_BOS, add_generation_prompt=True)
    except jinja2.TemplateError:
        return None


def conversations(rng, n):
    result = [[("user", "Hi")], [("system", "S"), ("user", "q")], [("user", "q"), ("system", "late"), ("user", "r")],
              [("system", "one"), ("system", "two"), ("user", "q")], [("assistant", "first")],
              [("user", "q"), ("assistant", "<think>\nx\n</think>\n\na"), ("assistant", "b")], [("system", "only")],
              [("user", ""), ("assistant", ""), ("user", "")]]
    for _ in range(n):
        result.append([(rng.choice(["system", "user", "user", "assistant"]), rng.choice(TEXTS))
                       for _ in range(rng.randint(1, 6))])
    return [[{"role": role, "content": content} for role, content in conversation] for conversation in result]


def variants(r1, qwen, smollm):
    """(name, template, known)"""
    opened = r1.replace("{{'<\uff5cAssistant\uff5c>'}}{% endif %}", "{{'<\uff5cAssistant\uff5c><think>\\n'}}{% endif %}")
    assert opened != r1
    yield "r1", r1, True
    yield "r1 that opens the thought", opened, True
    yield "r1, tool calls by membership", opened.replace(
        "message['content'] is none", "'tool_calls' in message").replace(
        "message['content'] is not none", "'tool_calls' not in message"), True
    yield "r1 spread over lines", opened.replace("{%- ", "\n    {%-  ").replace("{{", "{{-  "), True
    yield "r1, double quotes and dots", r1.replace("message['role']", "message.role").replace(
        "'</think>'", '"</think>"'), True
    yield "r1 with a final newline and a comment", "{# a comment #}\n" + r1 + "\n", True
    yield "qwen2.5-coder", qwen, True
    yield "qwen2.5", qwen.replace("{{\\\"name", "{\\\"name").replace("}}\\n</tool_call>", "}\\n</tool_call>"), True
    yield "qwen2.5, other system text", qwen.replace("You are Qwen, created", "You\\'re \\\"Qwen\\\"\\n, created"), True
    yield "qwen2.5 without indentation", "\n".join(line.strip() for line in qwen.split("\n")), True
    yield "smollm2", smollm, True
    yield "smollm2 on lines", smollm.replace("{%", "\n  {%-"), True
    yield "smollm2 on lines, without minus", smollm.replace("{%", "\n  {%"), False
    yield "qwen2", smollm.replace("You are a helpful AI assistant named SmolLM, trained by Hugging Face",
                                  "You are a helpful assistant."), True
    yield "chatml without a system text", (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
        " + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"), True
    yield "empty", "", False
    yield "text", "hello", False
    yield "r1 that keeps thoughts", r1.replace("{% set content = content.split('</think>')[-1] %}", ""), False
    yield "r1 up to the first mark", r1.replace("[-1]", "[0]"), False
    yield "r1 with a newline more", r1.replace("{{bos_token}}", "{{bos_token}}\n\n"), False
    yield "r1 with a space", r1.replace("{{bos_token}}", "{{bos_token}} "), False
    yield "r1 that joins system texts", r1.replace(
        "{% set ns.system_prompt = message['content'] %}",
        "{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}"), False
    yield "r1 always in a tool", r1.replace("is_tool=false, ", "is_tool=true, "), False
    yield "r1 cut", r1[:-12], False
    yield "r1 with a statement more", r1 + "{{ 1 }}", False
    yield "r1 that thinks twice", opened.replace("<think>\\n", "<think>\\n<think>\\n"), False
    yield "smollm2 that trims", smollm.replace("message['content']", "message['content'] | trim"), False
    yield "smollm2 on lines that print", smollm.replace("{{", "\n\n{{"), False
    yield "smollm2 without a newline", smollm.replace(" + '\n'}}", "}}"), False
    yield "smollm2, last instead of first", smollm.replace("loop.first", "loop.last"), False
    yield "smollm2 with a long system text", smollm.replace("named SmolLM", "x" * 600), False
    yield "qwen2.5, other order", qwen.replace("{{- '<|im_start|>' + message.role", "{{- '<|im_start|>' ~ message.role"), False
    yield "qwen2.5 without the loop's end", qwen.replace("{%- endfor %}", "", 1), False
    yield "chatml in one role", smollm.replace("message['role']", "'user'"), False
    yield "llama 3", ("{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
                      " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"), False


def main():
    templates = [read_keys(path)["tokenizer.chat_template"].decode() for path in sys.argv[1:4]]
    rng = random.Random(7)
    out = []
    for name, template, known in variants(*templates):
        entry = {"name": name, "template": template, "known": known}
        if known:
            entry["conversations"] = [{"messages": messages, "text": render(template, messages)}
                                      for messages in conversations(rng, 24)]
            assert all(c["text"] is not None for c in entry["conversations"])
        out.append(entry)
    with open(sys.argv[4], "w") as file:
        file.write("[" + ",\n".join(json.dumps(entry) for entry in out) + "]\n")


if __name__ == "__main__":
    main()
