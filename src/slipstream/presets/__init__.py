"""Named starting points for a run: each is a function from an env id to a configuration."""

from collections.abc import Callable

from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.presets.everyday import (
    accelerator,
    default,
    demo,
    lstm,
    memory_probe,
    pendulum,
    pomdp,
    popgym,
    privileged,
    scratch,
    td3,
)
from slipstream.presets.images import cnn, quick
from slipstream.presets.paper import (
    paper_image_sac,
    paper_mdp_sac,
    paper_mdp_td3,
    paper_pomdp_td3,
)

Preset = Callable[[str], RunConfig]

PRESETS: dict[str, Preset] = {
    "default": default,
    "td3": td3,
    "demo": demo,
    "scratch": scratch,
    "accelerator": accelerator,
    "pomdp": pomdp,
    "lstm": lstm,
    "privileged": privileged,
    "quick": quick,
    "cnn": cnn,
    "memory-probe": memory_probe,
    "popgym": popgym,
    "pendulum": pendulum,
    "paper/mdp-td3": paper_mdp_td3,
    "paper/mdp-sac": paper_mdp_sac,
    "paper/pomdp-td3": paper_pomdp_td3,
    "paper/image-sac": paper_image_sac,
}
"""Name on the command line -> function of the env id."""

CHOICES = {
    "--mask positions": "hide a MuJoCo task's velocities, so that it takes memory",
    "--accelerator lstm": "an LSTM (or gru) goes first",
    "--privileged accelerator critic": "these two see everything, the transformer does not",
    "--networks.transformer.context-length 16": "a longer window",
    "--networks.transformer.gate gru": "GTrXL's gates in place of residuals",
    "--networks.transformer.position rotary": "rotary positions in place of learnt ones",
    "--networks.critic.memory lstm": "critics with a memory of their own (gru, transformer)",
    "--transformer gru": "a GRU (or lstm) in the transformer's place, for comparison",
    "--obs rgb": "the image in place of the state",
}
"""Flags that go with most presets -> what they choose."""


def preset(name: str, env_id: str) -> RunConfig:
    """The configuration that a preset gives for an environment.

    Raises:
        SlipstreamError: no such preset.
    """
    if name not in PRESETS:
        raise SlipstreamError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name](env_id)
