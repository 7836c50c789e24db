"""Encoding by several processes: the same bytes; and what keeps large corpora quick and small."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.data import digest as digests
from transduce.data import encode as module
from transduce.data import ragged
from transduce.data.batch import Example
from transduce.data.digest import digest
from transduce.data.encode import Encoding, LimitsBlueprint, encode
from transduce.data.in_order import in_order
from transduce.data.quantile import upper_quantile
from transduce.data.read import CorpusBlueprint
from transduce.data.tables import TsvBlueprint
from transduce.problem import Problem
from transduce.text.codec import TextBlueprint, learn_codecs

LINES = [f"a{n % 90} {'b ' * (n % 9)}ä{n % 7}" for n in range(300)]


def encoding(processes: int, tokens: object = "words") -> Encoding:
    text = TextBlueprint.model_validate({"source": {"tokens": tokens}})
    codecs = learn_codecs(text, LINES, LINES)
    most = LimitsBlueprint(source=10 if tokens == "words" else 30)
    return Encoding(codecs, most, True, slots=2, processes=processes)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    monkeypatch.setattr(module, "ALONE", 2)


def write(folder: Path, *more: str) -> TsvBlueprint:
    rows = [f"{line}\t{line[::-1]}\t{n % 3}\n" for n, line in enumerate(LINES)]
    (folder / "t").write_text("".join([*rows, *more]), encoding="utf-8")
    return TsvBlueprint(path="t", weight=3, on_bad_line="skip")


def made(folder: Path, corpus: CorpusBlueprint, how: Encoding) -> dict[str, bytes]:
    path = folder / f"by-{how.processes}"
    path.mkdir()
    encode(path, corpus, folder, how)
    return {file.name: file.read_bytes() for file in path.iterdir()}


SENTENCEPIECE = {"kind": "sentencepiece", "size": 300, "sampling": {"variants": 3}}


@pytest.mark.filterwarnings("ignore:the text has")
@pytest.mark.parametrize("tokens", ["words", "characters", SENTENCEPIECE], ids=str)
def test_several_processes_write_the_same_bytes(tmp_path: Path, tokens: object) -> None:
    corpus = write(tmp_path, "\tempty\t1\n", f"{'b ' * 20}\tlong\t1\n")
    one, several = (made(tmp_path, corpus, encoding(count, tokens)) for count in (1, 3))
    assert one.keys() >= {"source.values", "target.ends", "first", "weights", "facts.json"}
    assert one == several


@pytest.mark.parametrize("processes", [1, 3])
def test_the_first_fault_is_the_one_that_is_named(tmp_path: Path, processes: int) -> None:
    corpus = write(tmp_path, f"{'b ' * 20}\tlong\t1\n", *["a\tb\t1\n"] * 10, "\tempty\t1\n")
    with pytest.raises(Problem, match=r"t:301: the source has 20 symbols"):
        made(tmp_path, corpus.model_copy(update={"on_bad_line": "error"}), encoding(processes))


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 23])
def test_results_come_in_order(processes: int, count: int) -> None:
    assert list(in_order(str, iter(range(count)), processes)) == list(map(str, range(count)))


@pytest.mark.parametrize("processes", [1, 3])
def test_what_goes_wrong_there_goes_wrong_here(processes: int) -> None:
    def inverse(number: int) -> float:
        return 1 / number

    found = in_order(inverse, iter([1, 2, 4, 0, 5]), processes)
    assert [next(found) for _ in range(3)] == [1, 0.5, 0.25]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_what_came_before_a_problem_comes_first() -> None:
    def things() -> Iterator[int]:
        yield from range(5)
        raise Problem("no more")

    found = in_order(str, things(), 3)
    assert [next(found) for _ in range(5)] == list("01234")
    with pytest.raises(Problem, match="no more"):
        next(found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_what_asks_a_run_to_stop_is_no_matter_of_its_helpers(number: signal.Signals) -> None:
    """Ctrl-C comes to all processes of a terminal; helpers end when nobody asks them any more."""

    def work(thing: int) -> int:
        os.kill(os.getpid(), number)
        return thing

    assert list(in_order(work, iter(range(5)), 2)) == list(range(5))


def test_a_process_that_is_killed_is_no_end_that_looks_like_one() -> None:
    def work(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(Problem, match="was ended; see whether there is enough memory"):
        list(in_order(work, iter(range(9)), 2))


@given(
    numbers=st.lists(st.floats(0, 100), min_size=1, max_size=80),
    share=st.sampled_from([0.5, 0.9, 0.999, 1.0]),
    size=st.integers(1, 30),
)
def test_a_quantile_of_blocks_is_that_of_all(numbers: list[float], share: float, size: int) -> None:
    blocks = (np.array(numbers[n : n + size]) for n in range(0, len(numbers), size))
    assert upper_quantile(blocks, len(numbers), share) == np.quantile(numbers, share)


def test_a_large_file_is_hashed_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "large", tmp_path / "cache"
    path.write_bytes(b"one")
    monkeypatch.setattr(digests, "LARGE", 1)
    first = digest(path, cache)
    assert not cache.exists(), "a file that was just written may change unseen"
    monkeypatch.setattr(digests, "SETTLED", 0)
    assert digest(path, cache) == first
    (kept,) = (cache / "digests").iterdir()
    kept.write_text(kept.read_text("utf-8").replace(first, "known"), encoding="utf-8")
    assert digest(path, cache) == "known"
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert digest(path, cache) not in (first, "known")


def test_small_files_are_hashed_every_time(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"one")
    digest(tmp_path / "small", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_no_example_is_encoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    chunk = Encoding.chunk

    def note(self: Encoding, examples: list[Example], more: module.Extras) -> module.Chunk:
        seen.extend(example.place for example in examples)
        return chunk(self, examples, more)

    monkeypatch.setattr(Encoding, "chunk", note)
    made(tmp_path, write(tmp_path), encoding(1))
    assert len(seen) == len(set(seen)) == len(LINES)


def resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8").split("\n")
    return next(int(line.split()[1]) for line in status if line.startswith("RssFile")) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_what_was_read_does_not_stay_resident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 2000
    with ragged.RaggedWriter(tmp_path, "x", "<u2") as writer:
        for row in range(rows):
            writer.extend(np.full(8192, row, "<u2").tobytes(), [8192])

    def read() -> tuple[int, int]:
        kept = ragged.Ragged.open(tmp_path, "x", "<u2", rows)
        before, most = resident(), 0
        for row in range(rows):
            found = kept.gather(np.array([row])).data
            assert found.shape == (1, 8192)
            assert int(found[0, 0]) == int(found[0, -1]) == row
            most = max(most, resident() - before) if row % 20 == 0 else most
        return most, len(kept.values) * 2

    most, size = read()
    assert most > size * 3 // 4
    monkeypatch.setattr(ragged, "LARGE", 1)
    monkeypatch.setattr(ragged, "PLACES", 100)
    most, size = read()
    assert most < size // 4
