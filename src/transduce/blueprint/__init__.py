"""Configuration: blueprints, one beside every part, read from strict YAML 1.2."""

from __future__ import annotations

from transduce.blueprint.own import define
from transduce.blueprint.part import Blueprint, Part
from transduce.blueprint.quantity import quantity
from transduce.blueprint.reading import override, parse, read
from transduce.blueprint.writing import dump, schema

__all__ = [
    "Blueprint",
    "Part",
    "define",
    "dump",
    "override",
    "parse",
    "quantity",
    "read",
    "schema",
]
