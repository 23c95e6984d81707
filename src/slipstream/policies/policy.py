"""A saved policy: what is needed to act, and nothing else."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cattrs.errors import BaseValidationError
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slipstream.batch import Obs
from slipstream.checkpoint import LinkName, resolve
from slipstream.config import RunConfig, strict_converter
from slipstream.envs.film import Show
from slipstream.envs.setup import EnvConfig, open_env, open_filmed
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.judging.evaluation import Evaluation, evaluate
from slipstream.networks import Actor, NetworksConfig, build_actor
from slipstream.networks.inputs import clip_of, normalizers_of
from slipstream.networks.memory import Carry, reset_carry
from slipstream.policies.step import Observation, PolicyStep
from slipstream.spec import PRIVILEGED, EnvSpec
from slipstream.stages.learners import algorithm_class

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"


@dataclass(frozen=True, repr=False)
class Policy:
    """A trained policy and the environment that it was trained in.

    Attributes:
        actor: acts on tensors, in [-1, 1]: `output, carry = actor.step(obs, carry)`.
        spec: shapes and bounds of the environment, with the observations that the policy reads.
        env: what the policy sees of the environment's observations.
        description: the `config.json` beside its weights.
    """

    actor: Actor
    spec: EnvSpec
    env: EnvConfig
    description: Mapping[str, Any]

    def __repr__(self) -> str:
        """What it is, what it reads and what it returns, in a line."""
        reads = ", ".join(f"{key} {self.spec.obs[key].shape}" for key in self.actor.inputs.keys)
        kind, env_id = self.description["kind"], self.spec.env_id
        return f"<Policy: {kind} of {env_id}, {reads} -> action ({self.spec.action_dim},)>"

    def open_env(self, num_envs: int) -> VecEnv:
        """Environments as the policy knows them."""
        privileged = PRIVILEGED in self.actor.inputs.keys
        return open_env(
            self.spec.env_id, self._env_config, num_envs, privileged=privileged, evaluation=True
        )

    def open_filmed(self, show: Show, size: int) -> VecEnv:
        """One such environment, whose first episode is shown; see `envs.setup.open_filmed`."""
        privileged = PRIVILEGED in self.actor.inputs.keys
        return open_filmed(self.spec.env_id, self._env_config, show, size, privileged)

    @property
    def _env_config(self) -> EnvConfig:
        return dataclasses.replace(self.env, max_episode_steps=self.spec.max_episode_steps)

    @cached_property
    def module(self) -> PolicyStep:
        """The step that `step` and `predict` take, in tensors; what is exported."""
        return PolicyStep(self.actor, self.spec).eval()

    def initial_carry(self, num_envs: int = 1) -> Carry:
        """The memory at an episode's start, for `num_envs` environments; opaque."""
        return self.module.initial_carry(num_envs)

    def step(
        self, obs: Observation, carry: Carry, deterministic: bool = True
    ) -> tuple[np.ndarray, Carry]:
        """Act once.

        Args:
            obs: what the policy sees, in the environment's own units, (n,) for one environment or
                (N, n) for several; a dict of such if it reads several keys. Its previous action
                may be left out: the carry knows it.
            carry: from `initial_carry` or the last step; it is not changed.
            deterministic: False samples, where the policy is a distribution.

        Returns:
            The action in the environment's own units, float32, (A,) or (N, A) as `obs` has it,
            and the next carry.

        Raises:
            SlipstreamError: a key is missing, shapes do not fit, or the action is not finite.
        """
        tensors, single = self.module.read(obs)
        return self._act(tensors, single, carry, deterministic)

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Act once, called as Stable-Baselines3 calls its models.

        Args:
            observation: as for `step`.
            state: what the last call returned; None at the start.
            episode_start: (N,) bool, where an episode begins, so that what was before is forgotten.
            deterministic: as for `step`.

        Returns:
            The action as `step` gives it, and the state for the next call: the carry's arrays.

        Raises:
            SlipstreamError: as `step`.
        """
        tensors, single = self.module.read(observation)
        num_envs = len(next(iter(tensors.values())))
        carry = initial = self.initial_carry(num_envs)
        if state is not None:
            if len(state) != len(initial):
                raise SlipstreamError(
                    f"the state has {len(state)} arrays, but this policy's has {len(initial)}: "
                    "begin with state=None"
                )
            device = self.actor.device
            carry = {
                name: torch.as_tensor(value, device=device)
                for name, value in zip(initial, state, strict=True)
            }
            if episode_start is not None:
                started = torch.as_tensor(np.asarray(episode_start, bool).reshape(-1))
                rows = {name: len(value) for name, value in carry.items()}
                if {len(started), *rows.values()} != {num_envs}:
                    raise SlipstreamError(
                        f"there are observations of {num_envs} environments, {len(started)} "
                        f"entries in episode_start and the rows {rows} in the state: give one for "
                        "each environment"
                    )
                carry = reset_carry(carry, initial, started.to(device))
        action, carry = self._act(tensors, single, carry, deterministic)
        return action, tuple(value.cpu().numpy() for value in carry.values())

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`, as a checkpoint's `policy` folder has them.

        Raises:
            SlipstreamError: the disk is full or refuses.
        """
        weights = {key: value.contiguous() for key, value in self.actor.state_dict().items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / DESCRIPTION).write_text(json.dumps(self.description, indent=2))
            save_file(weights, folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise SlipstreamError(f"could not write the policy to {folder}: {error}") from error

    def _act(
        self, tensors: Obs, single: bool, carry: Carry, deterministic: bool
    ) -> tuple[np.ndarray, Carry]:
        """One step from (N, *) tensors; the action without N where it is `single`."""
        num_envs = len(next(iter(tensors.values())))
        rows = {name: len(value) for name, value in carry.items()}
        expected = dict.fromkeys(self._carried, num_envs)
        if rows != expected:
            raise SlipstreamError(
                f"the carry has the rows {rows}, but the observation calls for {expected}: begin "
                f"an episode with initial_carry({num_envs})"
            )
        with torch.no_grad():
            action, carry = self.module(tensors, carry, deterministic)
        result = action.cpu().numpy()
        if not np.isfinite(result).all():
            raise SlipstreamError(
                f"the action is not finite: {result.tolist()}; look for NaN or infinity in the "
                "observation, or take another checkpoint"
            )
        return result[0] if single else result, carry

    @cached_property
    def _carried(self) -> tuple[str, ...]:
        return tuple(self.initial_carry(0))


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
        # Where it was simulated is no part of a policy, which may be tried where there is no GPU.
        "env": dataclasses.asdict(dataclasses.replace(config.env, physics="cpu")),
        "spec": dataclasses.asdict(shown),
    }


