"""What a person sees of a run: lines that say what they should, as they stand, or nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from transduce.train.progress import Show, duration

RECORD = {"step": 50, "nll": 1.5, "tokens_per_second": 12_345.6, "seconds": 10.0}


@pytest.fixture
def show() -> Show:
    return Show()


def live() -> tuple[Show, io.StringIO]:
    """Return a display on what takes itself for a terminal."""
    shown, screen = Show(), io.StringIO()
    shown.console = Console(file=screen, force_terminal=True, width=80)
    return shown, screen


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_text_is_shown_as_it_stands(show: Show, capsys: pytest.CaptureFixture[str]) -> None:
    text = "name[The Eagle], [bold]food[/bold], C:\\[x] :cat: " + "long " * 60
    show.say(text)
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    assert err == text + "\n"


def test_lines_are_plain_where_there_is_no_terminal(
    show: Show, capsys: pytest.CaptureFixture[str]
) -> None:
    show.start(0, 200)
    show.update(RECORD, 200, 0.1)
    show.end()
    (line,) = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert line == "step 50/200  loss 1.500  12,346 tokens/s  15 s left"


def test_a_terminal_has_a_live_line_that_goes_away() -> None:
    shown, screen = live()
    shown.start(50, 200)
    shown.update(RECORD, 200, 0.1)
    shown.end()
    shown.say("after")
    assert "50/200" in screen.getvalue()
    assert "1.500" in screen.getvalue()
    assert screen.getvalue().endswith("after\n")
    shown.end()


def test_a_validation_shows_scores_and_a_prediction(
    show: Show, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"step": 5, "scores": {"loss": 1.25, "bleu": 12.3456}, "best": True}
    samples = [{"source": "a[b]", "prediction": "c"}, {"source": "unseen", "prediction": ""}]
    show.validation(record, samples)
    assert capsys.readouterr().err.split("\n") == [
        "step 5: loss 1.250  bleu 12.346  (best so far)",
        "    in:  a[b]",
        "    out: c",
        "",
    ]
    show.validation(record | {"best": False}, [])
    assert "best" not in capsys.readouterr().err


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Show(quiet=True)
    quiet.say("anything")
    quiet.start(0, 10)
    quiet.update(RECORD, 10, 0.1)
    quiet.end()
    assert capsys.readouterr() == ("", "")
