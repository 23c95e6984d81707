"""Starting points for tasks whose state, or some of it, is seen."""

from dataclasses import replace

from slipstream.algorithms.sac import SACConfig
from slipstream.algorithms.td3 import TD3Config
from slipstream.config import EvalConfig, RunConfig
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig
from slipstream.networks import NetworksConfig
from slipstream.networks.critic import CriticConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.recurrent import RecurrentConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.presets.manipulation import suited
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.learners import AlgorithmsConfig
from slipstream.stages.online import OnlineConfig
from slipstream.stages.switch import SwitchConfig


def default(env_id: str) -> RunConfig:
    """Both stages with SAC and what measured best on MuJoCo, or ManiSkill's arms for its tasks."""
    return suited(RunConfig(env_id=env_id))


def td3(env_id: str) -> RunConfig:
    """The same with TD3 and LayerNorm in the critics."""
    return suited(RunConfig(env_id=env_id, preset="td3", algorithm="td3"))


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
    return suited(
        RunConfig(
            env_id=env_id,
            preset="scratch",
            stages=("online",),
            cloning=CloningConfig(enabled=False),
            # No guard: it protects what was handed over. A beginner's returns fall without harm,
            # and to be put back then costs what was learnt since.
            online=OnlineConfig(replay_capacity=100_000, guard_fraction=0.0),
        )
    )


def accelerator(env_id: str) -> RunConfig:
    """The baseline without stage 2: the accelerator alone, nothing cloned."""
    return suited(
        RunConfig(
            env_id=env_id,
            preset="accelerator",
            stages=("accelerate",),
            cloning=CloningConfig(enabled=False),
        )
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


def popgym(env_id: str) -> RunConfig:
    """Windows and stacks of eight, for rewards of hundredths: made for POPGym's noisy pendulum."""
    frames = 8
    return RunConfig(
        env_id=env_id,
        preset="popgym",
        total_steps=20_000,
        # Rewards are at most 1/200 a step: a temperature of 1 would rule half of the steps.
        algorithms=AlgorithmsConfig(
            sac=SACConfig(gamma=0.98, tau=0.01, actor_lr=1e-3, alpha=0.01, alpha_lr=3e-3)
        ),
        networks=NetworksConfig(
            mlp=MLPConfig(frame_stack=frames),
            transformer=TransformerConfig(context_length=frames),
            critic=CriticConfig(frame_stack=frames),
        ),
        eval=EvalConfig(every=2_000, episodes=20),
    )
