"""What an offline run of W&B holds, read from its file: LevelDB's log format, a protobuf message a record."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7


def read_records(path: Path) -> list[Any]:
    """All records of a ``run-….wandb``."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]  # made by protobuf

    records = []
    for raw in _raw_records(path.read_bytes()):
        record = Record()
        record.ParseFromString(raw)
        records.append(record)
    return records


def _raw_records(data: bytes) -> Iterator[bytes]:
    at, parts = FILE_HEADER, b""
    while at + RECORD_HEADER <= len(data):
        if BLOCK - at % BLOCK < RECORD_HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + RECORD_HEADER])
        parts += data[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield parts
            parts = b""


class OfflineRun:
    """One offline folder of W&B, by what it says."""

    def __init__(self, run_folder: Path, number: int = 0) -> None:
        files = sorted((run_folder / "wandb").glob("offline-run-*/run-*.wandb"))
        self.folder = files[number].parent
        self.records = read_records(files[number])

    def of(self, kind: str) -> list[Any]:
        """The messages of one kind: run, history, summary, artifact, metric, stats, exit."""
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    @property
    def rows(self) -> dict[int, dict[str, Any]]:
        """Step → what was logged for it, without W&B's own figures."""
        found: dict[int, dict[str, Any]] = {}
        for history in self.of("history"):
            row = found.setdefault(history.step.num, {})
            for item in history.item:
                name, *inner = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                if inner:
                    row.setdefault(name, {})[inner[0]] = value
                elif not name.startswith("_"):
                    row[name] = value
        return found

    @property
    def config(self) -> dict[str, Any]:
        """As it was sent when the run was opened."""
        return {item.key: json.loads(item.value_json) for item in self.of("run")[0].config.update}

    @property
    def summary(self) -> dict[str, Any]:
        """The last value of every single key."""
        items = [item for summary in self.of("summary") for item in summary.update]
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    def artifacts(self, *, used: bool) -> dict[str, Any]:
        """Name → record of what the run was made from, or has made; tables left out."""
        return {
            one.name: one
            for one in self.of("artifact")
            if one.use_after_commit == used and not one.type.startswith("wandb-")
        }
