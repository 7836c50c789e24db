"""Models of every version so far are loaded, verified, and answer as they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transduce import __version__, folder
from transduce.result import Result
from transduce.search.beam import Beam
from transduce.search.greedy import Greedy
from transduce.transducer import Transducer

HERE = Path(__file__).parent
GOLDEN = sorted(path.parent for path in HERE.glob("v*/*/blueprint.json"))
SEARCHES = {"greedy": Greedy(), "beam": Beam(width=4)}


def test_this_version_has_its_models() -> None:
    """``tools/make_golden.py`` makes them."""
    own = f"v{__version__.rpartition('.')[0]}"
    assert {path.name for path in GOLDEN if path.parent.name == own} == {"recurrent", "transformer"}
    assert sum(path.stat().st_size for path in (HERE / own).rglob("*")) < 80_000


def same(answer: Result, kept: dict[str, Any]) -> None:
    assert (answer.text, answer.finished) == (kept["text"], kept["finished"])
    assert answer.score == pytest.approx(kept["score"], abs=1e-4)
    assert [t.log_prob for t in answer.tokens] == pytest.approx(kept["log_probs"], abs=1e-4)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_kept_model_answers_as_it_did(path: Path) -> None:
    folder.verify(path)
    model = Transducer.load(path, device="cpu")
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for line in lines:
        kept = json.loads(line)
        alternatives = len(kept["found"]) - 1
        answer = model(kept["source"], SEARCHES[kept["search"]], alternatives=alternatives)
        for found, wanted in zip((answer, *answer.alternatives), kept["found"], strict=True):
            same(found, wanted)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_kept_model_has_learned_what_it_was_to_learn(path: Path) -> None:
    model = Transducer.load(path, device="cpu")
    strings = ["1", "42", "007", "9021", "31415"]
    assert [str(answer) for answer in model(strings)] == [string[::-1] for string in strings]
