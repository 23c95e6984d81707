"""What belongs to a run rather than to a stage: named actors, critics, replay, normalizers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.networks import (
    Actor,
    NetworksConfig,
    build_actor,
    build_critic,
    common_context,
    common_loss_steps,
)
from slipstream.networks.inputs import clip_of, normalizers_of
from slipstream.replay import Placement, ReplayBuffer
from slipstream.replay.episodes import Episodes, fill
from slipstream.replay.placement import describe
from slipstream.spec import PRIVILEGED, SIM_STATE, EnvSpec
from slipstream.stages.accelerate import AccelerateConfig, Brought
from slipstream.stages.embedding import Embedder, kept, keys_read
from slipstream.stages.frames import Frames, SingleEnv
from slipstream.stages.imitation import CloningConfig, Imitation
from slipstream.stages.learners import (
    AlgorithmsConfig,
    algorithm_class,
    build_learner,
    frozen_copy,
)
from slipstream.stages.memory import Holding, Name, embedded, images_of, place, say
from slipstream.stages.online import OnlineConfig
from slipstream.stages.rehearsal import DataConfig, Rehearsal
from slipstream.stages.shared_encoder import (
    SharedEncoder,
    freeze_target,
    keep_encoder,
    share_encoder,
)
from slipstream.stages.stage import Stage


@dataclass(frozen=True)
class TeamConfig:
    """The parts of a run's configuration that its team is built from."""

    seed: int
    num_envs: int
    normalize_obs: bool
    algorithm: str
    has_online: bool
    kinds: dict[str, str]
    privileged: tuple[str, ...]
    batch_size: int
    networks: NetworksConfig
    algorithms: AlgorithmsConfig
    cloning: CloningConfig
    accelerate: AccelerateConfig
    data: DataConfig
    online: OnlineConfig
    device: str
    placement: Placement


