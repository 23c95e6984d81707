"""Whether a policy from elsewhere fits this run: its spaces, its algorithm, its critic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slipstream.accelerators.frozen import std_of_entropy
from slipstream.accelerators.recipe import Output
from slipstream.config import EnvConfig, RunConfig
from slipstream.envs.observation import ObservationConfig
from slipstream.errors import SlipstreamError
from slipstream.spec import PRIVILEGED, EnvSpec, is_added
from slipstream.stages.learners import algorithm_class

Kind = Literal["a policy", "data"]
_MADE: dict[Kind, str] = {"a policy": "trained", "data": "recorded"}
_NAMES = {"sac": "SAC", "td3": "TD3"}


def observation_key(about: str, config: RunConfig, spec: EnvSpec) -> str:
    """The observation that a policy for one vector reads in this run.

    Raises:
        SlipstreamError: the environment shows no single vector.
    """
    if "accelerator" in config.privileged:
        return PRIVILEGED
    shapes = {key: value.shape for key, value in spec.own_obs.items()}
    if len(shapes) == 1 and all(len(shape) == 1 for shape in shapes.values()):
        return next(iter(shapes))
    raise SlipstreamError(
        f"{about} reads one vector, but {spec.env_id} shows {shapes}; name a policy that reads "
        "these (slipstream:RUN), or wrap the environment in gymnasium.wrappers.FlattenObservation"
    )


def check_sizes(
    about: str, spec: EnvSpec, key: str, obs_size: int | None, action_size: int | None
) -> None:
    """Raise SlipstreamError unless sizes of observation and action are the environment's.

    None for a size that is not known.
    """
    here = (spec.obs[key].size, spec.action_dim)
    found = (obs_size, action_size)
    if any(one is not None and one != other for one, other in zip(found, here, strict=True)):
        raise SlipstreamError(
            f"{about} reads observations of size {_say(obs_size)} and gives actions of size "
            f"{_say(action_size)}, but {spec.env_id} shows '{key}' of size {here[0]} and takes "
            f"actions of size {here[1]}; name a policy for this environment, or the environment "
            "and the mask that it was trained with"
        )


def check_bounds(
    about: str,
    config: RunConfig,
    spec: EnvSpec,
    low: Sequence[float] | None,
    high: Sequence[float] | None,
    kind: Kind = "a policy",
) -> None:
    """Raise SlipstreamError unless bounds of the action are the environment's; None: unknown."""
    if not config.accelerate.check_env or low is None or high is None:
        return
    if np.allclose([*low, *high], [*spec.action_low, *spec.action_high], rtol=1e-3, atol=1e-5):
        return
    raise SlipstreamError(
        f"{about} was {_MADE[kind]} with actions in {_bounds(low, high)}, but {spec.env_id} "
        f"takes them in {_bounds(spec.action_low, spec.action_high)}; name {kind} of this "
        "environment, or --accelerate.no-check-env if its actions are to be rescaled"
    )


def check_env_id(
    about: str, config: RunConfig, spec: EnvSpec, env_id: str, kind: Kind = "a policy"
) -> None:
    """Raise SlipstreamError unless a policy, or data, was made in this run's environment."""
    if config.accelerate.check_env and env_id != spec.env_id:
        raise SlipstreamError(
            f"{about} was {_MADE[kind]} in {env_id}, but this run's environment is {spec.env_id}; "
            f"name {kind} of this environment, train in {env_id}, or say --accelerate.no-check-env "
            "if they are alike"
        )


def check_view(
    about: str,
    config: RunConfig,
    there: EnvConfig,
    keys: Mapping[str, str],
    kind: Kind = "a policy",
) -> None:
    """Raise SlipstreamError unless what was seen there is what is seen in this run.

    Args:
        about: what is brought.
        config: of the run.
        there: how the environment was shown that it comes from.
        keys: observation key there -> the one here that stands for it.
        kind: what it is.
    """
    if not config.accelerate.check_env:
        return
    if there.kwargs != config.env.kwargs:
        raise SlipstreamError(
            f"{about} was {_MADE[kind]} with env.kwargs {there.kwargs}, but this run has "
            f"{config.env.kwargs}; use the same, or say --accelerate.no-check-env if they are alike"
        )
    for key, here in keys.items():
        if is_added(key):
            continue
        clean = ObservationConfig()
        was = clean if key == PRIVILEGED else there.observe
        present = clean if here == PRIVILEGED else config.env.observe
        if was != present:
            raise SlipstreamError(
                f"{about} was {_MADE[kind]} with {was}, but this run has {present}; use the same "
                "mask and disturbances, or say --accelerate.no-check-env if they are alike"
            )


