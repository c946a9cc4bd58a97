"""From text to batches: packing, reading, mixing, and the LightningDataModules (``data=…``).

Reading order: `prepare` (what is made), `pack` (tokens on disk), `packed` (windows), `mixture` (order), `module`.
"""

from lumi.data.module import PackedData, RunLength
from lumi.data.pack import PackConfig
from lumi.data.packed import PackedStream
from lumi.data.prepare import Locations, prepare

__all__ = ["Locations", "PackConfig", "PackedData", "PackedStream", "RunLength", "prepare"]
