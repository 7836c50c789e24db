"""How a recurrent decoder sees the source: not at all, by a fixed vector, or by attention.

Every kind is prepared once for each source and asked for all target positions at once. The K
hypotheses of a source (times T tokens) meet its bank as one longer query, so nothing that belongs
to a source is ever copied for a hypothesis.
"""

from __future__ import annotations

from transduce.nn.attend.connection import (
    Connection,
    ConnectionBlueprint,
    FixedContext,
    FixedContextBlueprint,
    InitialState,
    InitialStateBlueprint,
    Prepared,
    Trail,
    fold,
)
from transduce.nn.attend.focus import (
    Focus,
    GlobalWindow,
    GlobalWindowBlueprint,
    LocalMonotonic,
    LocalMonotonicBlueprint,
    LocalPredictive,
    LocalPredictiveBlueprint,
    Normaliser,
    Window,
    WindowBlueprint,
)
from transduce.nn.attend.monotonic import MonotonicAttention, MonotonicAttentionBlueprint
from transduce.nn.attend.multihead import MultiHeadAttention, MultiHeadAttentionBlueprint
from transduce.nn.attend.normalise import entmax15, masked_softmax, sparsemax
from transduce.nn.attend.remember import (
    CoverageAttention,
    CoverageAttentionBlueprint,
    LocationAwareAttention,
    LocationAwareAttentionBlueprint,
    RememberingAttention,
)
from transduce.nn.attend.scores import (
    AdditiveAttention,
    AdditiveAttentionBlueprint,
    Attention,
    AttentionBlueprint,
    DotAttention,
    DotAttentionBlueprint,
    GeneralAttention,
    GeneralAttentionBlueprint,
    LocationAttention,
    LocationAttentionBlueprint,
    PerceptronAttention,
    PerceptronAttentionBlueprint,
    ScaledDotAttention,
    ScaledDotAttentionBlueprint,
)

__all__ = [
    "AdditiveAttention",
    "AdditiveAttentionBlueprint",
    "Attention",
    "AttentionBlueprint",
    "Connection",
    "ConnectionBlueprint",
    "CoverageAttention",
    "CoverageAttentionBlueprint",
    "DotAttention",
    "DotAttentionBlueprint",
    "FixedContext",
    "FixedContextBlueprint",
    "Focus",
    "GeneralAttention",
    "GeneralAttentionBlueprint",
    "GlobalWindow",
    "GlobalWindowBlueprint",
    "InitialState",
    "InitialStateBlueprint",
    "LocalMonotonic",
    "LocalMonotonicBlueprint",
    "LocalPredictive",
    "LocalPredictiveBlueprint",
    "LocationAttention",
    "LocationAttentionBlueprint",
    "LocationAwareAttention",
    "LocationAwareAttentionBlueprint",
    "MonotonicAttention",
    "MonotonicAttentionBlueprint",
    "MultiHeadAttention",
    "MultiHeadAttentionBlueprint",
    "Normaliser",
    "PerceptronAttention",
    "PerceptronAttentionBlueprint",
    "Prepared",
    "RememberingAttention",
    "ScaledDotAttention",
    "ScaledDotAttentionBlueprint",
    "Trail",
    "Window",
    "WindowBlueprint",
    "entmax15",
    "fold",
    "masked_softmax",
    "sparsemax",
]
