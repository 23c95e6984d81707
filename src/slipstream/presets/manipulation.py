"""What suits ManiSkill's robot arms, where most presets have what suits MuJoCo."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from slipstream.config import RunConfig, to_dict
from slipstream.envs.maniskill.tasks import is_maniskill, is_tabletop_arm

CONTROL = "MS-"
"""How the ids of ManiSkill's control tasks begin: hopper, ant, cart-pole, MuJoCo's in kind."""


def suited(config: RunConfig) -> RunConfig:
    """The configuration as it is, or for a ManiSkill task with what suits manipulation."""
    env_id = config.env_id
    control = env_id.rpartition(":")[2].startswith(CONTROL)
    return for_manipulation(config) if is_maniskill(env_id) and not control else config


def for_manipulation(config: RunConfig) -> RunConfig:
    """The settings that measured best on PullCube.

    Rewards of up to 1 a step, episodes of 50 steps, and steps that are dearer than updates.
    """
    # Displacements of the tool rather than of seven joints: three times the time of a step, but on
    # PullCube a third of the steps, where by joints most runs only learnt to reach.
    arm = is_tabletop_arm(config.env_id)
    kwargs = {"control_mode": "pd_ee_delta_pos"} if arm else {}
    algorithms = config.algorithms
    return replace(
        config,
        utd_ratio=0.25,
        env=replace(config.env, normalize_obs=True, kwargs=kwargs),
        algorithms=replace(
            algorithms,
            # With UTD .25 a temperature of .2 took half of the steps to come down to these rewards.
            sac=replace(algorithms.sac, gamma=0.8, tau=0.01, alpha=0.02),
            td3=replace(algorithms.td3, gamma=0.8, tau=0.01),
        ),
    )


def picked(config: RunConfig) -> str:
    """What `suited` chose for the environment and no flag changed, in words; "" for nothing."""
    plain = RunConfig(config.env_id)
    before, now = (dict(_leaves(to_dict(each))) for each in (plain, config))
    chosen = dict(_leaves(to_dict(suited(plain))))
    other = {"sac", "td3"} - {config.algorithm}
    return ", ".join(
        f"{name} {value}"
        for name, value in chosen.items()
        if value != before.get(name) and value == now[name] and not other & {*name.split(".")}
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
