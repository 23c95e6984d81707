"""Model files of Stable-Baselines3 and sb3-contrib, read without unpickling anything of them.

A model file is a zip. Its `data` is JSON in which everything that JSON lacks is a pickle, with the
plain parts repeated beside it: only those are read. Its weights are read as tensors and nothing
else. What kind of model it is follows from the weights' names, which must all be understood.
"""

import json
import math
import re
import warnings
import zipfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slipstream.errors import SlipstreamError

_ACTIVATIONS = {
    "ReLU": "relu",
    "Tanh": "tanh",
    "ELU": "elu",
    "SiLU": "silu",
    "GELU": "gelu",
    "LeakyReLU": "leaky_relu",
}
_SUPPORTED = "an MlpPolicy of SAC, TD3, DDPG, TQC, PPO or A2C without gSDE"

Layers = list[tuple[Tensor, Tensor]]
"""Weight (out, in) and bias (out,) of each layer of a perceptron."""


@dataclass(frozen=True)
class Model:
    """A model file in this package's terms.

    Attributes:
        about: what it is, for messages.
        algorithm: of ALGORITHMS, whose learner its policy and critics are for; None for PPO.
        head: of `Recipe.head`.
        policy: layers of the policy, the last one the head's.
        critics, critic_targets: layers of each critic; empty where there are none.
        activation: what follows hidden layers.
        low, high: bounds of the action, as far as the file says them.
        gamma: the discount.
        alpha: SAC's temperature, or None.
        normalized: whether it says that observations went through a `VecNormalize`; None where
            the file leaves it open.
    """

    about: str
    algorithm: str | None
    head: str
    policy: Layers
    critics: list[Layers]
    critic_targets: list[Layers]
    activation: str
    low: list[float] | None
    high: list[float] | None
    gamma: float
    alpha: float | None
    normalized: bool | None


def read_model(path: Path) -> Model:
    """Read a model file.

    Raises:
        SlipstreamError: damaged, no model of Stable-Baselines3, or none of the supported ones.
    """
    data, weights, variables = _open(path)
    about = f"sb3:{path}"
    settings = data.get("policy_kwargs")
    settings = settings if isinstance(settings, dict) else {}
    if data.get("use_sde") or settings.get("use_sde"):
        raise _unsupported(about, "it explores with gSDE")
    for name in ("observation_space", "action_space"):
        kind = _kind(data.get(name))
        if kind not in (None, "Box"):
            raise _unsupported(about, f"its {name.replace('_', ' ')} is a {kind}")
    space = data.get("observation_space")
    if isinstance(space, dict) and space.get("dtype") == "uint8":
        raise _unsupported(about, "it reads images")
    extractors = [name for name in weights if "features_extractor" in name]
    if extractors:
        raise _unsupported(about, f"it has a features extractor ({extractors[0]})")
    unclaimed = dict(weights)
    critics: list[Layers] = []
    targets: list[Layers] = []
    alpha = None
    if "actor.latent_pi.0.weight" in weights:
        algorithm, head = "sac", "wide_gaussian"
        trunk = _layers(unclaimed, "actor.latent_pi", about)
        mean, log_std = (_layer(unclaimed, f"actor.{name}", about) for name in ("mu", "log_std"))
        policy = [*trunk, (torch.cat([mean[0], log_std[0]]), torch.cat([mean[1], log_std[1]]))]
        alpha = _alpha(variables)
    elif "actor.mu.0.weight" in weights:
        algorithm, head = "td3", "deterministic"
        policy = _layers(unclaimed, "actor.mu", about)
        _layers(unclaimed, "actor_target.mu", about)
    elif "action_net.weight" in weights and unclaimed.pop("log_std", None) is not None:
        algorithm, head = None, "box"
        trunk = _layers(unclaimed, "mlp_extractor.policy_net", about)
        policy = [*trunk, _layer(unclaimed, "action_net", about)]
        if "mlp_extractor.value_net.0.weight" in unclaimed:
            _layers(unclaimed, "mlp_extractor.value_net", about)
        _layer(unclaimed, "value_net", about)
    else:
        raise _unsupported(about, f"it has the weights {', '.join(list(weights)[:3])}, ...")
    if algorithm is not None:
        critics = _critics(unclaimed, "critic", about)
        targets = _critics(unclaimed, "critic_target", about)
    if unclaimed:
        raise _unsupported(about, f"it has the unknown part {next(iter(unclaimed))}")
    if len(policy) < 2 or any(len(critic) < 2 for critic in critics):
        raise _unsupported(about, "a network of it has no hidden layer")
    low, high = (_bound(data.get("action_space"), name) for name in ("low", "high"))
    on_policy = algorithm is None
    return Model(
        about=f"the {_title(algorithm, critics, weights)} model {path}",
        algorithm=algorithm,
        head=head,
        policy=policy,
        critics=[mean_output(critic) for critic in critics],
        critic_targets=[mean_output(critic) for critic in targets],
        activation=_activation(settings, "Tanh" if on_policy else "ReLU", about),
        low=low,
        high=high,
        gamma=float(data.get("gamma", 0.99)),
        alpha=alpha,
        # Off-policy models keep their last observation under this name with or without.
        normalized=data.get("_last_original_obs") is not None if on_policy else None,
    )


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """The JSON data, the policy's weights and other tensors of a model file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            missing = {"data", "policy.pth"} - names
            if missing:
                raise SlipstreamError(
                    f"{path} is no model of Stable-Baselines3: it has no {sorted(missing)[0]!r}; "
                    "name the zip file that model.save() wrote"
                )
            broken = archive.testzip()
            if broken is not None:
                raise SlipstreamError(
                    f"{path} is damaged: its part {broken!r} does not match its checksum; save or "
                    "copy the model again"
                )
            data = json.loads(archive.read("data"))
            weights = _tensors(archive, "policy.pth", path)
            variables: dict[str, Any] = {}
            if "pytorch_variables.pth" in names:
                variables = _tensors(archive, "pytorch_variables.pth", path)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SlipstreamError(
            f"{path} is no whole zip file with readable data ({reason}); name the zip file that "
            "model.save() wrote, or save it again"
        ) from error
    if not isinstance(data, dict):
        raise SlipstreamError(
            f"{path} is no model of Stable-Baselines3: its data is no JSON object; name the zip "
            "that model.save() wrote"
        )
    return data, weights, variables


def _tensors(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Tensor]:
    """A part of the file that holds tensors by name, and nothing that could run."""
    with archive.open(name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch thinks of a file that is refused anyway
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or hostile file makes of it
            raise SlipstreamError(
                f"{path} is refused: its part {name!r} is no plain set of tensors "
                f"({type(error).__name__}), and nothing of it was run; save the model again with "
                "Stable-Baselines3"
            ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise SlipstreamError(
            f"{path} is no model of Stable-Baselines3: its part {name!r} is no set of tensors by "
            "name"
        )
    return {key: value.detach().float() for key, value in found.items()}


def _unsupported(about: str, why: str) -> SlipstreamError:
    return SlipstreamError(
        f"{about} cannot be an accelerator: {why}; supported is {_SUPPORTED} (any other policy can "
        "be called as python:my_pkg.module:function)"
    )


def _kind(space: Any) -> str | None:
    """The class of a space, from the type's name that stands beside its pickle."""
    if not isinstance(space, dict):
        return None
    match = re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", str(space.get(":type:")))
    return match[1] if match else None


