"""Blueprints, one beside every part, and the slots that parts fill."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationInfo
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema, to_json

from transduce.problem import nearest


class Blueprint(BaseModel):
    """A frozen, typed description of one part; unknown keys are refused.

    The string below a field is its line of help. Validators raise ``ValueError``.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Part(Blueprint, ABC):
    """A blueprint that fills a slot.

    A slot is an abstract subclass; each concrete subclass names itself by a field ``kind`` of one
    literal, and joins the slot by being defined, even after the slot was first used. Where the
    defaults suffice, the bare kind may stand for the part: ``attention: additive``.
    """

    withdrawn: ClassVar[bool] = False  # no longer a choice: its file failed, or defined it anew

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """Name of the choice; every concrete part has it as a field."""

    @classmethod
    def is_slot(cls) -> bool:
        """Return whether this is a slot, to be filled by one of ``choices``."""
        return "kind" not in cls.model_fields

    @classmethod
    def slot_name(cls) -> str:
        """Return a name for the slot that no other slot has."""
        return re.sub(r"\W", "_", f"{cls.__module__}.{cls.__qualname__}")

    @classmethod
    def choices(cls) -> dict[str, type[Part]]:
        """Return the concrete blueprints of this slot by kind.

        Raises:
            TypeError: two different parts have the same kind. (A part that is defined again, as in
                a notebook, replaces its former self.)
        """
        found: dict[str, type[Part]] = {}
        for part in cls._parts():
            kind = get_args(part.model_fields["kind"].annotation)[0]
            other = found.setdefault(kind, part)
            if (other.__module__, other.__qualname__) != (part.__module__, part.__qualname__):
                raise TypeError(f"{other!r} and {part!r} are both of kind {kind!r}")
            found[kind] = part
        return found

    @classmethod
    def _parts(cls) -> Iterable[type[Part]]:
        for child in cls.__subclasses__():
            if not (child.is_slot() or child.withdrawn):
                yield child
            yield from child._parts()

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        if cls.is_slot():
            return core_schema.with_info_plain_validator_function(cls._fill)
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # JSON schema cannot look choices up; ``transduce.blueprint.schema`` defines every slot.
        return {"slot": cls.slot_name()} if cls.is_slot() else handler(schema)

    @classmethod
    def _fill(cls, value: Any, info: ValidationInfo) -> Part:
        """Look the kind up when a value is read, so that parts defined later are seen."""
        if isinstance(value, cls):
            return value
        mapping = {"kind": value} if isinstance(value, str) else value
        kind = mapping.get("kind") if isinstance(mapping, dict) else None
        choices = cls.choices()
        if not isinstance(kind, str) or kind not in choices:
            raise PydanticCustomError("choice", "{what}", {"what": no_such_choice(kind, choices)})
        if info.mode == "json":  # as strict as the file that it stands in
            return choices[kind].model_validate_json(
                to_json(mapping), strict=True, context=info.context
            )
        return choices[kind].model_validate(mapping, context=info.context)


def no_such_choice(word: object, choices: Iterable[str]) -> str:
    """Say that ``word`` is none of the choices, and which one is nearest to it."""
    known = list(choices)
    meant = nearest(word, known) if isinstance(word, str) else None
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"no such choice {word!r}; {hint}({', '.join(known)})"
