"""The loop that everybody writes; a module by itself, so that its processes need not import torch."""

from pathlib import Path

import numpy as np
import sentencepiece

from lumi.corpus.engine.blocks import read_documents


def plain_loop(job: tuple[Path, bytes, Path]) -> None:
    """Every document of a shard encoded as a whole, and the ids written: without any check.

    Args:
        job: the shard, the bytes of the tokenizer's model, and the file to write.
    """
    shard, model, target = job
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    begin, end = processor.bos_id(), processor.eos_id()
    ids: list[int] = []
    for document in read_documents(shard):
        ids.append(begin)
        ids.extend(processor.encode(document.text))
        ids.append(end)
    np.array(ids, dtype=np.uint16 if processor.vocab_size() <= 2**16 else np.uint32).tofile(target)
