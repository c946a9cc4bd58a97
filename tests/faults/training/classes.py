"""What may change when a run goes on: a class for every key of ``conf/``, and the table of it in docs/pretraining.md.

python -m tests.faults.training.classes       writes the table
"""

import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "pretraining.md"
BEGIN, END = "<!-- made by tests/faults/training/classes.py -->", "<!-- end -->"

RULES: tuple[tuple[str, str, str], ...] = (
    ("name", "free", "which folder"),
    ("paths", "free", "where things lie; the data are compared by their fingerprints"),
    ("resume", "free", "where to go on"),
    ("resume_allow", "free", "what may change"),
    ("callbacks", "free", "what is saved, shown and written beside the steps"),
    ("logger", "free", "where figures go"),
    ("executor", "free", "where a corpus is made; its bytes are the same"),
    ("plan", "free", "trains nothing"),
    ("law", "free", "is only shown"),
    ("doctor", "free", "looks, and changes nothing"),
    ("study", "free", "which study the run belongs to"),
    ("slots", "free", "how many runs at a time"),
    ("sweep", "free", "how a study is searched"),
    ("source", "free", "counts where the data take it over: `data.corpus`, and the fingerprints"),
    ("corpus", "free", "likewise"),
    ("task", "free", "likewise"),
    ("data.num_workers", "free", "who reads a batch, not what is in it"),
    ("data.full_check", "free", "how much is hashed at the start"),
    ("arch.checkpoint_activations", "free", "what is kept and what is computed again"),
    ("trainer.threads", "warned", "the last bits of float sums"),
    ("trainer.accumulate", "warned", "free while the windows of a step stay the same: the last bits of float sums"),
    ("trainer.devices", "warned", "likewise"),
    ("trainer.num_nodes", "warned", "likewise"),
    ("trainer.strategy", "warned", "likewise"),
    ("data.batch_size", "warned", "likewise; another number of windows in a step is refused"),
    ("arch", "never", "the weights would not fit"),
    ("tokenizer", "never", "the weights were trained on other tokens"),
    ("pack", "never", "other windows"),
    ("template", "never", "other tokens around what is said"),
    ("stage._target_", "never", "another loss"),
    ("data._target_", "never", "other data"),
    ("seed", "refused", "another order and other dropout"),
    ("budget", "refused", "another schedule; `resume=PATH` goes on with another length"),
    ("init_from", "refused", "another beginning"),
    ("data", "refused", "other windows in the next steps"),
    ("optim", "refused", "other updates"),
    ("trainer", "refused", "other numbers: precision, kernels, validation steps"),
    ("stage", "refused", "another loss or adapter"),
)
"""Key and everything below it, class, why; the first that fits counts."""

MEANING = {
    "free": "may change; written to `changes.jsonl`",
    "warned": "may change, with a warning; written to `changes.jsonl`",
    "refused": "refused by name, unless `resume_allow=[key]`; then a warning, and written to `changes.jsonl`",
    "never": "refused by name, whatever `resume_allow` says",
}


def rule_of(key: str) -> tuple[str, str, str]:
    """The rule of a key.

    Raises:
        LookupError: it has none.
    """
    for rule in RULES:
        if key == rule[0] or key.startswith(f"{rule[0]}."):
            return rule
    raise LookupError(f"{key} has no class: add it to RULES")


def table() -> str:
    """For people."""
    lines = [f"| `{key}` | {class_} | {why} |" for key, class_, why in RULES]
    meaning = [f"- *{class_}*: {text}" for class_, text in MEANING.items()]
    return "\n".join(
        [
            BEGIN,
            "",
            *meaning,
            "",
            "| key, and what is below it | | because it is about |",
            "|---|---|---|",
            *lines,
            "",
            END,
        ]
    )


def main() -> None:
    """Put the table into the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    assert rest, f"{PAGE} has no line {BEGIN}"
    PAGE.write_text(before + table() + after)
    sys.stdout.write(f"{PAGE}: {len(RULES)} rules\n")


if __name__ == "__main__":
    main()
