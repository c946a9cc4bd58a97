"""The rows of the fault matrix: what is done to Lumi, what must hold after it, and how often it is to be shown.

`tests.faults.document` writes them beside what the tests reported. A row that cannot be met, or not here, has a remark.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of fault.

    Attributes:
        id: a letter for the kind and a number.
        fault: what is injected.
        holds: what must be true afterwards.
        aim: how many trials, with which outcome.
    """

    id: str
    fault: str
    holds: str
    aim: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that belong together, with a sentence about them."""

    title: str
    text: str
    rows: tuple[Row, ...]


def _rows(*texts: tuple[str, str, str, str]) -> tuple[Row, ...]:
    return tuple(Row(id=id_, fault=fault, holds=holds, aim=aim) for id_, fault, holds, aim in texts)


_CRASH = _rows(
    (
        "K1",
        "SIGKILL at a random moment of building a corpus",
        "the same command again gives the bytes of an undisturbed build, and redoes only the block that was open",
        "200 kills, none lost, no byte different",
    ),
    (
        "K2",
        "SIGKILL while a tokenizer is trained",
        "the folder is not there or complete; the next training gives the same SHA-256",
        "50 kills, none torn",
    ),
    (
        "K3",
        "SIGKILL while a corpus is packed",
        "the same command again gives the same shards, with the same split into training and validation",
        "200 kills, no byte different",
    ),
    (
        "K4",
        "SIGKILL at a random moment of training, of every kind of run",
        "the continued run logs the same losses, compared in hexadecimal, and ends with the same weights; "
        "no more than the steps since the last save are done again",
        "200 cuts, no bit different",
    ),
    (
        "K5",
        "SIGKILL inside the saving of a checkpoint, also with the temporary directory on another file system",
        "the newest checkpoint verifies or is not visible; a save that was reported done is never lost",
        "1,000 kills, none lost, none visible and damaged",
    ),
    (
        "K6",
        "SIGKILL in an export, in merging an adapter, in an evaluation, in a sweep",
        "the result is not there or complete; a sweep runs only what was not finished",
        "50 kills each, none torn",
    ),
    (
        "K7",
        "kill and continue, ten times in one run",
        "the run is equal to an undisturbed one",
        "10 kills in each of 5 runs, no bit different",
    ),
    (
        "K8",
        "SIGKILL before every single operation on files of one save",
        "every state in between recovers",
        "every operation",
    ),
)

_DISK = _rows(
    (
        "D1",
        "a full disk in every stage, at different amounts of free space",
        "exit 5 with the path, the needed and the free bytes; what was there still verifies; temporary files are "
        "gone; the same command succeeds once there is space; what cannot fit is refused before it begins",
        "8 stages × 10 amounts, none lost",
    ),
    (
        "D2",
        "a folder that may not be written, a limit on file sizes, a disk that cannot be read, no inodes left",
        "exit 5 or 3, and the path is named",
        "12 cases",
    ),
    (
        "D3",
        "the price of flushing every save to the disk",
        "at most 5 % of training time at the default interval",
        "reported",
    ),
)

_CORRUPTION = _rows(
    (
        "C1",
        "a flipped bit, a cut, added bytes, 4 KiB of zeros, two files exchanged, in every kind of artefact",
        "refused before it is used: exit 3 with the file and both hashes",
        "9 artefacts × 5 faults × 100, all found",
    ),
    (
        "C2",
        "the newest checkpoint is damaged, or all of them are",
        "the one before it is used, which is said, and the damaged one is set aside; with none left, exit 3 and "
        "nothing is overwritten",
        "50 runs",
    ),
    (
        "C3",
        "packed data too large to be hashed at every start",
        "a start checks sizes, headers and samples; the full check is one setting; an id outside the vocabulary is "
        "refused",
        "a start below 2 s per 10 GB, reading at most 2 % slower",
    ),
    (
        "C4",
        "another tokenizer (same size, one piece changed, missing, other settings) wherever one is read",
        "exit 3 before the first batch, with both hashes and the command that repairs it",
        "10 boundaries × 4 kinds, all refused",
    ),
    (
        "C5",
        "random and mutated bytes for every reader",
        "only Lumi's own errors, at most 512 MB and 2 s each",
        "100,000 inputs, no crash",
    ),
    (
        "C6",
        "hostile checkpoints, configs, tokenizers and archives",
        "refused; nothing is executed, no connection opened, no secret printed",
        "40 or more, none executed",
    ),
    (
        "C7",
        "names in a manifest that lead out of its folder",
        "refused, and nothing outside the folder is opened",
        "30 names, no escape",
    ),
)

_TRAINING = _rows(
    (
        "T1",
        "NaN or infinity in a loss, a gradient, weights, one micro-batch, one process",
        "found before the update: exit 6 with step, samples and norm, or skipped and counted; the weights are "
        "unchanged to the bit",
        "5 places × 2 policies, no update with it",
    ),
    (
        "T2",
        "memory that runs out, on the device or on the host, in a step or in a save",
        "a message with a setting that fits; the last checkpoint is whole; the batch is never changed silently",
        "3 cases",
    ),
    (
        "T3",
        "SIGTERM or SIGINT at any step, in a validation, in a save, at the start, twice",
        "a whole checkpoint and exit 143 or 130 within a step and a save; the continued run is equal to the bit",
        "100 signals, no step lost, each exit within 30 s",
    ),
    (
        "T4",
        "a data worker is killed, raises, or hangs",
        "the run stops with the worker's error within 60 s, or goes on equal to the bit",
        "20 each, none hangs",
    ),
    (
        "T5",
        "continuing a run with any setting changed",
        "every setting is refused, recorded or warned about by name, as the table in the documentation says",
        "every setting",
    ),
    (
        "T6",
        "1, 2 or 4 processes, 0, 2 or 4 data workers",
        "the same samples in the same order; with the same processes the same bits; otherwise losses within 1e-5 "
        "over 100 steps",
        "all pairs, no difference in order",
    ),
    (
        "T7",
        "the clock jumps, the time zone changes",
        "the same checkpoint is chosen, no remaining time is negative, no save is lost",
        "6 jumps, no difference",
    ),
    (
        "T8",
        "two runs in one folder; a writer that dies",
        "exactly one goes on, the other one exits with 4 within 5 s; a dead writer's lock is free",
        "100 races, never two writers",
    ),
    (
        "T9",
        "W&B without network, with errors, hanging, with a revoked key",
        "training goes on at its pace, the local log is complete, no key is in any file",
        "5 cases",
    ),
    (
        "T10",
        "the whole way twice, from another folder, as another user, with other hash seeds",
        "every artefact has the same SHA-256",
        "2 runs × 4 variants",
    ),
)

_DATA = _rows(
    (
        "R1",
        "bad rows of 25 kinds, for 4 readers",
        "rejected or normalised by a written rule and counted with file and line, the same with any number of "
        "workers; all counts add up",
        "25 × 4",
    ),
    (
        "R2",
        "a line of 50 MB, a million rows of a byte, 10 GB out of a small archive",
        "at most 512 MB of memory, within a minute or rejected",
        "3 cases",
    ),
    (
        "R3",
        "a cut archive, an empty file, a missing shard, a shard that appears meanwhile",
        "exit 3 with the file's name before packing ends",
        "5 cases",
    ),
    (
        "R4",
        "control tokens written as text, in every way we know, wherever text comes in",
        "no text becomes a control token; the template's are where the template says",
        "10,000 random cases and 200 fixed ones, no control token",
    ),
    (
        "R5",
        "the same texts in conversations that are learned from",
        "what is learned depends on who said it, never on what was said",
        "the same cases, no shifted mask",
    ),
    (
        "R6",
        "conversations without turns, with thousands, with unknown roles, longer than the context",
        "a documented result or a refusal; a pair of markers is never cut",
        "50 cases",
    ),
)

_SERVER = _rows(
    (
        "S1",
        "random requests made from the API's own schema, valid and not",
        "no answer with 5xx, all as the schema says and within 5 s; the server answers as before afterwards",
        "1,000 requests for each operation",
    ),
    (
        "S2",
        "every limit of a request, one below, at and above it",
        "400, 413 or 422 with the name of the field, before any work",
        "60 cases",
    ),
    (
        "S3",
        "64 to 1,000 connections at once",
        "an answer or 429 or 503; `/health` within 100 ms; memory grows by at most a tenth; every answer belongs to "
        "its question",
        "1,000 connections for 5 minutes, no other error",
    ),
    (
        "S4",
        "500 connections that send a byte a second, and readers that stop reading",
        "closed after their time; others wait at most a fifth longer",
        "no other client starved",
    ),
    (
        "S5",
        "clients that leave before, in the middle, at the last token",
        "generating ends within a token, its place and memory are free",
        "500 clients, no leak",
    ),
    (
        "S6",
        "malformed JSON, UTF-8, types, lengths, headers",
        "4xx, and the connection goes on or is closed",
        "40 cases",
    ),
    (
        "S7",
        "missing and wrong keys on every route and method",
        "401 everywhere but `/health`; keys are compared in constant time; a new route is tested by itself",
        "every route",
    ),
    (
        "S8",
        "SIGTERM while idle, generating, streaming, and again",
        "nothing new is accepted, what runs may end for 10 s; exit within 1 s idle, 12 s busy",
        "50 stops",
    ),
    (
        "S9",
        "logits that are no numbers, or no memory, in one request of a batch",
        "only that one fails, with an id and no internals; the others get the bits that they get alone",
        "100 batches",
    ),
    ("S10", "mixed load for hours", "memory does not grow, nothing ends unplanned", "1 h; 24 h before a release"),
    (
        "S11",
        "answers with HTML and scripts, foreign pages, foreign host names",
        "shown as text; other origins and hosts are refused",
        "30 texts, none executed",
    ),
)

SECTIONS = (
    Section(title="Crashes", text="SIGKILL leaves no time to tidy up: whatever is on disk must do.", rows=_CRASH),
    Section(title="Disk", text="A disk that is full, forbidden or broken costs time and nothing else.", rows=_DISK),
    Section(
        title="Damage and mismatch",
        text="What was changed, by accident or on purpose, is never used.",
        rows=_CORRUPTION,
    ),
    Section(title="Training", text="What can go wrong while the processor works.", rows=_TRAINING),
    Section(title="Data and tokens", text="Text is data, whatever it says.", rows=_DATA),
    Section(title="Server", text="One client's fault is that client's alone.", rows=_SERVER),
)

REMARKS: dict[str, str] = {
    "K1": "200 kills with one worker; builds with two workers are killed in the tests of the engine.",
    "K5": "Found by it: a checkpoint that is too old was deleted file by file, so that a kill left half of one visible. It is "
    "renamed first now, and what a killed process left behind is swept when the run goes on.",
    "K8": "The system calls that strace sees in one save; kills between them change nothing on disk.",
    "D1": "Found by it: safetensors, PyTorch and NumPy have errors of their own for a full disk, which ended as tracebacks. "
    "A corpus and a tokenizer are not refused before they begin, because nobody knows how large they become; packed data, "
    "and the checkpoints of a run are. What was built of a corpus stays, so that the same command goes on with it.",
    "K6": "A sweep is killed with its jobs; what had finished is not trained again.",
    "C1": "A manifest that is no JSON any more is named without hashes: there is nothing to compare.",
    "C3": "Not as aimed at: Lumi hashes packed data in full at the start (data.full_check=true) or compares names "
    "and sizes only; there is no check of samples and no checksum of each block. Ids outside the vocabulary are refused when "
    "they are read.",
    "R4": "There are no tools in Lumi, so no names of them. API messages go through the same template, and stop strings are "
    "compared as text.",
    "S4": "A reader that stalls is tried with a limit of half a second.",
    "S10": "An hour; a day was not tried.",
    "T2": "On a CPU: PyTorch's own error is raised in a step and in a save, and the kernel limits a process. Not tried: a "
    "real GPU that is full, and the out-of-memory killer of a container.",
    "D2": "An error on reading is made by a hook, the other three by the kernel.",
    "D3": "Measured with a small model on the disk of this machine, where flushing is most of it; on a GPU not measured.",
}
"""By row: what could not be met or tried, and what was seen instead."""
