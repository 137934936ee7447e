"""What a validator (pydantic) finds wrong with a field, in our own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WHOLE, _NUMBER, _SWITCH = "must be a whole number", "must be a number", "must be true or false"
_LIST, _FIELDS = "must be a list", "must be an object with fields"
_CHARACTERS, _ENTRIES = "must have at least {min_length} characters", "must have at least {min_length} entries"

# By the type of the error; what is in braces is of its context.
_WORDS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is no field that is known here",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "is a number with too many digits",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "string_type": "must be a text",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _FIELDS,
    "model_type": _FIELDS,
    "model_attributes_type": _FIELDS,
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": _CHARACTERS,
    "string_too_long": "may have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": _ENTRIES,
    "too_long": "may have at most {max_length} entries",
    "value_error": "{error}",
}


def in_words(problem: Mapping[str, Any]) -> str:
    """What is wrong with a field, and the limit that it is beyond, from a problem as a ValidationError lists them."""
    words = _WORDS.get(problem["type"])
    limits = problem.get("ctx", {})
    if words is None or ("{" in words and not limits):
        return str(problem["msg"])
    if words in (_CHARACTERS, _ENTRIES) and limits["min_length"] == 1:
        return "is empty"
    return words.format_map({name: _shown(value) for name, value in limits.items()}) or str(problem["msg"])


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.10g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
