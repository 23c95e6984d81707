"""Policies as they are loaded from a run, without a run."""

import dataclasses
from typing import NamedTuple

import torch

from slipstream.config import RunConfig
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig, open_env
from slipstream.networks import BACKBONES, NetworksConfig, Normalizer, build_actor
from slipstream.networks.cnn import CNNConfig
from slipstream.networks.inputs import CLIP, normalizers_of
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.recurrent import RecurrentConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.policies.policy import Policy, describe_policy
from slipstream.spec import ArraySpec, EnvSpec
from slipstream.stages.learners import algorithm_class


class Kind(NamedTuple):
    kind: str
    algorithm: str
    normalize: bool
    networks: NetworksConfig = NetworksConfig()
    env: EnvConfig = EnvConfig()  # what it sees


def _transformer(**fields) -> NetworksConfig:
    return NetworksConfig(transformer=TransformerConfig(d_model=8, d_ff=8, **fields))


NAMED = {
    "mlp": Kind("mlp", "td3", False, NetworksConfig(mlp=MLPConfig((16, 8)))),
    "mlp-stack": Kind("mlp", "sac", True, NetworksConfig(mlp=MLPConfig((16,), frame_stack=3))),
    "lstm": Kind("lstm", "td3", True, NetworksConfig(recurrent=RecurrentConfig(8, 8, n_layers=2))),
    "gru": Kind("gru", "sac", False, NetworksConfig(recurrent=RecurrentConfig(8, 8))),
    "transformer": Kind("transformer", "sac", True, _transformer(context_length=3, n_layers=2)),
    "transformer-keys": Kind(
        "transformer",
        "td3",
        True,
        _transformer(context_length=3, position="rotary", gate="gru"),
        EnvConfig(prev_action=True, prev_reward=True),
    ),
    "lstm-differences": Kind(
        "lstm",
        "sac",
        False,
        NetworksConfig(recurrent=RecurrentConfig(8, 8)),
        EnvConfig(observe=ObservationConfig(mask="0-1"), differences=True, prev_action=True),
    ),
    "transformer-masked": Kind(
        "transformer",
        "sac",
        True,
        _transformer(context_length=3, n_layers=2),
        EnvConfig(observe=ObservationConfig(mask="0-1")),
    ),
}

IMAGES = Kind(
    "transformer",
    "sac",
    True,
    dataclasses.replace(
        _transformer(context_length=3, n_layers=2),
        cnn=CNNConfig((4, 4), (4, 2), (2, 1), embed_size=6),
    ),
    EnvConfig(obs="rgb+state", image_size=16, observe=ObservationConfig(mask="positions")),
)
"""A CNN in front of a transformer that sees the positions, too; needs MuJoCo and OpenGL."""

# A new backbone is tested at its default sizes without being named here.
_named_kinds = {each.kind for each in NAMED.values()}
KINDS = NAMED | {kind: Kind(kind, "sac", True) for kind in BACKBONES if kind not in _named_kinds}


def seeing() -> Policy:
    """A transformer that reads a 12 x 12 image and a normalized vector, of no environment."""
    obs = {"rgb": ArraySpec((12, 12, 3), "uint8"), "state": ArraySpec((4,))}
    spec = EnvSpec("Seeing-v0", obs, (-2.0,), (2.0,))
    networks = dataclasses.replace(
        _transformer(context_length=2), cnn=CNNConfig((4, 4), (4, 2), (2, 1), embed_size=6)
    )
    env = EnvConfig(normalize_obs=True)
    torch.manual_seed(0)
    normalizers = {"state": Normalizer(4)}
    normalizers["state"].observe(torch.randn(50, 4) * 3 + 1)
    head = algorithm_class("sac").head
    actor = build_actor("transformer", head, spec, tuple(obs), networks, normalizers)
    config = RunConfig("Seeing-v0", networks=networks, env=env)
    described = describe_policy(config, spec, "transformer", tuple(obs))
    return Policy(actor.eval().requires_grad_(False), spec, env, described)


def live(
    name: str | Kind, env_id: str = "Pendulum-v1", max_episode_steps: int | None = None
) -> Policy:
    """One of KINDS with random weights, large enough that its inputs matter."""
    kind = KINDS[name] if isinstance(name, str) else name
    env = dataclasses.replace(
        kind.env, normalize_obs=kind.normalize, max_episode_steps=max_episode_steps
    )
    opened = open_env(env_id, env, 1)
    opened.close()
    spec = opened.spec
    torch.manual_seed(0)
    normalizers = normalizers_of(spec.obs, spec.obs, CLIP if kind.normalize else None)
    for normalizer in normalizers.values():
        size = len(normalizer.mean)
        normalizer.observe(torch.randn(50, size) * (1 + torch.arange(size)) + 1)
    head = algorithm_class(kind.algorithm).head
    actor = build_actor(kind.kind, head, spec, tuple(spec.obs), kind.networks, normalizers)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    config = RunConfig(
        env_id,
        algorithm=kind.algorithm,
        transformer=kind.kind,
        networks=kind.networks,
        env=dataclasses.replace(env, num_envs=1),
    )
    described = describe_policy(config, spec, "transformer", tuple(spec.obs))
    return Policy(actor.eval().requires_grad_(False), spec, env, described)
