"""Which learner an algorithm's name means, and how it is put together for one policy."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from slipstream.algorithms.optim import movable
from slipstream.algorithms.sac import SAC, SACConfig, initial_log_alpha
from slipstream.algorithms.targets import hard_copy
from slipstream.algorithms.td3 import TD3, TD3Config
from slipstream.batch import Batch
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, Critic
from slipstream.settings import Settings

Module = TypeVar("Module", Actor, Critic)


class Learner(Protocol):
    """What is learnt: `metrics = learner.update(batch)`."""

    num_updates: int

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update; detached scalars by name."""
        ...

    def explore(self, output: Any) -> Tensor:
        """The action to take while learning, (N, A), from the policy's output."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill, beside the policy and the critics."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...


@dataclass(frozen=True)
class AlgorithmsConfig(Settings, section="algorithms"):
    """Settings of every algorithm; a run reads those of the one it uses."""

    td3: TD3Config = field(default_factory=TD3Config)
    """TD3."""
    sac: SACConfig = field(default_factory=SACConfig)
    """SAC."""


def _td3(
    config: TD3Config, actor: Actor, critic: Critic, critic_target: Critic, alpha: float | None
) -> TD3:
    # A policy that stays as it is needs no slower copy of itself, and may not be one to copy.
    actor_target = frozen_copy(actor) if movable(actor.own_parameters()) else actor
    if actor_target is not actor:
        # The slower copy of what is borrowed is the critics', and is moved with theirs.
        if actor.inputs.borrowed:
            actor_target.inputs.borrow(critic_target.inputs)
        if actor.memory_borrowed:
            actor_target.borrow_memory(critic_target.memory)
    return TD3(config, actor, actor_target, critic, critic_target)


def _sac(
    config: SACConfig, actor: Actor, critic: Critic, critic_target: Critic, alpha: float | None
) -> SAC:
    log_alpha = initial_log_alpha(config, actor.device)
    if alpha is not None and config.tune_alpha:
        with torch.no_grad():
            log_alpha.fill_(math.log(alpha))
    return SAC(config, actor, critic, critic_target, log_alpha)


ALGORITHMS = {"td3": (TD3, _td3), "sac": (SAC, _sac)}
"""Name -> (class, how to put it together); the name is also its field in AlgorithmsConfig."""


def algorithm_class(name: str) -> type[TD3] | type[SAC]:
    """The class behind a name.

    Raises:
        SlipstreamError: no such algorithm.
    """
    if name not in ALGORITHMS:
        raise SlipstreamError(f"there is no algorithm '{name}'; choose {' or '.join(ALGORITHMS)}")
    return ALGORITHMS[name][0]


def build_learner(
    name: str,
    config: AlgorithmsConfig,
    actor: Actor,
    critic: Critic,
    critic_target: Critic,
    alpha: float | None = None,
) -> Learner:
    """A learner with fresh optimizers; a target policy starts as a hard copy of the policy.

    Args:
        name: the algorithm.
        config: settings of all algorithms.
        actor: the policy it moves, or leaves alone if nothing of it requires gradients.
        critic: the critics it moves; they belong to the run.
        critic_target: their targets.
        alpha: a temperature to go on with where it is tuned; None starts with the configured one.
    """
    algorithm_class(name)
    return ALGORITHMS[name][1](getattr(config, name), actor, critic, critic_target, alpha)


def frozen_copy(module: Module) -> Module:
    """A target network: equal weights, no gradients, the same normalizers."""
    shared = {id(value): value for value in module.inputs.normalizers.values()}
    target = copy.deepcopy(module, shared)
    hard_copy(target, module)
    return target
