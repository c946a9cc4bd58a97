"""Errors as OpenAI's clients expect them: a status, and a body that names the field."""

from collections.abc import Mapping, Sequence
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


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first field that breaks a rule, and how many more do. What was sent is not repeated: it may be anything."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not JSON", code="invalid_json")
    place = [part for part in first["loc"] if part not in ("body", "query", "path")]
    # Names of alternatives stand among the names of fields: the field ends where they begin.
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".") or None
    message = str(first["msg"]).removeprefix("Value error, ")
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    unknown = first["type"] == "extra_forbidden"
    return ApiError(
        400,
        f"{param or 'the body'}: {'is not a field of this request' if unknown else message}{others}",
        param=_field(param),
        code="unknown_field" if unknown else "invalid_value",
    )


def _field(param: str | None) -> str | None:
    """A path without what can only be the sender's own text."""
    return None if param is None else param[:200].encode("utf-8", "replace").decode()
