"""A first configuration for somebody's data: read it and size everything to it."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transduce import folder
from transduce.blueprint import dump
from transduce.data.batch import Example
from transduce.data.jsonl import JsonlBlueprint
from transduce.data.lines import Skipped
from transduce.data.read import CorpusBlueprint, ParallelBlueprint
from transduce.data.stream import BatchBlueprint
from transduce.data.tables import Cells, CsvBlueprint, TableBlueprint, TsvBlueprint
from transduce.evaluate import (
    BleuBlueprint,
    CharacterErrorRateBlueprint,
    ChrfBlueprint,
    ExactMatchBlueprint,
    MetricBlueprint,
)
from transduce.experiment import DataBlueprint, Experiment, TrainBlueprint, ValidationBlueprint
from transduce.models.build import ModelBlueprint
from transduce.models.decoders.recurrent import RecurrentDecoderBlueprint
from transduce.models.encoders.recurrent import RecurrentEncoderBlueprint
from transduce.problem import Problem
from transduce.text.codec import CodecBlueprint, TextBlueprint
from transduce.text.normalise import NormaliserBlueprint
from transduce.text.tokenise import (
    CharactersBlueprint,
    SentencePieceBlueprint,
    TokeniserBlueprint,
    WordsBlueprint,
)
from transduce.train.optimise import Cosine, OptimiserBlueprint

LOOK = 100_000  # examples that are looked at
HELD_OUT = 1000  # the most examples put aside for dev
LEAST = 300  # pieces on top of the characters: the bytes, and a few that are longer
HEADINGS = (  # in the first row of a table these name its columns
    *("source", "target", "src", "tgt", "input", "output", "text", "label", "en", "fr", "zh", "ja"),
    *(
        "mr",
        "ref",
        "meaning_representation",
        "reference",
        "question",
        "answer",
        "query",
        "response",
    ),
    *("document", "article", "summary", "highlights", "prompt", "completion", "transcription"),
    *("sentence", "translation", "word", "pronunciation", "phonemes", "lemma", "form", "code"),
)
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
Table = type[TsvBlueprint] | type[CsvBlueprint] | type[JsonlBlueprint]
TABLES: dict[str, Table] = {".tsv": TsvBlueprint, ".csv": CsvBlueprint, ".jsonl": JsonlBlueprint}


class Side(NamedTuple):
    """What the texts of one side are like."""

    words: int  # different ones
    characters: int  # different ones
    length: float  # characters in a usual text
    symbols: bool  # a few short words over and over, such as phones
    spaced: bool  # the script puts spaces between words


def init(paths: Sequence[Path], out: Path) -> str:
    """Write a commented configuration for the data to ``out``; return what was decided.

    Data: one table (TSV, CSV, JSONL) or two parallel files of text, plain or gzipped; then the same
    for dev, then for test. Without dev, some examples of the first are put aside in files beside
    ``out``.

    Raises:
        Problem: the files are no such data, or what is to be written exists or has no fit name.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise Problem(f"configurations end in .yaml; say: -o {out}.yaml", str(out))
    _is_free(out)
    base = out.resolve().parent
    corpora = [corpus(part, base) for part in _parts(paths)]
    base.mkdir(parents=True, exist_ok=True)
    said = [_headed(part) for part in corpora if getattr(part, "header", False)]
    if len(corpora) == 1:
        corpora = _put_aside(corpora[0], out)
        said.append(f"no dev set given: examples put aside in {corpora[1].files[0]}")
    dev, *tests = (part.model_copy(update={"group": True}) for part in corpora[1:])
    data = DataBlueprint(train=corpora[0], dev=dev, test=tests[0] if tests else None)
    examples = list(islice(corpora[0].read(base, Skipped()), LOOK))
    experiment = size(data, examples)
    folder.write_text(out, dump(experiment))
    said.append(f"{len(examples):,}{' or more' if len(examples) == LOOK else ''} examples read")
    said.append(f"wrote {out}; next: transduce check {out}, then transduce train {out}")
    return "\n".join(said)


def _is_free(path: Path) -> None:
    if path.exists():
        raise Problem("this file exists; choose another name or remove it", str(path))


def _parts(paths: Sequence[Path]) -> list[list[Path]]:
    """Put together what belongs together: a table by itself, text files in pairs."""
    parts: list[list[Path]] = []
    for path in paths:
        if not path.is_file():
            raise Problem("no such file", str(path))
        open_pair = bool(parts) and len(parts[-1]) == 1 and _suffix(parts[-1][0]) not in TABLES
        if _suffix(path) not in TABLES and open_pair:
            parts[-1].append(path)
        else:
            parts.append([path])
    if not 1 <= len(parts) <= 3:
        raise Problem(f"give train, dev and test data, not {len(parts)} sets", str(paths[0]))
    return parts


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def corpus(paths: Sequence[Path], base: Path) -> CorpusBlueprint:
    """Return the blueprint of a table or of two parallel files, seen from ``base``.

    Raises:
        Problem: they are neither.
    """
    tables = [path for path in paths if _suffix(path) in TABLES]
    if len(paths) + len(tables) != 2:
        raise Problem(
            "text files come in pairs, the source and then the target; name both and no more, or "
            "give one table (.tsv, .csv, .jsonl)",
            str(paths[0]),
        )
    names = [_seen_from(path.resolve(), base) for path in paths]
    if not tables:
        return ParallelBlueprint(source=names[0], target=names[1])
    table = TABLES[_suffix(paths[0])](path=names[0])
    if isinstance(table, TableBlueprint):
        table = table.model_copy(update={"header": _has_header(table, base)})
    return table


