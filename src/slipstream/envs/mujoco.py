"""MuJoCo ids: the superseded versions and what stands in for them."""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = frozenset(
    {
        "Ant",
        "HalfCheetah",
        "Hopper",
        "Humanoid",
        "HumanoidStandup",
        "InvertedDoublePendulum",
        "InvertedPendulum",
        "Pusher",
        "Reacher",
        "Swimmer",
        "Walker2d",
    }
)


def is_mujoco(env_id: str) -> bool:
    """Whether the id is one of Gymnasium's MuJoCo tasks, in any version."""
    return re.sub(r"-v\d+$", "", env_id) in _NAMES


def successor(env_id: str) -> str | None:
    """The v5 id that stands in for a superseded MuJoCo id (-v2, -v3, -v4), else None.

    v5 mends errors of the earlier versions (Gymnasium's "MuJoCo v5" notes): rewards on the step
    that ends an episode, and the contact forces in the observations of Ant and Humanoid.
    """
    name, _, version = env_id.rpartition("-v")
    if name in _NAMES and version in ("2", "3", "4"):
        return f"{name}-v5"
    return None


@contextmanager
def deprecations_muted() -> Iterator[None]:
    """While an environment is built: no line on stderr for what its XML says in an old way.

    Gymnasium's XML files are not the user's to mend, and MuJoCo prints its warning once for each
    copy. Every other warning still reaches stderr.
    """
    # Any: the package's type stubs lack the two functions.
    mujoco: Any = importlib.import_module("mujoco")

    def tell(message: str) -> None:
        if "is deprecated" not in message:
            print(f"mujoco: {message}", file=sys.stderr)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(tell)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
