"""What a client may send and what it gets: OpenAI's API, field by field, with its limits.

A field that OpenAI has and Lumi does not act on is refused when it asks for something, never ignored in silence. Beyond
OpenAI's there are ``top_k``, ``min_p``, ``repetition_penalty``, ``no_repeat_ngram`` and ``min_tokens``.
"""

import time
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from lumi.generate.sampling import MAX_SEED, MILDEST
from lumi.serve.rules import REAL, WHOLE, needs, rules, unfit

MAX_BODY_BYTES = 2_000_000
MAX_MESSAGES = 256
MAX_PROMPTS = 64
MAX_CHOICES = 8
MAX_LOGPROBS = 20
MAX_STOPS = 4
MAX_STOP_CHARS = 64
MAX_TOKENS = 1_000_000
MAX_TEXT_CHARS = 1_000_000

_STRICT = ConfigDict(extra="forbid", strict=True)


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31), WHOLE]], Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Nothing = Annotated[None, WithJsonSchema({"type": "null"})]


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = _STRICT
    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """A turn of a conversation."""

    model_config = _STRICT
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Name | None = Field(None, description="Accepted and not used.")

    @property
    def text(self) -> str:
        """All its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """What a stream ends with."""

    model_config = _STRICT
    include_usage: bool = False
    include_obfuscation: bool | None = Field(None, description="Accepted and not used.")


class Generation(BaseModel):
    """What both kinds of request share."""

    model_config = _STRICT
    model: Name | None = Field(None, description="One of /v1/models; without it, the first.")
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), WHOLE] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS), WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), REAL] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), REAL] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS), WHOLE] | None = Field(None, description="0 keeps every token.")
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), REAL] | None = None
    repetition_penalty: Annotated[float, Field(ge=MILDEST, le=100, allow_inf_nan=False), REAL] | None = None
    no_repeat_ngram: Annotated[int, Field(ge=0, le=MAX_TOKENS), WHOLE] | None = Field(
        None, description="0 lets everything repeat."
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED), WHOLE] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, StringConstraints(max_length=512)] | None = Field(None, description="Accepted and not used.")
    frequency_penalty: Annotated[float, Field(ge=0, le=0), REAL] | None = Field(
        None, description="Only 0: not supported."
    )
    presence_penalty: Annotated[float, Field(ge=0, le=0), REAL] | None = Field(
        None, description="Only 0: not supported."
    )
    logit_bias: Nothing = Field(None, description="Not supported.")

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @model_validator(mode="after")
    def _check_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise unfit("stream_options", "needs stream=true")
        return self


class ResponseFormat(BaseModel):
    """Only plain text is made."""

    model_config = _STRICT
    type: Literal["text"]


class ChatRequest(Generation):
    """Body of ``/v1/chat/completions``."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            needs("stream_options", "stream", True),
            needs("max_completion_tokens", "max_tokens", None),
            {
                "anyOf": [
                    {"properties": {"top_logprobs": {"enum": [None, 0]}}},
                    needs("top_logprobs", "logprobs", True)["anyOf"][1],
                ]
            },
        )
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    response_format: ResponseFormat | None = None
    store: Annotated[bool, WithJsonSchema({"const": False})] | None = Field(None, description="Nothing is stored.")
    metadata: dict[Name, Annotated[str, StringConstraints(max_length=512)]] | None = Field(
        None, description="Accepted and not used.", max_length=16
    )
    tools: Annotated[list[Nothing], Field(max_length=0)] | None = Field(None, description="Not supported.")

    @property
    def n_tokens(self) -> int | None:
        """Most tokens of an answer."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        """Alternatives to note at each token; None notes nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise unfit("max_tokens", "is the old name of max_completion_tokens: give one of them")
        if self.top_logprobs and not self.logprobs:
            raise unfit("top_logprobs", "needs logprobs=true")
        if self.store:
            raise unfit("store", "must be false: nothing is stored")
        return self


class CompletionRequest(Generation):
    """Body of ``/v1/completions``: the model goes on with a text."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            needs("stream_options", "stream", True),
            needs("best_of", "n", None, 1),
            {
                "anyOf": [
                    {"properties": {"echo": {"enum": [None, False]}}},
                    {"properties": {"logprobs": {"type": "null"}}},
                ]
            },
        )
    )

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    echo: bool | None = Field(None, description="Put the prompt before each answer.")
    best_of: Annotated[int, Field(ge=1, le=1), WHOLE] | None = Field(
        None, description="Only 1: all answers are returned."
    )
    suffix: Nothing = Field(None, description="Not supported.")

    @property
    def n_logprobs(self) -> int | None:
        """Alternatives to note at each token; None notes nothing."""
        return self.logprobs

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if self.best_of is not None and (self.n or 1) > 1:
            raise unfit("best_of", "does not go with n: all answers are returned")
        if self.echo and self.logprobs is not None:
            raise unfit("echo", "cannot be combined with logprobs: a prompt has none here")
        return self


class Preference(BaseModel):
    """Body of ``/v1/preferences``: which of two answers a person liked better."""

    model_config = _STRICT
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    chosen: Text
    rejected: Text
    models: dict[Literal["chosen", "rejected"], Name] | None = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED), WHOLE] | None = None
    sampling: (
        dict[Name, Annotated[float, Field(allow_inf_nan=False), REAL] | bool | Text | list[Stop] | None] | None
    ) = Field(None, max_length=32)


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """Body of every answer with a status from 400."""

    error: ErrorDetail


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(BaseModel):
    """One token that could have been."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """One token that was."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Of an answer, token by token."""

    content: list[TokenLogprob]


class CompletionLogprobs(BaseModel):
    """The same in the form of ``/v1/completions``."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class AssistantMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatResponse(BaseModel):
    """Of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class Delta(BaseModel):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(BaseModel):
    """What is new in one of the answers."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str


class CompletionChoice(BaseModel):
    """One of the answers, or what is new in it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class CompletionResponse(BaseModel):
    """Of ``/v1/completions``, and one event of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["lumi"] = "lumi"
    max_model_len: int
    chat: bool
    template: str | None
    default_system: str | None
    parameters: int


class ModelList(BaseModel):
    """Of ``/v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    preferences: bool


class Health(BaseModel):
    """Of ``/health``."""

    status: Literal["ok", "draining"]
    running: int
    waiting: int


class PreferenceSaved(BaseModel):
    """Of ``/v1/preferences``."""

    saved: Literal[True] = True
    count: int