@dataclass(frozen=True)
class Trained:
    """How a policy was trained that may go on learning.

    Attributes:
        algorithm: of ALGORITHMS; None for one that this package has not.
        gamma: its discount.
        critic_keys: the observations that its critics read; None if it comes without.
        critic_memory: `CriticConfig.memory` of its critics.
    """

    algorithm: str | None
    gamma: float = 0.99
    critic_keys: tuple[str, ...] | None = None
    critic_memory: str = "none"


def decide(about: str, config: RunConfig, trained: Trained) -> tuple[bool, bool]:
    """Whether a policy goes on learning in this run, and whether its critics come along.

    A policy goes on learning only together with its critics: fresh ones would lead it away from
    what it knows. A policy that stays as it is may as well come without: then they learn its values
    from the beginning.

    Raises:
        SlipstreamError: it is to learn, could learn, and only a setting is in the way.
    """
    if trained.algorithm is None:
        return False, False
    problem = _problem(config, trained)
    learns = config.accelerate.learn and trained.critic_keys is not None
    if learns and problem is not None:
        raise SlipstreamError(f"{about} cannot go on learning: {problem}, or --accelerate.no-learn")
    return learns, trained.critic_keys is not None and problem is None


def _problem(config: RunConfig, trained: Trained) -> str | None:
    """What keeps its critics from learning in this run, and the remedy; None for nothing."""
    algorithm = trained.algorithm
    if algorithm is not None and algorithm != config.algorithm:
        return (
            f"it was trained with {_NAMES[algorithm]} and the run's algorithm is "
            f"{_NAMES[config.algorithm]}; choose --algorithm {algorithm}"
        )
    gamma = getattr(config.algorithms, config.algorithm).gamma
    if not np.isclose(gamma, trained.gamma):
        return (
            f"its critics know values discounted by {trained.gamma} and the run's discount is "
            f"{gamma}; choose --algorithms.{config.algorithm}.gamma {trained.gamma}"
        )
    memory = config.networks.critic.memory
    if memory not in ("none", trained.critic_memory):
        return (
            f"its critics' memory is {trained.critic_memory} and networks.critic.memory {memory}; "
            "leave that out"
        )
    if trained.critic_keys is not None:
        reads_all = PRIVILEGED in trained.critic_keys
        if reads_all != ("critic" in config.privileged):
            others = {*config.privileged} - {"critic"}
            wanted = others | {"critic"} if reads_all else others
            what = "the whole observation" if reads_all else "the policy's observation"
            remedy = f"--privileged {' '.join(sorted(wanted))}" if wanted else "no --privileged"
            return f"its critics read {what} and the run's do not; choose {remedy}"
    return None


def frozen_output(head: str, config: RunConfig, spec: EnvSpec) -> tuple[Output, float]:
    """What is made of the head of a policy that stays as it is: `Recipe.output` and `Recipe.std`.

    TD3 asks for an action, SAC for a distribution. One that has none is given the spread whose
    entropy is SAC's target: what the temperature will hold its clone at in stage 2.
    """
    wanted = algorithm_class(config.algorithm).head
    if wanted == "deterministic":
        return ("own" if head in ("deterministic", "box", "action") else "mode"), 0.0
    if head in ("squashed_gaussian", "wide_gaussian"):
        return "own", 0.0
    target = config.algorithms.sac.target_entropy
    entropy = -1.0 if target is None else target / spec.action_dim
    return "spread", std_of_entropy(entropy)


def _say(size: int | None) -> str:
    return "any" if size is None else str(size)


def _bounds(low: Sequence[float], high: Sequence[float]) -> str:
    pairs = [f"[{a:g}, {b:g}]" for a, b in zip(low, high, strict=True)]
    return pairs[0] if len(set(pairs)) == 1 else " x ".join(pairs)
