"""A slow, obviously right replay: whole episodes in lists, every eligible window written out."""

from dataclasses import dataclass, field

import numpy as np

from slipstream.replay import ReplayBuffer
from slipstream.spec import ArraySpec, EnvSpec

SPEC = EnvSpec(
    env_id="identity",
    obs={"state": ArraySpec((3,)), "rgb": ArraySpec((1, 2), "uint8")},
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
)


@dataclass
class Episode:
    env: int
    number: int
    first_row: int  # how many rows of this environment are older
    actions: list = field(default_factory=list)  # (action, reward, terminated) of each transition
    ended: bool = False


class Reference:
    def __init__(self, capacity: int, num_envs: int):
        self.rows_per_env = capacity // num_envs
        self.num_envs = num_envs
        self.episodes = [[] for _ in range(num_envs)]
        self.started = [0] * num_envs

    def begin(self, env: int) -> None:
        episodes = self.episodes[env]
        number = self.started[env]
        self.started[env] += 1
        if episodes and not episodes[-1].ended and not episodes[-1].actions:
            episodes.pop()
        if episodes:
            episodes[-1].ended = True
        episodes.append(Episode(env, number, self.num_rows(env)))

    def num_rows(self, env: int) -> int:
        if not self.episodes[env]:
            return 0
        last = self.episodes[env][-1]
        return last.first_row + len(last.actions) + 1

    def add(self, env: int, action, reward, terminated, truncated) -> None:
        episode = self.episodes[env][-1]
        episode.actions.append((tuple(action), float(reward), float(terminated)))
        episode.ended = bool(terminated or truncated)

    def keep(self, capacity: int, keep: int | None) -> None:
        """Forget all but the newest rows, as a smaller replay would."""
        forgotten = [self.oldest(env) for env in range(self.num_envs)]
        self.rows_per_env = capacity // self.num_envs
        share = self.rows_per_env if keep is None else max(keep // self.num_envs, 1)
        for env in range(self.num_envs):
            kept_from = self.num_rows(env) - min(share, self.rows_per_env)
            for episode in self.episodes[env]:
                episode.first_row -= max(kept_from, forgotten[env])

    def oldest(self, env: int) -> int:
        return max(self.num_rows(env) - self.rows_per_env, 0)

    def windows(self, context_length: int) -> dict:
        """(env, episode, step) of the last transition -> the window as plain tuples."""
        found = {}
        for env, episodes in enumerate(self.episodes):
            for episode in episodes:
                for t, _ in enumerate(episode.actions):
                    start = max(t - context_length + 1, 0)
                    if episode.first_row + start < self.oldest(env):
                        continue
                    padding = context_length - (t - start + 1)
                    steps = [start] * padding + list(range(start, t + 2))
                    found[env, episode.number, t] = (
                        [(env, episode.number, s) for s in steps],
                        [False] * padding + [True] * (t - start + 2),
                        [episode.actions[s] for s in range(start, t + 1)],
                    )
        return found


class Recorder:
    """Feeds the same self-identifying experience to a replay and to the reference."""

    def __init__(self, capacity: int, num_envs: int, seed: int = 0, device: str = "cpu"):
        self.replay = ReplayBuffer(SPEC, capacity, num_envs, device)
        self.reference = Reference(capacity, num_envs)
        self.rng = np.random.default_rng(seed)
        self.num_envs = num_envs
        self.step = np.zeros(num_envs, int)

    def obs(self) -> dict[str, np.ndarray]:
        state = np.array(
            [
                (env, self.reference.started[env] - 1, self.step[env])
                for env in range(self.num_envs)
            ],
            np.float32,
        )
        return {"state": state, "rgb": (state[:, None, 1:] % 256).astype(np.uint8)}

    def begin(self, started: np.ndarray) -> None:
        for env in np.flatnonzero(started):
            self.reference.begin(int(env))
            self.step[env] = 0
        self.replay.begin(self.obs(), None if started.all() else started)

    def running(self) -> np.ndarray:
        return np.array([bool(e) and not e[-1].ended for e in self.reference.episodes])

    def add(self, acted: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        action = self.rng.uniform(-1, 1, (self.num_envs, 2)).astype(np.float32)
        reward = self.rng.normal(size=self.num_envs).astype(np.float32)
        for env in np.flatnonzero(acted):
            self.reference.add(int(env), action[env], reward[env], terminated[env], truncated[env])
            self.step[env] += 1
        next_obs = self.obs()
        self.replay.add(action, reward, terminated, truncated, next_obs, acted)
