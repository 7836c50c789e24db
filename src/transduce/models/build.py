"""From a blueprint to a model: the one place where sizes meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from transduce.blueprint import Blueprint
from transduce.models.decoders.convolutional import ConvolutionalDecoderBlueprint
from transduce.models.decoders.recurrent import RecurrentDecoderBlueprint
from transduce.models.decoders.transformer import TransformerDecoderBlueprint
from transduce.models.encoders.convolutional import ConvolutionalEncoderBlueprint
from transduce.models.encoders.hybrid import HybridEncoderBlueprint
from transduce.models.encoders.none import NoEncoderBlueprint
from transduce.models.encoders.recurrent import RecurrentEncoderBlueprint
from transduce.models.encoders.transformer import TransformerEncoderBlueprint
from transduce.models.heads import LinearHeadBlueprint
from transduce.models.interface import DecoderBlueprint, EncoderBlueprint, HeadBlueprint
from transduce.models.pointer import PointerGeneratorBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.positions import (
    LearnedPositionsBlueprint,
    NoPositionsBlueprint,
    SinusoidalBlueprint,
    Tensor2TensorBlueprint,
)
from transduce.nn.relative import (
    AlibiBlueprint,
    BucketsBlueprint,
    RotaryBlueprint,
    ShawBlueprint,
    TransformerXlBlueprint,
)
from transduce.nn.similarity import CosineBlueprint, DotBlueprint
from transduce.nn.span import FullSpanBlueprint, SegmentSpanBlueprint, WindowSpanBlueprint
from transduce.problem import Problem

PARTS = (
    RecurrentEncoderBlueprint,
    TransformerEncoderBlueprint,
    ConvolutionalEncoderBlueprint,
    HybridEncoderBlueprint,
    NoEncoderBlueprint,
    RecurrentDecoderBlueprint,
    TransformerDecoderBlueprint,
    ConvolutionalDecoderBlueprint,
    LinearHeadBlueprint,
    PointerGeneratorBlueprint,
    NoPositionsBlueprint,
    SinusoidalBlueprint,
    Tensor2TensorBlueprint,
    LearnedPositionsBlueprint,
    RotaryBlueprint,
    ShawBlueprint,
    TransformerXlBlueprint,
    BucketsBlueprint,
    AlibiBlueprint,
    DotBlueprint,
    CosineBlueprint,
    FullSpanBlueprint,
    WindowSpanBlueprint,
    SegmentSpanBlueprint,
)


class ModelBlueprint(Blueprint):
    """An encoder, a decoder and a head; any of one goes with any of the others."""

    encoder: EncoderBlueprint = RecurrentEncoderBlueprint()
    """reads the source"""
    decoder: DecoderBlueprint = RecurrentDecoderBlueprint()
    """reads the target so far and looks at the source"""
    head: HeadBlueprint = LinearHeadBlueprint()
    """scores the next symbol"""
    tie: Literal["none", "output", "all"] = "output"
    """which tables are one: none; output (target embedding and output layer); all (the source
    embedding too, which needs text.joint)"""


def build(blueprint: ModelBlueprint, vocabularies: Mapping[str, int]) -> Seq2Seq:
    """Make the model for vocabularies of the given sizes ("source", "target").

    Raises:
        Problem: parts that do not fit together; the message says which setting to change.
    """
    if not blueprint.encoder.reads:
        _refuse_source(blueprint)
    encoder = blueprint.encoder.build(vocabularies["source"])
    decoder = blueprint.decoder.build(vocabularies["target"], encoder.width)
    if blueprint.tie == "all":
        if encoder.embedding.weight.shape != decoder.embedding.weight.shape:
            ours, theirs = (tuple(part.embedding.weight.shape) for part in (encoder, decoder))
            raise Problem(
                f"the embeddings of source {ours} and target {theirs} differ in shape, so they "
                "cannot be one; set text.joint: true and equal widths, or tie: output",
                "model.tie",
            )
        encoder.embedding = decoder.embedding
    if blueprint.head.copies and vocabularies["source"] != vocabularies["target"]:
        raise Problem(
            "a source symbol can be copied only where both sides have the same symbols; set "
            "text.joint: true, or model.head: linear",
            "model.head",
        )
    tied = blueprint.tie != "none"
    head = blueprint.head.build(decoder.width, encoder.width, decoder.embedding, tied)
    return Seq2Seq({"source": encoder}, decoder, head)


def _refuse_source(blueprint: ModelBlueprint) -> None:
    """Refuse what a language model has not, because it has no source.

    Raises:
        Problem: something is asked of a source.
    """
    if blueprint.tie == "all":
        what = "there is no source whose embedding could be tied; set tie: output"
        raise Problem(what, "model.tie")
    if blueprint.head.copies:
        what = "there is no source to copy from; set model.head: linear"
        raise Problem(what, "model.head")
