"""An experiment like a real one, for the tests of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from transduce.blueprint import Blueprint, Part, parse
from transduce.problem import Problem


class Score(Part):
    """How a query and a key are compared."""


class Additive(Score):
    """One hidden layer (Bahdanau 2015)."""

    kind: Literal["additive"] = "additive"


class Scaled(Score):
    """Inner product."""

    kind: Literal["scaled_dot"] = "scaled_dot"
    temperature: float = Field(1.0, gt=0)
    """Divisor of the scores."""


class Encoder(Part):
    """What reads the source."""


class Recurrent(Encoder):
    """Runs over the source in both directions."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru"] = "lstm"
    """Which recurrent cell."""
    layers: int = Field(2, ge=1, le=12)
    """How many on top of each other."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of values set to zero."""
    bidirectional: bool = True
    """Whether to read backwards, too."""


class Transformer(Encoder):
    """Attends to itself."""

    kind: Literal["transformer"] = "transformer"
    width: int = Field(256, ge=8, multiple_of=8)
    """Width of every layer."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    activation: Literal["relu", "gelu", "swish"] = "relu"
    """What bends the hidden layer."""
    score: Score = Scaled()
    """How a query and a key are compared."""

    @model_validator(mode="after")
    def heads_divide_width(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide width {self.width}; change one")
        return self


class Stack(Encoder):
    """Encoders one after another: a part that holds parts of its own slot."""

    kind: Literal["stack"] = "stack"
    members: tuple[Encoder, ...]
    """The encoders, first to last."""


class Metric(Part):
    """How output is measured."""


class Bleu(Metric):
    """Overlap of word sequences."""

    kind: Literal["bleu"] = "bleu"


class Chrf(Metric):
    """Overlap of letter sequences."""

    kind: Literal["chrf"] = "chrf"
    beta: float = Field(2.0, gt=0)
    """Weight of recall."""


class Data(Blueprint):
    """Where examples come from."""

    training: tuple[Path, ...] = Field(min_length=1)
    """Training files."""
    language: str
    """Language of the target."""
    normalisation: Literal["none", "nfc", "nfkc"] = "nfc"
    """Unicode form."""
    limits: tuple[int, int] = (1, 200)
    """Fewest and most tokens of an example."""


class Training(Blueprint):
    """How the model is trained."""

    steps: int = Field(10_000, ge=1)
    """Updates."""
    learning_rate: float = Field(5e-4, gt=0)
    """At its highest."""
    patience: int | Literal["forever"] = 5
    """Validations without gain before training ends."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Number format; null chooses by device."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing, the share of probability that is spread over all the other symbols."""


class Experiment(Blueprint):
    """A whole experiment."""

    data: Data
    """What to learn from."""
    encoder: Encoder = Transformer()
    """What reads the source."""
    training: Training = Training()
    metrics: tuple[Metric, ...] = (Bleu(),)
    """How output is measured."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """Weight of each corpus."""
    note: str = ""
    """Anything."""


FULL = """\
data:
  training: [train.tsv]
  language: no
  normalisation: nfkc
  limits: [1, 100]
encoder:
  kind: transformer
  width: 128
  heads: 8
  activation: swish
  score: {kind: scaled_dot, temperature: 2}
training:
  steps: 500
  learning_rate: 1e-3
  patience: forever
  precision: bfloat16
  smoothing: 0
metrics:
- bleu
- kind: chrf
  beta: 3
weights: {news: 2}
note: 1:30
"""
SHORT = "data: {training: [a], language: de}\n"


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(Problem) as caught:
        parse(text, Experiment, "g2p.yaml", overrides)
    return str(caught.value).split("\n")


def mistake(text: str, *overrides: str) -> str:
    (only,) = mistakes(text, *overrides)
    return only
