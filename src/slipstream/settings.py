"""What all sections of a configuration share: values are checked when one is made."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types as at
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from slipstream.errors import SlipstreamError

Count = Annotated[int, at.Ge(1)]
NotNegative = Annotated[int, at.Ge(0)]
Rate = Annotated[float, at.Ge(0)]
Share = Annotated[float, at.Interval(ge=0, le=1)]
PartOfOne = Annotated[float, at.Interval(ge=0, lt=1)]
PositiveShare = Annotated[float, at.Interval(gt=0, le=1)]
Widths = Annotated[tuple[Count, ...], at.MinLen(1)]


class Settings:
    """Base of the dataclasses that make up a configuration.

    A field's value must be of its type, and finite, and within the bounds (`annotated_types`) of
    its annotation. What depends on several fields is for a subclass to check, after
    `super().__post_init__()`.

    Class arguments:
        section: where its fields stand in a run's configuration, for messages.
    """

    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.section = section

    def __post_init__(self) -> None:
        """Raise SlipstreamError for a value that its field does not take."""
        for name, (kind, annotation) in _hints(type(self)).items():
            value = getattr(self, name)
            said = _of_other_type(value, kind) or next(_out_of_bounds(value, annotation), None)
            if said is not None:
                path = f"{self.section}.{name}" if self.section else name
                raise SlipstreamError(f"{path} is {value!r}; {said}")


@cache
def _hints(cls: Any) -> dict[str, tuple[Any, Any]]:
    """Field -> its plain type, and its annotation with bounds."""
    plain, full = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    return {field.name: (plain[field.name], full[field.name]) for field in fields(cls)}


def _of_other_type(value: Any, kind: Any) -> str | None:
    try:
        check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return f"it must be {_named(kind)}"
    return None


def _named(kind: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(_named, arguments))
    if origin is tuple:
        return f"a tuple, each {_named(arguments[0])}"
    if kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not arguments else str(kind)


def _out_of_bounds(value: Any, annotation: Any) -> Iterator[str]:
    """What bounds a value of the right type breaks, one sentence for each place."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(value, float) and not math.isfinite(value):
        yield "it must be a finite number"
    elif origin is Annotated:
        yield from _out_of_bounds(value, arguments[0])
        rules = [_rule(bound) for given in arguments[1:] for bound in _unpacked(given)]
        if not all(holds(value) for holds, _ in rules):
            yield f"it must be {' and '.join(said for _, said in rules)}"
    elif origin in (Union, UnionType):
        for alternative in arguments:
            if _of_other_type(value, alternative) is None:
                yield from _out_of_bounds(value, alternative)
    elif origin is tuple and isinstance(value, tuple):
        for each in value:
            yield from (f"each: {said}" for said in _out_of_bounds(each, arguments[0]))


def _unpacked(given: Any) -> list[at.BaseMetadata]:
    if isinstance(given, at.GroupedMetadata):
        return [bound for bound in given if isinstance(bound, at.BaseMetadata)]
    return [given] if isinstance(given, at.BaseMetadata) else []


def _rule(bound: at.BaseMetadata) -> tuple[Callable[[Any], bool], str]:
    """Whether a value keeps to a bound, and the bound in words."""
    match bound:
        case at.Ge(least):
            return lambda value: value >= least, f"at least {least}"
        case at.Gt(least):
            return lambda value: value > least, f"above {least}"
        case at.Le(most):
            return lambda value: value <= most, f"at most {most}"
        case at.Lt(most):
            return lambda value: value < most, f"below {most}"
        case at.MultipleOf(factor):
            return lambda value: value % factor == 0, f"a multiple of {factor}"
        case at.MinLen(least):
            return lambda value: len(value) >= least, f"of length {least} or more"
        case _:
            raise TypeError(f"{bound} is not among the bounds that are checked here")
