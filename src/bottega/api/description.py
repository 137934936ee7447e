"""The description for programs (OpenAPI): what the gate and the error handler answer, beside what the routes say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from bottega.api import doors

_TEXT = {"type": "string"}
# What errors look like at the doors of other programs' clients; ours is described by the native API's routes.
_ERRORS: dict[str, dict[str, Any]] = {
    "openai": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
            }
        },
    },
    "a1111": {
        "type": "object",
        "required": ["error", "detail", "body", "errors"],
        "properties": dict.fromkeys(("error", "detail", "body", "errors"), _TEXT),
    },
}
_NAMES = {"openai": "OpenAIError", "a1111": "A1111Error", "native": "ErrorAnswer"}
_BEFORE_THE_ROUTE = {413: "the body is too long", 415: "the body is of a type that is not taken"}


class App(FastAPI):
    """An application that describes its doors as their clients meet them."""

    def openapi(self) -> dict[str, Any]:
        """The description, completed when it is asked for first."""
        if self.openapi_schema is None:
            told = super().openapi()
            for door, schema in _ERRORS.items():
                told["components"]["schemas"][_NAMES[door]] = schema
            told["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "the key of a user"},
                "browser": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": self.state.access.cookie,
                    "description": "what a browser gets that was signed in",
                },
            }
            told["security"] = [{"key": []}, {"browser": []}]
            for path, operation in _operations(told):
                _complete(path, operation)
        return super().openapi()


def _operations(told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in told["paths"].items():
        for operation in operations.values():
            yield path, operation


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Say who is let in to an operation, and what it answers where it does not do what it is asked for."""
    if doors.is_public(path):
        operation["security"] = []
    elif doors.may_be_open(path):
        operation["security"] = [{"key": []}, {"browser": []}, {}]
    name, responses = _NAMES[doors.envelope(path)], operation["responses"]
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    if "401" not in responses:  # no route of the native API's subjects, which say it one by one
        responses.pop("422", None)  # FastAPI's own, in whose shape nothing is answered here
        responses["default"] = {"description": "what went wrong", "content": content}
    elif "requestBody" in operation:
        for status, description in _BEFORE_THE_ROUTE.items():
            responses[str(status)] = {"description": description, "content": content}
