"""Small policies of every kind, and the sizes they are tested at."""

import torch

from slipstream.networks import BACKBONES, NetworksConfig, Normalizer, build_actor
from slipstream.networks.actor import Actor
from slipstream.networks.critic import CriticConfig
from slipstream.networks.mlp import MLPConfig
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
    **{f"{kind}-default": (kind, NetworksConfig()) for kind in BACKBONES},
}


def policy(name: str, head: str = "deterministic", normalizer: Normalizer | None = None) -> Actor:
    """One of POLICIES, with weights large enough that its inputs matter."""
    kind, config = POLICIES[name]
    torch.manual_seed(0)
    actor = build_actor(kind, head, SPEC, config, normalizer)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return actor


def critic_config(**fields) -> NetworksConfig:
    return NetworksConfig(
        transformer=TRANSFORMERS["transformer-c3-l2-residual"],
        critic=CriticConfig(hidden=(16, 16), **fields),
    )
