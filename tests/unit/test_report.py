from __future__ import annotations

import copy
import json
import math
import random
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folder import ATTENTION, SCORES, course, lines, write_run

from transduce.problem import Problem
from transduce.report import write
from transduce.report.charts import Axis, Line, chart, scale, thin
from transduce.report.heatmap import heat_map
from transduce.report.markup import clip, duration, plain, real, score, short, within
from transduce.report.run import read
from transduce.report.samples import changes, stretches

SECTIONS = ["scores", "training", "predictions", "attention", "data", "configuration"]
FILES = ("experiment.yaml", "environment.json", "data.json", "train.jsonl", "samples.jsonl",
         "attention.json", "scores.json")  # fmt: skip
EVIL = "</title></style><script>alert(1)</script><img src=x onerror='a'>\"'&amp;\x00\u202e"
NUMBER = Axis("", real, real)


class Page(HTMLParser):
    """Checks that every tag is closed in order, and collects what a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(folder: Path) -> Page:
    path = write(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_a_finished_run(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "e2e-run"))
    assert [a["id"] for t, a in page.tags if t == "section"] == [*SECTIONS, "environment"]
    assert "e2e" in page.text
    assert "recurrent encoder, transformer decoder, 2.42M parameters. " in page.text
    assert "Trained on 42,061 examples for 4,000 steps (epoch 12) in 2" in page.text
    for name in ("Loss", "Validation BLEU", "Learning rate", "Gradient norm", "Speed"):
        assert f"{name} " in page.text
    assert "step 3,500" in page.text  # the last validation that was the best so far
    assert "What is missing" not in [a.get("aria-label") for _, a in page.tags]
    assert (tmp_path / "e2e-run" / "report.html").stat().st_size < 300_000
    pictures = [a for t, a in page.tags if t == "svg" and a.get("role") == "img"]
    assert len(pictures) == 5 + len(ATTENTION)
    assert [t for t, _ in page.tags].count("desc") == len(pictures)


def test_scores_stand_beside_published_ones(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run")).text
    # higher is better: Shen 68.6, ours 66.3, Gehrmann 66.2, TGen 65.9
    text = text[text.index("BLEU higher is better") :]
    order = [text.index(w) for w in ("Shen et al.", "64.9–67.7", "Gehrmann", "TGen (Novikova")]
    assert order == sorted(order)
    assert SCORES["test"]["bleu"]["signature"] in text
    assert "TER lower is better" in text


@pytest.mark.parametrize("missing", FILES)
def test_what_is_missing_is_said(tmp_path: Path, missing: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / missing).unlink()
    assert f"{missing} is not there: no " in page_of(folder).text


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    text = page_of(tmp_path).text
    assert all(f"{name} is not there" in text for name in FILES)
    assert "No training step has been recorded." in text
    with pytest.raises(Problem, match="no such folder"):
        write(tmp_path / "none")


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", finished=False)
    whole = (folder / "train.jsonl").read_bytes()
    (folder / "train.jsonl").write_bytes(whole[: len(whole) // 3])
    (folder / "data.json").write_bytes(b'{"train": {"examp')
    (folder / "samples.jsonl").write_bytes((folder / "samples.jsonl").read_bytes()[:-30])
    text = page_of(folder).text
    assert "1 line of train.jsonl could not be read" in text
    assert "1 line of samples.jsonl could not be read" in text
    assert "data.json is not whole" in text
    assert "No final scores: still training" in text


def test_a_resumed_run_counts_once(tmp_path: Path) -> None:
    records = [{"kind": "step", "step": s, "loss": 9.0, "tokens": s} for s in (10, 20, 30, 40)]
    again = [{"kind": "step", "step": s, "loss": 1.0, "tokens": s} for s in (30, 40, 50)]
    lines(tmp_path / "train.jsonl", [*records, *again])
    run = read(tmp_path)
    assert [(r["step"], r["loss"]) for r in run.steps] == [
        (10, 9.0), (20, 9.0), (30, 1.0), (40, 1.0), (50, 1.0),
    ]  # fmt: skip
    assert "2 step records were written again after a resume; the last count." in run.notes


def test_numbers_that_are_none_are_counted_and_not_drawn(tmp_path: Path) -> None:
    values = [2.0, math.nan, math.inf, 1.5]
    steps = [{"kind": "step", "step": i, "loss": v, "nll": v} for i, v in enumerate(values)]
    lines(tmp_path / "train.jsonl", steps)
    page = page_of(tmp_path)
    assert "2 records have a loss that is not a finite number; not drawn." in page.text
    assert not any("nan" in str(v) or "inf" in str(v) for _, a in page.tags for v in a.values())


def poisoned(value: Any) -> Any:
    """Put what HTML is afraid of into every text and every key but those of the contract."""
    if isinstance(value, str):
        return EVIL + value
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()} | {EVIL: EVIL}
    return value


def test_text_is_never_markup(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "<b>run")
    for name in FILES[1:]:
        path = folder / name
        rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
        rows = [{**poisoned(row), **({"kind": row["kind"]} if "kind" in row else {})}
                if isinstance(row, dict) else poisoned(row) for row in rows]  # fmt: skip
        lines(path, rows)
    (folder / "experiment.yaml").write_text(f'name: "{EVIL[:30]}"\nx: {EVIL}', encoding="utf-8")
    page = page_of(folder)
    assert "alert(1)" in page.text
    assert not {t for t, _ in page.tags} & {"script", "img", "b<", "iframe", "object"}
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert [t for t, _ in page.tags].count("style") == 1
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    loads = [a.get("src") or a.get("href") or "#" for _, a in page.tags]
    assert {place[:1] for place in loads} == {"#", "d"}  # anchors, and the empty data: icon
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "url(" not in html
    assert "@import" not in html


def test_half_a_character_does_not_stop_the_report(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"cpu": "\\ud83d"}', encoding="utf-8")
    assert "cpu ?" in page_of(tmp_path).text


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 10**400, 1e300, 1e-320, math.nan, "", "x", [], [[]], {}, {"a": [1]}]
)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_json_makes_a_page(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Values of the wrong kind, anywhere, neither stop the report nor break its markup."""
    folder = write_run(tmp_path_factory.mktemp("run"), steps=300)
    name = data.draw(st.sampled_from(FILES[1:]))
    rows = [json.loads(row) for row in (folder / name).read_text("utf-8").splitlines()]
    for _ in range(data.draw(st.integers(1, 4))):
        spoil(rows, data)
    lines(folder / name, rows)
    page_of(folder)


