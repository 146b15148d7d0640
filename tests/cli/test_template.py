"""`runnel template`: a chat request on stdin to the prompt on stdout."""
import json
import os
import struct
import subprocess

import pytest
from models_folder import MODELS

RUNNEL = os.environ["RUNNEL"]
MODEL = MODELS / "smollm2-135m.gguf"

pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason="smollm2-135m.gguf is not there")


def template(request, *arguments):
    text = request if isinstance(request, str) else json.dumps(request)
    return subprocess.run([RUNNEL, "template", "-m", MODEL, *arguments], input=text.encode(), capture_output=True, timeout=60)


def test_the_models_own_template():
    done = template({"messages": [{"role": "user", "content": "Hi ü"}]})
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.decode() == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi ü<|im_end|>\n<|im_start|>assistant\n")


def test_a_file_with_tools_arguments_and_a_time(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{% for t in tools %}{{ t|tojson }}{% endfor %}{{ strftime_now('%d %b %Y') }}{{ level }}"
                    "{% for m in messages %}[{{ m.role }}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}]"
                    "{% endfor %}{% if not add_generation_prompt %}{{ eos_token }}{% endif %}\n")
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{\"a\": 1}"}}]}
    done = template({"messages": [call, {"role": "tool", "content": "1"}], "tools": [{"name": "f"}],
                     "chat_template_kwargs": {"level": 3}, "add_generation_prompt": False},
                    "--file", str(file), "--now", "2026-08-05T12:00:00")
    assert done.stdout.decode() == '{"name": "f"}05 Aug 20263[assistant{"a": 1}][tool]<|im_end|>', done.stderr


@pytest.mark.parametrize("text, said", [
    ("{{ raise_exception('Roles must alternate') }}", "line 1: Roles must alternate"),
    ("a\n{% if x %}", "line 2: expected"),
    ("{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}", "more than"),
])
def test_a_template_that_refuses_is_one_line(tmp_path, text, said):
    file = tmp_path / "t.jinja"
    file.write_text(text)
    done = template({"messages": [{"role": "user", "content": "q"}]}, "--file", str(file))
    assert done.returncode == 1 and not done.stdout
    assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert "expected" not in said or f"runnel: {file}: " in done.stderr.decode()


def test_a_model_without_a_template_is_named(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "v.gguf", ["<unk>", "<s>", "</s>"], [2, 3, 3])
    done = subprocess.run([RUNNEL, "template", vocabulary], input=b'{"messages": []}', capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr.decode().startswith(f"runnel: {vocabulary}: key ") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("request_text", ["", "[]", "{\"messages\": 1}", "{\"messages\": [1]}", "{", "{\"messages\": [{}]}",
                                          "{\"messages\": [], \"chat_template_kwargs\": 1}"])
def test_requests_that_are_wrong(request_text):
    done = template(request_text)
    assert done.returncode == 1 and not done.stdout and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("request_text", ["", " \n\t\r"])
def test_nothing_on_stdin(runnel, tmp_path, request_text):
    model = write_vocabulary(tmp_path / "v.gguf", ["<unk>", "<s>", "</s>"], [2, 3, 3])
    (tmp_path / "t.jinja").write_text("any")
    done = subprocess.run([runnel, "template", model, "--file", tmp_path / "t.jinja"], input=request_text, capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "runnel: stdin: expected a JSON object, found nothing\n")


def test_what_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_bytes(b"caf\xe9")
    for arguments, request, name in (((), b"caf\xe9", "stdin"), (("--file", str(file)), b"{}", str(file))):
        done = subprocess.run([RUNNEL, "template", "-m", MODEL, *arguments], input=request, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode() == f"runnel: {name}: expected UTF-8 text, found byte 0xE9 at offset 3\n"


def write_vocabulary(path, tokens, kinds):
    """SentencePiece's vocabulary alone, whose keys do not name what begins and ends texts."""
    def string(text):
        data = text.encode()
        return struct.pack("<Q", len(data)) + data

    def key(name, kind, value):
        return string(name) + struct.pack("<I", kind) + value

    def array(kind, values):
        return struct.pack("<IQ", kind, len(values)) + b"".join(values)

    keys = [key("general.architecture", 8, string("llama")), key("tokenizer.ggml.model", 8, string("llama")),
            key("tokenizer.ggml.tokens", 9, array(8, [string(token) for token in tokens])),
            key("tokenizer.ggml.scores", 9, array(6, [struct.pack("<f", 0) for _ in tokens])),
            key("tokenizer.ggml.token_type", 9, array(5, [struct.pack("<i", kind) for kind in kinds]))]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))
    return path


def test_tokens_that_the_file_does_not_name(runnel, tmp_path):
    """Where the server's tokenizer knows what begins and ends texts, so does the template here."""
    jinja = tmp_path / "t.jinja"
    jinja.write_text("{{ bos_token }}|{{ eos_token }}")
    for kinds, expected in (([2, 3, 3], b"<s>|</s>"), ([2, 1, 1], b"|")):
        vocabulary = write_vocabulary(tmp_path / "v.gguf", ["<unk>", "<s>", "</s>"], kinds)
        done = subprocess.run([runnel, "template", vocabulary, "--file", jinja], input=b'{"messages": []}', capture_output=True,
                              timeout=60)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