def _bound(space: Any, name: str) -> list[float] | None:
    """A bound of the action, from the text that stands beside the space's pickle."""
    if not isinstance(space, dict) or not isinstance(space.get(name), str):
        return None
    text = space[name].strip("[] \n")
    try:
        found = [float(part) for part in text.replace("\n", " ").split()]
    except ValueError:  # a long or multi-dimensional array is written in another way
        return None
    shape = space.get("_shape")
    return found if isinstance(shape, list) and math.prod(shape) == len(found) else None


def _activation(settings: dict[str, Any], default: str, about: str) -> str:
    text = settings.get("activation_fn")
    match = re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", str(text))
    name = default if text is None else match[1] if match else str(text)
    if name not in _ACTIVATIONS:
        raise _unsupported(about, f"its activation is {name}, not {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _layer(weights: dict[str, Tensor], name: str, about: str) -> tuple[Tensor, Tensor]:
    """Take one layer out of the weights."""
    weight, bias = weights.pop(f"{name}.weight", None), weights.pop(f"{name}.bias", None)
    if weight is None or bias is None or weight.dim() != 2 or bias.shape != weight.shape[:1]:
        raise _unsupported(about, f"its part {name} is no fully connected layer with a bias")
    return weight, bias


def _layers(weights: dict[str, Tensor], name: str, about: str) -> Layers:
    """Take a perceptron out of the weights: layers at every other place, activations between."""
    found: Layers = []
    for i in count(step=2):
        if f"{name}.{i}.weight" not in weights:
            break
        found.append(_layer(weights, f"{name}.{i}", about))
    left = [each for each in weights if each.startswith(f"{name}.")]
    if left or not found:
        raise _unsupported(about, f"its part {left[0] if left else name} is no plain perceptron")
    return found


def _critics(weights: dict[str, Tensor], name: str, about: str) -> list[Layers]:
    """Take all critics out of the weights: Q-networks, or TQC's networks of quantiles."""
    found: list[Layers] = []
    while f"{name}.qf{len(found)}.0.weight" in weights:
        found.append(_layers(weights, f"{name}.qf{len(found)}", about))
    sizes = {tuple(layer[0].shape for layer in critic) for critic in found}
    if len(sizes) != 1:
        raise _unsupported(about, f"its {name} is {len(sizes) or 'no'} kinds of networks")
    return found


def mean_output(critic: Layers) -> Layers:
    """A critic with one output: the mean of TQC's quantiles, which is linear in them."""
    weight, bias = critic[-1]
    return [*critic[:-1], (weight.mean(0, keepdim=True), bias.mean(0, keepdim=True))]


def _alpha(variables: dict[str, Any]) -> float | None:
    """SAC's temperature, tuned or fixed."""
    if "log_ent_coef" in variables:
        return float(variables["log_ent_coef"].exp())
    if "ent_coef_tensor" in variables:
        return float(variables["ent_coef_tensor"]) or None
    return None


def _title(algorithm: str | None, critics: list[Layers], weights: dict[str, Tensor]) -> str:
    if algorithm is None:
        return "PPO"
    if algorithm == "td3":
        return "TD3"
    return "SAC" if len(critics[0][-1][1]) == 1 else "TQC"
