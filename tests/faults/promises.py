"""What a user may rely on: thirteen sentences, the rows of the fault matrix that show each, and where it is tested."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """What a user may rely on.

    Attributes:
        text: in one sentence.
        rows: of the fault matrix that show it.
        tests: files or folders where it is tested.
    """

    text: str
    rows: tuple[str, ...]
    tests: tuple[str, ...]


_CRASH, _TRAINING, _DAMAGE = "tests/faults/crash", "tests/faults/training", "tests/faults/corruption"

PROMISES = (
    Promise(
        text="Kill it anywhere and run the same command again: the result is the same to the bit",
        rows=("K1", "K2", "K3", "K4", "K6"),
        tests=(_CRASH, "tests/test_run.py"),
    ),
    Promise(
        text="The loss curve of a run that was cut is the curve of one that was not",
        rows=("K4", "K7", "T3"),
        tests=(_CRASH, f"{_TRAINING}/test_signals.py"),
    ),
    Promise(
        text="A save that you were told of is never lost; half a one is never loaded",
        rows=("K5", "K8", "C2"),
        tests=(_CRASH, "tests/faults/test_guards.py"),
    ),
    Promise(
        text="One flipped bit in any artefact is found and named",
        rows=("C1", "C3"),
        tests=(f"{_DAMAGE}/test_damage.py",),
    ),
    Promise(
        text="One tokenizer: another one is refused wherever two artefacts meet, by the bytes of its file",
        rows=("C4",),
        tests=(_DAMAGE, "tests/tokenizer/test_frozen.py"),
    ),
    Promise(
        text="A stranger's checkpoint, config, tokenizer or text runs no code",
        rows=("C5", "C6", "C7"),
        tests=(_DAMAGE, "tests/test_config.py"),
    ),
    Promise(
        text="Text cannot forge a chat marker, in training or in serving",
        rows=("R4", "R5", "R6"),
        tests=("tests/tokenizer/test_frozen.py", "tests/tokenizer/test_template.py"),
    ),
    Promise(
        text="One process or several, any number of workers: the same windows in the same order",
        rows=("T6",),
        tests=("tests/scale/test_ddp.py", "tests/data/test_loading.py"),
    ),
    Promise(
        text="Other data, another tokenizer or architecture is refused by name when a run goes on; every key has its class",
        rows=("T5",),
        tests=(f"{_TRAINING}/test_resume.py",),
    ),
    Promise(text="A full disk costs nothing but time", rows=("D1", "D2"), tests=(_CRASH, "tests/test_manifest.py")),
    Promise(
        text="A signal saves the step that is done, and the exit code (143, 130) says that the run can go on",
        rows=("T3",),
        tests=(f"{_TRAINING}/test_signals.py", "tests/scale/test_long.py"),
    ),
    Promise(
        text="No request gives a 5xx of the server's own, hangs others or outlives its client",
        rows=("S1", "S2", "S3", "S5"),
        tests=("tests/serve/test_schema.py", "tests/serve/test_limits.py", "tests/serve/test_faults.py"),
    ),
    Promise(
        text="An error says what was found, what must hold and what to type; no bare traceback for any fault of the matrix",
        rows=("C1", "D1", "T1", "T2", "T4"),
        tests=("tests/test_cli.py", f"{_TRAINING}/test_memory.py", f"{_TRAINING}/test_workers.py"),
    ),
)
