import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, MultipleOf

from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.settings import Count, PartOfOne, Settings, Widths


@dataclass(frozen=True)
class Example(Settings, section="some.example"):
    part: PartOfOne = 0.5
    count: Count | None = None
    widths: Widths = (3, 4)
    names: tuple[Literal["a", "b"], ...] = ("a",)
    kind: Literal["x", "y"] = "x"
    size: Annotated[int, Ge(16), MultipleOf(2)] = 16
    ratio: float = 0.0


@pytest.mark.parametrize(
    "given",
    [{"part": 0.0}, {"part": 0}, {"count": 7}, {"widths": (1,)}, {"names": ()}, {"size": 18}],
)
def test_values_within_bounds_are_taken(given):
    made = Example(**given)
    assert all(getattr(made, name) == value for name, value in given.items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"part": 1.0}, "part is 1.0; it must be at least 0 and below 1"),
        ({"part": math.nan}, "part is nan; it must be a finite number"),
        ({"ratio": -math.inf}, "ratio is -inf; it must be a finite number"),
        ({"part": "0.5"}, "part is '0.5'; it must be float"),
        ({"count": 0}, "count is 0; it must be at least 1"),
        ({"count": 2.0}, "count is 2.0; it must be int or None"),
        ({"widths": ()}, "widths is (); it must be of length 1 or more"),
        ({"widths": (3, 0)}, "widths is (3, 0); each: it must be at least 1"),
        ({"widths": [3]}, "widths is [3]; it must be a tuple, each int"),
        ({"names": ("a", "c")}, "names is ('a', 'c'); it must be a tuple, each 'a' or 'b'"),
        ({"kind": "z"}, "kind is 'z'; it must be 'x' or 'y'"),
        ({"size": 17}, "size is 17; it must be at least 16 and a multiple of 2"),
    ],
)
def test_other_values_are_refused_by_name(given, said):
    with pytest.raises(SlipstreamError) as caught:
        Example(**given)
    assert str(caught.value) == f"some.example.{said}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"total_steps": "100"}, "^total_steps is '100'; it must be int"),
        ({"stages": ["online"]}, r"^stages is \['online'\]; it must be a tuple"),
        ({"env": None}, "^env is None; it must be EnvConfig"),
    ],
)
def test_a_run_refuses_what_python_would_let_pass(change, said):
    with pytest.raises(SlipstreamError, match=said):
        replace(RunConfig("Pendulum-v1"), **change)
