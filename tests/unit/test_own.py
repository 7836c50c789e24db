"""Parts from a user's own file: their page does what it says, and mistakes are answered."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.folder import read_json
from transduce.problem import Problem

PAGE: Final = Path(__file__).parents[2] / "docs" / "extending.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
ATTENTION, LAWS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
(YAML,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FURTHER: Final = """
from typing import Literal
from transduce.evaluate import Metric, MetricBlueprint
from transduce.train.objective import Loss, ObjectiveBlueprint


class Doubled(ObjectiveBlueprint):
    kind: Literal["doubled"] = "doubled"

    def build(self, task):
        def objective(model, batch, moment):
            total, nll = model(batch.sources, batch.inputs, batch.labels)
            return Loss(2 * total, nll)
        return objective


class Letters(Metric):
    name, higher_is_better = "letters", True

    def measure(self, hypotheses, references):
        return [[len(text)] for text in hypotheses]

    def score(self, total):
        return float(total[0])

    def signature(self, references, resamples=0, seed=1):
        return "letters"


class LettersBlueprint(MetricBlueprint):
    kind: Literal["letters"] = "letters"

    def build(self):
        return Letters()
"""
TRY: Final = """
from pathlib import Path
from transduce.blueprint import define
from transduce.nn.attend import ConnectionBlueprint
from transduce.problem import Problem
for number in range(3):
    try:
        define(Path(f"{number}.py"))
    except Problem as problem:
        print(problem)
