"""Connections that make the server wait are closed, and nobody else waits for them."""

import json
import socket
import time
from contextlib import ExitStack

import pytest
from clients import disc, encoded, eventually

from fullyconv.server import Limits

SLOW = 50
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"


def is_closed(sock):
    """Whether the server has closed a connection; whatever it has said is read."""
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def read_all(sock):
    received = b""
    while part := sock.recv(65536):
        received += part
    return received


def test_slow_sockets_are_closed_and_a_good_client_is_served_meanwhile(serving, png):
    """Some say nothing, some half a head, some half a body: a byte at a time, for as long as they may."""
    with serving(limits=Limits(pause=1.5)) as client, ExitStack() as stack:
        starts = [
            b"",
            b"GE",
            HEAD,
            HEAD + b"Content-Length: 5000\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        ]
        slow = []
        for number in range(SLOW):
            sock = stack.enter_context(socket.create_connection(client.address, timeout=20))
            sock.sendall(starts[number % len(starts)])
            slow.append(sock)
        eventually(lambda: client.ask("/metrics").body.count(b"fullyconv_requests_open"))
        answered = 0
        open_ = list(slow)
        while open_:
            assert client.predict(png).status == 200
            answered += 1
            for sock in list(open_):
                sock.settimeout(0.001)
                try:
                    sock.sendall(b"X")
                except ConnectionError:
                    open_.remove(sock)
                    continue
                if is_closed(sock):
                    open_.remove(sock)
        assert answered >= 1


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(serving):
    with (
        serving(limits=Limits(pause=0.4)) as client,
        socket.create_connection(client.address, timeout=20) as sock,
    ):

        def dribble():
            for byte in HEAD + b"X: " + b"a" * 10_000:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)

        with pytest.raises(ConnectionError):
            dribble()
        assert client.ask("/livez").status == 200


def test_the_second_request_of_a_connection_is_not_waited_for_either(serving):
    with (
        serving(limits=Limits(pause=0.4)) as client,
        socket.create_connection(client.address, timeout=20) as sock,
    ):
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in sock.recv(65536)
        sock.sendall(b"GET /livez HTTP/1.1\r\nHo")
        assert is_closed(sock)


def test_who_does_not_take_an_answer_is_let_go(serving):
    """The answer is larger than what the system keeps for a client that does not read."""
    body = encoded(disc(900, 1200))
    with serving(limits=Limits(pause=2)) as client, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(client.address)
        sock.sendall(
            b"POST /v1/predict?output=image&output=probabilities HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        eventually(lambda: client.service.jobs)
        eventually(lambda: not client.service.jobs)
        sock.settimeout(20)
        assert is_closed(sock)


def test_more_connections_than_there_may_be_are_closed(serving):
    with serving(limits=Limits(connections=5)) as client, ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(client.address, timeout=20)) for _ in range(5)
        ]
        with socket.create_connection(client.address, timeout=20) as more:
            assert is_closed(more)
        sockets[0].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in read_all(sockets[0])


@pytest.mark.parametrize(
    "words",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so_as_a_problem(client, words):
    with socket.create_connection(client.address, timeout=20) as sock:
        sock.sendall(words)
        sock.shutdown(socket.SHUT_WR)
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400
    assert client.ask("/livez").status == 200


def test_a_head_without_an_end_is_not_read_on(client):
    with socket.create_connection(client.address, timeout=20) as sock, pytest.raises(ConnectionError):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 50_000_000)


def test_the_end_does_not_wait_for_what_never_comes(serving):
    with ExitStack() as stack:
        with serving(limits=Limits(pause=600, finish=1)) as client:
            sock = stack.enter_context(socket.create_connection(client.address, timeout=20))
            sock.sendall(HEAD + b"Content-Length: 5000\r\n\r\nsome")
            eventually(lambda: client.service.jobs)
        assert is_closed(sock)
