"""Bodies are bounded before anything reads them, in bytes and in time, each and all together."""

import http.client
import socket
import tempfile

import pytest
from clients import eventually

from fullyconv.server import Limits

UPLOAD = 200_000


@pytest.fixture(scope="module")
def bounded(serving):
    with serving(limits=Limits(upload=UPLOAD, uploads=UPLOAD + 150_000, pause=0.5)) as client:
        yield client


def speak(client, text, timeout=20):
    """Send bytes as they are, and return all that comes until the server closes or is silent."""
    with socket.create_connection(client.address, timeout=timeout) as sock:
        sock.sendall(text)
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, response.read()


def head(*lines):
    return "\r\n".join(["POST /v1/predict HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def test_a_length_that_is_too_large_is_refused_unread(bounded):
    status, body = speak(bounded, head(f"Content-Length: {10**12}"))
    assert status == 413
    assert b"--max-upload" in body


def test_a_body_without_a_length_is_refused_when_it_has_grown_too_large(bounded):
    def chunks():
        while True:
            yield b"%x\r\n" % 50_000 + bytes(50_000) + b"\r\n"

    with socket.create_connection(bounded.address, timeout=20) as sock:
        sock.sendall(head("Transfer-Encoding: chunked"))
        sent = 0
        for chunk in chunks():
            sock.sendall(chunk)
            sent += 50_000
            if sent > 2 * UPLOAD:
                break
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 413


def test_a_body_that_stops_coming_is_given_up(bounded):
    status, body = speak(bounded, head("Content-Length: 1000") + b"some")
    assert status == 408
    assert b"too slowly" in body
    assert bounded.ask("/livez").status == 200


def test_all_bodies_together_are_bounded(serving, png, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the server keeps what it has read
    limits = Limits(upload=UPLOAD, uploads=UPLOAD, pause=600)  # or a slow machine gives the slow body up

    def kept():
        return sum(file.stat().st_size for file in tmp_path.glob("*/upload"))

    with serving(limits=limits) as client:
        with socket.create_connection(client.address) as slow:
            slow.sendall(head(f"Content-Length: {UPLOAD}") + bytes(UPLOAD - 10))
            eventually(lambda: kept() >= UPLOAD - 10_000)
            reply = client.predict(png + bytes(5000))
            assert reply.status == 429
            assert reply.headers["retry-after"] == "5"
        eventually(lambda: client.predict(png + bytes(5000)).status == 200)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_bodies_that_are_no_images_are_refused(client, kind):
    reply = client.predict(b"{}", Content_Type=kind)
    assert reply.status == 415
    assert "-F image=@FILE" in reply.problem["fix"]


def part(name, content=b"abc"):
    return b"--x\r\nContent-Disposition: form-data" + name + b"\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not a form at all",
        part(b'; name="other"; filename="a"') + b"--x--\r\n",
        part(b'; name="image"') + b"--x--\r\n",
        part(b'; name="image"; filename="a"') * 2 + b"--x--\r\n",
        part(b'; name="image"; filename="a"', b"a" * 20_000)[:-300],
        b"--x\r\nContent-Disposition: " + b"a" * 20_000,
        part(b"") + b"--x--\r\n",
        part(b'; name="image"; filename="a"'),
    ],
)
def test_forms_that_hold_no_one_image_are_refused(client, body):
    reply = client.predict(body, Content_Type="multipart/form-data; boundary=x")
    assert reply.status in (400, 422)
    assert reply.problem


def test_a_form_without_a_boundary_is_refused(client):
    assert client.predict(b"abc", Content_Type="multipart/form-data").problem["status"] == 400


def test_an_empty_body_is_no_image(client):
    assert client.predict(b"").problem["given"] == "the image: an empty file"
