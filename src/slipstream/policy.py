"""A saved policy: what is needed to act, and nothing else."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cattrs
from cattrs.errors import BaseValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from slipstream.checkpoint import resolve
from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, NetworksConfig, Normalizer, build_actor
from slipstream.spec import EnvSpec
from slipstream.stages.learners import algorithm_class


def describe_policy(config: RunConfig, spec: EnvSpec, actor: str) -> dict[str, Any]:
    """The `config.json` beside a policy's weights."""
    return {
        "actor": actor,
        "kind": getattr(config, actor),
        "head": algorithm_class(config.algorithm).head,
        "normalize_obs": config.env.normalize_obs,
        "networks": dataclasses.asdict(config.networks),
        "env": dataclasses.asdict(spec),
    }


def load_policy(path: Path | str, checkpoint: str = "last") -> tuple[Actor, EnvSpec]:
    """Load a policy to act with.

    Args:
        path: a run folder or one of its checkpoints.
        checkpoint: "last" or "best", where `path` is a run folder.

    Returns:
        The policy, in evaluation mode on the CPU, and the environment it was trained in.

    Raises:
        SlipstreamError: no whole checkpoint there, or weights that do not fit their description.
    """
    name = "best" if checkpoint == "best" else "last"
    folder = resolve(Path(path), name) / "policy"
    try:
        described = json.loads((folder / "config.json").read_text())
        spec = cattrs.structure(described["env"], EnvSpec)
        networks = cattrs.structure(described["networks"], NetworksConfig)
        normalizer = None
        if described["normalize_obs"]:
            normalizer = Normalizer(sum(value.size for value in spec.obs.values()))
        actor = build_actor(described["kind"], described["head"], spec, networks, normalizer)
        actor.load_state_dict(load_file(folder / "model.safetensors"))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        BaseValidationError,
    ) as error:
        raise SlipstreamError(
            f"{folder} holds no policy that this version can load ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); give another checkpoint"
        ) from error
    return actor.eval().requires_grad_(False), spec
