"""What the tests of the command share: the program under test, and a server on this machine that can misbehave."""
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models_folder import real_model  # noqa: E402


@pytest.fixture(scope="session")
def runnel():
    """The program under test. ctest says which build."""
    path = Path(os.environ.get("RUNNEL", Path(__file__).resolve().parents[2] / "build" / "runnel"))
    assert path.is_file(), f"{path} is not built"
    return str(path)


@pytest.fixture
def tiny(runnel, tmp_path):
    """Makes a tiny model with the tool that is built beside the tests: tiny("qwen2") is its path, tiny("qwen2", "Q3_K") that of one whose matrices have
    that type."""
    tool = Path(runnel).parent / "tests" / "make_tiny_model"

    def make(kind="qwen2", *of_type):
        path = tmp_path / f"{'-'.join([kind, *of_type])}.gguf"
        if not path.exists():
            subprocess.run([tool, path, kind, *of_type], check=True)
        return str(path)

    return make


@pytest.fixture
def smollm2():
    return real_model("smollm2-135m")


class Server:
    """Answers GET with self.respond(handler), which a test sets. Remembers every request's path and headers."""

    def __init__(self):
        self.requests = []
        self.respond = lambda handler: handler.send_error(404)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.close_connection = True
                outer.requests.append((self.path, dict(self.headers)))
                try:
                    outer.respond(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client left: some tests are about that

            do_HEAD = do_GET

            def end_headers(self):
                self.send_header("Connection", "close")  # who is not told may ask again on a connection that is just closed
                super().end_headers()

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def other_server():
    server = Server()
    yield server
    server.close()
