"""Errors as OpenAI's clients expect them: a status, and a body that names the field."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(HTTPException):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what is wrong and what would be right.
        param: the field.
        code: for programs.
        retry_after_seconds: when to come again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_seconds = retry_after_seconds

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """As an answer."""
        headers = {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, status_code=self.status, headers=headers)


def from_validation(errors: Sequence[Mapping[str, Any]], fields: Collection[str]) -> ApiError:
    """The first field that breaks a rule, and how many more do. What was sent is not repeated: it may be anything.

    Args:
        fields: names that a place can consist of; other names in it are those of alternatives, or the sender's own.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not JSON", code="invalid_json")
    # Where a field has alternatives, each complains; the one whose type is right, or that got furthest, was meant.
    same = [error for error in errors if error["loc"][:2] == first["loc"][:2]]
    furthest = max(same, key=lambda error: (not error["type"].endswith("_type"), len(_place(error, fields))))
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _place(furthest, fields))
    param = param.lstrip(".") or furthest.get("ctx", {}).get("param")
    unknown = furthest["type"] == "extra_forbidden"
    message = "is not a field of this request" if unknown else str(furthest["msg"])
    n_others = len({error["loc"][:2] for error in errors}) - 1
    others = f" (and {n_others} more)" if n_others else ""
    code = "unknown_field" if unknown else "invalid_value"
    return ApiError(400, f"{param or 'the body'}: {message}{others}", param=param, code=code)


def _place(error: Mapping[str, Any], fields: Collection[str]) -> list[str | int]:
    """Where it is, in words of the protocol; an unknown field by its own name, cut and made printable."""
    path = list(error["loc"][1:])
    last = path.pop() if path and error["type"] == "extra_forbidden" else None
    place = [part for part in path if isinstance(part, int) or part in fields]
    return place if last is None else [*place, str(last)[:200].encode("utf-8", "replace").decode()]
