"""What a model answers: exact match on questions with one right answer, whether it stops, how likely the right answer is.

Answers are greedy, so that a figure is a function of the model. An answer may be about twice as long as the longest right
one of its task; a model that is not through by then has not stopped.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from lumi.arch import Decoder
from lumi.corpus.chat import Conversation
from lumi.data import answer_document
from lumi.errors import DataError
from lumi.eval.interval import wilson
from lumi.eval.likelihood import score_documents
from lumi.generate import SamplingParams, generate
from lumi.tokenizer import Message, Template, Tokenizer

OPEN = "open answers"
"""Task of conversations that name none: there is no one right answer, so exact match means little."""

_SPARE_TOKENS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One question, what was expected and what the model said.

    Attributes:
        question: the user's last message.
        exact: the answer is the expected one, but for white space around it.
        stopped: the model ended it.
        f1: harmonic mean of precision and recall of the answer's words, as for SQuAD (arXiv:1606.05250).
        nats: negative log-likelihood of the expected answer, its end included.
        n_tokens, n_bytes: of the expected answer; the end is one token and no byte.
    """

    id: str
    task: str
    question: str
    expected: str
    answer: str
    exact: bool
    stopped: bool
    f1: float
    nats: float
    n_tokens: int
    n_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatReport:
    """The answers to one source's questions.

    Attributes:
        split: test, or val where a source has no test.
        answers: in the order of the source.
        too_long: questions left out because they and an answer do not fit the context.
        first_line: only the first line of an answer counted, because the model has learnt no turns.
    """

    split: str
    answers: list[Answer]
    too_long: int
    first_line: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with the figures of every task."""
        tasks = {task: _figures(group) for task, group in self.by_task().items()}
        return dataclasses.asdict(self) | {"tasks": tasks}

    def by_task(self) -> dict[str, list[Answer]]:
        """The answers of every task, in order."""
        groups: dict[str, list[Answer]] = {}
        for answer in self.answers:
            groups.setdefault(answer.task, []).append(answer)
        return groups


def run_chat(
    model: Decoder,
    tokenizer: Tokenizer,
    template: Template,
    conversations: Iterable[Conversation],
    *,
    split: str,
    limit: int | None = None,
    first_line: bool = False,
    batch_size: int = 64,
    name: str = "chat",
) -> ChatReport:
    """Ask the last question of every conversation and judge the answer.

    Args:
        template: how the model is asked.
        split: where the conversations come from, for the report.
        limit: of each task at most so many, the first ones.
        first_line: judge the first line of an answer only: for a model that has seen no conversation and goes on.
        batch_size: questions in the model at a time.
        name: shown beside the progress bars.

    Raises:
        DataError: no conversation fits the model's context.
    """
    chosen, too_long = _choose(conversations, template, tokenizer, model.config.max_seq_len, limit)
    if not chosen:
        raise DataError(f"{name}: {too_long} conversations", "none fits the model's context", "raise arch.max_seq_len")
    prompts = [template.prompt(tokenizer, item.messages[:-1]) for item in chosen]
    expected = [item.messages[-1].content for item in chosen]
    documents = [
        answer_document(template, tokenizer, item.messages[:-1], right)
        for item, right in zip(chosen, expected, strict=True)
    ]
    lengths = [int(mask.sum()) for _, mask in documents]
    stops = tuple(template.stop_ids(tokenizer))
    longest: dict[str, int] = {}
    for item, length in zip(chosen, lengths, strict=True):
        longest[_task(item)] = max(length, longest.get(_task(item), 0))
    most = [2 * longest[_task(item)] + _SPARE_TOKENS for item in chosen]
    written = _generate(model, prompts, most, stops, tokenizer.eos_id, batch_size, name)
    scores = score_documents(model, documents, name=name)
    answers = []
    for index, item in enumerate(chosen):
        text = template.read(tokenizer, written[index].tokens).strip()
        text = text.partition("\n")[0].strip() if first_line else text
        right = expected[index].strip()
        answers.append(
            Answer(
                id=item.id,
                task=_task(item),
                question=item.messages[-2].content,
                expected=right,
                answer=text,
                exact=text == right,
                stopped=written[index].finish_reason == "stop",
                f1=word_f1(text, right),
                nats=-float(scores.log_probs[index]),
                n_tokens=int(scores.n_tokens[index]),
                n_bytes=len(right.encode()),
            )
        )
    return ChatReport(split=split, answers=answers, too_long=too_long, first_line=first_line)


def word_f1(answer: str, expected: str) -> float:
    """Overlap of two texts as bags of words, from 0 to 1."""
    one, other = Counter(answer.lower().split()), Counter(expected.lower().split())
    shared = (one & other).total()
    return 0.0 if shared == 0 else 2 * shared / (one.total() + other.total())


def _choose(
    conversations: Iterable[Conversation], template: Template, tokenizer: Tokenizer, context: int, limit: int | None
) -> tuple[list[Conversation], int]:
    """The conversations to ask, and how many are too long: question and right answer must fit the context."""
    chosen: list[Conversation] = []
    taken, too_long = Counter[str](), 0
    for item in conversations:
        if limit is not None and taken[_task(item)] >= limit:
            continue
        tokens, _ = answer_document(template, tokenizer, item.messages[:-1], item.messages[-1].content)
        if len(tokens) > context:
            too_long += 1
            continue
        taken[_task(item)] += 1
        chosen.append(item)
    return chosen, too_long


def _task(item: Conversation) -> str:
    return item.meta.get("task", OPEN)


def _generate(
    model: Decoder,
    prompts: Sequence[list[int]],
    most: Sequence[int],
    stops: tuple[int, ...],
    eos_id: int,
    batch_size: int,
    name: str,
) -> list[Any]:
    """A greedy completion of every prompt; prompts of like length share a batch, which pads little."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: dict[int, Any] = {}
    with tqdm(total=len(prompts), desc=f"ask {name}", unit="question", delay=2, disable=None, leave=False) as bar:
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            params = [
                SamplingParams(temperature=0.0, max_new_tokens=most[index], stop_ids=stops, seed=0) for index in part
            ]
            done = generate(model, [prompts[index] for index in part], params, eos_id=eos_id, batch_size=batch_size)
            found |= dict(zip(part, done, strict=True))
            bar.update(len(part))
    return [found[index] for index in range(len(prompts))]


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """Counts and shares of one task."""
    n, exact, stopped = len(answers), sum(a.exact for a in answers), sum(a.stopped for a in answers)
    nats, n_tokens = sum(a.nats for a in answers), sum(a.n_tokens for a in answers)
    return {
        "n": n,
        "exact": exact / n,
        "exact_interval": list(wilson(exact, n)),
        "stopped": stopped / n,
        "stopped_interval": list(wilson(stopped, n)),
        "f1": sum(a.f1 for a in answers) / n,
        "answer_nats_per_token": nats / n_tokens,
        "checkable": answers[0].task != OPEN,
    }


def ask(model: Decoder, tokenizer: Tokenizer, template: Template, question: str, sampling: SamplingParams) -> str:
    """The model's answer to one question."""
    prompt = template.prompt(tokenizer, [Message(role="user", content=question)])
    sampling = dataclasses.replace(sampling, stop_ids=(*sampling.stop_ids, *template.stop_ids(tokenizer)))
    (done,) = generate(model, [prompt], sampling, eos_id=tokenizer.eos_id)
    return template.read(tokenizer, done.tokens)
