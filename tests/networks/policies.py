"""Small policies of every kind, and the sizes they are tested at."""

from collections.abc import Mapping

import torch

from slipstream.networks import BACKBONES, NetworksConfig, Normalizer, build_actor, build_critic
from slipstream.networks.actor import Actor
from slipstream.networks.critic import Critic, CriticConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.recurrent import RecurrentConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.spec import ArraySpec, EnvSpec

OBS_DIM, ACTION_DIM = 4, 2
SPEC = EnvSpec("test", {"state": ArraySpec((OBS_DIM,))}, (-1.0,) * ACTION_DIM, (1.0,) * ACTION_DIM)

TRANSFORMERS = {
    f"transformer-c{context}-l{layers}-{gate}": TransformerConfig(
        context_length=context, d_model=16, n_layers=layers, n_heads=2, d_ff=24, gate=gate
    )
    for context in (1, 3, 10)
    for layers in (1, 2)
    for gate in ("residual", "gru")
}

# A new backbone is tested at its default sizes without being named here.
POLICIES: dict[str, tuple[str, NetworksConfig]] = {
    **{
        name: ("transformer", NetworksConfig(transformer=config))
        for name, config in TRANSFORMERS.items()
    },
    "mlp": ("mlp", NetworksConfig(mlp=MLPConfig((16, 16)))),
    "mlp-stack3": ("mlp", NetworksConfig(mlp=MLPConfig((16, 16), frame_stack=3))),
    "transformer-rotary": (
        "transformer",
        NetworksConfig(
            transformer=TransformerConfig(
                context_length=5, d_model=16, n_layers=2, d_ff=24, position="rotary"
            )
        ),
    ),
    "lstm-l2": ("lstm", NetworksConfig(recurrent=RecurrentConfig(hidden_size=12, n_layers=2))),
    **{f"{kind}-default": (kind, NetworksConfig()) for kind in BACKBONES},
}


def actor_of(
    kind: str,
    config: NetworksConfig,
    head: str = "deterministic",
    spec: EnvSpec = SPEC,
    normalizers: Mapping[str, Normalizer] | None = None,
) -> Actor:
    """A policy that reads every observation."""
    return build_actor(kind, head, spec, tuple(spec.obs), config, normalizers or {})


def critic_of(
    config: NetworksConfig,
    layer_norm: bool = False,
    spec: EnvSpec = SPEC,
    normalizers: Mapping[str, Normalizer] | None = None,
) -> Critic:
    """Critics that read every observation."""
    return build_critic(spec, tuple(spec.obs), config, layer_norm, normalizers or {})


def policy(name: str, head: str = "deterministic", normalizer: Normalizer | None = None) -> Actor:
    """One of POLICIES, with weights large enough that its inputs matter."""
    kind, config = POLICIES[name]
    torch.manual_seed(0)
    actor = actor_of(
        kind, config, head, normalizers={} if normalizer is None else {"state": normalizer}
    )
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return actor


def critic_config(**fields) -> NetworksConfig:
    return NetworksConfig(
        transformer=TRANSFORMERS["transformer-c3-l2-residual"],
        critic=CriticConfig(hidden=(16, 16), **fields),
    )
