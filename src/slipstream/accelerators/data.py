"""Data as an accelerator: a policy is cloned from it, which then stays as it is."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch

from slipstream import checkpoint
from slipstream import config as configuration
from slipstream.accelerators.fit import check_bounds, check_env_id, check_view, frozen_output
from slipstream.accelerators.recipe import Recipe, assemble
from slipstream.checkpoint.tree import load_tree
from slipstream.config import RunConfig
from slipstream.envs.spaces import observation_spec, to_obs
from slipstream.errors import SlipstreamError
from slipstream.networks.inputs import Normalizer, clip_of
from slipstream.policies.policy import load_policy
from slipstream.replay.episodes import Episodes, read_replay
from slipstream.spec import PRIVILEGED, ArraySpec, EnvSpec, difference_key
from slipstream.stages.accelerate import Brought

SPACES = ("observation_space", "action_space")


def load_minari(place: str, config: RunConfig, spec: EnvSpec) -> Brought:
    """A Minari dataset that lies on this machine; nothing is downloaded.

    Args:
        place: its id, or its folder.
        config: of the run.
        spec: of its environment.

    Raises:
        SlipstreamError: no such dataset here, a damaged one, or one of other spaces.
    """
    about = f"the Minari dataset {place}"
    dataset = _open_minari(place, about)
    recorded_in = dataset.env_spec
    if recorded_in is not None:
        check_env_id(about, config, spec, recorded_in.id, "data")
    actions = dataset.action_space
    if not isinstance(actions, gym.spaces.Box) or actions.dtype.kind != "f":
        raise SlipstreamError(
            f"{about} has the action space {actions}, but {spec.env_id} takes {spec.action_dim} "
            "continuous components; name data of this environment"
        )
    shown = observation_spec(dataset.observation_space, about)
    _check_shapes(about, spec, shown, actions.shape)
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (actions.low, actions.high))
    if np.isfinite([low, high]).all():
        check_bounds(about, config, spec, low.tolist(), high.tolist(), "data")
    else:
        low, high = np.array(spec.action_low), np.array(spec.action_high)
    parts = list(_minari_episodes(dataset, about, shown, config.data.rows))
    if not parts:
        raise SlipstreamError(
            f"{about} has no episode of at most data.rows {config.data.rows} rows; name another, "
            "or raise data.rows"
        )
    columns = {name: np.concatenate([part[name] for part in parts[::-1]]) for name in parts[0]}
    reach = np.where(high > low, (high - low) / 2, 1)  # what cannot move stays in the middle
    action = (columns["action"] - (low + high) / 2) / reach
    columns["action"] = action.clip(-1, 1).astype(np.float32)
    return _bring(about, Episodes(columns), config, spec)


def load_replay(place: str, config: RunConfig, spec: EnvSpec) -> Brought:
    """The replay in a checkpoint of this package.

    Args:
        place: a run's folder, or one of its checkpoints.
        config: of the new run.
        spec: of its environment.

    Raises:
        SlipstreamError: no replay there, or one of other spaces.
    """
    about = f"the replay of {place}"
    folder = checkpoint.resolve(Path(place))
    run_dir = folder.parent.parent
    if not checkpoint.can_resume(folder) or not (run_dir / "config.json").is_file():
        raise SlipstreamError(
            f"{about} is not there: {folder} holds a policy only; name a run's folder or one of "
            "its checkpoints that a run can go on from"
        )
    recorded_in = load_policy(place).spec
    check_env_id(about, config, spec, recorded_in.env_id, "data")
    there = configuration.load(run_dir / "config.json").env
    check_view(about, config, there, {key: key for key in spec.obs}, "data")
    check_bounds(about, config, spec, recorded_in.action_low, recorded_in.action_high, "data")
    state = load_tree(folder / "training_state")["team"]["replay"]
    found = read_replay(state)
    shown = {
        name.removeprefix("obs."): ArraySpec(column.shape[1:], str(column.dtype))
        for name, column in found.columns.items()
        if name.startswith("obs.")
    }
    _check_shapes(about, spec, shown, found.columns["action"].shape[1:])
    newest = found.newest(config.data.rows)
    if not newest.num_transitions:
        raise SlipstreamError(
            f"{about} holds no episode from its beginning of at most data.rows {config.data.rows} "
            "rows; name a run with a larger replay"
        )
    return _bring(about, newest, config, spec)


def _bring(about: str, episodes: Episodes, config: RunConfig, spec: EnvSpec) -> Brought:
    """An untrained policy of the transformer's kind, to be cloned from the episodes."""
    _check_finite(about, episodes)
    episodes = episodes.compared(spec.obs)
    keys = tuple(key for key in spec.obs if key != PRIVILEGED)
    if "accelerator" in config.privileged:
        keys = (PRIVILEGED,)
    output, std = frozen_output("deterministic", config, spec)
    recipe = Recipe(
        about=f"{about}, {episodes.num_transitions:,} steps in {len(episodes.starts)} episodes",
        network=config.transformer,
        head="deterministic",
        keys=keys,
        output=output,
        std=std,
        clip=clip_of(config.env.normalize_obs),
        networks=config.built_networks,
        data_rows=episodes.capacity(config.env.num_envs),
    )
    brought = assemble(recipe, spec, config.device)
    for key, normalizer in brought.actor.inputs.normalizers.items():
        column = torch.as_tensor(episodes.columns[f"obs.{key}"])
        cast("Normalizer", normalizer).observe(column.to(brought.actor.device))
    return replace(brought, episodes=episodes)


