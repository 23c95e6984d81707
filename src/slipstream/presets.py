"""Named starting points for a run: each is a function from an env id to a configuration."""

from collections.abc import Callable
from dataclasses import replace

from slipstream.algorithms.sac import SACConfig
from slipstream.algorithms.td3 import TD3Config
from slipstream.config import EvalConfig, RunConfig
from slipstream.envs.film import VideoConfig
from slipstream.envs.keyword_flags import Scalar
from slipstream.envs.maniskill.tasks import is_maniskill, is_tabletop_arm
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig
from slipstream.errors import SlipstreamError
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

Preset = Callable[[str], RunConfig]


def default(env_id: str) -> RunConfig:
    """Both stages with SAC and the settings that measured best on MuJoCo."""
    return RunConfig(env_id=env_id)


def td3(env_id: str) -> RunConfig:
    """The same with TD3 and LayerNorm in the critics."""
    return RunConfig(env_id=env_id, preset="td3", algorithm="td3")


def demo(env_id: str) -> RunConfig:
    """Both stages in a few minutes on one core: made for HalfCheetah-v5."""
    return RunConfig(
        env_id=env_id,
        preset="demo",
        total_steps=30_000,
        eval=EvalConfig(every=3_000, episodes=5),
        checkpoint_every=15_000,
    )


def scratch(env_id: str) -> RunConfig:
    """The baseline without stage 1: a transformer from scratch, with stage 1's large replay."""
    return RunConfig(
        env_id=env_id,
        preset="scratch",
        stages=("online",),
        cloning=CloningConfig(enabled=False),
        # No guard: it protects what was handed over. A beginner's returns fall without harm, and to
        # be put back then costs what was learnt since.
        online=OnlineConfig(replay_capacity=100_000, guard_fraction=0.0),
    )


def accelerator(env_id: str) -> RunConfig:
    """The baseline without stage 2: the accelerator alone, nothing cloned."""
    return RunConfig(
        env_id=env_id,
        preset="accelerator",
        stages=("accelerate",),
        cloning=CloningConfig(enabled=False),
    )


def pomdp(env_id: str) -> RunConfig:
    """Both stages with the velocities hidden: stacked frames first, made for MuJoCo ids."""
    return RunConfig(env_id=env_id, preset="pomdp", env=hidden_velocities())


def lstm(env_id: str) -> RunConfig:
    """The same with an LSTM as accelerator."""
    return replace(pomdp(env_id), preset="lstm", accelerator="lstm")


def privileged(env_id: str) -> RunConfig:
    """The same, taught by an accelerator and critic that see all while the transformer does not."""
    return replace(pomdp(env_id), preset="privileged", privileged=("accelerator", "critic"))


def hidden_velocities() -> EnvConfig:
    """Environments that show the policy positions alone."""
    return EnvConfig(observe=ObservationConfig(mask="positions"))


def quick(env_id: str) -> RunConfig:
    """From images in minutes on one core, taught by an accelerator that sees the state."""
    config = RunConfig(
        env_id=env_id,
        preset="quick",
        privileged=("accelerator", "critic"),
        # Nothing is cloned before it is needed: rendering and encoding are what costs here.
        cloning=CloningConfig(every=0, burst=1_200, own_episodes=3),
        switch=SwitchConfig(rule="at_step", latest=0.7),
        total_steps=40_000,
        env=EnvConfig(obs="rgb"),
        accelerate=AccelerateConfig(replay_capacity=50_000),
        online=OnlineConfig(eval_every=3_000),
        eval=EvalConfig(every=7_000, episodes=3),
        video=VideoConfig(enabled=True, when=("end",)),
    )
    return _quick_manipulation(config) if is_maniskill(env_id) else config


def _quick_manipulation(config: RunConfig) -> RunConfig:
    """The same for ManiSkill, whose images cost ten times as much, and whose steps are dear too."""
    # Displacements of the tool rather than of seven joints: three times the time of a step, but on
    # PullCube a third of the steps, where by joints most runs only learnt to reach.
    arm = is_tabletop_arm(config.env_id)
    kwargs: dict[str, Scalar] = {"control_mode": "pd_ee_delta_pos"} if arm else {}
    return replace(
        config,
        total_steps=24_000,
        utd_ratio=0.25,
        env=EnvConfig(obs="rgb+state", normalize_obs=True, kwargs=kwargs),
        # With UTD .25 a temperature of .2 took half of the steps to come down to these rewards.
        algorithms=AlgorithmsConfig(sac=SACConfig(gamma=0.8, tau=0.01, alpha=0.02)),
        cloning=replace(config.cloning, burst=1_000, own_episodes=20, frames=5_000),
        switch=SwitchConfig(rule="at_step", latest=0.8),
        # Stage 2 takes along the rows that were rendered to be cloned from.
        online=OnlineConfig(utd_ratio=0.5, carry_rows=5_000, eval_every=1_000),
        eval=EvalConfig(every=10_000, episodes=20),
    )


