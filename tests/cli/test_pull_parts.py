"""`runnel pull` of models in parts: all are got, gone on from where they ended, and checked, each for itself and together."""
import hashlib
import os
import pty
import re
import resource
import signal
import subprocess
import time

import pytest

from pulling import (environment, gguf, gguf_part, part_name, pull, send, send_range, send_slowly, start_pull,
                     wait_until)

N = 3
PARTS = {part_name(number, N): gguf_part(number, N) for number in range(1, N + 1)}
FIRST, SECOND, THIRD = PARTS
N_BYTES = sum(map(len, PARTS.values()))


def file_of(handler):
    return handler.path.split("?")[0].split("/")[-1]


def serve(parts, **headers):
    """Answers with the parts of this table."""
    def respond(handler):
        name = file_of(handler)
        if name not in parts:
            return send(handler, b"", 404)
        return send_range(handler, parts[name], f'"{name}"', **headers)

    return respond


def assert_all(result, folder, parts=PARTS):
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / next(iter(parts))}\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == parts


def test_all_are_got(runnel, server, tmp_path):
    server.respond = serve(PARTS)
    result = pull(runnel, server, tmp_path, f"{server.url}/some/{FIRST}?download=true")
    assert_all(result, tmp_path)
    assert "m: comes in 3 parts" in result.stderr
    for name, body in PARTS.items():
        assert f"{name}: no checksum is known; its sha256 is {hashlib.sha256(body).hexdigest()}" in result.stderr
    assert {path for path, _ in server.requests} == {f"/some/{name}?download=true" for name in PARTS}
    server.requests.clear()
    assert_all(pull(runnel, server, tmp_path, f"{server.url}/some/{FIRST}"), tmp_path)
    assert server.requests == [], "what is here is not asked for again"


@pytest.mark.parametrize("given", [SECOND, THIRD])
def test_by_any_of_them(runnel, server, tmp_path, given):
    server.respond = serve(PARTS)
    assert_all(pull(runnel, server, tmp_path, f"{server.url}/{given}"), tmp_path)


@pytest.mark.parametrize("source, path", [
    (f"hf:owner/repository/folder/{FIRST}", "/owner/repository/resolve/main/folder/"),
    (f"ms:owner/repository/{FIRST}", "/models/owner/repository/resolve/master/"),
])
def test_from_a_hub(runnel, server, tmp_path, source, path):
    server.respond = serve(PARTS)
    result = pull(runnel, server, tmp_path, source, HF_TOKEN="secret")
    assert_all(result, tmp_path)
    assert {asked for asked, _ in server.requests} == {path + name for name in PARTS}
    assert all("Authorization" in headers for _, headers in server.requests), "both are the same server here"


def test_ctrl_c_then_resume(runnel, server, tmp_path):
    good = serve(PARTS)

    def respond(handler):
        if file_of(handler) != SECOND or handler.command == "HEAD":
            return good(handler)
        return send_slowly(handler, 100_000, PARTS[SECOND], f'"{SECOND}"')

    server.respond = respond
    url = f"{server.url}/{FIRST}"
    process = start_pull(runnel, server, tmp_path, url)
    part = tmp_path / f"{SECOND}.part"
    wait_until(lambda: part.exists() and part.stat().st_size == 100_000, "the second part has not come")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 1 and "Stopped." in messages
    assert f"{(len(PARTS[FIRST]) + 100_000) // 1000} kB that came are kept: the same command goes on from here." in messages
    assert (tmp_path / FIRST).read_bytes() == PARTS[FIRST] and not (tmp_path / THIRD).exists()

    server.requests.clear()
    server.respond = good
    result = pull(runnel, server, tmp_path, url)
    assert_all(result, tmp_path)
    assert f"{SECOND}: from {server.url}/{SECOND}, going on after 100 kB" in result.stderr
    assert f"/{FIRST}" not in {path for path, _ in server.requests}, "it is here"
    assert [headers["Range"] for path, headers in server.requests if "Range" in headers] == ["bytes=100000-"]


def test_broken_connections_go_on(runnel, server, tmp_path):
    good = serve(PARTS)
    broken = set()

    def respond(handler):
        name = file_of(handler)
        if handler.command == "GET" and name not in broken:
            broken.add(name)
            return send_range(handler, PARTS[name], f'"{name}"', cut=200_000)
        return good(handler)

    server.respond = respond
    assert_all(pull(runnel, server, tmp_path, f"{server.url}/{FIRST}"), tmp_path)
    assert [headers["Range"] for _, headers in server.requests if "Range" in headers] == ["bytes=200000-"] * N


