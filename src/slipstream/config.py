"""The configuration of a run: nested frozen dataclasses, composed from those beside each class."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cattrs
import yaml
from cattrs.errors import BaseValidationError
from cattrs.v import format_exception
from tyro.conf import Suppress

from slipstream.envs.film import VideoConfig
from slipstream.envs.setup import EnvConfig, Scalar
from slipstream.errors import SlipstreamError
from slipstream.logs.trackers import TrackerName
from slipstream.networks import BACKBONES, NetworksConfig
from slipstream.replay import Placement
from slipstream.replay.placement import ReplayDevice
from slipstream.settings import Count, NotNegative, Rate, Settings
from slipstream.spec import EnvSpec
from slipstream.stages.accelerate import SCHEMES, AccelerateConfig, parse_source
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.learners import AlgorithmsConfig, algorithm_class
from slipstream.stages.online import OnlineConfig
from slipstream.stages.rehearsal import DataConfig
from slipstream.stages.switch import SwitchConfig
from slipstream.stages.team import TeamConfig

StageName = Literal["accelerate", "online"]
Role = Literal["accelerator", "critic"]
HIDDEN_FRAME_STACK = 3


@dataclass(frozen=True)
class EvalConfig(Settings, section="eval"):
    """Evaluation without exploration; its steps are counted beside the training steps."""

    every: Count = 2_000
    """Env steps between two evaluations, which are also the checks of switch and guard."""
    episodes: Count = 5
    """Episodes for each actor, on the same seeds every time."""


@dataclass(frozen=True)
class RunConfig(Settings):
    """One training run, both stages."""

    env_id: Suppress[str]
    """Gymnasium id, such as HalfCheetah-v5, or the import path of a function that makes one."""
    preset: Suppress[str] = "default"
    """The preset this configuration started from."""
    seed: NotNegative = 0
    """Seeds networks, sampling and environments."""
    total_steps: Count = 100_000
    """Env steps of both stages together, extra episodes included, evaluation not."""
    stages: tuple[StageName, ...] = ("accelerate", "online")
    """Both stages, or one alone: `online` is a transformer from scratch, `accelerate` the
    accelerator (with its clone, unless cloning is off)."""
    algorithm: str = "sac"
    """td3 or sac."""
    accelerator: str = "mlp"
    """The policy network of stage 1: mlp, lstm or gru (or transformer). Or a policy that exists
    already: sb3:model.zip, slipstream:RUN, onnx:policy.onnx, python:my_pkg.module:function. Or data
    that one is cloned from: minari:DATASET, replay:RUN."""
    accelerator_normalize: str | None = None
    """With accelerator=sb3: the VecNormalize statistics (a .pkl file) that its observations are
    normalized by; by default those found beside it, `none` for none."""
    transformer: str = "transformer"
    """The policy network of stage 2: transformer (or mlp, lstm or gru, for comparison)."""
    privileged: tuple[Role, ...] = ()
    """Who sees the whole, undisturbed observation in place of the policy's: the accelerator, the
    critic, or both. The transformer never does, so the saved policy needs only its own."""
    batch_size: Count = 128
    """Steps that an update learns from: as many windows, or fewer where a recurrent network learns
    from several steps of each."""
    utd_ratio: Rate = 1.0
    """Updates for each env step; 0 clones alone."""
    learning_starts: NotNegative = 2_000
    """Env steps before the first update: of uniformly random actions, or of the accelerator's own
    where it existed before the run."""
    env: EnvConfig = field(default_factory=EnvConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    algorithms: AlgorithmsConfig = field(default_factory=AlgorithmsConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    switch: SwitchConfig = field(default_factory=SwitchConfig)
    accelerate: AccelerateConfig = field(default_factory=AccelerateConfig)
    data: DataConfig = field(default_factory=DataConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    device: str = "cpu"
    """cpu, or a CUDA device of torch."""
    replay_device: ReplayDevice = "auto"
    """Where the replay lies: on the device that learns, in the host's memory, or in a file of the
    run's folder on the disk; auto takes the first of these that has room."""
    num_threads: Count = 1
    """Threads of torch. One is fastest for networks of this size, and leaves results exact."""
    matmul: Literal["auto", "default", "onednn", "bf16"] = "auto"
    """fp32 products on the CPU: the faster of default and onednn, measured at the start, or fixed.
    bf16 rounds the factors of large products; no other than you chooses it."""
    log_every: Count = 500
    """Env steps between two lines of training metrics."""
    checkpoint_every: Count = 10_000
    """Env steps between two checkpoints; one is always written at the switch and at the end."""
    keep_checkpoints: Count = 2
    """Newest checkpoints to keep, beside the best one."""
    tensorboard: bool = True
    """Write TensorBoard files beside metrics.jsonl."""
    log_to: tuple[TrackerName, ...] = ()
    """Trackers that get the metrics too: wandb, trackio (each a package of its own)."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for values that make no run."""
        super().__post_init__()
        if self.stages not in (("accelerate", "online"), ("accelerate",), ("online",)):
            raise SlipstreamError(
                f"stages are {self.stages}; choose 'accelerate online', 'accelerate' or 'online'"
            )
        algorithm_class(self.algorithm)
        if self.transformer not in BACKBONES:
            raise SlipstreamError(
                f"transformer is '{self.transformer}'; choose one of {', '.join(BACKBONES)}"
            )
        self._check_accelerator()
        if len(self.stages) == 2 and not self.cloning.enabled:
            raise SlipstreamError(
                "cloning.enabled is False, but stage 2 starts from the clone; leave one stage out"
            )
        self._check_memory()
        self._check_learning_starts()
        self._check_shared_memory()
        if self.video.enabled and self.video.episodes > self.eval.episodes:
            raise SlipstreamError(
                f"video.episodes is {self.video.episodes}, but an evaluation has "
                f"{self.eval.episodes} (eval.episodes); record no more than that"
            )

    @property
    def brings_accelerator(self) -> bool:
        """Whether the accelerator is a policy, or data, that existed before the run."""
        return parse_source(self.accelerator) is not None

    @property
    def kinds(self) -> dict[str, str]:
        """Actor -> its kind of network (BACKBONES) or its source, for the actors of the run."""
        kinds: dict[str, str] = {}
        if "accelerate" in self.stages:
            kinds["accelerator"] = self.accelerator
        if "online" in self.stages or self.cloning.enabled:
            kinds["transformer"] = self.transformer
        return kinds

    @property
    def teacher_sees_state(self) -> bool:
        """Whether nobody who learns in stage 1 looks at images, so that none need be rendered."""
        return {"accelerator", "critic"} <= set(self.privileged)

    @property
    def hides_from_accelerator(self) -> bool:
        """Whether the accelerator must learn without some of what the environment shows."""
        return self.env.observe.hides and "accelerator" not in self.privileged

    @property
    def built_networks(self) -> NetworksConfig:
        """The networks' sizes, with what was left open decided.

        A policy or critic from which something is hidden looks at three frames: with them, an MLP
        on masked HalfCheetah went from nothing to a third of what it does with full observations.
        """
        return self._stacking(self.env.observe.hides or "state" not in self.env.parts)

    def fitted(self, spec: EnvSpec) -> "RunConfig":
        """The same for an environment which shows images alone, whatever was asked of it.

        One image tells no velocity, nor does it with the previous action beside it.
        """
        if any(len(value.shape) == 1 for value in spec.own_obs.values()):
            return self
        return replace(self, networks=self._stacking(hides=True))

    def _stacking(self, hides: bool) -> NetworksConfig:
        networks = self.networks

        def stack(chosen: int | None, sees_all: bool) -> int:
            return chosen or (HIDDEN_FRAME_STACK if hides and not sees_all else 1)

        sees_all = "accelerator" in self.privileged and self.transformer != "mlp"
        mlp = replace(networks.mlp, frame_stack=stack(networks.mlp.frame_stack, sees_all))
        sees_all = "critic" in self.privileged
        chosen = stack(networks.critic.frame_stack, sees_all)
        return replace(networks, mlp=mlp, critic=replace(networks.critic, frame_stack=chosen))

    def _check_accelerator(self) -> None:
        if self.accelerator not in BACKBONES and not self.brings_accelerator:
            raise SlipstreamError(
                f"accelerator is '{self.accelerator}'; choose one of {', '.join(BACKBONES)}, or "
                f"{', '.join(SCHEMES.values())}"
            )
        if self.accelerator_normalize is not None and not self.accelerator.startswith("sb3:"):
            raise SlipstreamError(
                f"accelerator_normalize is {self.accelerator_normalize}, but the accelerator is "
                f"{self.accelerator}; it belongs to one of sb3:model.zip"
            )
        if self.brings_accelerator and "transformer" not in self.kinds:
            raise SlipstreamError(
                f"accelerator is {self.accelerator} and nothing is cloned from it, so there is no "
                "policy to train; leave cloning.enabled on"
            )

    def _check_shared_memory(self) -> None:
        networks = self.networks
        if not networks.share_memory:
            return
        first = next(iter(self.kinds))
        kind, memory = self.kinds[first], networks.critic.memory
        if memory != kind:
            raise SlipstreamError(
                f"networks.share_memory is on, but the {first} is '{kind}' and "
                f"networks.critic.memory is '{memory}'; they must be the same kind"
            )
        if ("critic" in self.privileged) != (first in self.privileged):
            raise SlipstreamError(
                f"networks.share_memory is on, but {first} and critic see different observations "
                f"(privileged: {', '.join(self.privileged)}); make both privileged, or none"
            )

    def _check_memory(self) -> None:
        name, context = max(self._contexts().items(), key=lambda item: item[1])
        capacities = {"accelerate": self.accelerate, "online": self.online}
        for stage in self.stages:
            rows = capacities[stage].replay_capacity // self.env.num_envs
            if rows < context + 1:
                raise SlipstreamError(
                    f"networks.{name} {context} is longer than the replay of "
                    f"stage '{stage}', {rows} rows an environment; use a shorter context or raise "
                    f"{stage}.replay_capacity to {(context + 1) * self.env.num_envs} at least"
                )
            # One row of each environment is that of its newest observation.
            if self._utd_ratio(stage) and (rows - 1) * self.env.num_envs < self.batch_size:
                enough = (-(-self.batch_size // self.env.num_envs) + 1) * self.env.num_envs
                raise SlipstreamError(
                    f"{stage}.replay_capacity is {capacities[stage].replay_capacity}, too little "
                    f"for an update of batch_size {self.batch_size}, so nothing would be learnt; "
                    f"raise it to {enough} at least, or lower batch_size"
                )

    def _check_learning_starts(self) -> None:
        if self._utd_ratio(self.stages[0]) and self.learning_starts >= self.total_steps:
            raise SlipstreamError(
                f"learning_starts is {self.learning_starts} and total_steps {self.total_steps}, so "
                "the run would end before its first update; lower the one or raise the other"
            )

    def _utd_ratio(self, stage: StageName) -> float:
        online = self.online.utd_ratio if stage == "online" else None
        return self.utd_ratio if online is None else online

    def _contexts(self) -> dict[str, int]:
        """Field of NetworksConfig -> the longest window that a network of this run reads."""
        networks = self.built_networks
        contexts = {"mlp.frame_stack": networks.mlp.frame_stack or 1}
        used = {*self.kinds.values(), networks.critic.memory}
        if used & {"lstm", "gru"}:
            contexts["recurrent.context_length"] = networks.recurrent.context_length
        if "transformer" in used:
            contexts["transformer.context_length"] = networks.transformer.context_length
        if networks.critic.memory == "none":
            contexts["critic.frame_stack"] = networks.critic.frame_stack or 1
        return contexts


def team_config(config: RunConfig, replay_folder: Path | None = None) -> TeamConfig:
    """The part of a configuration that the run's team is built from.

    Args:
        config: the run's.
        replay_folder: where a replay on the disk may be; None for nowhere.
    """
    return TeamConfig(
        seed=config.seed,
        num_envs=config.env.num_envs,
        normalize_obs=config.env.normalize_obs,
        algorithm=config.algorithm,
        has_online="online" in config.stages,
        kinds=config.kinds,
        privileged=config.privileged,
        batch_size=config.batch_size,
        networks=config.built_networks,
        algorithms=config.algorithms,
        cloning=config.cloning,
        accelerate=config.accelerate,
        data=config.data,
        online=config.online,
        device=config.device,
        placement=Placement(config.replay_device, replay_folder),
    )


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain nested values, ready for JSON or YAML."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML, as `--config` reads it."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def from_dict(values: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """A configuration from plain nested values; what is left out keeps its default.

    Raises:
        SlipstreamError: an unknown field, or a value of the wrong type.
    """
    converter = strict_converter()
    try:
        return converter.structure(values, RunConfig)
    except BaseValidationError as error:
        problems = "; ".join(cattrs.transform_error(error, "config", _say))
        raise SlipstreamError(f"{source}: {problems}") from error


def strict_converter() -> cattrs.Converter:
    """Structures plain values as dataclasses: no unknown keys, no silent conversions."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _strict)
    converter.register_structure_hook_func(lambda kind: kind == Scalar, _scalar)
    return converter


class _WrongTypeError(TypeError):
    """A value of another type than its field."""


def _say(error: BaseException, kind: type | None) -> str:
    """What is wrong with one value, in words that name it."""
    if isinstance(error, SlipstreamError | _WrongTypeError):
        return str(error)
    if "not in literal" in str(error):
        return str(error).replace("typing.Literal", "")
    return format_exception(error, kind)


def _strict(value: Any, kind: type) -> Any:
    """No silent conversions: a float field takes an int, nothing else takes another type."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise _WrongTypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _scalar(value: Any, _: type) -> Any:
    """A value as YAML gives it, of any of the plain types."""
    if not isinstance(value, bool | int | float | str):
        raise _WrongTypeError(f"{value!r} is neither a number, a text nor true or false")
    return value


def load(path: Path, **given: Any) -> RunConfig:
    """Read a YAML or JSON file (or a run's config.json).

    Args:
        path: the file.
        **given: fields whose value there, if any, does not count.

    Raises:
        SlipstreamError: no such file, not YAML, or not a configuration.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SlipstreamError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SlipstreamError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise SlipstreamError(
            f"{path} holds no configuration; see `slipstream train --print-config`"
        )
    return from_dict({**values, **given}, str(path))
