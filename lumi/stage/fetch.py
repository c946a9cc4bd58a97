"""Numbers on their way from a device, which nobody has to wait for."""

import torch
from torch import Tensor


class Fetch:
    """A small tensor that is copied to the host when its device has come so far.

    Args:
        tensor: of one dimension.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def arrived(self) -> bool:
        """Whether `numbers` would not wait."""
        return self._event is None or self._event.query()

    def numbers(self) -> list[float]:
        """The values, when they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()
