"""The settings of the paper (Zelezetsky et al. 2025, arXiv 2509.26137)."""

from dataclasses import replace

from slipstream.algorithms.sac import SACConfig
from slipstream.algorithms.td3 import TD3Config
from slipstream.config import EvalConfig, RunConfig
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig
from slipstream.networks import NetworksConfig
from slipstream.networks.cnn import CNNConfig
from slipstream.networks.critic import CriticConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.recurrent import RecurrentConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.learners import AlgorithmsConfig
from slipstream.stages.online import OnlineConfig
from slipstream.stages.switch import SwitchConfig

# What its state and its image tasks have in common.
_NETWORKS = NetworksConfig(
    mlp=MLPConfig((256, 256, 256)),
    transformer=TransformerConfig(
        context_length=3, d_model=256, n_layers=1, n_heads=2, d_ff=512, dropout=0.05
    ),
    critic=CriticConfig(hidden=(256, 256, 256), layer_norm=False),
)
_CLONING = CloningConfig(source="episodes", episodes=10, episodes_every=3_000)
_SWITCH = SwitchConfig(rule="at_step", latest=0.5)
_ONLINE = OnlineConfig(replay_capacity=20_000)


def paper_mdp_td3(env_id: str) -> RunConfig:
    """The paper's MuJoCo settings (arXiv 2509.26137 and its first code release), traps mended.

    Mended: time limits bootstrap, the first steps of an episode are learnt from, cloning episodes
    are counted, target networks are hard-copied at the switch, exploration stays on in stage 2,
    and cloning runs until its batches are through rather than for a few updates.
    """
    return RunConfig(
        env_id=env_id,
        preset="paper/mdp-td3",
        algorithm="td3",
        total_steps=1_000_000,
        batch_size=256,
        learning_starts=25_000,
        algorithms=AlgorithmsConfig(td3=TD3Config(actor_lr=3e-4, critic_lr=3e-4)),
        networks=_NETWORKS,
        cloning=_CLONING,
        switch=_SWITCH,
        accelerate=AccelerateConfig(replay_capacity=1_000_000),
        online=_ONLINE,
        eval=EvalConfig(every=10_000, episodes=10),
        checkpoint_every=50_000,
    )


def paper_mdp_sac(env_id: str) -> RunConfig:
    """The paper's networks and cloning with SAC."""
    return replace(
        paper_mdp_td3(env_id),
        preset="paper/mdp-sac",
        algorithm="sac",
        algorithms=AlgorithmsConfig(sac=SACConfig(actor_lr=3e-4, critic_lr=3e-4)),
    )


def paper_pomdp_td3(env_id: str) -> RunConfig:
    """The paper's partially observed MuJoCo tasks: its masks, an LSTM first, ten frames."""
    config = paper_mdp_td3(env_id)
    transformer = replace(config.networks.transformer, context_length=10)
    return replace(
        config,
        preset="paper/pomdp-td3",
        accelerator="lstm",
        env=EnvConfig(observe=ObservationConfig(mask="paper"), differences=False),
        networks=replace(
            config.networks,
            transformer=transformer,
            recurrent=RecurrentConfig(embed_size=256, hidden_size=256, context_length=10),
        ),
    )


def paper_image_sac(env_id: str) -> RunConfig:
    """The paper's ManiSkill settings on images (arXiv 2509.26137 and its code), traps mended.

    Mended: as in `paper_mdp_td3`, and a policy acts on the true window that it learns from, where
    the paper's repeats the present frame. The encoder has the paper's widths and kernels, but
    halves images by strides, which costs far less than pooling after each convolution.
    """
    return RunConfig(
        env_id=env_id,
        preset="paper/image-sac",
        total_steps=1_000_000,
        batch_size=512,
        utd_ratio=0.25,
        learning_starts=4_000,
        algorithms=AlgorithmsConfig(
            sac=SACConfig(gamma=0.8, tau=0.01, actor_lr=3e-4, critic_lr=3e-4)
        ),
        networks=replace(
            _NETWORKS,
            cnn=CNNConfig(
                channels=(16, 32, 64, 64, 64),
                kernels=(3, 3, 3, 3, 1),
                strides=(2, 2, 2, 2, 1),
                embed_size=256,
                shift=0,
            ),
        ),
        env=EnvConfig(obs="rgb+state", num_envs=16),
        cloning=_CLONING,
        switch=_SWITCH,
        accelerate=AccelerateConfig(replay_capacity=100_000),
        online=_ONLINE,
        eval=EvalConfig(every=20_000, episodes=16),
        checkpoint_every=100_000,
    )
