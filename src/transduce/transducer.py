"""The front door: load a trained model, call it with text, get text and all that is known of it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.blueprint import define
from transduce.bundle import Bundle, is_bundle
from transduce.data.stream import by_length
from transduce.explain.reading import copying, source_attention
from transduce.folder import recover
from transduce.nn.packed import pack
from transduce.problem import Problem
from transduce.search.beam import Beam
from transduce.search.constrain import Constraint, ConstraintBlueprint, Target, Texts, constrained
from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.score import force
from transduce.search.scorer import Scorer
from transduce.search.stepwise import StepwiseSearch, answers
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS
from transduce.train.memory import keep_freed_memory

TOKENS = 8192  # positions of source in a batch, at most
REFILL = 4  # batches side by side, if a source has one row; where it has many, rows never get few


@dataclass(frozen=True)
class Token:
    """A symbol of the output and how likely the model found it."""

    piece: str
    log_prob: float  # natural logarithm

    @property
    def probability(self) -> float:
        """How likely the model found it, from 0 to 1."""
        return math.exp(self.log_prob)


@dataclass(frozen=True)
class Result:
    """What a model made of one input."""

    source: str
    text: str
    score: float  # what the search ranked by
    log_prob: float  # natural logarithm of the model's probability of the text
    finished: bool  # False: the length limit cut it off, or constraints let nothing follow
    tokens: tuple[Token, ...]
    alternatives: tuple[Result, ...] = ()  # the next best, if asked for
    source_pieces: tuple[str, ...] = ()
    attention: Float[np.ndarray, "T S"] | None = None  # tokens by source pieces, if asked for
    copying: Float[np.ndarray, "T S"] | None = None  # how likely each was copied from each piece

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        words = "".join(
            f'<span title="{token.probability:.3f}" style="background:rgb(70 130 180 / '
            f'{(1 - token.probability) / 2:.2f})">{html.escape(token.piece)}</span> '
            for token in self.tokens
        )
        return (
            f'<div dir="auto"><b>{html.escape(self.text)}</b><br><small>{words}<br>'
            f"score {self.score:.3f}, log-probability {self.log_prob:.2f}</small></div>"
        )


class Transducer:
    """A trained model with everything it needs, from text to text.

    The answer for a text does not depend on what else is asked at the same time.
    """

    def __init__(self, bundle: Bundle, device: torch.device | None = None, rows: int = 64) -> None:
        self.rows = rows  # sources searched side by side
        cuda = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device or torch.device(cuda)
        self.bundle = bundle
        self.source, self.target = bundle.codecs["source"], bundle.codecs["target"]
        self.model = bundle.model.to(self.device).eval()
        self.search = bundle.blueprint.search
        self.slots = bundle.blueprint.model.head.slots
        self.constraints = bundle.blueprint.constraints
        self._built = self._build(self.constraints)

    @classmethod
    def load(
        cls, folder: str | Path, device: str | None = None, parts: Sequence[str | Path] = ()
    ) -> Transducer:
        """Load a model folder, or the model of a run.

        ``parts`` are the Python files that define parts of it which do not come with the package.
        No other file is run. The process keeps memory that it frees from now on.

        Raises:
            Problem: there is none, it is damaged, or it has parts that nothing here defines.
        """
        path = Path(folder)
        for file in [parts] if isinstance(parts, str) else parts:
            define(Path(file))
        if not is_bundle(path):
            recover(path / "model")
            if not (path / "model").exists():
                missing = "holds no trained model yet" if path.is_dir() else "no such folder"
                raise Problem(f"{missing}; give the folder of a run or of a model", str(folder))
            path = path / "model"
        loaded = cls(Bundle.load(path), torch.device(device) if device else None)
        # It will only predict from now on: on a CPU both are worth a tenth of the time.
        pack(loaded.model)
        keep_freed_memory()
        return loaded

    @overload
    def __call__(
        self,
        inputs: str,
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        alternatives: int = 0,
        attention: bool = False,
    ) -> Result: ...

    @overload
    def __call__(
        self,
        inputs: list[str] | tuple[str, ...],
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        alternatives: int = 0,
        attention: bool = False,
    ) -> list[Result]: ...

    def __call__(
        self,
        inputs: str | list[str] | tuple[str, ...],
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        alternatives: int = 0,
        attention: bool = False,
    ) -> Result | list[Result]:
        """Answer a text, or each text of a list.

        ``search`` and ``constraints`` replace the model's own; ``alternatives`` asks for that many
        next best answers; ``attention`` for where the model looked and what it copied (None where
        it does not). Where constraints allow no answer, it is blank, unfinished and scores -inf.

        Raises:
            Problem: alternatives are wanted of a search that finds one answer only, a text is
                longer than there are positions learned, or a constraint cannot be written.
        """
        lines = [inputs] if isinstance(inputs, str) else list(inputs)
        chosen = with_alternatives(search or self.search, alternatives)
        results = self._answer(lines, chosen, self._inside(constraints), attention, 1)
        return results[0] if isinstance(inputs, str) else results

    def predict(
        self,
        lines: Iterable[str],
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        alternatives: int = 0,
        ahead: int = 4096,
    ) -> Iterator[Result]:
        """Answer a stream of texts, one result each, in order, in bounded memory.

        ``ahead`` texts are read before they are answered, so that those of like length can share a
        batch.
        """
        chosen = with_alternatives(search or self.search, alternatives)
        scorer, waiting, first = self._inside(constraints), iter(lines), 1
        while block := list(islice(waiting, ahead)):
            yield from self._answer(block, chosen, scorer, False, first)
            first += len(block)

    @torch.no_grad()
    def force(self, sources: Sequence[str], targets: Sequence[str]) -> list[tuple[Token, ...]]:
        """Return how likely the model finds each symbol of given targets, their end included.

        Raises:
            Problem: a text is longer than there are positions learned.
        """
        self.model.eval()
        pairs = [
            (
                torch.tensor(self._read("source", at, source, source)),
                self._read("target", at, target, source),
            )
            for at, (source, target) in enumerate(zip(sources, targets, strict=True), 1)
        ]
        longest = np.array([max(len(source), len(ids)) for source, ids in pairs], dtype=np.int64)
        found: list[tuple[Token, ...]] = [()] * len(pairs)
        for batch in by_length(longest, TOKENS // 8, self.rows):
            inputs = {"source": Sequences.stack([pairs[row][0] for row in batch]).to(self.device)}
            read = Sequences.stack([torch.tensor(pairs[row][1]) for row in batch]).to(self.device)
            prompt = torch.full((len(batch), 1), BOS, device=self.device)
            memory = self.model.encode(inputs)
            log_probs = force(self.model, memory, prompt, read.data[:, None], read.lengths[:, None])
            for place, row in enumerate(batch):
                ids = pairs[row][1]
                pieces = self.target.reading(sources[row], self.slots).pieces(ids)
                found[row] = tuple(map(Token, pieces, log_probs[place, 0, : len(ids)].tolist()))
        return found

    def _read(self, side: str, number: int, text: str, source: str) -> list[int]:
        """Encode a text of that source, which nothing ever shortens."""
        codec = self.bundle.codecs[side].reading(source, self.slots)
        ids, most = [*codec.encode(text), EOS], self.model.longest[side]
        if most is not None and len(ids) > most:
            raise Problem(
                f"the {side} has {len(ids)} symbols with its end, and this model has learned "
                f"{most} positions; shorten it or split it up",
                f"text {number}",
            )
        return ids

    def limit(self, lengths: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return the most tokens that sources of these lengths may be answered with."""
        factor, extra = self.bundle.blueprint.longest
        most, positions = (lengths * factor).ceil().long() + extra, self.model.longest["target"]
        return most if positions is None else most.clamp(max=positions)

    def _build(self, constraints: Sequence[ConstraintBlueprint]) -> list[Constraint[Any]]:
        tokeniser = self.target.tokeniser
        target = Target(
            self.target.encode,
            lambda: Texts(tokeniser.texts(), tokeniser.spaced),
            self.limit,
            self.device,
        )
        return [constraint.build(target) for constraint in constraints]

    def _inside(self, constraints: Sequence[ConstraintBlueprint] | None) -> Scorer:
        """Return the model inside constraints; None: inside its own."""
        built = self._built if constraints is None else self._build(constraints)
        return constrained(self.model, built)

    @torch.no_grad()
    def _answer(
        self,
        lines: Sequence[str],
        search: SearchBlueprint,
        scorer: Scorer,
        attention: bool,
        first: int,
    ) -> list[Result]:
        """Search batches of like length; a blank text has a blank answer.

        ``first`` is the number of the first text, for errors.
        """
        self.model.eval()
        results = {
            index: Result(line, "", 0.0, 0.0, True, ())
            for index, line in enumerate(lines)
            if not line.strip()
        }
        asked = [index for index in range(len(lines)) if index not in results]
        encoded = [
            self._read("source", first + index, lines[index], lines[index]) for index in asked
        ]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        beside = max(1, REFILL // search.rows) if isinstance(search, StepwiseSearch) else 1
        batches = by_length(lengths, TOKENS // beside, max(1, self.rows // beside))
        sources = [
            Sequences.stack([torch.tensor(encoded[row]) for row in batch]).to(self.device)
            for batch in batches
        ]
        every = self._found(search, scorer, sources)
        for batch, read, found in zip(batches, sources, every, strict=True):
            maps = self._maps({"source": read}, found) if attention else (None, None)
            for place, row in enumerate(batch):
                source = self.source.reading(lines[asked[row]], self.slots)
                pieces = tuple(source.pieces(encoded[row]))
                best, *others = self._results(lines[asked[row]], found, place)
                real = place, slice(len(best.tokens)), slice(len(pieces))
                results[asked[row]] = Result(
                    best.source,
                    best.text,
                    best.score,
                    best.log_prob,
                    best.finished,
                    best.tokens,
                    tuple(others),
                    pieces,
                    *(None if map is None else map[real].cpu().numpy() for map in maps),
                )
        return [results[index] for index in range(len(lines))]

    def _found(
        self, search: SearchBlueprint, scorer: Scorer, sources: list[Sequences]
    ) -> Iterator[Hypotheses]:
        """Search; where sources are answered, those of the next batch take their places."""
        batches = (
            Batch(
                scorer.encode({"source": read}),
                torch.full((len(read.lengths), 1), BOS, device=self.device),
                self.limit(read.lengths),
            )
            for read in sources
        )
        if isinstance(search, StepwiseSearch):
            return answers(search, scorer, batches, self.rows)
        return (search(scorer, *batch) for batch in batches)

    def _results(self, source: str, found: Hypotheses, row: int) -> list[Result]:
        """Turn the hypotheses of one source into results, best first."""
        codec, results = self.target.reading(source, self.slots), []
        for rank in range(found.tokens.shape[1]):
            length = int(found.lengths[row, rank])
            if length == 0 and rank > 0:
                continue
            ids = found.tokens[row, rank, :length].tolist()
            log_probs = found.token_log_probs[row, rank, :length].tolist()
            results.append(
                Result(
                    source,
                    codec.decode(ids),
                    float(found.scores[row, rank]),
                    float(found.log_probs[row, rank]),
                    bool(found.finished[row, rank]),
                    tuple(map(Token, codec.pieces(ids), log_probs)),
                )
            )
        return results

    def _maps(
        self, inputs: Mapping[str, Sequences], found: Hypotheses
    ) -> tuple[Float[Tensor, "B T S"] | None, Float[Tensor, "B T S"] | None]:
        """Read the best hypotheses again, in parallel; note where the model looks and copies."""
        best, lengths = found.tokens[:, 0], found.lengths[:, 0]
        begin = torch.full_like(best[:, :1], BOS)
        read = Sequences(torch.cat([begin, best[:, :-1]], 1), lengths)
        return source_attention(self.model, inputs, read), copying(self.model, inputs, read)

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters())
        blueprint = self.bundle.blueprint.model
        kinds = f"{blueprint.encoder.kind} encoder, {blueprint.decoder.kind} decoder"
        return f"Transducer({kinds}, {size / 1e6:.1f} M parameters, {self.search})"


def with_alternatives(search: SearchBlueprint, count: int) -> SearchBlueprint:
    """Return the search so that it also finds the ``count`` next best answers.

    Raises:
        Problem: it finds one answer only.
    """
    if count == 0:
        return search
    if not isinstance(search, Beam):
        raise Problem("this search finds one answer only; for alternatives use beam search")
    width = max(search.width, count + 1)
    return search.model_copy(update={"width": width, "n_best": count + 1})
