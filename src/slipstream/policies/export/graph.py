"""One step of a policy as a graph, traced once, and compared with the policy."""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from slipstream.errors import SlipstreamError
from slipstream.networks.linear import matmul_backend, set_matmul_backend
from slipstream.networks.memory import Carry
from slipstream.policies.policy import Policy
from slipstream.policies.step import PolicyStep

OPSET = 20
TOLERANCE = 1e-4
"""How far the action of an export, in [-1, 1], may be from the policy's own. Measured: 1e-6."""

Run = Callable[[dict[str, Tensor], Carry], tuple[Tensor, Carry]]


class PolicyGraph:
    """A policy's step, ready to be saved.

    Attributes:
        step: a copy of the policy's step, on the CPU.
        about: names, shapes and bounds of what goes in and comes out, as JSON values.
    """

    def __init__(self, policy: Policy) -> None:
        """Describe the policy.

        Raises:
            SlipstreamError: its memory does not begin at zero, which is what a runner relies on.
        """
        self.step: PolicyStep = copy.deepcopy(policy.module).cpu().requires_grad_(False).eval()
        initial = self.step.initial_carry(1)
        for name, value in initial.items():
            if value.any():
                raise SlipstreamError(
                    f"the memory '{name}' of this policy ({self._parts()}) does not begin at zero, "
                    "which an export relies on; use safetensors, or a network that begins there"
                )
        self.about: dict[str, Any] = {
            "format": "slipstream-policy",
            "version": 1,
            "env_id": policy.spec.env_id,
            "env": policy.description["env"],
            "kind": policy.description["kind"],
            "context_length": policy.actor.context_length,
            "observations": [
                {"key": key, "input": f"obs_{key}", "shape": spec.shape, "dtype": spec.dtype}
                for key, spec in self.step.obs_spec.items()
            ],
            "action": {
                "output": "action",
                "low": self.step.low.tolist(),
                "high": self.step.high.tolist(),
            },
            "carry": [
                {
                    "input": f"carry_{name}",
                    "output": f"next_carry_{name}",
                    "shape": value.shape[1:],
                    "dtype": str(value.numpy().dtype),
                }
                for name, value in initial.items()
            ],
            "versions": {name: version(name) for name in ("slipstream-rl", "torch")},
        }

    def save_onnx(self, path: Path) -> dict[str, Any]:
        """Write an ONNX file that carries `about` as its metadata `slipstream`.

        Returns:
            `about`, with the largest difference that was found.

        Raises:
            SlipstreamError: missing packages, or an operation that ONNX does not have.
        """
        onnxruntime = _onnx_packages()
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        inputs = [part["input"] for part in self.about["observations"] + self.about["carry"]]
        outputs = ["action", *(part["output"] for part in self.about["carry"])]
        program = self._trace("onnx")
        with self._told("onnx"), _quiet(), torch.no_grad():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=self._batched("batch"),
                verbose=False,
            )
        assert converted is not None  # only the older exporter returns None
        session = onnxruntime.InferenceSession(
            converted.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )

        def run(obs: dict[str, Tensor], carry: Carry) -> tuple[Tensor, Carry]:
            values = [value.numpy() for value in (*obs.values(), *carry.values())]
            action, *after = map(
                torch.from_numpy, session.run(None, dict(zip(inputs, values, strict=True)))
            )
            return action, dict(zip(carry, after, strict=True))

        about = self._checked(run, "onnx")
        # Notes at each node, on which line of which file of this machine it stems from: left in,
        # they would be most of the file.
        ClearMetadataAndDocStringPass()(converted.model)
        converted.model.metadata_props["slipstream"] = json.dumps(about)
        converted.save(path, external_data=False)
        return about

    def save_torch_export(self, path: Path) -> dict[str, Any]:
        """Write a .pt2 file: `torch.export.load(path).module()(obs, carry)`.

        Returns:
            `about`, with the largest difference that was found.

        Raises:
            SlipstreamError: code that torch.export cannot trace.
        """
        program = self._trace("torch-export")
        about = self._checked(program.module(), "torch-export")
        with _quiet():
            torch.export.save(program, path, extra_files={"slipstream.json": json.dumps(about)})
        return about

    def _trace(self, to: str) -> ExportedProgram:
        # Traced at a batch of two: at one, torch would take the size for a constant.
        example = (self._random_obs(2, torch.Generator()), self.step.initial_carry(2))
        with self._told(to), _quiet(), _default_products(), torch.no_grad():
            program = torch.export.export(
                self.step, example, dynamic_shapes=self._batched(Dim("batch", min=1))
            )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        return program

    def _batched(self, size: Dim | str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is free in the shapes of observations and carry: the first dimension."""
        keys, names = self.step.obs_spec, self.step.initial_carry(0)
        return {key: {0: size} for key in keys}, {name: {0: size} for name in names}

    def _checked(self, run: Run, to: str, num_steps: int = 8) -> dict[str, Any]:
        """`about` with the largest difference to the policy's actions, over a few episodes."""
        generator = torch.Generator().manual_seed(0)
        worst = 0.0
        with _default_products(), torch.no_grad():
            for num_envs in (1, 3):
                carry = other = self.step.initial_carry(num_envs)
                for _ in range(num_steps):
                    obs = self._random_obs(num_envs, generator)
                    action, carry = self.step(obs, carry)
                    same, other = run(obs, other)
                    difference = (same - action).abs() / self.step.scale.clamp(min=1e-30)
                    worst = max(worst, float(difference.max()))
        if not worst <= TOLERANCE:  # NaN is refused, too
            raise SlipstreamError(
                f"the exported {self._parts()} acts otherwise than the policy, by {worst:.1e} in "
                f"[-1, 1]; this is a bug: use safetensors, and report it"
            )
        return {**self.about, "max_difference": worst}

    def _random_obs(self, num_envs: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise as large as what the policy has seen, where it knows that."""
        obs: dict[str, Tensor] = {}
        normalizers: Mapping[str, Any] = dict(self.step.actor.inputs.normalizers.items())
        for key, spec in self.step.obs_spec.items():
            shape = (num_envs, *spec.shape)
            if spec.dtype == "uint8":
                obs[key] = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
                continue
            obs[key] = torch.randn(shape, generator=generator)
            if key in normalizers:
                obs[key] = obs[key] * normalizers[key].var.sqrt() + normalizers[key].mean
        return obs

    def _parts(self) -> str:
        actor = self.step.actor
        parts = (actor.inputs, actor.backbone, actor.head)
        return ", ".join(type(part).__name__ for part in parts)

    @contextmanager
    def _told(self, to: str) -> Iterator[None]:
        """Turn whatever a tracer raises (many types, many lines) into one line for the user."""
        try:
            yield
        except Exception as error:
            cause = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
            said = f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
            raise SlipstreamError(
                f"{to} cannot hold a part of this policy ({self._parts()}): {said}; use "
                "safetensors, or a network made of operations that it has"
            ) from error


def _onnx_packages() -> Any:
    """The module onnxruntime, with what torch needs to write ONNX installed beside it."""
    try:
        import onnx  # noqa: F401 - torch imports it, and says less clearly that it is missing
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SlipstreamError(
            f"export to onnx needs the package {error.name}; install it with: pip install "
            "'slipstream-rl[export]'"
        ) from error
    return onnxruntime


@contextmanager
def _default_products() -> Iterator[None]:
    """Torch's own matrix products, which tracers know; a run may have chosen oneDNN's."""
    before = matmul_backend()
    set_matmul_backend("default")
    try:
        yield
    finally:
        set_matmul_backend(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracers' notes, on packages not in use here and of what they raise anyway."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
