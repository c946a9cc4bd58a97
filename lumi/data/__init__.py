"""From text to batches: packing, reading, mixing, and the LightningDataModules (``data=…``).

Reading order: `prepare` (what is made), `pack` (tokens on disk), `packed` (windows), `mixture` (order), `mixed` (what all
modules share), `module` (packed text); `rows` (whole examples in windows), `chat`, `preference`.
"""

from lumi.data.chat import ChatData, answer_document
from lumi.data.curriculum import Curriculum
from lumi.data.mixed import Beginning, MixedWindows, RunLength
from lumi.data.module import PackedData
from lumi.data.pack import PackConfig
from lumi.data.packed import PackedStream
from lumi.data.preference import PreferenceData, PreferenceStream, render_pairs
from lumi.data.prepare import Locations, prepare
from lumi.data.rows import RowStream

__all__ = [
    "Beginning",
    "ChatData",
    "Curriculum",
    "Locations",
    "MixedWindows",
    "PackConfig",
    "PackedData",
    "PackedStream",
    "PreferenceData",
    "PreferenceStream",
    "RowStream",
    "RunLength",
    "answer_document",
    "prepare",
    "render_pairs",
]
