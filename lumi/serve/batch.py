"""A file of requests answered without a server: OpenAI's batch format, a line each.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": […], "seed": 1}}

Answers are appended as they come, so a run that was killed goes on where it was: what has an answer is not asked again.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from lumi.errors import DataError, LumiError
from lumi.serve.api import FIELDS, Service
from lumi.serve.errors import ApiError, from_validation
from lumi.serve.protocol import ChatRequest, CompletionRequest
from lumi.serve.replies import failure, reply_to

log = logging.getLogger(__name__)

URLS = ("/v1/chat/completions", "/v1/completions")


def answer_file(service: Service, source: Path, out: Path, *, n_rows: int) -> int:
    """Answer every line that has no answer yet; returns how many of these could not be answered.

    Args:
        source: requests, a JSON object a line.
        out: gets ``custom_id``, ``response`` with ``status_code`` and ``body``, and ``error`` of each.
        n_rows: requests in the model at a time.

    Raises:
        DataError: a file cannot be read, a line is no request, or two have the same ``custom_id``.
    """
    lines = _requests(source)
    done = _answered(out)
    waiting = {name: line for name, line in lines.items() if name not in done}
    log.info("%s: %d requests, %d of them answered before", source, len(lines), len(lines) - len(waiting))
    return asyncio.run(_answer_all(service, waiting, out, n_rows))


async def _answer_all(service: Service, waiting: dict[str, dict[str, Any]], out: Path, n_rows: int) -> int:
    for model in service.models.values():
        model.scheduler.start()
    # As many more as run, so that a place that is free is taken at once.
    places = asyncio.Semaphore(2 * n_rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with out.open("a", encoding="utf-8") as file, tqdm(total=len(waiting), unit="answer", delay=2, disable=None) as bar:

        async def one(name: str, line: dict[str, Any]) -> int:
            async with places:
                status, body = await _answer(service, line)
            row = {
                "id": f"batch_req_{uuid.uuid4().hex}",
                "custom_id": name,
                "response": {"status_code": status, "request_id": uuid.uuid4().hex, "body": body},
                "error": None if status == 200 else body["error"],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            bar.update()
            return int(status != 200)

        try:
            n_failed = sum(await asyncio.gather(*(one(name, line) for name, line in waiting.items())))
        finally:
            for model in service.models.values():
                model.scheduler.stop()
    log.info("%s: %d answers, %d errors", out, len(waiting) - n_failed, n_failed)
    return n_failed


async def _answer(service: Service, line: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body, as the server would answer."""
    try:
        chat = line["url"] == URLS[0]
        body = (ChatRequest if chat else CompletionRequest).model_validate(line["body"])
        if body.stream:
            raise ApiError(400, "a file of answers has no streams", param="stream")
        model = service.find(body.model)
        answers = service.submit(model, model.requests(body), body)
        try:
            return 200, (await reply_to(body, answers).whole()).model_dump(mode="json")
        finally:
            answers.release()
    except ValidationError as error:
        wrong = from_validation([{**one, "loc": ("body", *one["loc"])} for one in error.errors()], FIELDS)
        return wrong.status, wrong.body
    except ApiError as error:
        return error.status, error.body
    except LumiError as error:
        return failure(error).status, failure(error).body


def _requests(source: Path) -> dict[str, dict[str, Any]]:
    """The lines by their name."""
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(_lines(source), start=1):
        where = f"{source}:{number}"
        try:
            row = json.loads(line)
            name, url, body = row["custom_id"], row["url"], row["body"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(where, f"is no request ({error!r})", "a line has custom_id, url and body") from None
        if url not in URLS or row.get("method", "POST") != "POST" or not isinstance(body, dict):
            raise DataError(f"{where} has url={url}", f"must be a POST to {' or '.join(URLS)} with an object as body")
        if not isinstance(name, str) or name in found:
            raise DataError(f"{where} has custom_id={name!r}", "must be a string that no other line has")
        found[name] = row
    return found


def _answered(out: Path) -> set[str]:
    """Names that have an answer; a line that a kill cut short is taken off the file."""
    if not out.exists():
        return set()
    text = out.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with out.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return {json.loads(line)["custom_id"] for line in whole.splitlines()}
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{out}", "holds something else than answers", "give another out=…") from None


def _lines(source: Path) -> Iterator[str]:
    try:
        with source.open(encoding="utf-8") as file:
            yield from (line for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"input={source}", f"cannot be read ({error})") from None