Path("0.py").write_text(Path("right.py").read_text())
define(Path("0.py"))
print(sorted({"nearest", "additive"} & ConnectionBlueprint.choices().keys()))
"""
TINY: Final = (
    "parts=[my_attention.py,../further.py]",
    "text.source.tokens=characters",
    "model.encoder={kind: recurrent, embedding: 8, width: 8}",
    "model.decoder.embedding=8",
    "model.decoder.width=8",
    "train={max_steps: 6, threads: 1, precision: fp32, objective: doubled}",
    "validation.every=3",
    "metrics=[letters]",
)


def transduce(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run the command in a process of its own, so that no part of it stays here."""
    environment = {"TRANSDUCE_CACHE": str(folder / "cache"), **os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "transduce", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, env=environment, check=False, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which somebody did what the page says."""
    base = tmp_path_factory.mktemp("base")
    home = base / "home"
    home.mkdir()
    words = [f"{a}{b}{c}" for a in "abcd" for b in "efg" for c in "hi"]
    table = "".join(f"{word}\t{word[::-1]}\n" for word in words)
    for name, text in {
        "my_attention.py": ATTENTION,
        "../further.py": FURTHER,
        "my.yaml": YAML,
        "train.tsv": table,
        "dev.tsv": table,
        "input.txt": "aeh\nbfi\n",
    }.items():
        (home / name).write_text(text, encoding="utf-8")
    transduce(home, "train", "my.yaml", *TINY)
    return home


def test_the_model_says_where_its_part_came_from_and_needs_no_other(home: Path) -> None:
    recorded = read_json(home / "runs/my/model/blueprint.json")["parts"]
    assert list(recorded) == [str((home / "my_attention.py").resolve())]
    assert not (home / "__pycache__").exists()


def test_it_predicts_from_anywhere_where_the_file_is_named(home: Path, tmp_path: Path) -> None:
    run, file, text = (str(home / name) for name in ("runs/my", "my_attention.py", "input.txt"))
    answers, said = transduce(tmp_path, "predict", run, text, "--parts", file)
    assert answers.count("\n") == 2
    assert "warning: " + file not in said
    moved = tmp_path / "my_attention.py"
    moved.write_text(ATTENTION + "\n# another line\n", encoding="utf-8")
    again, said = transduce(tmp_path, "predict", run, text, "--parts", moved.name)
    assert again == answers
    assert f"warning: {moved.resolve()}: not what it was when this model was trained" in said


def test_no_folder_runs_code(home: Path) -> None:
    out, said = transduce(home, "predict", "runs/my", "input.txt", code=2)
    assert out == ""
    file = (home / "my_attention.py").resolve()
    place = re.escape("runs/my/model/blueprint.json") + r":\d+: parts: "
    assert re.fullmatch(place + f"this was made with parts from {file}, .* --parts {file}\n", said)


def test_a_file_that_is_not_there_is_one_line(home: Path) -> None:
    _, said = transduce(home, "predict", "runs/my", "input.txt", "--parts", "moved.py", code=2)
    assert said == "moved.py: cannot be read: No such file or directory\n"


def test_other_slots_take_parts_too(home: Path) -> None:
    own = ("--parts", "my_attention.py", "--parts", "../further.py")
    scores, _ = transduce(home, "evaluate", "runs/my", "--data", "dev.tsv", *own)
    assert "letters" in scores
    transduce(home, "train", "my.yaml", *TINY, "train.max_steps=7")  # the same run goes on


def test_the_laws_hold_for_it(home: Path) -> None:
    subprocess.run([sys.executable, "-c", LAWS], cwd=home, check=True)


def test_editors_learn_its_settings(home: Path) -> None:
    schema, _ = transduce(home, "schema", "--parts", "my_attention.py")
    assert "dimensions of the space in which distances are measured" in schema


def test_the_slots_of_the_page_exist() -> None:
    names = re.findall(r"`(transduce\.[\w.]+)\.([A-Z]\w+)`", TEXT)
    assert len(names) > 10
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "exp.yaml:2: parts.0: there is no file {folder}/own.py; paths are seen from"),
        ("x = (1,\n", "own.py:1: SyntaxError: '(' was never closed"),
        ("import torch\n\ntorch.no_such\n", "own.py:3: AttributeError: module 'torch' has no"),
        ("x = 1\n", "own.py: it defines no part; a part is a subclass of a slot"),
    ],
)
def test_a_file_that_does_not_run_is_answered(tmp_path: Path, text: str | None, says: str) -> None:
    (tmp_path / "exp.yaml").write_text("seed: 1\nparts: [own.py]\n", encoding="utf-8")
    if text is not None:
        (tmp_path / "own.py").write_text(text, encoding="utf-8")
    with pytest.raises(Problem) as caught:
        read(tmp_path / "exp.yaml", Experiment, trusted=True)
    message = str(caught.value)
    assert says.format(folder=tmp_path) in message
    assert "\n" not in message
    assert str(tmp_path / "own.py") not in sys.modules


def test_a_part_that_is_not_whole_is_answered(tmp_path: Path) -> None:
    mistakes = {
        ('Literal["nearest"]', "str"): "must be one word, such as kind: Literal[",
        ("def build", "def built"): "NearestAttentionBlueprint does not say how to build; define",
        ('["nearest"]', '["additive"]'): "there is another part of kind 'additive'; choose another",
    }
    for number, change in enumerate(mistakes):
        (tmp_path / f"{number}.py").write_text(ATTENTION.replace(*change), encoding="utf-8")
    (tmp_path / "right.py").write_text(ATTENTION, encoding="utf-8")
    (tmp_path / "all.py").write_text(TRY, encoding="utf-8")
    command = [sys.executable, "all.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True)
    *said, after = done.stdout.removesuffix("\n").split("\n")
    assert after == "['additive', 'nearest']", "what failed is forgotten"
    for number, (line, says) in enumerate(zip(said, mistakes.values(), strict=True)):
        assert line.startswith(f"{tmp_path.resolve() / str(number)}.py:12: ")
        assert says in line


def test_what_is_not_trusted_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit\n", encoding="utf-8")
    (tmp_path / "exp.yaml").write_text("parts: [own.py]\nmetrics: [mine]\n", encoding="utf-8")
    with pytest.raises(Problem, match=r"exp\.yaml:1: parts: this was made with parts from own.py"):
        read(tmp_path / "exp.yaml", Experiment)
    for other in ("parts: [own.py]\nseed: x\n", "parts: [5]\nmetrics: [mine]\n"):
        (tmp_path / "exp.yaml").write_text(other, encoding="utf-8")
        with pytest.raises(Problem, match=r"exp\.yaml:\d: (seed|parts\.0): expected"):
            read(tmp_path / "exp.yaml", Experiment)
