"""Asks a server's /health again and again, in a process of its own: python health_probe.py PORT.

Nothing else runs in it, so that what it measures is the server's time and not that of a busy test. Each answer's
milliseconds, from before the connection to the last byte, are a line; it ends with its standard input."""
import select
import socket
import sys
import time

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(port):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(REQUEST)
        answer = b""
        while more := client.recv(4096):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return 1000 * (time.monotonic() - began)


def main():
    port = int(sys.argv[1])
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        print(f"{ask(port):.3f}")


if __name__ == "__main__":
    main()