def test_one_is_missing(runnel, server, tmp_path):
    parts = {name: body for name, body in PARTS.items() if name != SECOND}
    server.respond = serve(parts)
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert result.returncode == 1 and result.stdout == ""
    assert f"{server.url}/{SECOND}: the server answered 404" in result.stderr
    assert "300 kB that came are kept: the same command goes on from here." in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]
    server.respond = serve(PARTS)
    server.requests.clear()
    assert_all(pull(runnel, server, tmp_path, f"{server.url}/{FIRST}"), tmp_path)
    assert f"/{FIRST}" not in {path for path, _ in server.requests}


@pytest.mark.parametrize("body, found", [
    (PARTS[THIRD], "expected part 2 of 3 of a model, found part 3 of 3 of a model"),
    (gguf_part(2, 4), "expected part 2 of 3 of a model, found part 2 of 4 of a model"),
    (gguf(200_000), "expected part 2 of 3 of a model, found a model in one file"),
    (PARTS[SECOND][:150_000], "expected a whole GGUF file"),
    (PARTS[SECOND] + b"\0" * 100_000, "as its tensors say"),
    (b"<!DOCTYPE html><title>Log in</title>", "expected a GGUF file, found an HTML page"),
], ids=["another number", "another count", "whole", "cut", "longer", "a page"])
def test_a_wrong_part_is_not_kept(runnel, server, tmp_path, body, found):
    server.respond = serve(PARTS | {SECOND: body})
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert result.returncode == 1 and found in result.stderr, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]


@pytest.mark.parametrize("body", [PARTS[SECOND][:150_000], PARTS[THIRD], b"<!DOCTYPE html><title>Log in</title>"],
                         ids=["cut", "another number", "a page"])
def test_a_wrong_part_that_is_here_is_got_anew(runnel, server, tmp_path, body):
    server.respond = serve(PARTS)
    for name in PARTS:
        (tmp_path / name).write_bytes(body if name == SECOND else PARTS[name])
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert_all(result, tmp_path)
    assert f"{SECOND}: expected" in result.stderr and "getting it anew" in result.stderr
    assert {path for path, _ in server.requests} == {f"/{SECOND}"}


@pytest.mark.parametrize("body, found", [
    (gguf_part(2, 3, n_tensors=7), "m-00002-of-00003.gguf: key \"split.tensors.count\": expected 3 as in the first part"),
    (gguf_part(2, 3, name="blk.1.weight"), "tensor \"blk.1.weight\": expected once, found in part 1 and in part 2"),
], ids=["another model", "a tensor twice"])
def test_parts_that_do_not_belong_together(runnel, server, tmp_path, body, found):
    """Each is right for itself; the message says what to do, and that the same command would not help."""
    server.respond = serve(PARTS | {SECOND: body})
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert result.returncode == 1 and result.stdout == ""
    assert found in result.stderr and "`runnel rm m` removes all parts" in result.stderr
    assert "goes on" not in result.stderr


def test_a_part_under_the_name_of_a_whole_model(runnel, server, tmp_path):
    server.respond = lambda handler: send(handler, PARTS[FIRST])
    result = pull(runnel, server, tmp_path, f"{server.url}/model.gguf")
    assert result.returncode == 1 and "expected a model in one file, found part 1 of 3 of a model" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_announced_checksums(runnel, server, tmp_path):
    def respond(handler):
        name = file_of(handler)
        digest = hashlib.sha256(PARTS[name]).hexdigest()
        send_range(handler, PARTS[name], f'"{name}"', X_Linked_Etag=f'"{digest}"')

    server.respond = respond
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert_all(result, tmp_path)
    assert result.stderr.count("checksum is right") == N

    (tmp_path / THIRD).unlink()
    server.respond = lambda handler: send(handler, PARTS[THIRD], X_Linked_Etag=f'"{"0" * 64}"')
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert result.returncode == 1 and f"expected sha256 {'0' * 64}, found" in result.stderr
    assert not (tmp_path / THIRD).exists()


