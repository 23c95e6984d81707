"""Policies for where Slipstream is not: ONNX, torch.export, or the weights alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from slipstream.errors import SlipstreamError
from slipstream.policies.export.graph import PolicyGraph
from slipstream.policies.folder import written_whole
from slipstream.policies.policy import DESCRIPTION, WEIGHTS, Policy

Format = Literal["onnx", "torch-export", "safetensors"]

ABOUT, RUNNER = "policy.json", "run_policy.py"


def export_policy(policy: Policy, path: Path | str, to: Format = "onnx") -> Path:
    """Write a policy that others can run.

    `onnx` and `torch-export` hold one step of it: observations in the environment's own units and
    the carry go in, the action in the environment's own units and the next carry come out. The
    normalization is inside. The number of environments is free, and a carry of zeros begins an
    episode. Both are compared with the policy itself before they are written.

    Args:
        policy: from `load_policy`.
        path: a folder; made if missing, and an export that is there is replaced.
        to: `onnx` writes policy.onnx, policy.json (names, shapes and bounds; also within
            policy.onnx) and run_policy.py, which needs numpy and onnxruntime alone;
            `torch-export` writes policy.pt2 and policy.json; `safetensors` config.json and
            model.safetensors, as `load_policy` reads them.

    Returns:
        The file that holds the weights.

    Raises:
        SlipstreamError: no such format, a missing package, a policy that the format cannot hold,
            or a folder that holds something else or cannot be written.
    """
    if to not in FORMATS:
        raise SlipstreamError(f"there is no format '{to}'; choose one of {', '.join(FORMATS)}")
    files, write = FORMATS[to]
    folder = Path(path)
    with written_whole(folder, files) as made:
        write(policy, made)
    return folder / files[0]


def _write_onnx(policy: Policy, folder: Path) -> None:
    graph = PolicyGraph(policy)
    about = graph.save_onnx(folder / ONNX_FILES[0])
    _write_json(folder, about)
    shutil.copyfile(Path(__file__).with_name(RUNNER), folder / RUNNER)


def _write_torch_export(policy: Policy, folder: Path) -> None:
    about = PolicyGraph(policy).save_torch_export(folder / TORCH_EXPORT_FILES[0])
    _write_json(folder, about)


def _write_safetensors(policy: Policy, folder: Path) -> None:
    policy.save(folder)


def _write_json(folder: Path, about: dict[str, Any]) -> None:
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


ONNX_FILES = ("policy.onnx", ABOUT, RUNNER)
TORCH_EXPORT_FILES = ("policy.pt2", ABOUT)

FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Policy, Path], None]]] = {
    "onnx": (ONNX_FILES, _write_onnx),
    "torch-export": (TORCH_EXPORT_FILES, _write_torch_export),
    "safetensors": ((WEIGHTS, DESCRIPTION), _write_safetensors),
}
"""Format -> the files that it writes, the one with the weights first, and what writes them."""
