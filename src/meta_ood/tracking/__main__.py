"""``python -m meta_ood.tracking ROOT``: the writer."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from meta_ood.tracking import writer

    writer.serve(Path(sys.argv[1]))
