"""Recurrent decoders: recurrent layers over the target, joined to the source by any connection."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from transduce.models.interface import Decoder, DecoderBlueprint, Memory, Readout
from transduce.nn.attend import (
    ConnectionBlueprint,
    GeneralAttentionBlueprint,
    Prepared,
    Trail,
)
from transduce.nn.gate import ContextGate, Gated
from transduce.nn.layers import TokenTable
from transduce.nn.recurrent import Hidden, Stack, Style
from transduce.nn.steps import Cell
from transduce.nn.tap import Tap
from transduce.problem import Problem
from transduce.tree import detach


class RecurrentDecoderBlueprint(DecoderBlueprint):
    """Recurrent layers over the target."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Cell = "lstm"
    """kind of unit; tanh and relu are plain ones"""
    connection: ConnectionBlueprint = GeneralAttentionBlueprint()
    """how the decoder sees the source"""
    order: Literal["after", "before"] = "after"
    """ask the connection after the recurrent step, or before it, so that its answer enters it"""
    input_feeding: bool = False
    """let what was made of state and context enter the next step"""
    context_gate: Literal["none", "source", "target", "both"] = "none"
    """what a gate weighs where state (target) and context (source) are joined"""
    embedding: int = Field(256, ge=1)
    """width of a token's vector"""
    width: int = Field(512, ge=1)
    """width of a layer's output"""
    layers: int = Field(1, ge=1)
    """number of layers"""
    first_cell: Literal["zero", "summary"] = "zero"
    """what an LSTM's cell holds at first: nothing, or the source's summary, as its output does"""
    bottleneck: int | None = Field(None, ge=1)
    """width that the source's summary has to pass through, if any"""
    residual: bool = False
    """add to each layer but the first what it reads"""
    normalised: bool = False
    """normalise within the layers (slower: no fused layer does it)"""
    variational: bool = False
    """one dropout mask for all positions, on the recurrence too (slower in training)"""
    truncate: int | None = Field(None, ge=1)
    """let no gradient cross every so many steps; none is cut if left out"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """share of values dropped while training"""

    def build(self, vocabulary: int, memory: int) -> RecurrentDecoder:
        """Make the decoder.

        Raises:
            Problem: settings that need something of the source from a connection without any, or
                something of a source that there is not.
        """
        if memory == 0:
            self._refuse_source()
        if self.first_cell == "summary" and self.cell != "lstm":
            what = f"a layer of kind {self.cell} has no cell; leave it out, or set cell: lstm"
            raise Problem(what, "model.decoder.first_cell")
        if not self.connection.context_width(self.width, memory):
            wanted = {
                "order": self.order != "after",
                "input_feeding": self.input_feeding,
                "context_gate": self.context_gate != "none",
            }
            for name in (name for name, asked in wanted.items() if asked):
                raise Problem(
                    f"the connection {self.connection.kind!r} brings nothing that this could use; "
                    "leave it out or take another connection",
                    f"model.decoder.{name}",
                )
        return RecurrentDecoder(self, vocabulary, memory)

    def _refuse_source(self) -> None:
        """Refuse what looks at the source, where there is none."""
        if self.connection.context_width(self.width, 1):
            raise Problem(
                f"there is no source for the connection {self.connection.kind!r}; set it to "
                "initial",
                "model.decoder.connection",
            )
        for name in ("bottleneck", "first_cell"):
            if getattr(self, name) not in (None, "zero"):
                what = "there is no source for it; leave it out"
                raise Problem(what, f"model.decoder.{name}")


class RecurrentState(NamedTuple):
    """All that changes while decoding, and the source as the connection sees it."""

    hidden: Hidden
    source: Prepared
    trail: Trail
    feed: Float[Tensor, "N D"] | None  # what input feeding brings to the next step


class RecurrentDecoder(Decoder[RecurrentState]):
    """Begins from the source's summary; asks its connection after each step or before it.

    After it (Luong 2015), no step waits for the attention of the one before: the layers run over
    all tokens at once and the attention of all positions is one matrix product. Before it
    (Bahdanau 2015), and with input feeding (Luong 2015, 3.3), the steps are taken one by one, and
    only what has to wait is done in them. The fixed context is known ahead in either order.
    """

    def __init__(self, blueprint: RecurrentDecoderBlueprint, vocabulary: int, memory: int) -> None:
        super().__init__()
        width = blueprint.width
        context = blueprint.connection.context_width(width, memory)
        self.width, self.depth = width, blueprint.layers
        self.before = blueprint.order == "before"
        self.feeds = blueprint.input_feeding
        self.truncate = blueprint.truncate
        style = Style(
            blueprint.residual, blueprint.normalised, blueprint.variational, blueprint.truncate
        )
        inputs = blueprint.embedding + self.before * context + self.feeds * width
        self.embedding = TokenTable(vocabulary, blueprint.embedding)
        self.stack = Stack(
            blueprint.cell, inputs, width, blueprint.layers, blueprint.dropout, style
        )
        narrow = blueprint.bottleneck
        self.bottleneck = (
            nn.Sequential(nn.Linear(memory, narrow), nn.Linear(narrow, memory)) if narrow else None
        )
        self.reads, self.fills = memory > 0, blueprint.first_cell == "summary"
        if self.reads:
            self.bridge = nn.Linear(memory, blueprint.layers * width)
        self.connection = blueprint.connection.build(width, memory)
        self.stepwise = self.feeds or (self.before and not self.connection.constant)
        self.combine: nn.Linear | ContextGate | None = None
        if blueprint.context_gate != "none":
            gated: Gated = blueprint.context_gate
            self.combine = ContextGate(blueprint.embedding, width, context, gated)
        elif context:
            self.combine = nn.Linear(width + context, width)
        self.attention = Tap("source attention")
        self.dropout = style.dropout(blueprint.dropout)

    def start(self, memory: Memory, width: int = 1, capacity: int | None = None) -> RecurrentState:
        """Bridge the summary into every layer, or begin from zeros where there is no source.

        The state never grows, whatever the capacity.
        """
        bank = memory["source"]
        summary = bank.summary if self.bottleneck is None else self.bottleneck(bank.summary)
        if self.reads:
            known = self.bridge(summary).view(len(summary), self.depth, -1)
        else:
            known = summary.new_zeros(len(summary), self.depth, self.width)
        known = known.repeat_interleave(width, 0)
        first = torch.tanh(known)
        cell = known if self.fills else torch.zeros_like(first)
        cell = cell if self.stack.cell == "lstm" else first[:, :, :0]
        source = self.connection.prepare(bank.states, bank.mask, summary)
        trail = self.connection.begin(source, len(first))
        feed = torch.zeros_like(first[:, 0]) if self.feeds else None
        return RecurrentState(Hidden(first, cell), source, trail, feed)

    def extend(
        self, tokens: Int[Tensor, "N T"], state: RecurrentState
    ) -> tuple[Readout, RecurrentState]:
        """Read T more tokens in every row."""
        embedded = self.dropout(self.embedding(tokens))
        known = embedded
        if self.before and self.connection.constant:
            context, _, _ = self.connection(embedded, state.source, state.trail)
            known = torch.cat([embedded, context.to(embedded.dtype)], -1)
        read = self._one_by_one if self.stepwise else self._at_once
        features, attention, state = read(embedded, known, state)
        if attention is not None:
            attention = self.attention(attention)
        return Readout(features, attention), state

    def _at_once(
        self,
        embedded: Float[Tensor, "N T E"],
        known: Float[Tensor, "N T F"],
        state: RecurrentState,
    ) -> tuple[Tensor, Tensor | None, RecurrentState]:
        states, hidden = self.stack(known, state.hidden)
        states = self.dropout(states)
        context, attention, trail = self._ask(states, state)
        # without a connection the states are the features, and dropped from already
        joined = self._join(states, context, embedded)
        features = joined if self.combine is None else self.dropout(joined)
        return features, attention, RecurrentState(hidden, state.source, trail, None)

    def _ask(
        self, states: Float[Tensor, "N T D"], state: RecurrentState
    ) -> tuple[Tensor, Tensor | None, Trail]:
        """Ask the connection for all positions; what it remembers is cut where states are."""
        trail = state.trail
        if self.truncate is None or trail.past is None:
            asked: tuple[Tensor, Tensor | None, Trail]
            asked = self.connection(states, state.source, trail)
            return asked
        contexts: list[Tensor] = []
        maps: list[Tensor] = []
        for piece in torch.split(states, self.truncate, 1):
            trail = detach(trail) if maps else trail
            context, seen, trail = self.connection(piece, state.source, trail)
            contexts.append(context)
            maps.append(seen)
        return torch.cat(contexts, 1), torch.cat(maps, 1), trail

    def _one_by_one(
        self,
        embedded: Float[Tensor, "N T E"],
        known: Float[Tensor, "N T F"],
        state: RecurrentState,
    ) -> tuple[Tensor, Tensor | None, RecurrentState]:
        reader = self.stack.steps(known, state.hidden)
        drop_state = self.dropout.hold(embedded, self.width)
        drop_feature = self.dropout.hold(embedded, self.width)
        feed, trail = state.feed, state.trail
        asks_before = self.before and not self.connection.constant
        outputs, contexts, features, maps = [], [], [], []
        for step, token in enumerate(embedded.unbind(1)):
            if step and self.truncate and step % self.truncate == 0:
                reader.forget()
                feed, trail = detach((feed, trail))
            late = [] if feed is None else [feed]
            if asks_before:
                query = reader.top[:, None]
                context, seen, trail = self.connection(query, state.source, trail)
                late.insert(0, context[:, 0])
            output = drop_state(reader(step, torch.cat(late, -1)))
            if not asks_before:
                context, seen, trail = self.connection(output[:, None], state.source, trail)
            if feed is not None:
                feed = drop_feature(self._join(output, context[:, 0], token))
                features.append(feed)
            outputs.append(output)
            contexts.append(context)
            maps.append(seen)
        if feed is None:
            joined = self._join(torch.stack(outputs, 1), torch.cat(contexts, 1), embedded)
            found = self.dropout(joined)
        else:
            found = torch.stack(features, 1)
        attention = None if maps[0] is None else torch.cat(maps, 1)
        return found, attention, RecurrentState(reader.hidden(), state.source, trail, feed)

    def _join(
        self,
        states: Float[Tensor, "*N D"],
        context: Float[Tensor, "*N C"],
        embedded: Float[Tensor, "*N E"],
    ) -> Float[Tensor, "*N D"]:
        """Return the attentional vector tanh(W [s; c]) (Luong 2015)."""
        if self.combine is None:
            return states
        if isinstance(self.combine, ContextGate):
            joined: Tensor = self.combine(states, context, embedded)
            return joined
        return torch.tanh(self.combine(torch.cat([states, context.to(states.dtype)], -1)))
