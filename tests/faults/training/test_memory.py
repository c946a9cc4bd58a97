"""T2: no memory left in a step, in a save, or on the machine: what was held, what fits, and the last checkpoint is whole."""

import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from lumi.arch import Decoder
from lumi.callbacks import list_checkpoints
from lumi.errors import ResourceError
from lumi.manifest import verify
from lumi.run import train
from tests.faults.ledger import Report
from tests.faults.training.conftest import LENGTH, Config, ends
from tests.scale.conftest import after_step, largest_difference

pytestmark = pytest.mark.matrix("T2")

FOUR = (*LENGTH, "data.batch_size=4", "arch.dropout=0.0")


@pytest.fixture
def small_memory() -> Iterator[Callable[[Callable[[], bool]], None]]:
    """``small_memory(is_full)``: from when that is true, more than two windows at once do not fit into memory."""
    hooks: list[Any] = []

    def begin(is_full: Callable[[], bool]) -> None:
        def hook(module: Any, arguments: Any) -> None:
            if isinstance(module, Decoder) and module.training and len(arguments[0]) > 2 and is_full():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        hooks.append(register_module_forward_pre_hook(hook))

    yield begin
    for hook in hooks:
        hook.remove()


def whole(run: Path) -> list[int]:
    """Steps of the checkpoints, all of them verified; nothing half-written lies beside them."""
    found = list_checkpoints(run / "checkpoints")
    assert [verify(path, kind="checkpoint").info["step"] for _, path in found] == [step for step, _ in found]
    assert not list((run / "checkpoints").glob(".*tmp*"))
    return [step for step, _ in found]


def test_a_batch_that_does_not_fit_says_what_fits_and_that_trains_the_same_steps(
    run_config: Config, small_memory: Callable[..., None], row: Report, tmp_path: Path
) -> None:
    train(run_config(*FOUR, "name=whole"))
    small_memory((tmp_path / "run" / "checkpoints" / "step_00000004.ckpt").exists)
    with pytest.raises(
        ResourceError, match=r"4 windows of 64 tokens at once, .*B at the highest, .*B expected"
    ) as caught:
        train(run_config(*FOUR))
    assert caught.value.exit_code == 5
    assert whole(tmp_path / "run") == [4, 2]
    fitting = re.findall(r"(?:data|trainer)\.\w+=\d+", caught.value.fix)
    assert fitting == ["data.batch_size=2", "trainer.accumulate=2"]
    train(run_config(*FOUR, *fitting))
    different = largest_difference(tmp_path / "run", tmp_path / "whole")
    row(
        trials=1,
        failures=int(different > 1e-5),
        note=f"the proposed setting trains the same steps within {different:.0e}",
    )


def test_a_batch_that_does_not_fit_into_the_first_measurement_says_so_too(
    run_config: Config, small_memory: Callable[..., None], row: Report
) -> None:
    small_memory(lambda: True)
    with pytest.raises(ResourceError, match=r"4 windows of 64 tokens .* data\.batch_size=2 trainer\.accumulate=2"):
        train(run_config(*FOUR))
    row(trials=1)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("out of memory")])
def test_no_memory_for_a_save_leaves_the_checkpoint_before_it(
    run_config: Config, row: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plain = torch.save

    def full(value: Any, file: Any, *arguments: Any, **named: Any) -> None:
        if "00000004" in str(file):
            raise error
        plain(value, file, *arguments, **named)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ResourceError, match=r"no memory left while saving .*step_00000004") as caught:
        train(run_config(*FOUR))
    row(trials=1, failures=int((caught.value.exit_code, whole(tmp_path / "run")) != (5, [2])))


def test_a_machine_without_memory_ends_the_run_with_a_message(run_config: Config, row: Report, tmp_path: Path) -> None:
    def limited() -> None:
        def act() -> None:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + 2**26, taken + 2**26))
            register_module_forward_pre_hook(take)

        def take(module: Any, arguments: Any) -> None:
            if isinstance(module, Decoder):
                torch.empty(2**30)

        after_step(5, act)
        train(run_config(*FOUR))

    code, text, _ = ends(limited)
    assert "no memory left (4 windows of 64 tokens" in text
    row(
        trials=1,
        failures=int((code, whole(tmp_path / "run")) != (5, [4, 2])),
        note="a limit of the kernel on the process",
    )
