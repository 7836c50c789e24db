"""Transduce: one toolkit to train, understand and ship encoder-decoder models.

``from transduce import Transducer`` is the front door. Nothing heavy is imported before it is asked
for, so that ``import transduce`` and ``transduce --help`` stay quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transduce.transducer import Transducer

__all__ = ["Transducer", "__version__"]
__version__ = "0.1.0"

# oneDNN keeps compiled code for 1024 shapes by default, which for recurrent layers over batches of
# all lengths grows to 2 GB; making it anew costs 5 % of such a layer's time.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def __getattr__(name: str) -> object:
    if name == "Transducer":
        from transduce.transducer import Transducer

        return Transducer
    raise AttributeError(f"module 'transduce' has no attribute {name!r}")
