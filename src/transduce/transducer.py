"""The front door: load a trained model, call it with text, get text and all that is known of it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch

from transduce.blueprint import define
from transduce.bundle import Bundle, model_folder
from transduce.call import Call
from transduce.data.stream import by_length
from transduce.document import by_sentences
from transduce.nn.packed import NumberType, pack
from transduce.panel import TOKENS, Panel
from transduce.problem import Problem
from transduce.result import Result, Token
from transduce.search.constrain import ConstraintBlueprint, Own
from transduce.search.ensemble import Average
from transduce.search.interface import SearchBlueprint
from transduce.search.score import force
from transduce.sequences import Sequences
from transduce.text.sentences import Sentences, Span, SplitBlueprint, on_one_line
from transduce.text.vocabulary import BOS
from transduce.train.memory import keep_freed_memory


class Transducer:
    """A trained model with everything it needs, from text to text.

    The answer for a text does not depend on what else is asked at the same time.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: torch.device | None = None,
        rows: int = 64,
    ) -> None:
        self.rows = rows  # sources searched side by side
        cuda = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device or torch.device(cuda)
        self.panel = Panel([bundle], self.device)
        self.bundle, self.model = bundle, bundle.model
        self.source, self.target = bundle.codecs["source"], bundle.codecs["target"]
        self.search = bundle.blueprint.search
        self.length = bundle.blueprint.length  # of answers; another may be set
        self.constraints = bundle.blueprint.constraints
        self.temperature = bundle.blueprint.temperature  # of confidences

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | None = None,
        parts: Sequence[str | Path] = (),
        base: str | Path | None = None,
        precision: NumberType | Literal["auto"] = "fp32",
    ) -> Transducer:
        """Load a model folder, or the model of a run.

        ``parts`` are the Python files that define parts of it which do not come with the package.
        No other file is run. ``base`` is the model that an adapter was made for, if it has moved.
        The process keeps memory that it frees from now on. ``precision`` says in which numbers a
        CPU multiplies by weights (``transduce.nn.packed``).

        Raises:
            Problem: there is none, it is damaged, or it has parts that nothing here defines; or the
                precision is not to be had here.
        """
        for file in [parts] if isinstance(parts, str) else parts:
            define(Path(file))
        beneath = None if base is None else model_folder(Path(base))
        bundle = Bundle.load(model_folder(Path(folder)), beneath)
        loaded = cls(bundle, torch.device(device) if device else None)
        # It will only predict from now on: on a CPU both are worth a tenth of the time.
        pack(loaded.model, precision)
        keep_freed_memory()
        return loaded

    def ensemble(
        self, others: Sequence[Transducer], average: Average = "probabilities"
    ) -> Transducer:
        """Return the transducer that asks the models of others together with this one's.

        Each reads a text in its own way; search and limits are this one's.

        Raises:
            Problem: a target vocabulary is not that of this model, or one of them is accompanied
                already.
        """
        if any(one.panel.languages or one.panel.drafter for one in (self, *others)):
            raise Problem("put the models together first, then others beside them all")
        beside = (bundle for other in others for bundle in other.panel.bundles)
        panel = Panel((*self.panel.bundles, *beside), self.device, average)
        return self._asking(panel, temperature=1.0)  # that of one model is not that of several

    def with_language_model(self, language: Transducer, weight: float) -> Transducer:
        """Return the transducer in whose answers a language model has a say (shallow fusion).

        Each token scores log p(token | source) + ``weight`` * log p_language(token) (Gulcehre
        2015). Such sums are what ``score`` and ``log_prob`` then hold.

        Raises:
            Problem: it is no language model, or of another target vocabulary.
        """
        return self._asking(self.panel.fused(language.panel, weight), temperature=1.0)

    def with_draft_model(self, small: Transducer) -> Transducer:
        """Return the transducer with a smaller one that drafts for its speculative search.

        Raises:
            Problem: it is several models, or cannot write all that this one may.
        """
        return self._asking(self.panel.aided(small.panel), self.temperature)

    def _asking(self, panel: Panel, temperature: float) -> Transducer:
        """Return this transducer with other models beside its own."""
        made = copy(self)
        made.panel, made.temperature = panel, temperature
        return made

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
        if own is not None and len(own) != len(lines):
            raise Problem(f"{len(own)} for {len(lines)} texts; give one for each", "own")
        call = self._call(search, constraints, alternatives)
        results = call.answers(lines, own, attention=attention)
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
        call = self._call(search, constraints, alternatives)
        wanted = None if own is None else iter(own)
        waiting, first = iter(lines), 1
        while block := list(islice(waiting, ahead)):
            obeyed = None if wanted is None else list(islice(wanted, len(block)))
            if obeyed is not None and len(obeyed) < len(block):
                what = f"there is none for text {first + len(obeyed)}; give one for each"
                raise Problem(what, "own")
            yield from call.answers(block, obeyed, first=first)
            first += len(block)
        if wanted is not None and next(wanted, self) is not self:
            raise Problem(f"there are more than texts, which are {first - 1}", "own")

    def document(
        self,
        text: str,
        search: SearchBlueprint | None = None,
        *,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        split: SplitBlueprint | None = None,
    ) -> Result:
        """Answer a text of many sentences, each as if it were asked alone.

        What stands between them stays there. ``sentences`` of the result are the answers, and the
        ``span`` of each says where it stands in the text, and if it is a piece of a sentence that
        was too long.
        """
        cut = partial(self.spans, split=split or Sentences())
        answer = partial(self.predict, search=search, constraints=constraints)
        return next(by_sentences([text], cut, answer))

    def spans(self, text: str, split: SplitBlueprint) -> list[Span]:
        """Return the sentences of a text, cut where they are longer than the model can read.

        Tags that the text begins with are read before each of them that has none of its own. Tags
        that stand alone are no sentence: they belong to the one before them on their line, or else
        to the one behind them.
        """
        tags = self.source.opening(text)

        def missing(sentence: str) -> str:
            return "" if self.source.opening(sentence) else tags

        def fits(sentence: str) -> bool:
            return self.panel.fits(missing(sentence) + sentence, split.longest)

        found, alone = list[Span](), ""
        for span in split.spans(text, fits):
            sentence = span.read(text)
            own = self.source.opening(sentence)
            if own.split() != sentence.split():
                found.append(span._replace(tags=alone or missing(sentence)))
                alone = ""
            elif found and on_one_line(text[found[-1].end : span.start]):
                found[-1] = found[-1]._replace(end=span.end)
            else:
                alone += own
        return found

    def stream(
        self, text: str, search: SearchBlueprint | None = None
    ) -> Generator[str, None, bool]:
        """Yield the answer to a text as it grows, and return whether it has finished.

        Put together it is what a call answers with the same search.

        Raises:
            Problem: the search decides on whole answers, as beam search does, or the text is
                longer than there are positions learned.
        """
        if self.target.blueprint.reverse:
            raise Problem("it writes from right to left, so that its end comes first; use predict")
        if not text.strip():
            return True
        return (yield from self._call(search).unfold(text))

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
            memory = self.panel.scorer.encode(self.panel.stack(given[row] for row in batch))
            read = Sequences.stack([torch.tensor(wanted[row]) for row in batch]).to(self.device)
            prompt = torch.full((len(batch), 1), BOS, device=self.device)
            tokens, lengths = read.data[:, None], read.lengths[:, None]
            log_probs = force(self.panel.scorer, memory, prompt, tokens, lengths)
            for place, row in enumerate(batch):
                ids = wanted[row]
                pieces = self.target.reading(sources[row], self.panel.slots).pieces(ids)
                said = log_probs[place, 0, : len(ids)].tolist()
                found[row] = tuple(map(Token, pieces, said, ids))
        return found

    def _call(
        self,
        search: SearchBlueprint | None = None,
        constraints: Sequence[ConstraintBlueprint] | None = None,
        alternatives: int = 0,
    ) -> Call:
        """Return what answers texts, with what stands here where nothing else is asked."""
        chosen = search or self.search
        if alternatives:
            chosen = chosen.with_answers(alternatives + 1)
        wanted = self.constraints if constraints is None else constraints
        return Call(self.panel, chosen, wanted, self.length, self.rows)

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters())
        blueprint = self.bundle.blueprint.model
        kinds = f"{blueprint.encoder.kind} encoder, {blueprint.decoder.kind} decoder"
        return f"Transducer({kinds}, {size / 1e6:.1f} M parameters, {self.search})"
