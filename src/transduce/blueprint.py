"""Configuration: blueprints, one beside every part, read from strict YAML 1.2."""

from __future__ import annotations

from abc import ABC
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import core_schema


class Blueprint(BaseModel):
    """A frozen, typed description of one part; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Part(Blueprint, ABC):
    """A blueprint that fills a slot.

    A slot is an abstract subclass; each concrete subclass names itself by a field ``kind`` of one
    literal, and joins the slot by being defined.
    """

    @classmethod
    def choices(cls) -> dict[str, type[Part]]:
        """Return the concrete blueprints of this slot by kind."""
        found: dict[str, type[Part]] = {}
        for child in cls.__subclasses__():
            if "kind" in child.model_fields:
                found[get_args(child.model_fields["kind"].annotation)[0]] = child
            found |= child.choices()
        return found

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        if "kind" in cls.model_fields:
            return handler(source)
        kinds = {kind: handler.generate_schema(part) for kind, part in cls.choices().items()}
        if not kinds:
            return core_schema.is_instance_schema(cls)
        return core_schema.tagged_union_schema(kinds, discriminator="kind")
