"""A saved policy: what is needed to act, and nothing else."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cattrs.errors import BaseValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from slipstream.checkpoint import resolve
from slipstream.config import RunConfig, strict_converter
from slipstream.envs.setup import EnvConfig, open_env
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, NetworksConfig, Normalizer, build_actor
from slipstream.spec import PRIVILEGED, EnvSpec
from slipstream.stages.learners import algorithm_class


@dataclass(frozen=True)
class Policy:
    """A trained policy and the environment that it was trained in.

    Attributes:
        actor: acts: `output, carry = actor.step(obs, carry)`.
        spec: shapes and bounds of the environment, with the observations that the policy reads.
        env: what the policy sees of the environment's observations.
    """

    actor: Actor
    spec: EnvSpec
    env: EnvConfig

    def open_env(self, num_envs: int) -> VecEnv:
        """Environments as the policy knows them."""
        limit = self.spec.max_episode_steps
        config = dataclasses.replace(self.env, max_episode_steps=limit)
        privileged = PRIVILEGED in self.actor.inputs.keys
        return open_env(self.spec.env_id, config, num_envs, privileged=privileged)


def describe_policy(
    config: RunConfig, spec: EnvSpec, actor: str, keys: Sequence[str]
) -> dict[str, Any]:
    """The `config.json` beside a policy's weights.

    Args:
        config: the run's.
        spec: of the environment.
        actor: the policy's name in the run.
        keys: the observations that it reads; others are left out.
    """
    shown = dataclasses.replace(spec, obs={key: spec.obs[key] for key in keys})
    return {
        "actor": actor,
        "kind": getattr(config, actor),
        "head": algorithm_class(config.algorithm).head,
        "networks": dataclasses.asdict(config.built_networks),
        "env": dataclasses.asdict(config.env),
        "spec": dataclasses.asdict(shown),
    }


def load_policy(path: Path | str, checkpoint: str = "last") -> Policy:
    """Load a policy to act with.

    Args:
        path: a run folder or one of its checkpoints.
        checkpoint: "last" or "best", where `path` is a run folder.

    Returns:
        The policy, in evaluation mode on the CPU.

    Raises:
        SlipstreamError: no whole checkpoint there, or weights that do not fit their description.
    """
    name = "best" if checkpoint == "best" else "last"
    folder = resolve(Path(path), name) / "policy"
    try:
        described = json.loads((folder / "config.json").read_text())
        converter = strict_converter()
        spec = converter.structure(described["spec"], EnvSpec)
        env = converter.structure(described["env"], EnvConfig)
        networks = converter.structure(described["networks"], NetworksConfig)
        normalizers: dict[str, Normalizer] = {}
        if env.normalize_obs:
            normalizers = {key: Normalizer(value.size) for key, value in spec.obs.items()}
        actor = build_actor(
            described["kind"], described["head"], spec, tuple(spec.obs), networks, normalizers
        )
        actor.load_state_dict(load_file(folder / "model.safetensors"))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        BaseValidationError,
    ) as error:
        raise SlipstreamError(
            f"{folder} holds no policy that this version can load ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); give another checkpoint"
        ) from error
    return Policy(actor.eval().requires_grad_(False), spec, env)
