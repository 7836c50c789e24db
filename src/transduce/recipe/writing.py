"""Full disks and folders that may not be written: training goes on, and says what is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from transduce.problem import Problem
from transduce.train.checkpoint import system_number
from transduce.train.progress import Show

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class Writing:
    """Knows what could not be written; it is tried again whenever the next is due."""

    def __init__(self, show: Show) -> None:
        self.show = show
        self.failed: dict[str, str] = {}  # what, and why

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Go on, with a warning, if what is written in the block cannot be."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            number = system_number(error)
            if number is None:
                raise
            self.failed[what] = os.strerror(number)
            self.show.say(
                f"warning: {what} cannot be written ({self.failed[what]}): training goes on, and "
                "it is tried again when it is due the next time"
            )
        else:
            self.failed.pop(what, None)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say what to do where something cannot be written that has to be.

    Raises:
        Problem: that.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = system_number(error)
        if number not in FULL:
            raise
        name = getattr(error, "filename", None) or folder
        raise Problem(
            f"it cannot be written ({os.strerror(number)}); make room or let it be written, then "
            "train again: what was saved is not lost",
            str(name),
        ) from None
