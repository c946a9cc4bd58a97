"""Text that the model writes while it learns: at every validation, from fixed prompts with a fixed seed."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl

from lumi.arch import Decoder
from lumi.callbacks.tracking import Tracker
from lumi.errors import ConfigError
from lumi.generate import SamplingParams, generate
from lumi.manifest import write_atomic
from lumi.parallel import whole_decoder
from lumi.tokenizer import Message, Template, Tokenizer

log = logging.getLogger(__name__)


class Samples(pl.Callback):
    """Writes ``samples/step_00000100.md``, shows the first sample, and sends a table to the loggers that take one.

    Args:
        prompts: what to continue; an empty prompt is the beginning of a document.
        run_folder: of the run; the files go to its ``samples/``.
        tokenizer: of the run.
        decoder: the model that is trained.
        sampling: how to choose tokens.
        template: how prompts are asked in the stages that learn from conversations.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[str],
        run_folder: Path,
        tokenizer: Tokenizer,
        decoder: Decoder,
        sampling: SamplingParams,
        template: Template | None = None,
    ) -> None:
        if not prompts:
            raise ConfigError(
                "callbacks.samples.prompts=[]", "needs at least one prompt", "or set callbacks.samples=null"
            )
        self.prompts, self.folder, self.tokenizer = list(prompts), run_folder / "samples", tokenizer
        self.decoder, self.sampling, self.template = decoder, sampling, template

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue every prompt; the first rank does."""
        with whole_decoder(trainer, self.decoder) as decoder:
            if decoder is not None:
                self._write(trainer, decoder)

    def _write(self, trainer: pl.Trainer, decoder: Decoder) -> None:
        step = trainer.global_step
        if self.template is None:
            texts = continue_prompts(decoder, self.tokenizer, self.prompts, self.sampling)
        else:
            texts = answer_prompts(decoder, self.tokenizer, self.template, self.prompts, self.sampling)
        rows = list(zip(self.prompts, texts, strict=True))
        body = "\n".join(
            f"## {prompt or '(beginning of a document)'}\n\n{_quote(prompt + text)}\n" for prompt, text in rows
        )
        write_atomic(self.folder / f"step_{step:08d}.md", f"# Samples after step {step:,}\n\n{body}")
        log.info("sample: %s", " ".join((rows[0][0] + rows[0][1]).split())[:300])
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.log_samples(rows, step)


def written_samples(folder: Path) -> dict[str, str]:
    """Step → what was written then, as Markdown, of the first, the middle and the last validation."""
    files = sorted(folder.glob("step_*.md"))
    chosen = sorted({0, len(files) // 2, len(files) - 1}) if files else []
    bodies = {files[number].stem.removeprefix("step_"): files[number].read_text(encoding="utf-8") for number in chosen}
    texts = {step: body.partition("\n\n")[2] for step, body in bodies.items()}
    # Headings only, which begin a line; what the model wrote is quoted and stays as it is.
    return {str(int(step)): re.sub("^## ", "#### ", text, flags=re.MULTILINE) for step, text in texts.items()}


def continue_prompts(
    decoder: Decoder, tokenizer: Tokenizer, prompts: Sequence[str], sampling: SamplingParams
) -> list[str]:
    """The model's continuation of each prompt, control tokens left out."""
    encoded = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
    return [tokenizer.decode(done.tokens) for done in generate(decoder, encoded, sampling, eos_id=tokenizer.eos_id)]


def answer_prompts(
    decoder: Decoder, tokenizer: Tokenizer, template: Template, prompts: Sequence[str], sampling: SamplingParams
) -> list[str]:
    """The model's answer to each prompt, asked with a template; put on a line of its own."""
    encoded = [template.prompt(tokenizer, [Message(role="user", content=prompt or "Hello.")]) for prompt in prompts]
    sampling = dataclasses.replace(sampling, stop_ids=tuple(template.stop_ids(tokenizer)))
    done = generate(decoder, encoded, sampling, eos_id=tokenizer.eos_id)
    return ["\n" + template.read(tokenizer, answer.tokens) for answer in done]


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))
