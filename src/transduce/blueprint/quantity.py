"""Settings that are a number and a unit."""

from __future__ import annotations

from collections.abc import Mapping


def quantity(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    """Return how much a text such as "90 min" is, of the unit that counts 1.

    Raises:
        ValueError: it is no such quantity; ``what`` and ``example`` say to people what would be.
    """
    number, _, unit = text.strip().partition(" ")
    try:
        found = float(number) * units[unit.strip()]
    except (ValueError, KeyError):
        found = 0.0
    if not 0 < found < float("inf"):
        wanted = f"write a number and a unit ({', '.join(units)}), as in: {example}"
        raise ValueError(f"{text!r} is no {what}; {wanted}")
    return found