def _has_header(table: TableBlueprint, base: Path) -> bool:
    first = next(table.cells(base / table.files[0]), None)
    return isinstance(first, Cells) and {text.strip().lower() for text in first.texts} <= {
        *HEADINGS
    }


def _headed(table: CorpusBlueprint) -> str:
    return f"the first row of {table.files[0]} holds names of columns, so it is no example"


def _seen_from(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _put_aside(whole: CorpusBlueprint, out: Path) -> list[CorpusBlueprint]:
    """Split a corpus into train and dev, so that no source is in both; write both as JSON lines."""
    base = out.resolve().parent
    targets = {name: out.with_suffix(f".{name}.jsonl") for name in ("train", "dev")}
    for path in targets.values():
        _is_free(path)
    examples = list(whole.read(base, Skipped()))
    sources = sorted({example.sources["source"] for example in examples})
    if len(sources) < 2:
        raise Problem("all examples have the same source; there is nothing to learn", str(out))
    count = max(1, min(HELD_OUT, len(sources) // 20))
    chosen = np.random.default_rng(0).choice(len(sources), count, replace=False)
    held = {sources[place] for place in chosen}
    for name, path in targets.items():
        inside = name == "dev"
        lines = (_line(e) for e in examples if (e.sources["source"] in held) == inside)
        folder.write_text(path, "".join(lines))
    return [JsonlBlueprint(path=path.name) for path in targets.values()]


def _line(example: Example) -> str:
    target = example.references if len(example.references) > 1 else example.references[0]
    record = {"source": example.sources["source"], "target": target}
    return json.dumps(record, ensure_ascii=False) + "\n"


def size(data: DataBlueprint, examples: Sequence[Example]) -> Experiment:
    """Choose tokenisation, model and schedule for the examples."""
    source = look(example.sources["source"] for example in examples)
    target = look(reference for example in examples for reference in example.references)
    count = len(examples)
    width = 256 if count < 50_000 else 512
    layers = 1 if count < 50_000 else 2
    dropout = 0.3 if count < 20_000 else 0.2
    batch = 1000 if count < 20_000 else 2000
    text = TextBlueprint(
        source=CodecBlueprint(tokens=tokeniser(source, count)),
        target=CodecBlueprint(tokens=tokeniser(target, count)),
    )
    tokens = count * (1 + target.length / (1 if _spelt(target) else 4))
    steps = int(np.clip(20 * tokens / batch, 1000, 50_000) // 100 * 100)
    return Experiment(
        data=data,
        text=text,
        model=ModelBlueprint(
            encoder=RecurrentEncoderBlueprint(
                embedding=width // 2, width=width, layers=layers, dropout=dropout
            ),
            decoder=RecurrentDecoderBlueprint(
                embedding=width // 2, width=width, layers=layers, dropout=dropout
            ),
        ),
        train=TrainBlueprint(
            max_steps=steps,
            batch=BatchBlueprint(tokens=batch),
            optimiser=OptimiserBlueprint(rate=2e-3, schedule=Cosine(warmup=min(400, steps // 10))),
        ),
        validation=ValidationBlueprint(every=max(100, steps // 20)),
        metrics=metrics(target),
    )


def look(texts: Iterable[str]) -> Side:
    """Return what texts are like."""
    words: set[str] = set()
    characters: Counter[str] = Counter()
    lengths: list[int] = []
    total = 0
    for text in map(NormaliserBlueprint(), texts):
        found = text.split()
        words.update(found)
        total += len(found)
        characters.update(text)
        lengths.append(len(text))
    usual = float(np.median(lengths)) if lengths else 0.0
    many = total > 20 * len(words) and total > 2 * len(lengths)
    short = sum(map(len, words)) <= 3 * len(words)
    return Side(len(words), len(characters), usual, many and short, _spaced(characters))


def _spaced(characters: Mapping[str, int]) -> bool:
    other = sum(
        count
        for character, count in characters.items()
        if unicodedata.name(character, "").startswith(UNSPACED)
    )
    return 2 * other <= sum(characters.values())


def tokeniser(side: Side, examples: int) -> TokeniserBlueprint:
    """Choose how to cut texts of a side."""
    if side.symbols:
        return WordsBlueprint()
    if _spelt(side):
        return CharactersBlueprint()
    wanted = 1000 if examples < 20_000 else 4000 if examples < 200_000 else 8000
    return SentencePieceBlueprint(size=max(side.characters + LEAST, min(wanted, side.words)))


def metrics(target: Side) -> tuple[MetricBlueprint, ...]:
    """Choose what predictions are scored with."""
    if not target.spaced:
        return BleuBlueprint(tokenize="char"), ChrfBlueprint()
    if _spelt(target) or target.symbols:
        return ExactMatchBlueprint(), CharacterErrorRateBlueprint()
    return BleuBlueprint(), ChrfBlueprint()


def _spelt(side: Side) -> bool:
    """Whether texts are single words, or a script that puts no spaces between words."""
    return not side.symbols and (side.length <= 15 or not side.spaced)
