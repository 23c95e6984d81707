"""Policies that are called: a function of the user's, or an ONNX file. Both stay as they are."""

import importlib
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from slipstream.accelerators.fit import check_sizes, frozen_output, observation_key
from slipstream.accelerators.frozen import Call
from slipstream.accelerators.recipe import Recipe, assemble
from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.import_path import load_object
from slipstream.spec import EnvSpec
from slipstream.stages.accelerate import Brought

_ONNX_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


def load_python(place: str, config: RunConfig, spec: EnvSpec) -> Brought:
    """A function by its import path, see `python_call`.

    Raises:
        SlipstreamError: nothing that can be called lies there.
    """
    about = f"python:{place}"
    call = python_call(place)
    return assemble(_recipe(about, "python", place, config, spec), spec, config.device, call=call)


def load_onnx(place: str, config: RunConfig, spec: EnvSpec) -> Brought:
    """A policy without memory in an ONNX file, see `onnx_call`.

    Raises:
        SlipstreamError: no such file, no such policy in it, or one for other spaces.
    """
    try:
        content = Path(place).read_bytes()
    except OSError as error:
        raise SlipstreamError(
            f"accelerator onnx:{place} cannot be read: {error.strerror}; name an ONNX file"
        ) from error
    model = np.frombuffer(content, np.uint8)
    recipe = _recipe(f"onnx:{place}", "onnx", place, config, spec)
    call, obs_size, action_size = onnx_call(model, recipe.about)
    check_sizes(recipe.about, spec, recipe.keys[0], obs_size, action_size)
    return assemble(recipe, spec, config.device, call=call, model=model)


def python_call(place: str) -> Call:
    """The function that lies at an import path, for batches.

    It takes one observation (n,) float32 and returns one action (A,) in the environment's own
    units; with an attribute `batched` that is true it takes (B, n) and returns (B, A). A class is
    made once, without arguments, and its object called. There is no memory: labels are asked for
    in any order.

    Raises:
        SlipstreamError: nothing there, or nothing that can be called.
    """
    function = load_object(place, "accelerator")
    if isinstance(function, type):
        function = function()
    if not callable(function):
        raise SlipstreamError(
            f"accelerator python:{place} is a {type(function).__name__}; name a function that "
            "takes an observation and returns an action, or a class whose objects are one"
        )
    batched = getattr(function, "batched", False)

    def call(obs: np.ndarray) -> np.ndarray:
        try:
            if batched:
                return np.asarray(function(obs))
            return np.stack([np.asarray(function(row)) for row in obs])
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            reason = (str(error).splitlines() or [""])[0]
            raise SlipstreamError(
                f"python:{place} failed at {frame.filename}:{frame.lineno} with "
                f"{type(error).__name__}: {reason}; it is given an observation "
                f"{obs.shape if batched else obs.shape[1:]} and returns an action"
            ) from error

    return call


def onnx_call(model: np.ndarray, about: str) -> tuple[Call, int | None, int | None]:
    """What an ONNX file computes: its first output, of its only input.

    Args:
        model: the file's bytes, (num_bytes,) uint8.
        about: its name, for error messages.

    Returns:
        The function for batches, and the sizes of observation and action as far as the file says.

    Raises:
        SlipstreamError: no ONNX Runtime, a damaged file, or one with another input.
    """
    session = _session(model, about)
    inputs = session.get_inputs()
    shape = list(inputs[0].shape)
    if len(inputs) != 1 or len(shape) != 2 or inputs[0].type not in _ONNX_TYPES:
        shown = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
        raise SlipstreamError(
            f"{about} has the input {shown}; an accelerator takes one vector for each observation, "
            "(batch, n) floats, and has no memory (for a policy of this package with memory, name "
            "its run: slipstream:RUN)"
        )
    name, dtype = inputs[0].name, _ONNX_TYPES[inputs[0].type]
    output = session.get_outputs()[0]
    fixed = shape[0] if isinstance(shape[0], int) else None

    def call(obs: np.ndarray) -> np.ndarray:
        obs = obs.astype(dtype)
        # A file exported for a fixed number of observations takes no other number.
        size = fixed or len(obs)
        padded = np.concatenate([obs, np.repeat(obs[-1:], -len(obs) % size, 0)])
        parts = [
            np.asarray(session.run([output.name], {name: padded[i : i + size]})[0])
            for i in range(0, len(padded), size)
        ]
        return np.concatenate([part.reshape(size, -1) for part in parts])[: len(obs)]

    sizes = [
        last if isinstance(last, int) else None
        for last in (shape[-1], output.shape[-1] if output.shape else None)
    ]
    return call, sizes[0], sizes[1]


def _session(model: np.ndarray, about: str) -> Any:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise SlipstreamError(
            f"{about} needs ONNX Runtime, which is not installed: pip install onnxruntime"
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(
            model.tobytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its errors share no base class
        raise SlipstreamError(
            f"{about} is no ONNX model that ONNX Runtime {runtime.__version__} can run "
            f"({type(error).__name__}); export it again, weights included"
        ) from error


def _recipe(about: str, network: str, place: str, config: RunConfig, spec: EnvSpec) -> Recipe:
    output, std = frozen_output("action", config, spec)
    return Recipe(
        about=about,
        network=network,
        head="action",
        keys=(observation_key(about, config, spec),),
        place=place,
        output=output,
        std=std,
    )
