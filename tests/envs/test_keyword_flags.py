"""Keyword arguments of an environment, as they are typed."""

import pytest
import yaml

from slipstream.cli import main
from slipstream.envs.keyword_flags import read


def test_values_are_what_they_look_like():
    values = {"2.0": 2.0, "4": 4, "-1": -1, "1e-3": 1e-3, "True": True, "False": False, "a": "a"}
    for word, value in values.items():
        found = read(["name", word, "other", "0"])
        assert found == {"name": value, "other": 0}
        assert type(found["name"]) is type(value)
    assert read([]) == {}


def test_a_name_without_a_value_is_refused():
    with pytest.raises(ValueError, match="'legs' has no value"):
        read(["mass", "2.0", "legs"])


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], {"delay": 10}),
        (["--env.kwargs", "delay", "5"], {"delay": 5}),
        (["--env.kwargs", "other", "x"], {"other": "x"}),
        (["--env.kwargs"], {}),
    ],
)
def test_they_take_the_place_of_a_presets_own(given, found, capsys):
    command = ["train", "slipstream/ProbeMemory-v0", "--preset", "memory-probe"]
    assert main([*command, *given, "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["env"]["kwargs"] == found