def _open_minari(place: str, about: str) -> Any:
    try:
        minari: Any = importlib.import_module("minari")
        storage: Any = importlib.import_module("minari.storage.datasets_root_dir")
    except ImportError as error:
        raise SlipstreamError(
            f"{about} needs Minari, which is not installed: pip install 'slipstream-rl[minari]'"
        ) from error
    folder = Path(place) if Path(place).is_dir() else storage.get_dataset_path(place)
    if (folder / "data").is_dir():
        folder = folder / "data"
    if not (folder / "metadata.json").is_file():
        raise SlipstreamError(
            f"{about} is not on this machine: there is no {folder / 'metadata.json'}, and nothing "
            f"is downloaded; fetch it with `minari download {place}`, set MINARI_DATASETS_PATH, or "
            "name its folder"
        )
    return _guarded(about, lambda: _read_minari(minari, folder, about))


def _read_minari(minari: Any, folder: Path, about: str) -> Any:
    # Without its spaces Minari would make the environment that the file names, which runs code.
    raw = minari.dataset.minari_storage.MinariStorage.read_raw_metadata(folder)
    missing = [name for name in SPACES if name not in raw]
    if missing:
        raise SlipstreamError(
            f"{about} does not say its {missing[0]}; write it again with a newer Minari"
        )
    return minari.MinariDataset(folder)


def _guarded(about: str, read: Callable[[], Any]) -> Any:
    """Whatever a damaged file makes of the library, as a user's mistake."""
    try:
        return read()
    except SlipstreamError:
        raise
    except ImportError as error:
        raise SlipstreamError(
            f"{about} is stored in a format whose package is missing ({error}); pip install "
            "'minari[all]'"
        ) from error
    except Exception as error:  # the library's and its storages' errors share no base class
        reason = (str(error).splitlines() or [""])[0]
        raise SlipstreamError(
            f"{about} cannot be read ({type(error).__name__}: {reason}); fetch or write it again"
        ) from error


def _minari_episodes(
    dataset: Any, about: str, shown: Mapping[str, ArraySpec], max_rows: int
) -> Iterator[dict[str, np.ndarray]]:
    """The columns of each episode, newest first, as long as they fit; actions as stored."""
    num_rows = 0
    for index in reversed(list(dataset.episode_indices)):
        episode = _guarded(about, lambda i=index: next(iter(dataset.iterate_episodes([i]))))
        length = len(episode.rewards)
        num_rows += length + 1
        if num_rows > max_rows:
            return
        if not length:
            continue
        obs = to_obs(episode.observations, shown)
        for key, rows in obs.items():
            if len(rows) != length + 1 or len(episode.actions) != length:
                raise SlipstreamError(
                    f"{about} has {len(rows)} observations of '{key}' and {len(episode.actions)} "
                    f"actions for the {length} steps of episode {index}; there must be one "
                    "observation more than steps, the last one"
                )
        yield {
            **{f"obs.{key}": rows for key, rows in obs.items()},
            "action": _with_last(episode.actions.reshape(length, -1)),
            "reward": _with_last(episode.rewards),
            "terminated": _with_last(episode.terminations),
            "step": np.arange(length + 1, dtype=np.int32),
        }


def _with_last(values: np.ndarray) -> np.ndarray:
    """Values (n, *) of an episode's steps as float32, with zeros for its last observation."""
    return np.concatenate([values, np.zeros_like(values[:1])]).astype(np.float32)


def _check_shapes(
    about: str, spec: EnvSpec, shown: Mapping[str, ArraySpec], action_shape: Sequence[int]
) -> None:
    # What has changed from row to row needs not be recorded.
    changes = {difference_key(key): value for key, value in shown.items()}
    shown = {key: value for key, value in changes.items() if key in spec.obs} | dict(shown)
    there = {key: value.shape for key, value in shown.items()}
    here = {key: value.shape for key, value in spec.obs.items()}
    action_size = int(np.prod(action_shape))
    same = all(shown.get(key) == value for key, value in spec.obs.items())
    if same and action_size == spec.action_dim:
        return
    raise SlipstreamError(
        f"{about} holds observations {there} and actions of size {action_size}, but {spec.env_id} "
        f"shows {here} and takes actions of size {spec.action_dim}; name data of this environment, "
        "or the environment and the mask that it was recorded with"
    )


def _check_finite(about: str, episodes: Episodes) -> None:
    for name, column in episodes.columns.items():
        finite = np.isfinite(column).reshape(len(column), -1).all(1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise SlipstreamError(
                f"{about} has {column[row].ravel()[~np.isfinite(column[row]).ravel()][0]} in "
                f"{name} of row {row}; it must be finite"
            )
