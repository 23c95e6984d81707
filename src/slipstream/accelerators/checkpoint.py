"""A policy of this package, from another run, as a run's accelerator."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from slipstream import checkpoint
from slipstream import config as configuration
from slipstream.accelerators.fit import (
    Trained,
    check_bounds,
    check_env_id,
    check_view,
    decide,
    frozen_output,
)
from slipstream.accelerators.recipe import Recipe, Weights, assemble, read_recipe
from slipstream.checkpoint.tree import load_tree
from slipstream.config import RunConfig, strict_converter
from slipstream.errors import SlipstreamError
from slipstream.networks import NetworksConfig
from slipstream.networks.inputs import clip_of, module_name
from slipstream.policies.policy import Policy, load_policy
from slipstream.spec import PRIVILEGED, EnvSpec
from slipstream.stages.accelerate import Brought
from slipstream.stages.learners import algorithm_class


def load(place: str, config: RunConfig, spec: EnvSpec) -> Brought:
    """Build a run's policy, and its critics where they can go on learning in this run.

    Args:
        place: a run's folder, or one of its checkpoints.
        config: of the new run.
        spec: of its environment.

    Raises:
        SlipstreamError: no policy there, or one that does not fit.
    """
    about = f"the policy of {place}"
    policy = load_policy(place)
    check_env_id(about, config, spec, policy.spec.env_id)
    check_bounds(about, config, spec, policy.spec.action_low, policy.spec.action_high)
    prefers_all = "accelerator" in config.privileged
    keys = {key: _here(about, key, policy.spec, spec, prefers_all) for key in policy.spec.obs}
    check_view(about, config, policy.env, keys)
    found = _critics(Path(place), policy, keys)
    learns, with_critics = decide(about, config, found.trained)
    if found.trained.critic_keys is not None and with_critics:
        for key in found.trained.critic_keys:
            if key not in spec.obs:
                raise SlipstreamError(
                    f"{about} has critics that read '{key}', which this run's environment does not "
                    f"show ({', '.join(spec.obs)}); say --accelerate.no-learn"
                )
    head = str(policy.description["head"])
    output, std = ("own", 0.0) if learns else frozen_output(head, config, spec)
    networks = strict_converter().structure(policy.description["networks"], NetworksConfig)
    if with_critics:
        together = _same_encoders(policy.actor.state_dict(), found.critic)
        networks = replace(networks, critic=found.networks.critic, share_encoder=together)
    recipe = Recipe(
        about=about,
        network=str(policy.description["kind"]),
        head=head,
        keys=tuple(keys.values()),
        output=output,
        std=std,
        clip=clip_of(policy.env.normalize_obs),
        learns=learns,
        networks=networks,
        critic_keys=found.trained.critic_keys if with_critics else None,
        critic_clip=found.clip,
        critic_layer_norm=found.layer_norm,
        alpha=found.alpha,
    )
    weights = Weights(
        actor=_renamed(policy.actor.state_dict(), keys),
        critic=_renamed(found.critic, keys),
        critic_target=_renamed(found.critic_target, keys),
    )
    return assemble(recipe, spec, config.device, weights)


@dataclass(frozen=True)
class _Critics:
    """The critics of a checkpoint, if it has those of the policy that it holds."""

    trained: Trained
    networks: NetworksConfig
    layer_norm: bool
    clip: float | None
    critic: Mapping[str, Tensor]
    critic_target: Mapping[str, Tensor]
    alpha: float | None


def _critics(place: Path, policy: Policy, keys: Mapping[str, str]) -> _Critics:
    nothing = _Critics(Trained(None), NetworksConfig(), False, None, {}, {}, None)
    if not (place / "checkpoints").is_dir() and place.parent.name != "checkpoints":
        return nothing
    folder = checkpoint.resolve(place)
    run_dir = folder.parent.parent
    if not checkpoint.can_resume(folder) or not (run_dir / "config.json").is_file():
        return nothing
    run = configuration.load(run_dir / "config.json")
    state = load_tree(folder / "training_state")
    if policy.description["actor"] == "transformer" and state["stage"] != "online":
        return nothing  # those are the accelerator's, whose clone the policy is
    networks, layer_norm = run.built_networks, run.networks.critic.layer_norm
    if layer_norm is None:
        layer_norm = algorithm_class(run.algorithm).critic_layer_norm
    read = (PRIVILEGED,) if "critic" in run.privileged else tuple(policy.spec.obs)
    clip = clip_of(run.env.normalize_obs)
    brought = state.get("accelerator")
    if brought is not None and run.online.carry_critic:
        recipe = read_recipe(brought)
        if recipe.critic_keys is not None:
            networks, layer_norm = recipe.networks, recipe.critic_layer_norm
            read, clip = recipe.critic_keys, recipe.critic_clip
    log_alpha = state["stage_state"]["learner"].get("log_alpha")
    return _Critics(
        trained=Trained(
            run.algorithm,
            getattr(run.algorithms, run.algorithm).gamma,
            tuple(keys.get(key, key) for key in read),
            networks.critic.memory,
        ),
        networks=networks,
        layer_norm=layer_norm,
        clip=clip,
        critic=state["team"]["networks"]["critic"],
        critic_target=state["team"]["networks"]["critic_target"],
        alpha=None if log_alpha is None else float(log_alpha.detach().exp()),
    )


def _same_encoders(actor: Mapping[str, Tensor], critic: Mapping[str, Tensor]) -> bool:
    """Whether policy and critics saw images through one encoder (a clone may have its own)."""
    names = [name for name in actor if name.startswith("inputs.encoders.")]
    return all(name in critic and torch.equal(actor[name], critic[name]) for name in names)


def _here(about: str, key: str, there: EnvSpec, here: EnvSpec, prefers_all: bool) -> str:
    """The observation of this run that stands for `key` of the run the policy comes from."""
    candidates = [key]
    if key in ("state", PRIVILEGED):
        candidates = [PRIVILEGED, "state"] if prefers_all else [key, "state", PRIVILEGED]
    for candidate in candidates:
        if candidate in here.obs and here.obs[candidate].shape == there.obs[key].shape:
            return candidate
    shapes = {name: value.shape for name, value in here.obs.items()}
    raise SlipstreamError(
        f"{about} reads '{key}' of shape {there.obs[key].shape}, but {here.env_id} shows {shapes}; "
        "name a policy for this environment, or the environment and the mask that it was trained "
        "with"
    )


def _renamed(tensors: Mapping[str, Tensor], keys: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights with the observations' names, which normalizers go by, of this run."""
    names = {module_name(there): module_name(here) for there, here in keys.items()}
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        parts = name.split(".")
        if parts[:2] == ["inputs", "normalizers"]:
            parts[2] = names.get(parts[2], parts[2])
        named[".".join(parts)] = value
    return named
