"""``python -m tests.faults LEDGER… [--out docs/RELIABILITY.md]``: the document of a campaign; later ledgers win."""

import argparse
import sys
from pathlib import Path

from tests.faults.document import DOCUMENT, make_document


def main() -> None:
    """Of the ledgers on the command line."""
    parser = argparse.ArgumentParser(description="make docs/RELIABILITY.md from what the tests of the fault matrix saw")
    parser.add_argument("ledgers", type=Path, nargs="+", metavar="LEDGER", help="of pytest --ledger; later ones win")
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    given = parser.parse_args()
    missing = [str(ledger) for ledger in given.ledgers if not ledger.is_file()]
    if missing:
        sys.exit(f"{', '.join(missing)} · is not a ledger · pytest -m 'faults or matrix' --ledger FILE writes one")
    make_document(given.ledgers, given.out)


if __name__ == "__main__":
    main()
