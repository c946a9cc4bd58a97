"""README.md of an export: what the model is, where it comes from, how good it is, how to load it, and what was checked."""

import json
from pathlib import Path
from typing import Any

from lumi.export.source import Source
from lumi.manifest import lineage

_LOADING = {
    "hf": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
{ask}
```

It needs no code of its own (`trust_remote_code` stays off). Lumi reads the folder as a model:
`python evaluate.py model={name}`.""",
    "gguf": """```bash
llama-cli -m {name}/model.gguf{jinja}
llama-server -m {name}/model.gguf{jinja}
```

In Python: `pip install xllamacpp`, or any other binding of llama.cpp.""",
    "adapter": """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{name}/base"
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "{name}")
{ask}
```

`base/` holds the weights that the adapter was trained over. They are not those of the pretrained model where the rows of
control tokens were trained with the adapter, so the adapter fits no other weights; Lumi refuses them.""",
}

_ASK_CHAT = """ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Hello!"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**ids, max_new_tokens=64)
print(tokenizer.decode(answer[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))"""

_ASK_TEXT = """ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0], skip_special_tokens=True))"""

_CONTROL = {
    "hf": """- In chat templates, names of control tokens that a message spells are text. Elsewhere transformers looks for
  them in every text: pass `split_special_tokens=True` for what people type.""",
    "gguf": """- Control tokens are written with U+FDD0, one of Unicode's noncharacters, before their names, so that nobody
  who types `<|im_end|>` ends a turn. The chat template takes that character out of messages.""",
}


def model_card(source: Source, name: str, extra: dict[str, Any]) -> str:
    """The page.

    Args:
        name: of the folder.
        extra: format, dtype and parity, as in lumi.json.
    """
    kind = extra["format"]
    ask = _ASK_CHAT if source.template is not None else _ASK_TEXT
    loading = _LOADING[kind].replace("{name}", name).replace("{ask}", ask)
    loading = loading.replace("{jinja}", " --jinja" if source.template is not None else "")
    parts = [
        _front(kind),
        f"# {name}\n",
        _what(source, extra),
        "## How to load it\n",
        loading,
        "\n## Where it comes from\n",
        _table(_lineage(source)),
        *_results(source.run),
        "\n## Limits\n",
        _limits(source, extra),
        "\n## What was checked\n",
        _table(_checked(extra["parity"])),
        "\nThe figures stand in `lumi.json`; `MANIFEST.json` has the SHA-256 of every file.",
    ]
    return "\n".join(parts) + "\n"


def _front(kind: str) -> str:
    library = {"hf": "transformers", "gguf": "llama.cpp", "adapter": "peft"}[kind]
    return f"---\nlibrary_name: {library}\npipeline_tag: text-generation\ntags: [lumi]\n---"


def _what(source: Source, extra: dict[str, Any]) -> str:
    config, template = source.decoder.config, source.template
    rows = [
        ("parameters", f"{config.n_params():,} ({config.n_params(embedding=False):,} without embeddings)"),
        (
            "shape",
            f"{config.n_layers} layers, width {config.d_model}, {config.n_heads} heads ({config.n_kv_heads} for keys)",
        ),
        ("vocabulary", f"{config.vocab_size:,} pieces, SentencePiece {source.tokenizer.model_type}"),
        ("longest sequence", f"{config.max_seq_len:,} tokens"),
        ("weights", extra["dtype"]),
        ("conversations", "none: it continues text" if template is None else f"template `{template.name}`"),
    ]
    what = "The weights under an adapter" if "under" in extra else "A LLaMA language model"
    return f"{what}, trained from scratch with Lumi.\n\n{_table(rows)}\n"


def _lineage(source: Source) -> list[tuple[str, str]]:
    rows = []
    for number, facts in enumerate(lineage(source.facts)):
        stage = facts.get("settings", {}).get("stage", {}).get("_target_", "").rpartition(".")[2].lower()
        trained = facts.get("tokens", facts.get("step", 0) * facts.get("tokens_per_step", 0))
        data = ", ".join(f"{name} `{print_[:12]}…`" for name, print_ in facts.get("data", {}).items())
        said = f"{facts.get('name') or 'a run'}{f' ({stage})' if stage else ''}: {trained:,} tokens, {data}"
        rows.append(("trained as" if number == 0 else "which began from", said))
    return [*rows, ("tokenizer", f"`{source.tokenizer.sha256}`"), ("checkpoint", f"`{source.checkpoint.name}`")]


def _results(run: Path | None) -> list[str]:
    """What the run's evaluation found, where it was evaluated."""
    path = None if run is None else run / "eval" / "results.json"
    if path is None or not path.exists():
        return ["\n## Results\n", "It was not evaluated before it was exported: `python evaluate.py model=…`."]
    found = json.loads(path.read_bytes())
    rows = [
        (f"bits per byte, {name}", f"{part['score']['bits_per_byte']:.4f}")
        for name, part in (found.get("sources") or {}).items()
        if part["score"].get("bits_per_byte") is not None
    ]
    rows += [
        (f"{source}, {task}", f"{figures['exact']:.1%} right of {figures['n']:,}")
        for source, report in (found.get("chat") or {}).items()
        for task, figures in report["tasks"].items()
    ]
    rows += [
        (f"task {name}", f"{max(part['accuracy'].values()):.1%}") for name, part in (found.get("tasks") or {}).items()
    ]
    return ["\n## Results\n", _table(rows)] if rows else []


