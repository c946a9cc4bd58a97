"""Words for `lumi.serve.protocol`: JSON's one kind of number, and fields that go together or not."""

from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _real(value: Any) -> Any:
    """A whole number of any size, where any number may stand; too large a one is an infinity, which is refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return float("inf")
    return value


def unfit(param: str, message: str) -> PydanticCustomError:
    """A field that does not go with another one; its name is the error's."""
    return PydanticCustomError("unfit", message, {"param": param})  # pyright: ignore[reportArgumentType]  # not a literal


# These stand last, around the bounds: within them, the bounds would be missing from the JSON schema.
WHOLE, REAL = BeforeValidator(_whole), BeforeValidator(_real)


def needs(field: str, other: str, *values: Any) -> dict[str, Any]:
    """JSON Schema's words for: where a field is said, another one is among these."""
    wanted: dict[str, Any] = {"properties": {other: {"enum": list(values)}}}
    if None not in values:
        wanted["required"] = [other]
    return {"anyOf": [{"properties": {field: {"type": "null"}}}, wanted]}


def rules(*each: dict[str, Any]) -> dict[str, Any]:
    """All of these hold."""
    return {"allOf": list(each)}
