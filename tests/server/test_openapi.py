"""The OpenAPI document says all there is, and the server does what it says."""

import json

import pytest
from clients import disc, encoded, eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fullyconv.server import Access

EXAMPLES = 6
IMAGES = [encoded(disc()), encoded(disc(7, 3), "JPEG"), encoded(disc()[..., 0], "TIFF"), b"no image", b""]


@pytest.fixture(scope="module")
def document(client):
    return client.ask("/openapi.json").json


def test_every_path_is_described(document):
    methods = {(path, method) for path, found in document["paths"].items() for method in found}
    assert methods == {
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/v1/models", "get"),
        ("/v1/progress/{name}", "get"),
        ("/v1/predict", "post"),
    }


def test_every_answer_is_described_with_its_type(document):
    for found in document["paths"].values():
        for operation in found.values():
            assert operation["summary"]
            assert operation["tags"]
            for status, response in operation["responses"].items():
                kinds = set(response["content"])
                assert kinds == {"application/problem+json"} if int(status) >= 400 else kinds


def test_every_name_it_refers_to_is_there(document):
    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for part in value.values():
                yield from references(part)
        elif isinstance(value, list):
            for part in value:
                yield from references(part)

    found = {reference.rpartition("/")[2] for reference in references(document)}
    assert found >= {"ProblemDetails", "Result", "ClassFacts", "RunLengths", "ServedModels"}
    assert found <= document["components"]["schemas"].keys()


def test_models_are_named_in_it(document):
    parameters = {each["name"]: each for each in document["paths"]["/v1/predict"]["post"]["parameters"]}
    assert parameters.keys() == {"model", "output", "shapes", "dtype", "opacity", "X-Request-ID"}
    assert "discs" in json.dumps(parameters["model"]["schema"])
    assert all("description" in each for each in parameters.values())


def test_the_token_is_in_it_where_one_is_asked_for(serving, document):
    assert "securitySchemes" not in document["components"]
    with serving(access=Access(token="0123456789abcdef")) as client:
        locked = client.ask("/openapi.json").json
    assert locked["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert locked["paths"]["/v1/predict"]["post"]["security"] == [{"token": []}]
    assert "security" not in locked["paths"]["/livez"]["get"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nowhere", "GET", 404),
        ("/v1", "GET", 404),
        ("/v1/predict/", "POST", 404),
        ("/docs", "GET", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", "GET", 404),
        ("/livez", "POST", 405),
        ("/v1/predict", "GET", 405),
        ("/v1/models", "DELETE", 405),
    ],
)
def test_what_is_not_there_is_a_problem_too(client, path, method, status):
    reply = client.ask(path, method=method)
    assert reply.status == status
    assert reply.problem["type"] == "about:blank"
    if status == 405:
        assert reply.headers["allow"]


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "../x", "ä"])
def test_names_of_requests_are_plain(client, png, name):
    reply = client.ask("/v1/predict", png, X_Request_ID=name.encode("latin-1"), Content_Type="image/png")
    assert reply.problem["status"] == 422


def test_a_server_that_is_not_ready_says_so(client):
    assert client.ask("/livez").json == client.ask("/readyz").json == {"status": "ok"}
    client.service.is_ready = False
    try:
        assert client.ask("/readyz").problem["status"] == 503
        assert client.ask("/livez").status == 200
    finally:
        client.service.is_ready = True


def test_metrics_are_what_prometheus_reads(client, png):
    from prometheus_client.parser import text_string_to_metric_families

    def numbers():
        reply = client.ask("/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(reply.body.decode())
        return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}

    before = numbers()
    client.predict(png)
    for stranger in range(3):
        client.ask(f"/nowhere/{stranger}")

    def risen(*key):
        return numbers().get(key, 0) - before.get(key, 0)

    # An answer is counted when all of it is sent, and its reader may have gone on by then.
    eventually(lambda: risen("fullyconv_requests_total", "/v1/predict", "200"))
    eventually(lambda: risen("fullyconv_requests_total", "404", "other") >= 3)
    assert risen("fullyconv_requests_total", "/v1/predict", "200") == 1
    assert risen("fullyconv_requests_total", "404", "other") == 3
    assert risen("fullyconv_pixels_total", "discs") == 60 * 80
    assert risen("fullyconv_stage_seconds_count", "decode") == 1
    assert numbers()[("process_resident_memory_bytes",)] > 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_the_server_does_what_the_document_says(client, mode):
    """Schemathesis makes requests of the document, right and wrong ones; none may make the server fail."""
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    load_all_checks()
    for kind in ("octet-stream", "png", "jpeg", "tiff", "bmp", "webp", "gif"):
        group = "application" if kind == "octet-stream" else "image"
        schemathesis.openapi.media_type(f"{group}/{kind}", st.sampled_from(IMAGES))
    schema = schemathesis.openapi.from_url(f"{client.url}/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode == "NEGATIVE" and operation.path != "/v1/predict":
            continue  # there is nothing to do wrong

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=GenerationMode[mode]))
        def ask(case):
            nonlocal asked
            asked += 1
            # Not every body that the document allows is an image.
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            assert response.status_code < 500

        ask()
    assert asked >= EXAMPLES
    assert client.ask("/livez").status == 200
