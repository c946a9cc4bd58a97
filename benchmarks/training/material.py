"""The text that is trained on: real prose that needs no download, in a vocabulary of the wanted size, packed by Lumi itself.

``python -m benchmarks.training.material FOLDER VOCAB_SIZE`` makes it once: the documentation of Python and of the installed
packages, as a file with one document (``long.jsonl``: no window holds two) and as one with many (``short.jsonl``), and a
tokenizer of exactly ``VOCAB_SIZE`` pieces that was trained on it. Runs pack both files like any text of a user.
"""

import json
import sys
from pathlib import Path

from lumi.cli import start_logging
from lumi.corpus import Document, PyDocs
from lumi.manifest import MANIFEST, fingerprint, write_atomic
from lumi.tokenizer import TokenizerConfig, train_tokenizer

PACKAGES = ["torch", "numpy", "matplotlib", "sympy"]
_CHARACTERS = 10_000_000


def make_text(folder: Path) -> None:
    """Both files, unless they are there."""
    if (folder / "long.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts, room = [], _CHARACTERS
    for one in PyDocs(packages=PACKAGES).documents():
        if isinstance(one, Document):
            texts.append(one.text)
            room -= len(one.text)
        if room <= 0:
            break
    write_atomic(folder / "short.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    write_atomic(folder / "long.jsonl", json.dumps({"text": "\n\n".join(texts)}) + "\n")


def make_tokenizer(folder: Path, vocab_size: int) -> None:
    """By merging, which trains ten times faster; which pieces there are does not matter here, but how many."""
    target = folder / "tokenizer" / f"bench-{vocab_size}"
    if (target / MANIFEST).exists():
        return
    lines = (folder / "short.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    config = TokenizerConfig(
        name=target.name, vocab_size=vocab_size, model_type="bpe", train_megabytes=_CHARACTERS / 1e6
    )
    train_tokenizer(lambda: iter(texts), target, config, parents={"text": fingerprint(texts)})


def data_overrides(folder: Path, vocab_size: int, documents: str) -> list[str]:
    """How a run of Lumi is told to take it."""
    return [
        "source=files",
        f"source.path='{folder / documents}.jsonl'",
        f"source.name={documents}",
        "source.max_doc_bytes=1000000000",
        "tokenizer=existing",
        f"tokenizer.path='{folder / 'tokenizer' / f'bench-{vocab_size}'}'",
        "pack.val_ratio=0",
        f"paths.data='{folder}'",
    ]


def main() -> None:
    """Make what is missing."""
    start_logging()
    folder, vocab_size = Path(sys.argv[1]), int(sys.argv[2])
    make_text(folder)
    make_tokenizer(folder, vocab_size)


if __name__ == "__main__":
    main()
