"""A small team on an environment, as a run would build it."""

from dataclasses import replace

import torch

from slipstream.envs.making import make_env
from slipstream.networks import NetworksConfig
from slipstream.networks.critic import CriticConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.replay import Placement
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.interact import Interaction
from slipstream.stages.learners import AlgorithmsConfig
from slipstream.stages.online import OnlineConfig
from slipstream.stages.rehearsal import DataConfig
from slipstream.stages.stage import Stage
from slipstream.stages.team import Team, TeamConfig

CONFIG = TeamConfig(
    seed=0,
    num_envs=1,
    normalize_obs=False,
    algorithm="sac",
    has_online=True,
    kinds={"accelerator": "mlp", "transformer": "transformer"},
    privileged=(),
    batch_size=16,
    networks=NetworksConfig(
        mlp=MLPConfig((16,)),
        transformer=TransformerConfig(d_model=8, d_ff=8),
        critic=CriticConfig(hidden=(16,)),
    ),
    algorithms=AlgorithmsConfig(),
    cloning=CloningConfig(batch_size=16, burst=2, lr=3e-3),
    accelerate=AccelerateConfig(replay_capacity=500),
    data=DataConfig(),
    online=OnlineConfig(replay_capacity=50),
    device="cpu",
    placement=Placement(),
)


def make_team(env_id="slipstream/ProbeMemory-v0", **fields) -> tuple[Team, Interaction, Stage]:
    """A team in its first stage, after 30 steps of that stage."""
    config = replace(CONFIG, **fields)
    torch.manual_seed(config.seed)
    env = make_env(env_id, num_envs=config.num_envs)
    team = Team(config, env.spec, lambda: make_env(env_id))
    stage = team.enter("accelerate" if "accelerator" in config.kinds else "online")
    interaction = Interaction(env, team.replay, team.normalizers)
    interaction.begin(stage.collector, seed=0)
    for _ in range(30):
        interaction.step(stage.collector, stage.learner.explore)
    return team, interaction, stage
