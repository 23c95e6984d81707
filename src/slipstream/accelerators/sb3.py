"""A model of Stable-Baselines3 or sb3-contrib as a run's accelerator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slipstream.accelerators.fit import (
    Trained,
    check_bounds,
    check_sizes,
    decide,
    frozen_output,
    observation_key,
)
from slipstream.accelerators.recipe import Recipe, Weights, assemble
from slipstream.accelerators.sb3_file import Layers, Model, read_model
from slipstream.accelerators.vecnormalize import Statistics, read_statistics
from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.networks import NetworksConfig
from slipstream.networks.critic import CriticConfig
from slipstream.networks.inputs import module_name
from slipstream.networks.mlp import MLPConfig
from slipstream.spec import EnvSpec
from slipstream.stages.accelerate import Brought


def load(place: str, config: RunConfig, spec: EnvSpec) -> Brought:
    """Build a model's policy, and its critics where they can go on learning in this run.

    Args:
        place: path of the zip file; the ending may be left out.
        config: the run's.
        spec: of its environment.

    Raises:
        SlipstreamError: no such file, none of the supported models, or one that does not fit.
    """
    path = _find(place)
    model = read_model(path)
    statistics, told = _statistics(model, path, config.accelerator_normalize)
    if statistics is not None and statistics.reward_scale != 1:
        model = _unscaled(model, statistics.reward_scale)
    key = observation_key(model.about, config, spec)
    num_actions = len(model.policy[-1][1])
    gaussian = model.head == "wide_gaussian"
    check_sizes(
        model.about,
        spec,
        key,
        model.policy[0][0].shape[1],
        num_actions // 2 if gaussian else num_actions,
    )
    check_bounds(model.about, config, spec, model.low, model.high)
    trained = Trained(model.algorithm, model.gamma, (key,) if model.critics else None)
    learns, with_critics = decide(model.about, config, trained)
    networks = NetworksConfig(mlp=MLPConfig(_hidden(model.policy), model.activation, 1))  # pyright: ignore
    if with_critics:
        critic = CriticConfig(
            frame_stack=1,
            hidden=_hidden(model.critics[0]),
            activation=model.activation,  # pyright: ignore
            n_critics=len(model.critics),
        )
        networks = replace(networks, critic=critic)
    output, std = ("own", 0.0) if learns else frozen_output(model.head, config, spec)
    normalizes = statistics is not None and statistics.mean is not None
    clip = statistics.clip if statistics is not None and normalizes else None
    recipe = Recipe(
        about=f"{model.about}{told}",
        network="mlp",
        head=model.head,
        keys=(key,),
        output=output,
        std=std,
        clip=clip,
        learns=learns,
        networks=networks,
        critic_keys=(key,) if with_critics else None,
        critic_clip=clip,
        alpha=model.alpha,
    )
    fixed = _normalizer(statistics, key, spec.obs[key].size, path)
    weights = Weights(
        actor={**fixed, **_policy_weights(model.policy)},
        critic={**fixed, **_critic_weights(model.critics)} if with_critics else None,
        critic_target={**fixed, **_critic_weights(model.critic_targets)} if with_critics else None,
    )
    return assemble(recipe, spec, config.device, weights)


def _find(place: str) -> Path:
    path = Path(place)
    for candidate in (path, Path(f"{place}.zip")):
        if candidate.is_file():
            return candidate
    kind = "is a folder" if path.is_dir() else "does not exist"
    raise SlipstreamError(
        f"accelerator sb3:{place}: {path} {kind}; name the zip file that model.save() wrote"
    )


def _unscaled(model: Model, reward_scale: float) -> Model:
    """Critics and temperature in the environment's own units of reward.

    `VecNormalize` divided the rewards that they were learnt from. The policy is the same.
    """

    def scaled(critics: list[Layers]) -> list[Layers]:
        return [
            [*critic[:-1], (reward_scale * critic[-1][0], reward_scale * critic[-1][1])]
            for critic in critics
        ]

    return replace(
        model,
        critics=scaled(model.critics),
        critic_targets=scaled(model.critic_targets),
        alpha=None if model.alpha is None else reward_scale * model.alpha,
    )


def _statistics(model: Model, path: Path, given: str | None) -> tuple[Statistics | None, str]:
    """The statistics to use, and words that tell of them."""
    if given == "none":
        return None, ""
    if given is not None:
        return read_statistics(Path(given)), f", normalized by {given}"
    candidates = (
        path.with_name(f"{path.stem}_vecnormalize.pkl"),
        path.with_name(path.stem) / "vecnormalize.pkl",  # as rl-baselines3-zoo keeps them
        path.with_name("vecnormalize.pkl"),
        path.with_name("vec_normalize.pkl"),
    )
    found = [candidate for candidate in candidates if candidate.is_file()]
    if model.normalized and not found:
        names = ", ".join(str(candidate) for candidate in candidates)
        raise SlipstreamError(
            f"{model.about} was trained with VecNormalize, but there are no statistics at {names}; "
            "name them with --accelerator-normalize PATH (or none, if observations were left alone)"
        )
    if found and model.normalized is not False:
        return read_statistics(found[0]), f", normalized by {found[0]}"
    return None, ""


def _normalizer(
    statistics: Statistics | None, key: str, size: int, path: Path
) -> dict[str, Tensor]:
    """The tensors of a `Normalizer` that does what the statistics say."""
    if statistics is None or statistics.mean is None or statistics.var is None:
        return {}
    if len(statistics.mean) != size:
        raise SlipstreamError(
            f"the VecNormalize statistics are of {len(statistics.mean)} components, but {path} "
            f"reads {size}; name those that belong to it with --accelerator-normalize PATH"
        )
    values = {
        "mean": statistics.mean,
        "var": np.maximum(statistics.var - 1e-8, 0),  # `Normalizer` adds that
        "count": np.float64(1),
    }
    prefix = f"inputs.normalizers.{module_name(key)}"
    return {
        f"{prefix}.{name}": torch.as_tensor(value, dtype=torch.float32)
        for name, value in values.items()
    }


def _hidden(layers: Layers) -> tuple[int, ...]:
    return tuple(len(bias) for _, bias in layers[:-1])


def _policy_weights(layers: Layers) -> dict[str, Tensor]:
    """The tensors of an `Actor` with an `MLPBackbone`."""
    named: dict[str, Tensor] = {}
    for i, (weight, bias) in enumerate(layers[:-1]):
        named[f"backbone.layers.{i}.weight"], named[f"backbone.layers.{i}.bias"] = weight, bias
    named["head.output.weight"], named["head.output.bias"] = layers[-1]
    return named


def _critic_weights(critics: list[Layers]) -> dict[str, Tensor]:
    """The tensors of a `Critic` without memory; both sides put the observation first."""
    named: dict[str, Tensor] = {}
    for i, layers in enumerate(zip(*critics, strict=True)):
        named[f"ensemble.layers.{i}.weight"] = torch.stack([weight.t() for weight, _ in layers])
        named[f"ensemble.layers.{i}.bias"] = torch.stack([bias[None] for _, bias in layers])
    return named
