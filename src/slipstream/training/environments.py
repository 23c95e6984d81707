"""The environments of a run: to collect in, to be judged in, to be filmed in."""

from slipstream.config import RunConfig
from slipstream.envs.film import Show
from slipstream.envs.setup import open_env, open_filmed
from slipstream.envs.vec_env import VecEnv
from slipstream.stages.accelerate import Brought
from slipstream.stages.memory import images_of


class Environments:
    """Opens a run's environments; each raises what `open_env` does, and is closed by who asked.

    Args:
        config: the run's configuration.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def collecting(self, stage: str) -> VecEnv:
        """What a stage collects in; nothing is rendered where nobody looks."""
        return self._open_all(stage == "accelerate" and self.config.teacher_sees_state)

    def rendering(self) -> VecEnv:
        """What is collected in where somebody looks, whatever the stage."""
        return self._open_all(on_demand=False)

    def single(self) -> VecEnv:
        """One that renders stored states."""
        return self._open(1)

    def evaluating(self, num_envs: int) -> VecEnv:
        """What policies are judged in."""
        return self._open(num_envs, evaluation=True)

    def filmed(self, show: Show) -> VecEnv:
        """One that a policy is judged in, frame by frame."""
        config = self.config
        privileged = bool(config.privileged)
        return open_filmed(config.env_id, config.env, show, config.video.size, privileged)

    def _open_all(self, on_demand: bool) -> VecEnv:
        env = self.config.env
        return self._open(env.num_envs, env.parallel, on_demand=on_demand)

    def _open(
        self,
        num_envs: int,
        parallel: bool = False,
        evaluation: bool = False,
        on_demand: bool = False,
    ) -> VecEnv:
        config = self.config
        return open_env(
            config.env_id,
            config.env,
            num_envs,
            parallel,
            privileged=bool(config.privileged),
            evaluation=evaluation,
            on_demand=on_demand,
        )


def lacks_images(env: VecEnv, brought: Brought | None) -> bool:
    """Whether an accelerator needs images in stage 1 that `env` does not render.

    It looks at images although it is privileged, or at data that holds images.
    """
    if brought is None or env.spec == env.spec_rendered:
        return False
    return bool(images_of(env.spec_rendered) & {*brought.actor.inputs.keys} or brought.data_rows)
