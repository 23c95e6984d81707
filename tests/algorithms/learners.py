"""A learner with small networks of its own, for any algorithm and policy."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from slipstream.networks import Actor, Critic, NetworksConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.spec import EnvSpec
from slipstream.stages.learners import (
    ALGORITHMS,
    AlgorithmsConfig,
    algorithm_class,
    build_learner,
    frozen_copy,
)
from tests.networks.policies import SPEC, actor_of, critic_config, critic_of


@dataclass
class Made:
    learner: Any
    actor: Actor
    critic: Critic
    critic_target: Critic


def make_learner(
    algorithm: str,
    kind: str = "mlp",
    memory: str = "none",
    seed: int = 0,
    spec: EnvSpec = SPEC,
    networks: NetworksConfig | None = None,
    **fields,
) -> Made:
    torch.manual_seed(seed)
    networks = networks or replace(critic_config(memory=memory), mlp=MLPConfig((16, 16)))
    kind_of = algorithm_class(algorithm)
    actor = actor_of(kind, networks, kind_of.head, spec)
    critic = critic_of(networks, kind_of.critic_layer_norm, spec)
    critic_target = frozen_copy(critic)
    with torch.no_grad():  # so that a mix-up of critic and target shows
        for parameter in critic.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    config = AlgorithmsConfig()
    config = replace(config, **{algorithm: replace(getattr(config, algorithm), **fields)})
    learner = build_learner(algorithm, config, actor, critic, critic_target)
    return Made(learner, actor, critic, critic_target)


__all__ = ["ALGORITHMS", "Made", "make_learner"]
