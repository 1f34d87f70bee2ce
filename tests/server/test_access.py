"""Who may ask: nobody by another name, from another page, or from another machine without a token."""

import pytest

from fullyconv.errors import ConfigError
from fullyconv.server import Access, Server
from fullyconv.server.access import is_loopback

TOKEN = "0123456789abcdef-secret"


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host, alone):
    assert is_loopback(host) is alone
    if alone:
        Access().require_for(host)
    else:
        with pytest.raises(ConfigError, match="token"):
            Access().require_for(host)
        Access(token=TOKEN).require_for(host)


def test_no_server_is_bound_beyond_loopback_without_a_token(model_file):
    with pytest.raises(ConfigError, match="--token-file"):
        Server([model_file], host="0.0.0.0", port=0)


@pytest.mark.parametrize("token", ["", "short", "with a\nline end in it", "not ascii, öäüöäüöäü"])
def test_what_is_no_token(token):
    with pytest.raises(ConfigError, match="16 or more"):
        Access(token=token)


@pytest.fixture(scope="module")
def locked(serving):
    with serving(access=Access(token=TOKEN)) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/v1/progress/x", "/metrics", "/nowhere"])
@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xe4",
    ],
)
def test_a_wrong_token_opens_nothing(locked, path, given):
    reply = locked.ask(path, **{} if given is None else {"Authorization": given})
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in reply.problem["detail"]


def test_the_right_token_opens(locked, png):
    assert locked.ask("/v1/models", Authorization=f"Bearer {TOKEN}").status == 200
    assert locked.ask("/v1/models", Authorization=f"bearer  {TOKEN} ").status == 200
    assert locked.predict(png, Authorization=f"Bearer {TOKEN}").status == 200
    assert locked.predict(png).status == 401


@pytest.mark.parametrize("path", ["/", "/app.js", "/livez", "/readyz", "/openapi.json"])
def test_what_says_nothing_of_images_needs_no_token(locked, path):
    assert locked.ask(path).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "localhost.evil"]
)
def test_names_of_others_are_refused(client, host):
    reply = client.ask("/v1/models", Host=host)
    assert reply.status == 421
    assert "--allow-host" in reply.problem["fix"]


def test_own_names_are_served(client, serving):
    _, port = client.address
    for host in ("localhost", "LOCALHOST:1", f"127.0.0.1:{port}", "127.0.0.1"):
        assert client.ask("/livez", Host=host).status == 200
    with serving(access=Access(hosts=("cells.Example",))) as named:
        assert named.ask("/livez", Host="cells.example:8000").status == 200


def test_other_pages_may_not_ask(client, png):
    host, port = client.address
    for origin in ("https://evil.example", f"http://{host}:{port + 1}", "null"):
        reply = client.predict(png, Origin=origin)
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers
    assert client.predict(png, Origin=f"http://{host}:{port}").status == 200


def test_other_pages_may_ask_where_they_are_named(serving, png):
    origin = "https://lab.example"
    with serving(access=Access(origins=(origin,))) as client:
        reply = client.predict(png, Origin=origin)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, origin)
        asked = client.ask(
            "/v1/predict", method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST"
        )
        assert asked.headers["access-control-allow-origin"] == origin
        assert client.predict(png, Origin="https://evil.example").status == 403


@pytest.mark.parametrize("path", ["/", "/v1/models", "/nowhere"])
def test_browsers_are_told_to_keep_it_to_this_page(client, path):
    headers = client.ask(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
