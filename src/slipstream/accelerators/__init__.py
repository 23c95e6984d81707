"""How a user brings a policy that exists already into a run, as its accelerator.

A loader turns what a source names into networks of this package (`Brought`): a policy that goes on
learning with its critics, or one that stays as it is. Nothing is unpickled and nothing of a file is
run; only `python:` runs code, which the user names. Data becomes a policy in the run itself, before
its first step (`Rehearsal`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from slipstream.accelerators import called, checkpoint, data, sb3
from slipstream.accelerators.recipe import assemble, read_recipe
from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.spec import EnvSpec
from slipstream.stages.accelerate import Brought, parse_source

Loader = Callable[[str, RunConfig, EnvSpec], Brought]

LOADERS: dict[str, Loader] = {
    "sb3": sb3.load,
    "slipstream": checkpoint.load,
    "onnx": called.load_onnx,
    "python": called.load_python,
    "minari": data.load_minari,
    "replay": data.load_replay,
}
"""Scheme of a source -> loader of what is at its place."""


def bring(config: RunConfig, spec: EnvSpec) -> Brought | None:
    """The accelerator that a run is to begin with; None where it has a network of its own.

    Raises:
        SlipstreamError: nothing at the place that the source names, nothing that fits, or one that
            is to go on learning and cannot.
    """
    source = parse_source(config.accelerator)
    if source is None or "accelerate" not in config.stages:
        return None
    brought = LOADERS[source.scheme](source.place, config, spec)
    if config.accelerate.learn and not brought.learns:
        raise SlipstreamError(
            f"{brought.about} cannot go on learning, for that takes an off-policy algorithm of "
            "Slipstream with its critics; leave --accelerate.learn out"
        )
    return brought


def bring_again(kept: Mapping[str, Any] | None, config: RunConfig, spec: EnvSpec) -> Brought | None:
    """The same networks for a run that is resumed, without weights: those come with its state.

    Args:
        kept: `Brought.recipe` of the run's accelerator; None if it has a network of its own.
        config: the run's.
        spec: of its environment.

    Raises:
        SlipstreamError: a function of the user's is not where it was.
    """
    if kept is None:
        return None
    recipe, model, call = read_recipe(kept), kept["model"], None
    if recipe.network == "python":
        call = called.python_call(recipe.place)
    elif recipe.network == "onnx":
        call = called.onnx_call(model, recipe.about)[0]
    return assemble(recipe, spec, config.device, call=call, model=model)


def settled(config: RunConfig, brought: Brought | None) -> RunConfig:
    """The configuration with what follows from the accelerator for the switch.

    One that was brought along and stays as it is gets no better by waiting: the switch rule looks
    as soon as its critic may be expected to know it.
    """
    switch = config.switch.settled(config.hides_from_accelerator)
    if brought is not None and not brought.learns:
        soon = config.accelerate.frozen_steps / config.total_steps
        switch = replace(switch, earliest=min(switch.first_look, soon))
    return replace(config, switch=switch)


def describe_brought(brought: Brought) -> str:
    """One line for the log of a run."""
    if brought.data_rows:
        return f"{brought.about}: cloned first, then stays as it is, critics learnt from the data"
    learning = "goes on learning" if brought.learns else "stays as it is"
    critics = "with its critics" if brought.critic is not None else "critics learnt from nothing"
    return f"{brought.about}: {learning}, {critics}"
