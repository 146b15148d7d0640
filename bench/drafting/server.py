"""A server that is asked: it runs between `with` and the end of its block."""
import json
import socket
import subprocess
import tempfile
import urllib.request

from contest.players import wait_until_healthy

CONTEXT = 4096
ASK_TIMEOUT_S = 1200


class Server:
    def __init__(self, program, model, threads, keys, flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.keys.write("\n".join(keys) + "\n")
        self.keys.flush()
        command = [program, "serve", "-m", model, "--ctx", str(CONTEXT), "--threads", str(threads), "--port", str(port),
                   "--api-key-file", self.keys.name, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        wait_until_healthy(self.url, self.process)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.keys.close()

    def ask(self, key, prompt, **fields):
        """The answer's text, its tokens, its speed and what was guessed of it."""
        body = {"messages": [{"role": "user", "content": prompt}], **fields}
        request = urllib.request.Request(self.url + "/v1/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as response:
            answer = json.load(response)
        timings, message = answer["timings"], answer["choices"][0]["message"]
        return {"text": (message.get("reasoning_content") or "") + (message["content"] or ""), "n": timings["predicted_n"],
                "tok_s": (timings["predicted_n"] - 1) * 1e3 / timings["predicted_ms"], "draft_n": timings["draft_n"],
                "accepted_n": timings["draft_accepted_n"]}
