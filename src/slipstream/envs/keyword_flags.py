"""Keyword arguments on the command line: names and values in turns."""

from tyro.constructors import PrimitiveConstructorSpec

Scalar = bool | int | float | str


def read(words: list[str]) -> dict[str, Scalar]:
    """Names and values in turns, `["mass", "2.0"]`, as a dict, {"mass": 2.0}.

    Raises:
        ValueError: a name without a value.
    """
    if len(words) % 2:
        raise ValueError(f"'{words[-1]}' has no value; give names and values in turns")
    return {name: _scalar(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def _scalar(word: str) -> Scalar:
    if word in ("True", "False"):
        return word == "True"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


# Tyro's own flags for a dict with entries are one for each of them: no others could be given where
# a preset has some.
KEYWORDS = PrimitiveConstructorSpec(
    nargs="*",
    metavar="[NAME VALUE ...]",
    instance_from_str=read,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda value: [str(word) for item in value.items() for word in item],
)
