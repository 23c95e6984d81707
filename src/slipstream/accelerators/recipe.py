"""What an accelerator that was brought along is built from, once and again at each resume."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from slipstream.accelerators.frozen import (
    ActionHead,
    BoxHead,
    Call,
    CalledPolicy,
    ModeHead,
    SpreadHead,
)
from slipstream.config import strict_converter
from slipstream.networks import Actor, NetworksConfig, build_backbone, build_critic
from slipstream.networks.heads import HEADS
from slipstream.networks.inputs import Inputs, normalizers_of
from slipstream.spec import EnvSpec
from slipstream.stages.accelerate import Brought
from slipstream.stages.learners import frozen_copy
from slipstream.stages.shared_encoder import share_encoder

Output = Literal["own", "mode", "spread"]


@dataclass(frozen=True)
class Recipe:
    """The networks of a brought policy, without their weights.

    Attributes:
        about: what it is, for messages.
        network: a kind of BACKBONES, or a policy that is called: "onnx" or "python".
        place: for "python", the import path.
        head: one of HEADS, "box" (the mean in the environment's units), or "action" where the
            network gives actions itself.
        output: what is made of it: "own" leaves it; "mode" and "spread" are for frozen policies
            whose head is not the algorithm's (see `ModeHead` and `SpreadHead`).
        std: of "spread".
        keys: the observations that the policy reads.
        clip: bound of the policy's normalized observations; None for observations as they are.
        learns: whether it goes on learning.
        networks: sizes of policy and critics.
        critic_keys: the observations that its critics read; None if it comes without.
        critic_clip: as `clip`, for the critics: a policy cloned from a normalized one may see
            observations as they are where the critics that it inherited do not.
        critic_layer_norm: whether they have LayerNorm.
        alpha: SAC's temperature that it was trained with last, or None.
        data_rows: rows of replay for the data that it is to be cloned from first; 0 for a policy.
    """

    about: str
    network: str
    head: str
    keys: tuple[str, ...]
    place: str = ""
    output: Output = "own"
    std: float = 0.0
    clip: float | None = None
    learns: bool = False
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    critic_keys: tuple[str, ...] | None = None
    critic_clip: float | None = None
    critic_layer_norm: bool = False
    alpha: float | None = None
    data_rows: int = 0


@dataclass(frozen=True)
class Weights:
    """Tensors by name, of the actor, the critics and their targets, as `assemble` names them."""

    actor: Mapping[str, Tensor]
    critic: Mapping[str, Tensor] | None = None
    critic_target: Mapping[str, Tensor] | None = None


def assemble(
    recipe: Recipe,
    spec: EnvSpec,
    device: str,
    weights: Weights | None = None,
    call: Call | None = None,
    model: np.ndarray | None = None,
) -> Brought:
    """Build the networks.

    Args:
        recipe: which.
        spec: of the run's environment.
        device: where they go.
        weights: what to fill them with; None leaves them random, to be loaded later.
        call: the function of a policy that is called.
        model: bytes to keep beside the recipe, (num_bytes,) uint8 (the ONNX file).

    Raises:
        RuntimeError: the weights do not fit the recipe.
    """
    normalizers = normalizers_of(spec.obs, recipe.keys, recipe.clip)
    inputs = Inputs(spec.obs, recipe.keys, normalizers, recipe.networks.cnn)
    if call is not None:
        backbone = CalledPolicy(call, recipe.about, spec)
    else:
        backbone = build_backbone(recipe.network, recipe.networks, inputs.size)
    actor = Actor(inputs, backbone, _head(recipe, backbone.feature_size, spec))
    critic = critic_target = None
    if recipe.critic_keys is not None:
        shared = normalizers if recipe.critic_clip == recipe.clip else {}
        normalizers = normalizers_of(spec.obs, recipe.critic_keys, recipe.critic_clip) | shared
        critic = build_critic(
            spec, recipe.critic_keys, recipe.networks, recipe.critic_layer_norm, normalizers
        ).to(device)
        critic_target = frozen_copy(critic)
        if recipe.learns and recipe.networks.share_encoder:
            share_encoder(actor, critic)
    if weights is not None:
        actor.load_state_dict(weights.actor)
        if critic is not None and critic_target is not None:
            critic.load_state_dict(weights.critic or {})
            critic_target.load_state_dict(weights.critic_target or {})
    if recipe.output == "mode":
        actor.head = ModeHead(actor.head)
    elif recipe.output == "spread":
        actor.head = SpreadHead(actor.head, recipe.std)
    actor.to(device).requires_grad_(recipe.learns)
    kept = {"recipe": dataclasses.asdict(recipe), "model": model}
    return Brought(
        recipe.about,
        actor,
        recipe.learns,
        critic,
        critic_target,
        recipe.alpha,
        kept,
        recipe.data_rows,
    )


def read_recipe(kept: Mapping[str, Any]) -> Recipe:
    """The recipe in what `assemble` kept of it."""
    return strict_converter().structure(kept["recipe"], Recipe)


def _head(recipe: Recipe, feature_size: int, spec: EnvSpec) -> nn.Module:
    if recipe.head == "action":
        return ActionHead()
    if recipe.head == "box":
        return BoxHead(feature_size, spec)
    return HEADS[recipe.head](feature_size, spec.action_dim)
