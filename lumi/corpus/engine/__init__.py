"""From sources to shards: blocks of documents in stages, run by an executor, and what stays of them.

read → process → match → write → finish; `lumi.corpus.engine.build` leads. Packing is a stage too.
"""