def spoil(value: Any, data: st.DataObject) -> None:
    """Replace one thing inside, at a random depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(value[key], dict | list) or data.draw(st.booleans()):
            value[key] = copy.deepcopy(data.draw(JUNK))
            return
        value = value[key]


def test_a_huge_run_makes_a_small_page(tmp_path: Path) -> None:
    chance = random.Random(0)
    folder = write_run(tmp_path / "run")
    records = [{**r, "step": r["step"] + 4000 * n} for n in range(25) for r in course(chance)]
    lines(folder / "train.jsonl", records)
    words = ["the", "Eagle", "is", "a", "cheap", "coffee", "shop", "near", "river"]
    samples = [
        {"step": s, "index": i, "source": "x" * 5000, "references": ["r"] * 40,
         "prediction": " ".join(chance.choices(words, k=60))}
        for s in range(60) for i in range(30)
    ]  # fmt: skip
    lines(folder / "samples.jsonl", samples)
    maps = [
        {"source": ["s"] * 400, "target": ["t"] * 120,
         "weights": [[chance.random() / 9 for _ in range(400)] for _ in range(120)]}
    ] * 5  # fmt: skip
    lines(folder / "attention.json", [maps])
    text = page_of(folder).text
    assert (folder / "report.html").stat().st_size < 1_000_000
    for said in (
        "more letters]", "examples are in samples.jsonl", "references are in samples.jsonl",
        "predictions are in samples.jsonl", "maps are in attention.json",
        "a column is the sum of 3", "the first 80 rows",
    ):  # fmt: skip
        assert said in text


def test_changed_words_are_marked() -> None:
    assert changes("a cat sat", "a dog sat") == "a <mark>dog</mark> sat"
    assert changes("a b", "a new one b") == "a <mark>new one</mark> b"
    assert (
        changes("a very big cat", "a cat")
        == 'a <span class="gone" title="gone: very big"></span>cat'
    )
    assert changes("it is", "it is.") == "it is<mark>.</mark>"
    assert changes("打开右边的门", "打开左边的门") == "打开<mark>左</mark>边的门"
    assert changes("ادخل الباب", "افتح الباب") == "<mark>افتح</mark> الباب"
    assert changes("<b>", '<i> "') == "<mark>&lt;i&gt; &quot;</mark>"
    assert changes("", "") == ""


def test_equal_predictions_share_a_row() -> None:
    rows = [{"step": s, "prediction": p} for s, p in ((1, "a"), (2, "b"), (3, "b"), (4, "a"))]
    assert [(s.first, s.last, s.prediction) for s in stretches(rows)] == [
        (1, 1, "a"), (2, 3, "b"), (4, 4, "a"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, (0, 2, 4, 6, 8, 10)),
        (0.62, 5.4, (0, 1, 2, 3, 4, 5, 6)),
        (61, 68, (60, 62, 64, 66, 68)),
        (0, 0.001, (0, 0.0002, 0.0004, 0.0006, 0.0008, 0.001)),
        (-3, -1, (-3, -2.5, -2, -1.5, -1)),
    ],
)  # fmt: skip
def test_ticks(low: float, high: float, ticks: tuple[float, ...]) -> None:
    found = scale([low, high], NUMBER)
    assert found.ticks == pytest.approx(ticks)
    assert found.place(found.low) == 0
    assert found.place(found.high) == 1


@given(
    st.lists(st.floats(-1, 1), min_size=1),
    st.sampled_from([1e-80, 1, 1e12, 1e89]),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_scales_hold_all_values(
    values: list[float], factor: float, zero: bool, whole: bool
) -> None:
    values = [value * factor for value in values]
    found = scale(values, Axis("", real, real, zero=zero), whole_ticks=whole)
    assert all(-1e-6 <= found.place(value) <= 1 + 1e-6 for value in values)
    assert len(found.ticks) <= 12
    positive = [abs(value) + 1e-6 * factor for value in values]
    found = scale(positive, Axis("", real, real, logarithmic=True))
    assert all(0 < found.place(value) < 1 for value in positive)
    assert len(found.ticks) <= 12


def test_thinning_keeps_means_and_extremes() -> None:
    points = [(float(i), float(i % 10)) for i in range(1000)]
    buckets = thin(points, 100)
    assert len(buckets) == 100
    assert all((b.low, b.mean, b.high) == (0, 4.5, 9) for b in buckets)
    assert [b.x for b in thin(points[:7], 100)] == [p[0] for p in points[:7]]


def test_a_chart_says_what_it_shows() -> None:
    line = Line("loss", [(1, 4.0), (2, 1.0), (3, 2.0)], dots=True, best=(2, 1.0))
    step = Axis("step", real, real, zero=True)
    page = Page(chart("Loss", "nats", [line], step, NUMBER))
    assert "loss: 4 at step 1, 2 at 3; lowest 1 at 2, highest 4 at 1." in page.text
    assert "step 2 · loss 1" in page.text  # under the pointer
    assert sum(a.get("class") == "dot" for _, a in page.tags) == 3
    assert sum(a.get("class") == "best" for _, a in page.tags) == 1


def test_a_heat_map_shows_its_weights() -> None:
    weights = [[0.0, 1.0], [0.5, 0.5]]
    page = Page(heat_map({"source": ["<a>", "b"], "target": ["x", "ب"], "weights": weights}, 1))
    paths = {a["stroke-opacity"]: a["d"] for t, a in page.tags if t == "path"}
    assert paths == {"1": "M1 0h1", "0.5": "M0 1h2"}
    assert "x: b 100\N{NO-BREAK SPACE}%" in "".join(page.words)
    for broken in ({}, {"source": ["a"], "target": ["b"], "weights": [[0.1, 0.2]]}):
        assert "do not fit together" in heat_map(broken, 3)


def test_numbers_are_written_for_people() -> None:
    assert [short(v) for v in (0, 7, 999.9, 45_000, 2_418_432)] == ["0", "7", "1k", "45k", "2.42M"]
    assert [real(v) for v in (0, 0.001, 2.1341, -1.5, 12345.0, 5e-6)] == [
        "0", "0.001", "2.134", "−1.5", "12,345", "5e−06",
    ]  # fmt: skip
    assert [score(v) for v in (66.34, 5.449, 0)] == ["66.3", "5.45", "0.00"]
    assert [duration(v) for v in (48, 125, 3900, 200_000)] == [
        "48 s",
        "2 min",
        "1 h 05 min",
        "2 d 7 h",
    ]
    assert plain({"a": [1, True, None], "<": 0.25}) == "a 1, yes, –, &lt; 0.25"
    assert clip("abcdef", 3) == "abc… [3 more letters]"
    assert within(["abc", "de", "f"], 4) == ["abc"]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_read() -> None:
    style = files("transduce.report").joinpath("style.css").read_text("utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("@media")[:2]]
    assert [len(theme) for theme in themes] == [12, 12]
    for theme in themes:
        for ground in ("paper", "card"):
            for ink, least in (("ink", 7), ("soft", 4.5), ("first", 4.5), ("second", 4.5),
                               ("right", 4.5), ("third", 3)):  # fmt: skip
                pair = sorted((luminance(theme[ink]), luminance(theme[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (ink, ground)
