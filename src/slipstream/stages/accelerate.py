"""Stage 1: the accelerator interacts and learns while the transformer is cloned from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, Critic
from slipstream.replay.episodes import Episodes
from slipstream.settings import NotNegative, Settings, Share

SCHEMES = {
    "sb3": "sb3:model.zip",
    "slipstream": "slipstream:RUN",
    "onnx": "onnx:policy.onnx",
    "python": "python:my_pkg.module:function",
    "minari": "minari:DATASET",
    "replay": "replay:RUN",
}
"""Where an accelerator that existed before the run may come from -> how that is written."""


@dataclass(frozen=True)
class AccelerateConfig(Settings, section="accelerate"):
    """Stage 1."""

    replay_capacity: Annotated[int, Ge(2)] = 100_000
    """Rows of replay in stage 1."""
    learn: bool = False
    """Let an accelerator that was brought along go on learning. Only an SB3 model of the run's
    algorithm or a Slipstream checkpoint with its critic can. One that is good already may fall at
    first, for its replay does not come along."""
    frozen_steps: NotNegative = 20_000
    """Env steps that an accelerator which stays as it is collects before the switch rule looks, in
    place of a later switch.earliest: nothing gets better by waiting but its critic."""
    random_share: Share = 0.3
    """Share of uniformly random actions in what an accelerator collects that was brought along: all
    along if it stays as it is, else in the first learning_starts steps. Its critics must know what
    other actions are worth before they are followed."""
    check_env: bool = True
    """Refuse a policy that was brought along from an environment of another id or with other
    bounds of the action."""


@dataclass(frozen=True)
class Source:
    """Where an accelerator that existed before the run comes from, such as `sb3:model.zip`."""

    scheme: str
    place: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.place}"


def parse_source(accelerator: str) -> Source | None:
    """Read `RunConfig.accelerator` as a source; None where it names a kind of network.

    Raises:
        SlipstreamError: a scheme without a place behind it.
    """
    scheme, colon, place = accelerator.partition(":")
    if scheme not in SCHEMES or not colon:
        return None
    if not place:
        raise SlipstreamError(f"accelerator is '{accelerator}'; write {SCHEMES[scheme]}")
    return Source(scheme, place)


@dataclass(frozen=True)
class Brought:
    """An accelerator that existed before the run, as networks of this package.

    Attributes:
        about: what it is, for messages.
        actor: the policy; where it stays as it is, nothing of it requires gradients.
        learns: whether it goes on learning.
        critic, critic_target: those it comes with, or None: then the run has its own.
        alpha: SAC's temperature that it was trained with last, or None.
        recipe: JSON values and numpy arrays to build the same networks from again, with other
            weights, when the run is resumed: the file it came from need not be there then.
        data_rows: rows of replay for the data that it is to be cloned from first; 0 for a policy.
        episodes: that data; None in a run that is resumed, whose replay holds it.
    """

    about: str
    actor: Actor
    learns: bool
    critic: Critic | None
    critic_target: Critic | None
    alpha: float | None
    recipe: Mapping[str, Any]
    data_rows: int = 0
    episodes: Episodes | None = None
