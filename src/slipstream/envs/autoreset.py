"""Reading the infos of a vector environment, whose layout depends on how it resets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from slipstream.envs.recorder import SUCCESS_KEYS
from slipstream.envs.spaces import stack_obs, to_numpy
from slipstream.errors import SlipstreamError


def autoreset_mode(vector_env: VectorEnv[Any, Any, Any], env_id: str) -> AutoresetMode:
    """When a vector environment begins its next episode.

    One that does not say (made for gymnasium < 1.0, or ManiSkill) resets in the same step, as all
    did then; `final_obs` refuses it where that proves wrong.

    Raises:
        SlipstreamError: a mode that gymnasium does not know.
    """
    mode = vector_env.metadata.get("autoreset_mode", AutoresetMode.SAME_STEP)
    try:
        return mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(repr(known.value) for known in AutoresetMode)
        raise SlipstreamError(
            f"{env_id} has metadata['autoreset_mode'] = {mode!r}: use one of {known}"
        ) from error


def final_obs(infos: Mapping[str, Any], done: np.ndarray, env_id: str) -> Any:
    """The last observations of the episodes that just ended.

    gymnasium >= 1.0 keeps them under `final_obs`, one array for each environment; older vector
    environments and ManiSkill under `final_observation`, ManiSkill as one batch.

    Args:
        infos: what `step` returned.
        done: (N,) bool, the environments whose episode ended.
        env_id: name for the error message.

    Returns:
        (N, *), or a mapping of such arrays, meaningful in the rows where `done`.

    Raises:
        SlipstreamError: `infos` holds none.
    """
    final = infos.get("final_obs", infos.get("final_observation"))
    if final is None:
        raise SlipstreamError(
            f"{env_id} ended an episode without its last observation (neither 'final_obs' nor "
            "'final_observation' in infos): set metadata['autoreset_mode'] of the vector "
            "environment to the mode that it follows"
        )
    if isinstance(final, Mapping) or to_numpy(final).dtype != object:
        return final
    filler = final[np.argmax(done)]
    return stack_obs([row if ended else filler for row, ended in zip(final, done, strict=True)])


def success_flag(infos: Mapping[str, Any], i: int | np.intp, done: bool) -> bool | None:
    """Whether environment i reported success in the step just taken; None if it says nothing.

    Args:
        infos: what `step` returned.
        i: the environment's index.
        done: whether its episode ended.
    """
    source = infos
    if done and "final_info" in infos:  # the rest of `infos` is already of the next episode
        source = infos["final_info"]
        if not isinstance(source, Mapping):  # gymnasium < 1.0: one dict for each environment
            source = {key: {i: value} for key, value in source[i].items()}
    for key in SUCCESS_KEYS:
        if key in source and (f"_{key}" not in source or source[f"_{key}"][i]):
            return bool(source[key][i])
    return None