def _limits(source: Source, extra: dict[str, Any]) -> str:
    kind, parity = extra["format"], extra["parity"]
    n_params = source.decoder.config.n_params()
    lines = [
        f"- A model of {n_params:,} parameters says what is likely after its training text, true or not. Nothing filters it.",
        _CONTROL["gguf" if kind == "gguf" else "hf"] if source.template is not None or kind == "gguf" else "",
        "- Two pairs of noncharacters, U+FDD0 U+FDD1 and U+FDD2 U+FDD3, are marks of the chat template and vanish from text."
        if kind != "gguf"
        else "",
    ]
    if inexact := parity["ids"].get("inexact"):
        share = inexact / (inexact + parity["ids"]["texts"])
        lines.append(
            f"- llama.cpp has no byte fallback for this kind of tokenizer: {inexact:,} of the texts that were compared "
            f"({share:.1%}, chosen to be hard) hold a NUL or a rare character that it reads as `<unk>`."
        )
    if joined := parity.get("conversations", {}).get("joined"):
        lines.append(
            f"- llama.cpp encodes a template's text and the message beside it as one. In {joined:,} of "
            f"{parity['conversations']['rendered']:,} conversations a piece spans that border, so its ids are others there."
        )
    return "\n".join(line for line in lines if line)


def _checked(parity: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if found := parity.get("logits"):
        said = (
            f"at most {found['max_difference']:.1e} over {found['tokens']:,} tokens (allowed: {found['tolerance']:.1e})"
        )
        rows.append(("difference of logits", said))
    if found := parity.get("probabilities"):
        said = f"at most {found['max_difference']:.1e} nats in {found['distributions']} distributions"
        rows.append(("difference of log-probabilities", f"{said} (allowed: {found['tolerance']:g})"))
        said = f"{found['mean_divergence']:.1e} nats (allowed: {found['mean_tolerance']:g})"
        rows.append(("mean divergence of predictions", said))
        rows.append(("greedy continuations", f"{found['greedy_equal']} of {found['greedy_tokens']} tokens equal"))
    if found := parity.get("rounding"):
        said = f"{found['mean_divergence']:.1e} nats on average (allowed: {found['tolerance']:g})"
        rows.append(("change by the rounding of weights", said))
    rows.append(("ids of texts", f"{parity['ids']['texts']:,} texts, {parity['ids']['different']} differ"))
    if found := parity.get("conversations"):
        rows.append(("ids of conversations", f"{found['rendered']:,} conversations, {found['different']} differ"))
    return rows


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
