"""``plan=true``: what to train on this device, and for how long, before anything is trained."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lumi.arch import DecoderConfig
from lumi.architectures import architecture, architecture_names
from lumi.callbacks import read_metrics
from lumi.callbacks.progress import peak_memory_bytes
from lumi.data import Curriculum, MixedWindows
from lumi.energy import energy_meter
from lumi.eval.scaling_runs import Fitted, read_law
from lumi.memory import estimate_memory
from lumi.plan import CHINCHILLA, Budget, Plan, measure_micro_batch, measure_peak_flops, size_text, time_text
from lumi.profile import HOURS_SECONDS, PROFILE_SECONDS, Cost, Work, free_bytes, measure, steps_in, try_sizes
from lumi.trainer import release_memory

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What a plan is asked about.

    Attributes:
        work: the model and the windows of a step.
        budget: of the run. steps: that it means, unless it is in hours.
        tokens_per_step: of all devices, on average. flops_per_token: of this model. seq_len: of its windows.
        vocab_size: of the tokenizer, for other architectures.
        n_validation_windows: of every validation. val_every_steps: null is ten validations in all.
        law: a fitted scaling law, or None.
    """

    work: Work
    budget: Budget
    steps: int
    tokens_per_step: float
    flops_per_token: int
    n_params: int
    seq_len: int
    vocab_size: int
    n_validation_windows: int
    val_every_steps: int | None
    law: Fitted | None = None

    @classmethod
    def of(
        cls,
        work: Work,
        data: MixedWindows,
        curriculum: Curriculum,
        config: DecoderConfig,
        budget: Budget,
        law: Fitted | None,
    ) -> "Question":
        """Of a run that is prepared."""
        return cls(
            work=work,
            budget=budget,
            steps=data.length.total_steps,
            tokens_per_step=curriculum.tokens_per_step,
            flops_per_token=config.flops_per_token(data.seq_len),
            n_params=config.n_params(),
            seq_len=data.seq_len,
            vocab_size=config.vocab_size,
            n_validation_windows=len(data.val_dataloader()) * data.batch_size,
            val_every_steps=work.setup.val_every_steps,
            law=law,
        )


def say_plan(
    work: Work, data: MixedWindows, curriculum: Curriculum, config: DecoderConfig, budget: Budget, law: str | None
) -> None:
    """Measure for half a minute and log the plan.

    Args:
        law: path of a fitted scaling law, or None.
    """
    fitted = read_law(Path(law)) if law else None
    for line in answer(Question.of(work, data, curriculum, config, budget, fitted), seconds=PROFILE_SECONDS):
        log.info("%s", line)


def answer(question: Question, *, seconds: float) -> list[str]:
    """Measure for so long, and say it in lines."""
    meter, meter_words = energy_meter(question.work.device)
    costs = try_sizes(question.work, seconds=seconds, meter=meter)
    fitting = [cost for cost in costs if cost.seconds is not None]
    free = free_bytes(question.work.device)
    lines = [*_sizes(costs, question), f"memory          {size_text(free) if free else '?'} free on this device"]
    if not fitting:
        return [
            *lines,
            "nothing fits    data.batch_size or arch.max_seq_len lower, or arch.checkpoint_activations=true",
        ]
    best = min(fitting, key=lambda cost: cost.seconds or 0.0)
    steps, expected = _length(question, best)
    tokens = steps * question.tokens_per_step
    rate = question.tokens_per_step / (best.seconds or 1.0)
    reached = rate * question.flops_per_token
    lines += [
        f"best            data.batch_size={best.batch_size} trainer.accumulate={best.accumulate}",
        f"length          {steps:,} steps, {tokens / 1e6:,.2f} M tokens, {tokens / question.n_params:,.1f} a parameter",
        f"expected time   {time_text(expected)} with validation; {rate:,.0f} tokens/s, {reached / 1e9:,.1f} GFLOP/s",
        f"peak memory     about {size_text(best.memory_bytes)}",
        _energy(best, steps, meter_words),
        *_loss(question, question.n_params, tokens),
    ]
    return [*lines, *alternatives(question, expected, reached)]


