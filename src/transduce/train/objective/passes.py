"""What objectives around objectives need: a pass overheard, a batch altered, tables in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transduce.data.batch import Batch
from transduce.models.interface import Head, Memory, Readout
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.loss import CHUNK
from transduce.problem import Problem
from transduce.sequences import Sequences

LEAST: Final = -87.0  # the logarithm of what is next to nothing in float32

Table = Float[Tensor, "N t V"]  # log-probabilities of all symbols at a few positions


class Pass(NamedTuple):
    """What a model made of a batch."""

    memory: Memory
    out: Readout


@contextmanager
def overhearing(model: Seq2Seq) -> Iterator[list[Pass]]:
    """Note what the decoder makes of whole targets within the block; searching is not noted."""
    heard: list[Pass] = []

    def note(_: nn.Module, given: tuple[Tensor, Memory], out: Readout) -> None:
        heard.append(Pass(given[1], out))

    hook = model.decoder.register_forward_hook(note)
    try:
        yield heard
    finally:
        hook.remove()


def the_last(heard: Sequence[Pass], rows: int, kind: str) -> Pass:
    """Return the last pass, the one that the loss is about.

    Raises:
        Problem: there is none over that many targets.
    """
    if not heard or len(heard[-1].out.features) != rows:
        raise Problem(
            f"{kind} goes by one pass over each target, and the objective within it makes none, or "
            "another number; write that one around it, or take cross_entropy",
            "train.objective",
        )
    return heard[-1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Drop nothing within the block."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@dataclass(frozen=True, kw_only=True)
class Altered(Batch):
    """A batch in which something else is read than the true targets, which are still to be said."""

    read: Sequences

    @property
    def inputs(self) -> Sequences:
        """What is read."""
        return self.read


def reading(batch: Batch, inputs: Int[Tensor, "B T"]) -> Altered:
    """Return the batch with other inputs, as long as they were."""
    facts: dict[str, Any] = vars(batch) | {"read": Sequences(inputs, batch.inputs.lengths)}
    return Altered(**facts)


def pieces(size: int, rows: int) -> Iterator[slice]:
    """Yield slices of ``size`` positions, so short that as many rows fill one chunk of a table."""
    width = max(1, CHUNK // rows)
    return (slice(start, start + width) for start in range(0, size, width))


def table(head: Head, out: Readout, source: Any, part: slice) -> Table:
    """Return the log-probabilities of what follows some of the positions."""
    seen = None if out.attention is None else out.attention[:, part]
    said: Table = head(Readout(out.features[:, part], seen), source)
    return said


def total(values: Float[Tensor, "B t"], batch: Batch, part: slice) -> Float[Tensor, ""]:
    """Return the sum over the real target positions among some, each by its weight."""
    weights = batch.label_weights
    if weights is not None:
        values = values * weights[:, part]
    return values.masked_select(batch.labels.mask()[:, part]).sum()


def over_tables(
    model: Seq2Seq, heard: Pass, judge: Callable[[Table, slice], Tensor]
) -> list[Tensor]:
    """Return what ``judge`` says of the table of all symbols, one piece of positions after another.

    A piece is computed again for its gradient, so that there is never more than one of them.
    """
    source = model.head.start(heard.memory)

    def judged(out: Readout, part: slice) -> Tensor:
        return judge(table(model.head, out, source, part), part)

    rows, size, _ = heard.out.features.shape
    return [
        checkpoint(judged, heard.out, part, use_reentrant=False, preserve_rng_state=False)
        for part in pieces(size, rows)
    ]
