"""The front door: load a trained model, call it with text, get text and all that is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import overload

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
from transduce.panel import Panel
from transduce.problem import Problem
from transduce.result import Result, Token, results_of
from transduce.search.constrain import Apart, ConstraintBlueprint, Own, Target, Texts, constrained
from transduce.search.ensemble import Average
from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import SearchBlueprint
from transduce.search.score import force
from transduce.search.scorer import Scorer
from transduce.search.stepwise import StepwiseSearch, answers
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS
from transduce.train.memory import keep_freed_memory

TOKENS = 8192  # positions of source in a batch, at most
REFILL = 4  # batches side by side, if a source has one row; where it has many, rows never get few


class Transducer:
    """A trained model with everything it needs, from text to text.

    The answer for a text does not depend on what else is asked at the same time.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: torch.device | None = None,
        rows: int = 64,
        *,
        beside: Sequence[Bundle] = (),
        average: Average = "probabilities",
    ) -> None:
        self.rows = rows  # sources searched side by side
        cuda = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device or torch.device(cuda)
        self.panel = Panel((bundle, *beside), self.device, average)
        self.bundle, self.model = bundle, bundle.model
        self.source, self.target = bundle.codecs["source"], bundle.codecs["target"]
        self.search = bundle.blueprint.search
        self.length = bundle.blueprint.length  # of answers; another may be set
        self.constraints = bundle.blueprint.constraints

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

    def ensemble(
        self, others: Sequence[Transducer], average: Average = "probabilities"
    ) -> Transducer:
        """Return the transducer that asks the models of others together with this one's.

        Each reads a text in its own way; search and limits are this one's.

        Raises:
            Problem: a target vocabulary is not that of this model.
        """
        beside = [
            *self.panel.bundles[1:],
            *(bundle for other in others for bundle in other.panel.bundles),
        ]
        return Transducer(self.bundle, self.device, self.rows, beside=beside, average=average)

    @overload
    def __call__(
        self,
        inputs: str,
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        own: Sequence[Own | None] | None = None,
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
        own: Sequence[Own | None] | None = None,
        alternatives: int = 0,
        attention: bool = False,
    ) -> list[Result]: ...

    def __call__(
        self,
        inputs: str | list[str] | tuple[str, ...],
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        own: Sequence[Own | None] | None = None,
        alternatives: int = 0,
        attention: bool = False,
    ) -> Result | list[Result]:
        """Answer a text, or each text of a list.

        ``search`` and ``constraints`` replace the model's own; ``own`` is what each text has to
        obey besides, one for each; ``alternatives`` asks for that many next best answers;
        ``attention`` for where the model looked and what it copied (None where it does not). Where
        constraints allow no answer, it is blank, unfinished and scores -inf.

        Raises:
            Problem: alternatives are wanted of a search that finds one answer only, attention of an
                ensemble, a text is longer than there are positions learned, or a constraint cannot
                be written.
        """
        lines = [inputs] if isinstance(inputs, str) else list(inputs)
        if attention and len(self.panel.bundles) > 1:
            raise Problem(
                "each model of an ensemble looks elsewhere; ask one of them for attention"
            )
        chosen = self._chosen(search, alternatives)
        if own is not None and len(own) != len(lines):
            raise Problem(f"{len(own)} for {len(lines)} texts; give one for each", "own")
        scorer = self._scorer(chosen, constraints)
        results = self._answer(lines, chosen, scorer, attention, 1, own)
        return results[0] if isinstance(inputs, str) else results

    def predict(
        self,
        lines: Iterable[str],
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        own: Iterable[Own | None] | None = None,
        alternatives: int = 0,
        ahead: int = 4096,
    ) -> Iterator[Result]:
        """Answer a stream of texts, one result each, in order, in bounded memory.

        ``ahead`` texts are read before they are answered, so that those of like length can share a
        batch.

        Raises:
            Problem: as a call does; the texts and what they obey on their own are not as many.
        """
        chosen = self._chosen(search, alternatives)
        wanted = None if own is None else iter(own)
        scorer, waiting, first = self._scorer(chosen, constraints), iter(lines), 1
        while block := list(islice(waiting, ahead)):
            obeyed = None if wanted is None else list(islice(wanted, len(block)))
            if obeyed is not None and len(obeyed) < len(block):
                what = f"there is none for text {first + len(obeyed)}; give one for each"
                raise Problem(what, "own")
            yield from self._answer(block, chosen, scorer, False, first, obeyed)
            first += len(block)
        if wanted is not None and next(wanted, self) is not self:
            raise Problem(f"there are more than texts, which are {first - 1}", "own")

    @torch.no_grad()
    def stream(
        self, text: str, search: SearchBlueprint | None = None
    ) -> Generator[str, None, bool]:
        """Yield the answer to a text as it grows, and return whether it has finished.

        Put together it is what a call answers with the same search.

        Raises:
            Problem: the search decides on whole answers, as beam search does, or the text is
                longer than there are positions learned.
        """
        self.panel.evaluate()
        if not text.strip():
            return True
        chosen = search or self.search
        scorer, codec = self._scorer(chosen), self.target.reading(text, self.panel.slots)
        read = self.panel.stack(
            [self.panel.read("source", "text 1", text, text)], np.zeros(1, np.int64)
        )
        batch = self.panel.batch(scorer, read, torch.tensor([_key(text)]), self.length)
        said = yield from codec.unfold(chosen.unfold(scorer, *batch))
        return EOS in said

    @torch.no_grad()
    def force(
        self, sources: Sequence[str], targets: Sequence[str], places: Sequence[str] | None = None
    ) -> list[tuple[Token, ...]]:
        """Return how likely the model finds each symbol of given targets, their end included.

        ``places`` are what errors call the pairs; their numbers if left out.

        Raises:
            Problem: a text is longer than there are positions learned.
        """
        self.panel.evaluate()
        places = places or [f"text {number}" for number in range(1, len(sources) + 1)]
        pairs = list(zip(places, sources, targets, strict=True))
        given = [self.panel.read("source", place, source, source) for place, source, _ in pairs]
        wanted = [
            self.panel.read("target", place, target, source)[0] for place, source, target in pairs
        ]
        longest = np.array(
            [max(len(ids), *map(len, own)) for own, ids in zip(given, wanted, strict=True)],
            dtype=np.int64,
        )
        found: list[tuple[Token, ...]] = [()] * len(pairs)
        for batch in by_length(longest, TOKENS // 8, self.rows):
            memory = self.panel.scorer.encode(self.panel.stack(given, batch))
            read = Sequences.stack([torch.tensor(wanted[row]) for row in batch]).to(self.device)
            prompt = torch.full((len(batch), 1), BOS, device=self.device)
            tokens, lengths = read.data[:, None], read.lengths[:, None]
            log_probs = force(self.panel.scorer, memory, prompt, tokens, lengths)
            for place, row in enumerate(batch):
                ids = wanted[row]
                pieces = self.target.reading(sources[row], self.panel.slots).pieces(ids)
                found[row] = tuple(map(Token, pieces, log_probs[place, 0, : len(ids)].tolist()))
        return found

    def limit(self, lengths: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return the most tokens that sources of these lengths may be answered with."""
        return self.panel.limit(lengths, self.length)

    @torch.no_grad()
    def _answer(
        self,
        lines: Sequence[str],
        search: SearchBlueprint,
        scorer: Scorer,
        attention: bool,
        first: int,
        own: Sequence[Own | None] | None,
    ) -> list[Result]:
        """Search batches of like length; a blank text has a blank answer.

        ``first`` is the number of the first text, for errors.
        """
        self.panel.evaluate()
        results = {
            index: Result(line, "", 0.0, 0.0, True, ())
            for index, line in enumerate(lines)
            if not line.strip()
        }
        asked = [index for index in range(len(lines)) if index not in results]
        encoded = [
            self.panel.read("source", f"text {first + index}", lines[index], lines[index])
            for index in asked
        ]
        lengths = np.array([max(map(len, own)) for own in encoded], dtype=np.int64)
        beside = max(1, REFILL // search.rows) if isinstance(search, StepwiseSearch) else 1
        batches = by_length(lengths, TOKENS // beside, max(1, self.rows // beside))
        sources = [self.panel.stack(encoded, batch) for batch in batches]
        if own is not None:
            apart = Apart(own, self._target(), first)
            scorer = constrained(scorer, apart.constraints)
            further = (apart.sources([asked[row] for row in batch]) for batch in batches)
            sources = [read | more for read, more in zip(sources, further, strict=True)]
        keys = [torch.tensor([_key(lines[asked[row]]) for row in batch]) for batch in batches]
        answered = self._found(search, scorer, sources, keys)
        for batch, read, found in zip(batches, sources, answered, strict=True):
            maps = self._maps(read, found) if attention else (None, None)
            for place, row in enumerate(batch):
                source = self.source.reading(lines[asked[row]], self.panel.slots)
                pieces = tuple(source.pieces(encoded[row][0]))
                reading = self.target.reading(lines[asked[row]], self.panel.slots)
                best, *others = results_of(lines[asked[row]], reading, found, place)
                real = place, slice(len(best.tokens)), slice(len(pieces))
                looked, copied = (None if x is None else x[real].cpu().numpy() for x in maps)
                results[asked[row]] = replace(
                    best,
                    alternatives=tuple(others),
                    source_pieces=pieces,
                    attention=looked,
                    copying=copied,
                )
        return [results[index] for index in range(len(lines))]

    def _found(
        self,
        search: SearchBlueprint,
        scorer: Scorer,
        sources: list[dict[str, Sequences]],
        keys: list[Int[Tensor, "B"]],
    ) -> Iterator[Hypotheses]:
        """Search; where sources are answered, those of the next batch take their places."""
        batches = (
            self.panel.batch(scorer, read, key, self.length)
            for read, key in zip(sources, keys, strict=True)
        )
        if isinstance(search, StepwiseSearch):
            return answers(search, scorer, batches, self.rows)
        return (search(scorer, *batch[:3]) for batch in batches)

    def _chosen(self, search: SearchBlueprint | None, alternatives: int) -> SearchBlueprint:
        chosen = search or self.search
        return chosen.with_answers(alternatives + 1) if alternatives else chosen

    def _scorer(
        self, search: SearchBlueprint, constraints: Sequence[ConstraintBlueprint] | None = None
    ) -> Scorer:
        """Return what a search asks: the models, and what else an answer has to obey."""
        if search.shares and not self.bundle.blueprint.joint:
            raise Problem(
                f"{search.kind} takes symbols of the source for the answer, and this model has a "
                "vocabulary for each side; search greedily",
                "search",
            )
        wanted = self.constraints if constraints is None else constraints
        built = [constraint.build(self._target()) for constraint in wanted]
        return constrained(self.length.over(self.panel.scorer), built)

    def _target(self) -> Target:
        """Return what constraints have to know."""
        tokeniser = self.target.tokeniser
        return Target(
            self.target.encode,
            lambda: Texts(tokeniser.texts(), tokeniser.spaced),
            self.limit,
            self.device,
        )

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


def _key(text: str) -> int:
    """Return what the samples for a text depend on: the same for the same text, wherever asked."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