def load_policy(path: Path | str, checkpoint: LinkName = "last") -> Policy:
    """Load a policy to act with.

    Args:
        path: a run folder, one of its checkpoints, or a folder that holds a policy alone.
        checkpoint: "last" or "best", where `path` is a run folder.

    Returns:
        The policy, in evaluation mode on the CPU.

    Raises:
        SlipstreamError: no whole checkpoint there, or weights that do not fit their description.
    """
    folder = Path(path)
    if not (folder / WEIGHTS).is_file():
        folder = resolve(folder, checkpoint) / "policy"
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
        converter = strict_converter()
        spec = converter.structure(described["spec"], EnvSpec)
        env = converter.structure(described["env"], EnvConfig)
        networks = converter.structure(described["networks"], NetworksConfig)
        normalizers = normalizers_of(spec.obs, spec.obs, clip_of(env.normalize_obs))
        actor = build_actor(
            described["kind"], described["head"], spec, tuple(spec.obs), networks, normalizers
        )
        actor.load_state_dict(load_file(folder / WEIGHTS))
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
    return Policy(actor.eval().requires_grad_(False), spec, env, described)


def evaluate_policy(policy: Policy | Path | str, episodes: int = 10, seed: int = 0) -> Evaluation:
    """Run a policy without exploration in the environment that it was trained in.

    Args:
        policy: loaded, or where to load it from (see `load_policy`).
        episodes: how many, each on a seed of its own.
        seed: of the first episode.

    Returns:
        Returns and lengths in the order of the seeds.

    Raises:
        SlipstreamError: fewer than one episode, a negative seed, or nothing to load.
    """
    if episodes < 1 or seed < 0:
        raise SlipstreamError(
            f"episodes is {episodes}, it must be at least 1; seed is {seed}, at least 0"
        )
    if not isinstance(policy, Policy):
        policy = load_policy(policy)
    env = policy.open_env(episodes)
    try:
        return evaluate(policy.actor, env, range(seed, seed + episodes))
    finally:
        env.close()