def _length(question: Question, best: Cost) -> tuple[int, float]:
    """Steps, and seconds with validation."""
    budget, batches = question.budget, -(-question.n_validation_windows // best.batch_size)
    if budget.hours is not None:
        return steps_in(
            budget.hours, best, n_validation_batches=batches, val_every_steps=question.val_every_steps
        ), 3600 * budget.hours
    n_validations = 10 if question.val_every_steps is None else question.steps // question.val_every_steps
    return question.steps, question.steps * (best.seconds or 0.0) + n_validations * batches * best.validation_seconds


def _sizes(costs: Sequence[Cost], question: Question) -> list[str]:
    lines = []
    for cost in costs:
        name = f"micro-batch {cost.batch_size:<4}"
        if cost.seconds is None:
            lines.append(f"{name}does not fit: about {size_text(cost.memory_bytes)}")
            continue
        rate = question.tokens_per_step / cost.seconds
        text = f"about {size_text(cost.memory_bytes)}, {cost.accumulate} a step of {cost.seconds:.3g} s"
        lines.append(f"{name}{rate:>12,.0f} tokens/s, {text}")
    return lines


def _energy(best: Cost, steps: int, words: str) -> str:
    if best.joules is None:
        return f"energy          {words}"
    joules = best.joules * steps
    return f"energy          about {joules / 3.6e6:,.3g} kWh ({joules / 1e3:,.0f} kJ), {words}"


def _loss(question: Question, n_params: int, tokens: float) -> list[str]:
    if question.law is None:
        return []
    loss, low, high = question.law.predict(n_params, tokens)
    return [f"expected loss   {loss:.3f} nats per token ({low:.3f} to {high:.3f}) by the scaling law"]


def alternatives(question: Question, seconds: float, flops_per_second: float) -> list[str]:
    """What the named architectures would do in this time, at the operations per second that this model reached.

    Smaller models reach less than larger ones, so the far ends of the table are the least certain.
    """
    lines = [
        f"In {time_text(seconds)} at {flops_per_second / 1e9:,.1f} GFLOP/s ({CHINCHILLA} tokens a parameter are optimal):"
    ]
    rows: list[tuple[float, str]] = []
    named = {name: architecture(name, question.vocab_size) for name in architecture_names()}
    for name, config in sorted(named.items(), key=lambda pair: pair[1].n_params()):
        seq_len, n_params = min(question.seq_len, config.max_seq_len), config.n_params()
        tokens = seconds * flops_per_second / config.flops_per_token(seq_len)
        optimal = CHINCHILLA * n_params * config.flops_per_token(seq_len) / flops_per_second
        loss = (
            ""
            if question.law is None
            else ", loss {:.3f} ({:.3f} to {:.3f})".format(*question.law.predict(n_params, tokens))
        )
        text = f"{n_params / 1e6:7.1f} M parameters, {tokens / 1e6:10,.1f} M tokens"
        text += f" = {tokens / n_params:8,.1f} a parameter{loss}"
        rows.append(
            (abs(tokens / n_params / CHINCHILLA - 1), f"  {name:<8}{text}; 20 a parameter take {time_text(optimal)}")
        )
    nearest = min(rows)[1]
    return [*lines, *(f"{text}{'  <- nearest to optimal' if text == nearest else ''}" for _, text in rows)]


def plan_of(work: Work, data: MixedWindows, curriculum: Curriculum, budget: Budget) -> Plan:
    """What a run will take on this device, from half a second's measurement."""
    setup, config, decoder = work.setup, work.stage.decoder.config, work.stage.decoder
    half = setup.resolved_precision() != "32-true"
    batch: Any = {key: value[: data.batch_size] for key, value in work.windows.items()}
    with torch.autocast(work.device.type, torch.bfloat16, enabled=half):
        memory_bytes = estimate_memory(
            work.stage,
            work.stage.loss,
            batch,
            optimizer_bytes=work.stage.recipe.state_bytes(work.stage.trained_parameters()),
            compiled=work.compiled,
            accumulates=setup.accumulate > 1,
        )
        seconds = measure_micro_batch(decoder, batch)
        seconds /= batch["tokens"].numel() - len(batch["tokens"])  # a token
    release_memory()
    tokens = curriculum.tokens(data.length.total_steps)
    return Plan(
        parameters=config.n_params(),
        non_embedding=config.n_params(embedding=False),
        flops_per_token=config.flops_per_token(data.seq_len),
        optimal_tokens=round(budget.tokens_per_parameter * config.n_params()),
        total_steps=data.length.total_steps,
        tokens_per_step=round(curriculum.tokens_per_step),
        tokens=tokens,
        epochs=tokens / data.n_tokens,
        memory_bytes=memory_bytes,
        peak_flops=measure_peak_flops(work.device, torch.bfloat16 if half else torch.float32) * setup.world_size,
        seconds=seconds * (tokens - curriculum.tokens(data.length.start_step)) / setup.world_size,
    )


def measure_hours(hours: float, work: Work, data: MixedWindows) -> int:
    """Optimizer steps that fit into so many hours with their validations, by some seconds' measurement."""
    cost = measure(work, data.batch_size, seconds=HOURS_SECONDS)
    batches = len(data.val_dataloader())
    return steps_in(hours, cost, n_validation_batches=batches, val_every_steps=work.setup.val_every_steps)


def kept_steps(folder: Path, budget: Mapping[str, Any]) -> int | None:
    """The length that a run with this very budget was begun with; None where there is none."""
    path = folder / "run.json"
    if not path.exists():
        return None
    state = json.loads(path.read_bytes())
    return state["plan"]["total_steps"] if state["settings"]["budget"] == budget else None


def compare_plan(plan: Plan, folder: Path, start_step: int, memory_before: int) -> dict[str, Any]:
    """What was expected of a run beside what was measured, for run.json.

    Time is of training without validation, since the run was begun or continued. Memory is None where another run of this
    process was higher; time where ``callbacks.progress`` was off.
    """
    path = folder / "metrics.csv"
    clock = (
        {step: row["perf/seconds"] for step, row in read_metrics(path).items() if "perf/seconds" in row}
        if path.exists()
        else {}
    )
    before = max((seconds for step, seconds in clock.items() if step <= start_step), default=0.0)
    peak = peak_memory_bytes()
    measured = {
        "seconds": (plan.seconds, max(clock.values()) - before if clock else None),
        "memory_bytes": (plan.memory_bytes, peak if peak > memory_before else None),
    }
    return {
        name: {"expected": expected, "measured": value, "error": expected / value - 1 if expected and value else None}
        for name, (expected, value) in measured.items()
    }


def prediction_words(folder: Path | None) -> str | None:
    """The comparison in a finished run's ``run.json``, in a line; None where there is none."""
    if folder is None or not (folder / "run.json").exists():
        return None
    found = json.loads((folder / "run.json").read_bytes()).get("prediction", {})
    parts = [
        f"{title} {text(part['expected'])} expected, {text(part['measured'])} measured ({100 * part['error']:+.0f} %)"
        for key, title, text in (("seconds", "time", time_text), ("memory_bytes", "memory", size_text))
        if (part := found.get(key)) and part["error"] is not None
    ]
    return "; ".join(parts) or None
