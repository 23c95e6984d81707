"""Networks: a policy or critic is an input, a backbone with or without memory, and a head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slipstream.errors import SlipstreamError
from slipstream.networks.actor import Actor
from slipstream.networks.cnn import CNNConfig
from slipstream.networks.critic import Critic, CriticConfig
from slipstream.networks.heads import HEADS
from slipstream.networks.inputs import Inputs, Normalizer
from slipstream.networks.memory import Backbone
from slipstream.networks.mlp import FrameStack, MLPBackbone, MLPConfig
from slipstream.networks.recurrent import GRUBackbone, LSTMBackbone, RecurrentConfig
from slipstream.networks.transformer import TransformerBackbone, TransformerConfig
from slipstream.settings import Settings
from slipstream.spec import EnvSpec

Normalizers = Mapping[str, Normalizer]
"""Observation key -> its running statistics; empty where a run does not normalize."""


@dataclass(frozen=True)
class NetworksConfig(Settings, section="networks"):
    """Sizes of every kind of network; a run reads those it uses."""

    mlp: MLPConfig = field(default_factory=MLPConfig)
    """The MLP policy."""
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    """The LSTM and GRU policies (and the memory of a critic that has one)."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    """The transformer policy (and the memory of a critic that has one)."""
    cnn: CNNConfig = field(default_factory=CNNConfig)
    """The encoder that goes before any of them where an observation is an image."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The twin critics."""
    share_encoder: bool = True
    """Where the first policy of a run and its critics read the same images: one encoder for both,
    and for a transformer that is cloned from it, moved by the critics' loss alone."""
    share_memory: bool = False
    """One memory for the first policy of a run and its critics (critic.memory of the policy's
    kind), moved by the critics' loss alone: cheaper. By default each has its own."""


def common_context(networks: Sequence[Actor | Critic], loss_steps: int) -> int:
    """Steps that a window needs so that all these networks can be trained on its last steps.

    Each of the `loss_steps` last steps needs as much before it as the network that reads furthest
    back needs before its own first step that counts.
    """
    return max(each.context_length - each.loss_steps for each in networks) + loss_steps


def common_loss_steps(network: Actor | Critic, segment: int) -> int:
    """Trailing steps of a window that a network is trained on.

    One that encodes images learns from `segment` consecutive steps at once, so that an image is
    encoded once for all the steps that look at it.
    """
    encodes = any(parameter.requires_grad for parameter in network.inputs.encoders.parameters())
    return max(network.loss_steps, segment if encodes else 1)


BACKBONES = {
    "mlp": (MLPBackbone, "mlp"),
    "lstm": (LSTMBackbone, "recurrent"),
    "gru": (GRUBackbone, "recurrent"),
    "transformer": (TransformerBackbone, "transformer"),
}
"""Kind -> class, and the field of NetworksConfig that it is built from."""


def build_backbone(kind: str, config: NetworksConfig, input_size: int) -> Backbone:
    """A network over frames of `input_size` components.

    Raises:
        SlipstreamError: no such kind.
    """
    if kind not in BACKBONES:
        raise SlipstreamError(f"there is no '{kind}' network; choose one of {', '.join(BACKBONES)}")
    backbone_class, field_name = BACKBONES[kind]
    return backbone_class(getattr(config, field_name), input_size)


def build_actor(
    kind: str,
    head: str,
    spec: EnvSpec,
    keys: Sequence[str],
    config: NetworksConfig,
    normalizers: Normalizers,
) -> Actor:
    """A policy that reads the observations `keys`, with a backbone (BACKBONES) and head (HEADS).

    Raises:
        SlipstreamError: no such backbone, or no such key.
    """
    inputs = Inputs(spec.obs, keys, normalizers, config.cnn)
    backbone = build_backbone(kind, config, inputs.size)
    return Actor(inputs, backbone, HEADS[head](backbone.feature_size, spec.action_dim))


def build_critic(
    spec: EnvSpec,
    keys: Sequence[str],
    config: NetworksConfig,
    layer_norm: bool,
    normalizers: Normalizers,
) -> Critic:
    """Twin critics; `layer_norm` is the algorithm's default where the config leaves it open."""
    inputs = Inputs(spec.obs, keys, normalizers, config.cnn)
    if config.critic.memory == "none":
        memory = FrameStack(config.critic.frame_stack or 1, inputs.size)
    else:
        memory = build_backbone(config.critic.memory, config, inputs.size)
    chosen = config.critic.layer_norm
    return Critic(
        inputs, memory, spec.action_dim, config.critic, layer_norm if chosen is None else chosen
    )
