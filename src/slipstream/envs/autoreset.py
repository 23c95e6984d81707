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


def success_entries(infos: Mapping[str, Any]) -> dict[str, Any]:
    """What a step's infos say of success, as values (N,) that `success_flags` reads.

    Named as there, with `_` before the mask of the environments that say it, and `final.` before
    what was said of an episode that ended: the rest is already of the next one.
    """
    final = infos.get("final_info", {})
    if not isinstance(final, Mapping):  # gymnasium < 1.0: one dict for each environment
        final = {
            name: np.array([read(row or {}, key) for row in final], bool)
            for key in SUCCESS_KEYS
            for name, read in ((key, dict.get), (f"_{key}", dict.__contains__))
        }
    return {
        prefix + name: source[name]
        for prefix, source in (("", infos), ("final.", final))
        for key in SUCCESS_KEYS
        for name in (key, f"_{key}")
        if name in source
    }


def success_flags(
    infos: Mapping[str, Any], told: Mapping[str, np.ndarray], done: np.ndarray
) -> np.ndarray:
    """What each environment reported of success in the step just taken.

    Args:
        infos: what `step` returned.
        told: holds the `success_entries` of it, in the host's memory.
        done: (N,) bool, the environments whose episode ended.

    Returns:
        (N,) int8: 1 for success, 0 for none, -1 for no report.
    """
    flags = _flags(told, "", len(done))
    if "final_info" not in infos:
        return flags
    return np.where(done, _flags(told, "final.", len(done)), flags)


def _flags(told: Mapping[str, np.ndarray], prefix: str, num_envs: int) -> np.ndarray:
    flags = np.full(num_envs, -1, np.int8)
    for key in SUCCESS_KEYS[::-1]:  # the first counts
        if prefix + key in told:
            said = told.get(f"{prefix}_{key}", np.ones(num_envs)).astype(bool)
            flags = np.where(said, told[prefix + key].astype(bool).astype(np.int8), flags)
    return flags
