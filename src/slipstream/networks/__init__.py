"""Networks: a policy or critic is an input, a backbone with or without memory, and a head."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipstream.errors import SlipstreamError
from slipstream.networks.actor import Actor
from slipstream.networks.critic import Critic, CriticConfig
from slipstream.networks.heads import HEADS
from slipstream.networks.inputs import Normalizer, StateInput
from slipstream.networks.mlp import MLPBackbone, MLPConfig
from slipstream.networks.transformer import TransformerBackbone, TransformerConfig
from slipstream.spec import EnvSpec


@dataclass(frozen=True)
class NetworksConfig:
    """Sizes of every kind of network; a run reads those it uses."""

    mlp: MLPConfig = field(default_factory=MLPConfig)
    """The MLP policy."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    """The transformer policy (and the memory of a critic that has one)."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The twin critics."""


BACKBONES = {"mlp": MLPBackbone, "transformer": TransformerBackbone}
"""Kind -> class; each is built from the NetworksConfig field of the same name."""


def build_actor(
    kind: str, head: str, spec: EnvSpec, config: NetworksConfig, normalizer: Normalizer | None
) -> Actor:
    """A policy whose backbone is `kind` (BACKBONES) and whose head is `head` (HEADS).

    Raises:
        SlipstreamError: no such backbone.
    """
    if kind not in BACKBONES:
        raise SlipstreamError(
            f"there is no '{kind}' policy network; choose one of {', '.join(BACKBONES)}"
        )
    inputs = StateInput(spec.obs, _vector_keys(spec.obs), normalizer)
    backbone = BACKBONES[kind](getattr(config, kind), inputs.size)
    return Actor(inputs, backbone, HEADS[head](backbone.feature_size, spec.action_dim))


def build_critic(
    spec: EnvSpec, config: NetworksConfig, layer_norm: bool, normalizer: Normalizer | None
) -> Critic:
    """Twin critics; `layer_norm` is the algorithm's default where the config leaves it open."""
    inputs = StateInput(spec.obs, _vector_keys(spec.obs), normalizer)
    memory = None
    if config.critic.memory == "transformer":
        memory = TransformerBackbone(config.transformer, inputs.size)
    chosen = config.critic.layer_norm
    return Critic(
        inputs, memory, spec.action_dim, config.critic, layer_norm if chosen is None else chosen
    )


def _vector_keys(obs_spec: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(obs_spec)