def cnn(env_id: str) -> RunConfig:
    """From images alone, a CNN first: encoder shared with the critics, random shifts (DrQ-v2)."""
    return RunConfig(
        env_id=env_id,
        preset="cnn",
        utd_ratio=0.5,
        env=EnvConfig(obs="rgb"),
        cloning=CloningConfig(every=0, burst=1_000),
        # A frame is 12 KiB: 50,000 of them are 615 MB.
        accelerate=AccelerateConfig(replay_capacity=50_000),
        eval=EvalConfig(every=10_000, episodes=5),
    )


def memory_probe(env_id: str) -> RunConfig:
    """A cue to be remembered over a corridor: made for slipstream/ProbeMemory-v0."""
    context = 16
    return RunConfig(
        env_id=env_id,
        preset="memory-probe",
        accelerator="gru",
        total_steps=12_000,
        learning_starts=500,
        algorithms=AlgorithmsConfig(sac=SACConfig(gamma=0.95, actor_lr=1e-3)),
        networks=NetworksConfig(
            recurrent=RecurrentConfig(context_length=context, burn_in=0),
            transformer=TransformerConfig(context_length=context, d_model=32, d_ff=64),
            critic=CriticConfig(memory="gru", hidden=(64, 64)),
        ),
        eval=EvalConfig(every=1_000, episodes=20),
        env=EnvConfig(kwargs={"delay": 10}),
    )


def pendulum(env_id: str) -> RunConfig:
    """Both stages in seconds, for trying things out: made for Pendulum-v1."""
    return RunConfig(
        env_id=env_id,
        preset="pendulum",
        algorithm="td3",
        total_steps=9_000,
        learning_starts=1_000,
        algorithms=AlgorithmsConfig(td3=TD3Config(gamma=0.98, tau=0.01, actor_lr=1e-3)),
        networks=NetworksConfig(
            mlp=MLPConfig((64, 64)),
            transformer=TransformerConfig(d_model=32, d_ff=64),
            critic=CriticConfig(hidden=(64, 64)),
        ),
        eval=EvalConfig(every=1_000, episodes=10),
        cloning=CloningConfig(burst=300),
        switch=SwitchConfig(earliest=0.4, latest=0.78),
        checkpoint_every=3_000,
    )


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
        networks=NetworksConfig(
            mlp=MLPConfig((256, 256, 256)),
            transformer=TransformerConfig(
                context_length=3, d_model=256, n_layers=1, n_heads=2, d_ff=512, dropout=0.05
            ),
            critic=CriticConfig(hidden=(256, 256, 256), layer_norm=False),
        ),
        cloning=CloningConfig(source="episodes", episodes=10, episodes_every=3_000),
        switch=SwitchConfig(rule="at_step", latest=0.5),
        accelerate=AccelerateConfig(replay_capacity=1_000_000),
        online=OnlineConfig(replay_capacity=20_000),
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
        env=EnvConfig(observe=ObservationConfig(mask="paper")),
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
        networks=NetworksConfig(
            mlp=MLPConfig((256, 256, 256)),
            transformer=TransformerConfig(
                context_length=3, d_model=256, n_layers=1, n_heads=2, d_ff=512, dropout=0.05
            ),
            critic=CriticConfig(hidden=(256, 256, 256), layer_norm=False),
            cnn=CNNConfig(
                channels=(16, 32, 64, 64, 64),
                kernels=(3, 3, 3, 3, 1),
                strides=(2, 2, 2, 2, 1),
                embed_size=256,
                shift=0,
            ),
        ),
        env=EnvConfig(obs="rgb+state", num_envs=16),
        cloning=CloningConfig(source="episodes", episodes=10, episodes_every=3_000),
        switch=SwitchConfig(rule="at_step", latest=0.5),
        accelerate=AccelerateConfig(replay_capacity=100_000),
        online=OnlineConfig(replay_capacity=20_000),
        eval=EvalConfig(every=20_000, episodes=16),
        checkpoint_every=100_000,
    )


PRESETS: dict[str, Preset] = {
    "default": default,
    "td3": td3,
    "demo": demo,
    "scratch": scratch,
    "accelerator": accelerator,
    "pomdp": pomdp,
    "lstm": lstm,
    "privileged": privileged,
    "quick": quick,
    "cnn": cnn,
    "memory-probe": memory_probe,
    "pendulum": pendulum,
    "paper/mdp-td3": paper_mdp_td3,
    "paper/mdp-sac": paper_mdp_sac,
    "paper/pomdp-td3": paper_pomdp_td3,
    "paper/image-sac": paper_image_sac,
}
"""Name on the command line -> function of the env id."""


def preset(name: str, env_id: str) -> RunConfig:
    """The configuration that a preset gives for an environment.

    Raises:
        SlipstreamError: no such preset.
    """
    if name not in PRESETS:
        raise SlipstreamError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name](env_id)
