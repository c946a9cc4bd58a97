"""What is served: a model with its tokenizer and template, and how a client's fields become a request to it."""

import dataclasses
import functools
import time
from collections.abc import Sequence

from lumi.arch import DecoderConfig
from lumi.errors import ConfigError, LumiError
from lumi.generate import Request, SamplingParams
from lumi.generate.sampling import MAX_SEED
from lumi.serve.errors import ApiError
from lumi.serve.protocol import ChatMessage, ChatRequest, CompletionRequest, Generation, ModelCard
from lumi.serve.scheduler import Scheduler
from lumi.tokenizer import Message, Template, Tokenizer

_COMPLETION_TOKENS = 16
"""What OpenAI's completions take when nothing is said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that answers.

    Attributes:
        name: clients choose it by.
        config: its shape.
        tokenizer, template: its own; without a template it only continues texts.
        sampling: what holds where a client says nothing; ``max_new_tokens`` bounds every answer.
        fingerprint: of its weights: equal answers need equal fingerprints.
        scheduler: runs it.
    """

    name: str
    config: DecoderConfig
    tokenizer: Tokenizer
    template: Template | None
    sampling: SamplingParams
    fingerprint: str
    scheduler: Scheduler
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def card(self) -> ModelCard:
        """What ``/v1/models`` says of it."""
        return ModelCard(
            id=self.name,
            created=self.created,
            max_model_len=self.config.max_seq_len,
            chat=self.template is not None,
            template=self.template.name if self.template else None,
            default_system=self.template.default_system if self.template else None,
            parameters=self.config.n_params(),
        )

    @property
    def fingerprint_name(self) -> str:
        """As clients see it."""
        return f"fp_{self.fingerprint[:12]}"

    def requests(self, body: ChatRequest | CompletionRequest) -> list[Request]:
        """What the engine is asked.

        Raises:
            ApiError: see below.
        """
        return self.chat_requests(body) if isinstance(body, ChatRequest) else self.completion_requests(body)

    def chat_requests(self, body: ChatRequest) -> list[Request]:
        """The prompt of a conversation, once for every answer that is wanted.

        Raises:
            ApiError: the model has no template, the roles are out of order, or the conversation is too long.
        """
        if self.template is None:
            raise ApiError(
                400,
                f"{self.name} has seen no conversation: use /v1/completions",
                param="model",
                code="not_a_chat_model",
            )
        self._check_length(sum(len(message.text) for message in body.messages), "messages")
        prompt = self._render(self.template, body.messages)
        left = self.config.max_seq_len - len(prompt)
        n_tokens = body.n_tokens or max(1, min(left, self.sampling.max_new_tokens))
        return self._requests([prompt], body, n_tokens, body.n_logprobs, "messages")

    def completion_requests(self, body: CompletionRequest) -> list[Request]:
        """Every prompt, as often as answers are wanted.

        Raises:
            ApiError: a prompt is too long or holds an id that the model does not know.
        """
        prompts = [self._encode(prompt) for prompt in prompts_of(body)]
        return self._requests(prompts, body, body.max_tokens or _COMPLETION_TOKENS, body.logprobs, "prompt")

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a turn."""
        return tuple(self.template.stop_ids(self.tokenizer)) if self.template else ()

    @functools.cached_property
    def _longest_text(self) -> int:
        """More characters cannot be a prompt: every token stands for at most so many."""
        return self.config.max_seq_len * max(len(piece.text) for piece in self.tokenizer.pieces)

    def _render(self, template: Template, messages: Sequence[ChatMessage]) -> list[int]:
        try:
            return template.prompt(self.tokenizer, turns_of(messages))
        except LumiError as error:
            raise ApiError(400, str(error), param="messages", code="roles") from None

    def _encode(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            if max(prompt) >= self.config.vocab_size:
                raise ApiError(
                    400,
                    f"token {max(prompt)}: the model knows 0 to {self.config.vocab_size - 1}",
                    param="prompt",
                    code="unknown_token",
                )
            return prompt
        self._check_length(len(prompt), "prompt")
        try:
            return [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)]
        except LumiError as error:
            raise ApiError(400, str(error), param="prompt") from None

    def _check_length(self, n_chars: int, param: str) -> None:
        """Before anything is encoded."""
        if n_chars > self._longest_text:
            raise too_long(f"{n_chars:,} characters", self.config.max_seq_len, param)

    def _requests(
        self, prompts: Sequence[list[int]], body: Generation, n_tokens: int, top_logprobs: int | None, param: str
    ) -> list[Request]:
        for prompt in prompts:
            if len(prompt) >= self.config.max_seq_len:
                raise too_long(f"{len(prompt):,} tokens", self.config.max_seq_len, param)
        params = self._sampling(body, n_tokens)
        seeds = [None if params.seed is None else (params.seed + i) & MAX_SEED for i in range(body.n or 1)]
        return [
            Request(
                prompt,
                dataclasses.replace(params, seed=seed),
                self.config,
                eos_id=self.tokenizer.eos_id,
                top_logprobs=top_logprobs,
            )
            for prompt in prompts
            for seed in seeds
        ]

    def _sampling(self, body: Generation, n_tokens: int) -> SamplingParams:
        given = {
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "min_p": body.min_p,
            "repetition_penalty": body.repetition_penalty,
            "no_repeat_ngram": body.no_repeat_ngram,
            "min_new_tokens": body.min_tokens,
            "seed": None if body.seed is None else body.seed & MAX_SEED,
        }
        settings = {name: value for name, value in given.items() if value is not None}
        for name in ("top_k", "no_repeat_ngram"):  # off, where the server's own default is on
            settings[name] = settings.get(name, getattr(self.sampling, name)) or None
        try:
            return dataclasses.replace(
                self.sampling,
                **settings,
                max_new_tokens=min(n_tokens, self.sampling.max_new_tokens),
                stop_ids=(*self.sampling.stop_ids, *self.stop_ids)
                if isinstance(body, ChatRequest)
                else self.sampling.stop_ids,
            )
        except ConfigError as error:
            raise ApiError(400, str(error), param="min_tokens", code="min_above_max") from None


def turns_of(messages: Sequence[ChatMessage]) -> list[Message]:
    """A conversation in the roles that templates know."""
    return [
        Message(role="system" if message.role == "developer" else message.role, content=message.text)
        for message in messages
    ]


def prompts_of(body: CompletionRequest) -> list[str] | list[list[int]]:
    """The prompts of a request, whichever of four forms it has."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]  # pyright: ignore[reportReturnType]  # all are, as the protocol has checked
    return prompt  # pyright: ignore[reportReturnType]


def too_long(what: str, context: int, param: str) -> ApiError:
    """What does not fit the context, and its size."""
    return ApiError(
        400,
        f"{what} do not fit: the context is {context:,} tokens, and one must be left for the answer",
        param=param,
        code="context_length_exceeded",
    )
