"""The files of the page, as any client gets them. What the page does: tests/web."""
import gzip
import re


def fetch(server, path, **headers):
    connection = server.connection()
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_files_of_the_page(serve, tiny):
    server = serve(tiny())
    status, headers, index = fetch(server, "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and index.startswith(b"<!doctype html>")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(rb"(?:https?:)?//[a-z]", index), "nothing from elsewhere"
    paths = re.findall(r'(?:src|href)="(/web/[^"]+)"', index.decode())
    assert len(paths) > 8
    for path in {"/", *paths}:
        status, headers, plain = fetch(server, path)
        assert status == 200 and "Content-Encoding" not in headers and headers["Cache-Control"] == "no-cache"
        etag = headers["ETag"]
        status, headers, packed = fetch(server, path, Accept_Encoding="br, gzip;q=0.8")
        assert status == 200 and headers["Content-Encoding"] == "gzip" and gzip.decompress(packed) == plain
        assert headers["Vary"] == "Accept-Encoding"
        status, headers, _ = fetch(server, path, Accept_Encoding="gzip;q=0, *;q=0.1")
        assert "Content-Encoding" not in headers
        status, headers, body = fetch(server, path, If_None_Match=f'"other", {etag}')
        assert status == 304 and body == b"" and headers["ETag"] == etag and "Content-Length" not in headers
        status, _, _ = fetch(server, path, If_None_Match='"other"')
        assert status == 200
    assert b"Permission is hereby granted" in fetch(server, "/web/licenses.txt")[2]


def test_no_other_file_can_be_had(serve, tiny):
    server = serve(tiny())
    for path in ("/web", "/web/", "/web/../web/main.js", "/web/..%2f..%2fetc/passwd", "/web/main.js/", "/web//main.js",
                 "/web/main.js%00", "/web/index.html", "/WEB/main.js", "/web/%6dain.js", "//web/main.js", "/etc/passwd"):
        assert fetch(server, path)[0] == 404, path
    status, headers, _ = server.post("/", {})
    assert status == 405 and "GET" in headers["Allow"]
