"""The server's own description: exact, and with the ways that lead from one operation to another."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_LINKS = {
    ("/v1/models", "get"): {
        "card": ("/v1/models/{name}", {"parameters": {"name": "$response.body#/data/0/id"}}),
        "conversation": ("/v1/chat/completions", {"requestBody": {"model": "$response.body#/data/0/id"}}),
        "continuation": ("/v1/completions", {"requestBody": {"model": "$response.body#/data/1/id"}}),
    },
    ("/v1/models/{name}", "get"): {
        "continuation": ("/v1/completions", {"requestBody": {"model": "$response.body#/id"}}),
    },
    ("/v1/chat/completions", "post"): {
        "card": ("/v1/models/{name}", {"parameters": {"name": "$response.body#/model"}}),
        "preference": (
            "/v1/preferences",
            {
                "requestBody": {
                    "messages": "$request.body#/messages",
                    "chosen": "$response.body#/choices/0/message/content",
                }
            },
        ),
    },
    ("/v1/completions", "post"): {
        "card": ("/v1/models/{name}", {"parameters": {"name": "$response.body#/model"}}),
    },
}
"""From an operation, the name of what may follow, its path, and what it takes from the answer."""


def described(app: FastAPI, *, talking: list[str], known: list[str]) -> dict[str, Any]:
    """The OpenAPI document, without the 422 of the framework, which is never sent, and with the models' names.

    Args:
        app: whose routes.
        talking, known: names of the models that have conversations, and of all.
    """
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for operation in (operation for path in found["paths"].values() for operation in path.values()):
        operation["responses"].pop("422", None)
    for (path, method), links in _LINKS.items():
        found["paths"][path][method]["responses"]["200"]["links"] = {
            name: {"operationId": _operation(found, target), **takes} for name, (target, takes) in links.items()
        }
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, names in (("ChatRequest", talking), ("CompletionRequest", known)):
        schemas[name]["properties"]["model"]["anyOf"][0]["enum"] = names
    return found


def _operation(document: dict[str, Any], path: str) -> str:
    (operation,) = document["paths"][path].values()
    return operation["operationId"]