class Team:
    """Named actors, the critics with their targets, and the replay.

    Args:
        config: sizes, roles and devices.
        spec: of the environment as the actors see it.
        make_env: makes a single environment that shows it so.
        brought: an accelerator that existed before the run.
        stored: what the environments of stage 1 show, and its replay holds: simulator states where
            images are rendered on demand; None where it is the same.

    Attributes:
        actors: "accelerator" and "transformer", those that the run has.
        critic, critic_target: the run's critics.
        normalizers: one for each observation key, shared by every network that reads it.
        replay: rows of the present stage.
        brought: the accelerator, if it existed before the run.
        embedder: makes the embeddings that the replay of stage 2 holds, or None.
    """

    def __init__(
        self,
        config: TeamConfig,
        spec: EnvSpec,
        make_env: Callable[[], VecEnv],
        brought: Brought | None = None,
        stored: EnvSpec | None = None,
    ) -> None:
        self.config = config
        self.spec = spec
        self.stored = stored or spec
        self._extra_env = SingleEnv(make_env)
        self.brought = brought
        normalizers = normalizers_of(spec.obs, spec.obs, clip_of(config.normalize_obs))
        self.normalizers = {key: each.to(config.device) for key, each in normalizers.items()}
        self.actors: dict[str, Actor] = {
            name: brought.actor
            if name == "accelerator" and brought is not None
            else self._new_actor(name, kind)
            for name, kind in config.kinds.items()
        }
        self._new_critic()
        if brought is not None and brought.critic is not None and brought.critic_target is not None:
            self.critic, self.critic_target = brought.critic, brought.critic_target
        first = self.actors.get("accelerator") or self.actors["transformer"]
        if config.networks.share_encoder:
            if brought is None:
                share_encoder(first, self.critic)
            if first.inputs.borrowed:
                # What its teacher does follows from these embeddings, so a clone can do it by them.
                share_encoder(self.actors.get("transformer", first), self.critic)
        if config.networks.share_memory:
            if first.inputs.encoders and not first.inputs.borrowed:
                raise SlipstreamError(
                    "networks.share_memory is on and networks.share_encoder off: the critics' "
                    "memory would read another encoder's embeddings; leave share_encoder on"
                )
            first.borrow_memory(self.critic.memory)
        self._kept = kept(config.online.freeze_encoder, self.actors, self.critic)
        self.holdings = self._plan()
        self.places = place(self.holdings, config.placement, torch.device(config.device))
        self.embedder: Embedder | None = None
        self.replay: ReplayBuffer

    def _keys(self, role: str) -> tuple[str, ...]:
        """The observations that the accelerator, the transformer or the critic reads."""
        if role in self.config.privileged:
            return (PRIVILEGED,)
        return tuple(key for key in self.spec.obs if key != PRIVILEGED)

    def _new_actor(self, name: str, kind: str) -> Actor:
        config = self.config
        head = algorithm_class(config.algorithm).head
        keys = self._keys(name)
        actor = build_actor(kind, head, self.spec, keys, config.networks, self.normalizers)
        return actor.to(config.device)

    def _new_critic(self) -> None:
        layer_norm = algorithm_class(self.config.algorithm).critic_layer_norm
        critic = build_critic(
            self.spec, self._keys("critic"), self.config.networks, layer_norm, self.normalizers
        )
        self.critic = critic.to(self.config.device)
        self.critic_target = frozen_copy(self.critic)

    def enter(self, name: str, before: Stage | None = None) -> Stage:
        """Build a stage; `before` is the one that hands over, None at the run's start."""
        if name == "accelerate":
            brought = self.brought
            self.replay = self._new_replay("accelerate")
            if brought is not None and brought.episodes is not None:
                self._take_in(brought.episodes)
            collector = self.actors["accelerator"]
            alpha = None if brought is None else brought.alpha
        else:
            collector, alpha = self.actors["transformer"], None
            if before is None:
                self.replay = self._new_replay("online")
            else:
                alpha = self._take_over(before)
        return self._stage(name, collector, alpha)

    def _stage(self, name: str, collector: Actor, alpha: float | None) -> Stage:
        config = self.config
        learned = (collector, self.critic)
        seen, valued = (keys_read(each, self.embedder) for each in learned)
        # It decides whose embeddings the targets read, so it goes before the learner's own targets.
        shared_encoder = SharedEncoder.of(collector, seen, self.critic, self.critic_target)
        learner = build_learner(
            config.algorithm, config.algorithms, collector, self.critic, self.critic_target, alpha
        )
        imitation = None
        if name == "accelerate" and "transformer" in self.actors:
            imitation = self._imitation(collector)
        loss_steps = max(common_loss_steps(each, config.networks.cnn.segment) for each in learned)
        stage = Stage(
            name,
            collector,
            learner,
            self.replay,
            config.batch_size,
            common_context(learned, loss_steps),
            loss_steps,
            seen | valued,
            imitation,
            random_share=0.0
            if name == "online" or self.brought is None
            else config.accelerate.random_share,
            shift=config.networks.cnn.shift,
            shared_encoder=shared_encoder,
        )
        if name == "accelerate" and self.brought is not None and self.brought.data_rows:
            stage.rehearsal = Rehearsal(
                config.data,
                config.cloning,
                collector,
                self.replay,
                stage.learn,
                config.networks.cnn.segment,
            )
        return stage

    def _take_in(self, episodes: Episodes) -> None:
        """Let the replay and the normalizers have the data that existed before the run."""
        fill(self.replay, episodes)
        for key, normalizer in self.normalizers.items():
            column = torch.as_tensor(episodes.columns[f"obs.{key}"])
            normalizer.observe(column.to(normalizer.mean.device))

    def _imitation(self, teacher: Actor) -> Imitation:
        config, frames, extra = self.config, None, ReplayBuffer(self.spec, 2)
        if "frames" in self.holdings:
            frames = Frames(self._new_replay("frames"), self._extra_env)
        if "extra" in self.holdings:
            extra = self._new_replay("extra")
        return Imitation(
            config.cloning,
            student=self.actors["transformer"],
            teacher=teacher,
            critic=self.critic,
            replay=self.replay,
            extra_env=self._extra_env,
            extra=extra,
            frames=frames,
            segment=config.networks.cnn.segment,
            seed=config.seed + 500_000,
        )

    def _take_over(self, before: Stage) -> float | None:
        """Carry over what the configuration says; returns the temperature to go on with."""
        online = self.config.online
        self.actors["accelerator"].part()  # it must not change with the critics from now on
        transformer = self.actors["transformer"]
        if not online.carry_critic:
            self._new_critic()
            if transformer.inputs.borrowed:
                keep_encoder(transformer, self.critic, self.critic_target)
        frames = None if before.imitation is None else before.imitation.frames
        derive = None if frames is None else frames.render
        if self._kept != "images":
            self.embedder = Embedder(transformer, frames, beside=self._kept == "both")
            derive = self.embedder.derive
            if transformer.inputs.borrowed:
                freeze_target(self.critic, self.critic_target)
        old = self.replay
        self.replay = self._new_replay("online")
        newest = self.replay.newest_that_fit(old, online.carry_rows)
        if frames is None or derive is None:
            self.replay.append(old, newest, derive=derive)
        else:
            frames.hand_over(old, self.replay, newest, derive)
        return _alpha(before) if online.carry_alpha else None

    def _plan(self) -> dict[Name, Holding]:
        """Every replay of the run."""
        config, cloning = self.config, self.config.cloning
        holdings: dict[Name, Holding] = {}
        if "accelerator" in config.kinds:
            capacity = config.accelerate.replay_capacity
            data_rows = 0 if self.brought is None else self.brought.data_rows
            holdings["accelerate"] = Holding(self.stored, capacity + data_rows, config.num_envs)
            if "transformer" in config.kinds:
                if images_of(self.spec):
                    capacity = min(cloning.frames, capacity)
                if SIM_STATE in self.stored.obs:
                    holdings["frames"] = Holding(self.spec, capacity, config.num_envs)
                if cloning.source == "episodes" or cloning.own_episodes:
                    holdings["extra"] = Holding(self.spec, capacity)
        if config.has_online:
            spec = self.spec
            if self._kept != "images":
                spec = embedded(spec, config.networks.cnn.embed_size, self._kept == "both")
            capacity = config.online.replay_capacity
            holdings["online"] = Holding(spec, capacity, config.num_envs)
        return holdings

    def _new_replay(self, name: Name) -> ReplayBuffer:
        holding, config = self.holdings[name], self.config
        placement = replace(config.placement, wanted=self.places[name])
        return ReplayBuffer(
            holding.spec, holding.capacity, holding.num_envs, config.device, placement
        )

    def say_memory(self) -> str:
        """What the run will hold and where, in words."""
        device = torch.device(self.config.device)
        return "; ".join(
            f"{say(name, holding)} {describe(self.places[name], device)}"
            for name, holding in self.holdings.items()
        )

    def close(self) -> None:
        """Release what was opened to clone and to render."""
        self._extra_env.close()

    @property
    def product(self) -> str:
        """The actor that the run is for: the transformer, or an accelerator alone."""
        return "transformer" if "transformer" in self.actors else "accelerator"

    def modules(self) -> dict[str, nn.Module]:
        """Every network by name."""
        return {**self.actors, "critic": self.critic, "critic_target": self.critic_target}

    def state_dict(self) -> dict[str, Any]:
        """Weights of every network, and the replay."""
        networks = {name: dict(module.state_dict()) for name, module in self.modules().items()}
        return {"networks": networks, "replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, once the stage was entered."""
        for name, module in self.modules().items():
            module.load_state_dict(state["networks"][name])
        self.replay.load_state_dict(state["replay"])

    def snapshot(self, stage: Stage) -> dict[str, Any]:
        """A copy of the product, the critics and the stage's temperature.

        Later updates do not touch it.
        """
        modules = self.modules()
        networks = {
            name: {key: value.clone() for key, value in modules[name].state_dict().items()}
            for name in (self.product, "critic", "critic_target")
        }
        return {"networks": networks, "alpha": _alpha(stage)}

    def restore(self, snapshot: dict[str, Any], stage: Stage) -> Stage:
        """Go back to a snapshot.

        Returns:
            The same stage with fresh optimizers, and targets equal to the restored policy.
        """
        modules = self.modules()
        for name, state in snapshot["networks"].items():
            modules[name].load_state_dict(state)
        return self._stage(stage.name, stage.collector, snapshot["alpha"])


def _alpha(stage: Stage) -> float | None:
    """The temperature of the stage's learner, if it has one."""
    log_alpha = getattr(stage.learner, "log_alpha", None)
    return None if log_alpha is None else float(log_alpha.detach().exp())
