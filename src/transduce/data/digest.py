"""What a file holds, in one number that is not computed again while the file stays what it is."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

from transduce import folder
from transduce.data.lines import open_file

LARGE: Final = 2**26  # bytes of a file that is worth to remember
SETTLED: Final = 10**10  # nanoseconds after which a change would show in the times of a file


def digest(path: Path, cache: Path) -> str:
    """Return the SHA-256 of a file.

    Of a large one it is kept in ``cache``, and holds while size, times and inode stay the same, as
    in the index of git; the time at which the system saw the last change cannot be set back.

    Raises:
        Problem: it cannot be read.
    """
    with open_file(path) as file:
        stat = path.stat()
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
        kept = cache / "digests" / f"{name}.json"
        if stat.st_size >= LARGE and kept.exists():
            known = folder.read_json(kept)
            if known["facts"] == facts:
                return str(known["sha256"])
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if stat.st_size >= LARGE and time.time_ns() - max(facts[1], facts[2]) > SETTLED:
        kept.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(kept, {"facts": facts, "sha256": found})
    return found
