"""The server does what its OpenAPI description says, answers whatever is sent to it, and touches its home alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi.routing import APIRoute
from native import Api, studio
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bottega import web
from bottega.api import a1111, native
from bottega.bench.requests import measure

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def described(api: Api) -> dict[str, Any]:
    """The native API's own description."""
    told: dict[str, Any] = api.get("/openapi.json")
    paths = {path: operations for path, operations in told["paths"].items() if path.startswith("/api/")}
    return {**told, "paths": {path: each for path, each in paths.items() if path != "/api/session"}}


def test_the_routes_of_a_door_are_one_flat_list() -> None:
    """Of routers within routers FastAPI looks every request up several times at each."""
    for routes in (native.routes, a1111.routes, web.routes):
        assert all(isinstance(route, APIRoute) for route in routes)


def test_a_stranger_can_read_what_every_request_means(described: dict[str, Any]) -> None:
    assert len(described["paths"]) > 45
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"] and operation["description"], where
            for status in ("401", "403", "404", "422", "429"):
                (content,) = operation["responses"][status]["content"].values()
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}, where
            if "requestBody" in operation and "application/json" in operation["requestBody"]["content"]:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert described["components"]["schemas"][name]["additionalProperties"] is False, where
    for name, schema in described["components"]["schemas"].items():
        for field, told in schema.get("properties", {}).items():
            if told.get("type") == "array" and "additionalProperties" in schema:
                assert "maxItems" in told, f"{name}.{field} has no limit"
            if told.get("type") == "string" and schema.get("additionalProperties") is False:
                assert {"maxLength", "pattern", "enum", "const"} & set(told), f"{name}.{field} has no limit"


def test_a_program_can_read_how_to_get_in_and_what_every_error_looks_like(api: Api) -> None:
    told = api.get("/openapi.json")
    schemas, schemes = told["components"]["schemas"], told["components"]["securitySchemes"]
    assert schemes["key"]["scheme"] == "bearer" and {"key": []} in told["security"]
    assert schemes["browser"]["name"] == api.served.access.cookie
    shapes = {"/v1": {"error"}, "/sdapi": set(schemas["A1111Error"]["required"]), "/api": {"error"}}
    for door, missing in ("/v1", "/models/none"), ("/sdapi", "/v1/img2img"), ("/api", "/jobs/" + "0" * 20):
        answer = api.served("POST" if door == "/sdapi" else "GET", door + missing, {} if door == "/sdapi" else None,
                            authorization=f"Bearer {api.served.access.machine_key}")  # fmt: skip
        assert answer.status == 404 and shapes[door] <= set(answer.json), answer.body
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            where, responses = f"{method} {path}", operation["responses"]
            errors = [each for status, each in responses.items() if status == "default" or status >= "400"]
            name = "OpenAIError" if path.startswith("/v1") else "A1111Error"
            name = "ErrorAnswer" if path.startswith(("/api", "/health", "/metrics")) else name
            for error in errors:
                (content,) = error["content"].values()
                assert content["schema"] == {"$ref": f"#/components/schemas/{name}"} and name in schemas, where
            assert "default" in responses or {"400", "401", "503"} <= set(responses), where
            if "requestBody" in operation:
                assert "default" in responses or {"413", "415"} <= set(responses), where
    assert told["paths"]["/api/session"]["post"]["security"] == []
    assert "multipart/form-data" in told["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]


def test_outputs_are_described_as_asked_for_by_any_field(described: dict[str, Any]) -> None:
    for path in ("/api/outputs", "/api/outputs/ratios"):
        (fields,) = [each for each in described["paths"][path]["get"]["parameters"] if each["name"] == "fields"]
        assert (fields["in"], fields["style"], fields["explode"]) == ("query", "form", True)
        assert fields["schema"]["propertyNames"]["pattern"].startswith("^field")


@pytest.mark.slow
def test_answers_are_as_they_are_described(api: Api, described: dict[str, Any]) -> None:
    schema = schemathesis.openapi.from_dict(described)
    headers = {"Authorization": f"Bearer {api.served.access.machine_key}"}
    statuses: set[int] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/events"):
            continue  # a stream has no end

        @hypothesis.settings(
            max_examples=4, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.seed(1)
        @hypothesis.given(operation.as_strategy())
        def conforms(case: Any) -> None:
            case.cookies = {}  # one that was made up, beside the key, is refused at the gate
            with_key = case.call(base_url=api.served.origin, headers=headers, timeout=120)
            statuses.add(with_key.status_code)
            case.validate_response(with_key, checks=CHECKS)

        conforms()
    assert {200, 201, 202, 204, 404, 422} <= statuses and not {401, 403} & statuses


@pytest.mark.slow
def test_thousands_of_requests_make_nothing_fail_and_touch_nothing_elsewhere(tmp_path: Path) -> None:
    report = measure(1500, tmp_path, processes=1, seed=4)
    assert report.requests > 4000
    assert report.statuses[401] + report.statuses[403] < report.requests / 5, "most come past the gate"
    assert report.failures == []
    assert report.outside == []
