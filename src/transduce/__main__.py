"""``python -m transduce``: the same as the command ``transduce``."""

from __future__ import annotations

from transduce.cli import main

if __name__ == "__main__":
    main()
