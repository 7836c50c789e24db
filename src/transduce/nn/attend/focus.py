"""From the scores of an attention to its weights: where it may look, and the normaliser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.nn.attend.connection import Trail, fold
from transduce.nn.attend.normalise import entmax15, masked_softmax, sparsemax

Normaliser = Literal["softmax", "sparsemax", "entmax15"]
NORMALISERS: Final = {"softmax": masked_softmax, "sparsemax": sparsemax, "entmax15": entmax15}


class Seen(NamedTuple):
    """What a query sees of the source."""

    mask: Bool[Tensor, "B _ S"]
    damping: Float[Tensor, "B Q S"] | None = None  # added to the scores


class Window(nn.Module, ABC):
    """Which source positions a query may look at."""

    counts: ClassVar[bool] = False  # whether it has to know how many positions were read

    @abstractmethod
    def forward(
        self,
        query: Float[Tensor, "B Q E"],
        mask: Bool[Tensor, "B 1 S"],
        place: Int[Tensor, "B Q"] | None,
    ) -> Seen:
        """Say what each query sees of the positions in the mask."""


class WindowBlueprint(Part):
    """Slot for what part of the source an attention sees."""

    @abstractmethod
    def build(self, query: int) -> Window:
        """Make it for decoder states of width ``query``."""


class GlobalWindow(Window):
    """The whole source."""

    def forward(
        self,
        query: Float[Tensor, "B Q E"],
        mask: Bool[Tensor, "B 1 S"],
        place: Int[Tensor, "B Q"] | None,
    ) -> Seen:
        """Hide nothing."""
        return Seen(mask)


class GlobalWindowBlueprint(WindowBlueprint):
    """The whole source."""

    kind: Literal["global"] = "global"

    def build(self, query: int) -> Window:
        """Make it."""
        return GlobalWindow()


class LocalMonotonic(Window):
    """Positions around the target's own, "local-m" (Luong 2015, 3.2).

    Behind the end of the source the window stays around its last position.
    """

    counts = True

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(
        self,
        query: Float[Tensor, "B Q E"],
        mask: Bool[Tensor, "B 1 S"],
        place: Int[Tensor, "B Q"] | None,
    ) -> Seen:
        """Hide what is further away than the reach."""
        assert place is not None
        centre = torch.minimum(place, mask.sum(-1) - 1)
        positions = torch.arange(mask.shape[-1], device=mask.device)
        return Seen(mask & ((positions - centre[..., None]).abs() <= self.reach))


class LocalMonotonicBlueprint(WindowBlueprint):
    """Around the source position that has the target's number."""

    kind: Literal["local_m"] = "local_m"
    reach: int = Field(10, ge=1)
    """positions seen to either side"""

    def build(self, query: int) -> Window:
        """Make it."""
        return LocalMonotonic(self.reach)


class LocalPredictive(Window):
    """Positions around a predicted one, under a Gaussian, "local-p" (Luong 2015, 3.2).

    The Gaussian enters before the weights are normalised, so that they add up to one.
    """

    def __init__(self, query: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.hidden = nn.Linear(query, query, bias=False)
        self.centre = nn.Linear(query, 1, bias=False)

    def forward(
        self,
        query: Float[Tensor, "B Q E"],
        mask: Bool[Tensor, "B 1 S"],
        place: Int[Tensor, "B Q"] | None,
    ) -> Seen:
        """Hide what is far from the prediction and damp the rest."""
        wish = self.centre(torch.tanh(self.hidden(query)))
        share = wish.to(torch.promote_types(wish.dtype, torch.float32)).sigmoid()
        positions = torch.arange(mask.shape[-1], device=mask.device)
        distance = positions - share * mask.sum(-1, keepdim=True)
        damping = -2 * (distance / self.reach).square()  # a deviation of half the reach
        return Seen(mask & (distance.abs() <= self.reach), damping)


class LocalPredictiveBlueprint(WindowBlueprint):
    """Around a source position that is predicted from the decoder's state."""

    kind: Literal["local_p"] = "local_p"
    reach: int = Field(10, ge=1)
    """positions seen to either side"""

    def build(self, query: int) -> Window:
        """Make it."""
        return LocalPredictive(query, self.reach)


class Focus(nn.Module):
    """Makes weights of scores: a window, then a normaliser over what is seen in it."""

    def __init__(self, normaliser: Normaliser = "softmax", window: Window | None = None) -> None:
        super().__init__()
        self.normaliser: Normaliser = normaliser
        self.window = window or GlobalWindow()

    def begin(self, rows: int, device: torch.device) -> Trail:
        """Return what has to be remembered of the positions before."""
        counts = self.window.counts
        return Trail(torch.zeros(rows, dtype=torch.long, device=device) if counts else None)

    def forward(
        self,
        scores: Float[Tensor, "B *H Q S"],
        query: Float[Tensor, "N T E"],
        mask: Bool[Tensor, "B S"],
        trail: Trail,
    ) -> tuple[Float[Tensor, "B *H Q S"], Trail]:
        """Weigh the source positions for each query; Q is the rows of a source times T."""
        tokens = query.shape[1]
        place = None
        if trail.place is not None:
            place = trail.place[:, None] + torch.arange(tokens, device=mask.device)
            place = place.view(len(mask), -1)
            trail = trail._replace(place=trail.place + tokens)
        seen, damping = self.window(fold(query, len(mask)), mask[:, None], place)
        if scores.dim() == 4:  # all heads see the same
            seen, damping = seen[:, None], None if damping is None else damping[:, None]
        if damping is not None:
            scores = scores + damping
        return NORMALISERS[self.normaliser](scores, seen), trail

    def extra_repr(self) -> str:
        """Show the normaliser when a model is printed."""
        return self.normaliser