def test_a_server_that_tells_no_length(runnel, server, tmp_path):
    """Nor answers HEAD: the parts come all the same."""
    good = serve(PARTS)
    server.respond = lambda handler: good(handler) if handler.command == "GET" else send(handler, b"", 403)
    assert_all(pull(runnel, server, tmp_path, f"{server.url}/{FIRST}"), tmp_path)
    assert len(server.requests) == N + 1, "one HEAD that was refused is enough"


def test_a_full_disk_keeps_whole_parts(runnel, server, tmp_path):
    large = PARTS | {SECOND: gguf_part(2, 3, n_bytes=600_000)}
    server.respond = serve(large)
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}",
                  before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY)))
    assert result.returncode == 1 and f"{SECOND}.part: cannot be written" in result.stderr
    assert (tmp_path / FIRST).read_bytes() == large[FIRST]
    server.requests.clear()
    assert_all(pull(runnel, server, tmp_path, f"{server.url}/{FIRST}"), tmp_path, large)
    assert f"/{FIRST}" not in {path for path, _ in server.requests}


@pytest.mark.parametrize("at", [FIRST, SECOND])
def test_a_second_pull_and_rm_leave_it_alone(runnel, server, tmp_path, at):
    """While a later part comes, too: the first one is held."""
    good = serve(PARTS)

    def respond(handler):
        if file_of(handler) != at or handler.command == "HEAD":
            return good(handler)
        return send_slowly(handler, 100_000, PARTS[at], f'"{at}"')

    server.respond = respond
    process = start_pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    part = tmp_path / f"{at}.part"
    wait_until(lambda: part.exists() and part.stat().st_size == 100_000, "the part has not come")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    removed = subprocess.run([runnel, "rm", "m"], env=environment(server, tmp_path), capture_output=True, text=True, timeout=60)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert second.returncode == 1 and "another download is writing it" in second.stderr.splitlines()[-1]
    assert removed.returncode == 1 and "m is being downloaded" in removed.stderr
    assert before == after


def test_a_folder_is_in_the_way_of_the_last(runnel, server, tmp_path):
    (tmp_path / THIRD).mkdir()
    server.respond = serve(PARTS)
    result = pull(runnel, server, tmp_path, f"{server.url}/{FIRST}")
    assert result.returncode == 1 and f"{tmp_path}/{THIRD}: expected a file or nothing there" in result.stderr
    assert server.requests == []


def test_too_many(runnel, server, tmp_path):
    result = pull(runnel, server, tmp_path, f"{server.url}/{part_name(1, 513)}")
    assert result.returncode == 2 and "expected a model in at most 512 parts, found 513" in result.stderr
    assert server.requests == []


def test_one_of_one_is_a_file(runnel, server, tmp_path):
    body = gguf_part(1, 1)
    server.respond = lambda handler: send_range(handler, body)
    result = pull(runnel, server, tmp_path, f"{server.url}/{part_name(1, 1)}")
    assert_all(result, tmp_path, {part_name(1, 1): body})
    assert len(server.requests) == 1 and "parts" not in result.stderr


def test_the_bar_is_that_of_all_parts(runnel, server, tmp_path):
    """It begins with what is here and ends at the size of all."""
    (tmp_path / FIRST).write_bytes(PARTS[FIRST])
    good = serve(PARTS)

    def slow(handler):
        body = PARTS[file_of(handler)]
        if handler.command == "HEAD":
            return good(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for begin in range(0, len(body), 50_000):
            handler.wfile.write(body[begin:begin + 50_000])
            handler.wfile.flush()
            time.sleep(0.15)

    server.respond = slow
    screen, terminal = pty.openpty()
    process = subprocess.Popen([runnel, "pull", f"{server.url}/{FIRST}"], env=environment(server, tmp_path) | {"TERM": "xterm"},
                               stderr=terminal, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(terminal)
    output = b""
    try:
        while block := os.read(screen, 4096):
            output += block
    except OSError:
        pass  # how Linux says that the other side is closed
    os.close(screen)
    assert process.wait(timeout=60) == 0, output
    bars = re.findall(rb"\rm (\d)/3 \[[=> ]*\] (\d+) kB of (\d+) kB", output)
    assert {int(total) for _, _, total in bars} == {round(N_BYTES / 1000)}, output
    done = [(int(part), int(kb)) for part, kb, _ in bars]
    assert done == sorted(done) and {part for part, _ in done} == {2, 3}
    assert min(kb for _, kb in done) >= 300
