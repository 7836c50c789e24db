"""What goes back with a run that goes back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_faults import FLAT, journal, run, spoil
from test_faults import home as home

from transduce.recipe.run import Run
from transduce.recipe.validate import Validation


@pytest.mark.parametrize(("bad", "left"), [(17, "step 6"), (5, None)])
def test_the_best_model_goes_back_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, bad: int, left: str | None
) -> None:
    """The validation among the faults is the best of all; what was best before it is not lost."""
    quality, cards = {6: 0.5, 12: 0.4, 18: 0.6, 20: 0.1}, set[str | None]()
    card = home / "run" / "model" / "README.md"

    def measure(run: Run) -> Validation:
        return Validation({"loss": 1.0}, quality[run.state.step], [])

    def faulty(step: int, rate: float) -> bool:
        if step == bad // 6 * 6 + 1 and rate == 0.005:
            cards.add(re.findall(r"step \d+", card.read_text())[0] if card.exists() else None)
        return bad <= step < bad + 3 and rate > 0.005

    monkeypatch.setattr(Run, "measure", measure)
    spoil(monkeypatch, faulty)
    done = run(home, "run", *FLAT, "validation.keep=1")
    assert cards == {left}
    assert "step 18" in card.read_text()
    assert len(journal(done, "return")) == 1
