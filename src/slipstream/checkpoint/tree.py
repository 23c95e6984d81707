"""Nested structures as JSON beside safetensors: the values come back as they were."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slipstream.errors import SlipstreamError

FORMAT = "slipstream"
VERSION = 1


def save_tree(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write a nested structure as `state.json` beside `tensors.safetensors`.

    Args:
        folder: made if missing.
        tree: dicts (with keys that JSON has as scalars), lists and tuples of tensors, numpy arrays
            and scalars, numbers (any size, inf and nan included), strings, booleans and None.

    Raises:
        TypeError: something else is in the tree; names the place.
    """
    tensors: dict[str, Tensor] = {}
    encoded = _encode(tree, "", tensors, set())
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "tensors.safetensors")
    num_bytes = (folder / "tensors.safetensors").stat().st_size
    state = {"format": FORMAT, "version": VERSION, "tensors_bytes": num_bytes, "tree": encoded}
    (folder / "state.json").write_text(json.dumps(state, allow_nan=False))


def load_tree(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_tree` wrote: same values, dtypes, keys, tuples and arrays.

    Args:
        folder: where `state.json` lies.
        device: where tensors go; numpy arrays come back as such.

    Raises:
        SlipstreamError: nothing there, incomplete, or of a foreign or newer format.
    """
    state = read_json(folder / "state.json")
    path = folder / "tensors.safetensors"
    check_size(path, state.get("tensors_bytes"))
    try:
        tensors = load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise SlipstreamError(f"{path} cannot be read ({error}): use another checkpoint") from error
    return _decode(state["tree"], tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of ours.

    Raises:
        SlipstreamError: it is missing, damaged, foreign, or of a version that we cannot read.
    """
    if not path.is_file():
        raise SlipstreamError(
            f"{path.parent} has no {path.name}: it is half-written or not a slipstream checkpoint"
        )
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise SlipstreamError(f"{path} is damaged ({error}): use another checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SlipstreamError(f"{path} was not written by slipstream: give one of its checkpoints")
    if content.get("version", 0) > VERSION:
        raise SlipstreamError(
            f"{path} has format version {content['version']}, this slipstream reads up to "
            f"{VERSION}: upgrade slipstream"
        )
    return content


def check_size(path: Path, num_bytes: int | None) -> None:
    """See that a file has the size that was noted of it.

    Raises:
        SlipstreamError: it is missing, or of another size.
    """
    found = path.stat().st_size if path.is_file() else None
    if found != num_bytes:
        have = "missing" if found is None else f"{found} bytes"
        raise SlipstreamError(
            f"{path} is {have} instead of {num_bytes} bytes, so the checkpoint is half-written: "
            "use another checkpoint"
        )


def _encode(value: Any, place: str, tensors: dict[str, Tensor], storages: set[int]) -> Any:
    """JSON for a tree; its tensors go into `tensors`. An object with "$" is one of our own."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, np.generic):
        return {"$": "scalar", "of": _encode(np.asarray(value), place, tensors, storages)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$": "float", "of": repr(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {
                key: _encode(item, f"{place}.{key}", tensors, storages)
                for key, item in value.items()
            }
        return {
            "$": "dict",
            "of": [
                [_encode_key(key, place), _encode(item, f"{place}.{key}", tensors, storages)]
                for key, item in value.items()
            ],
        }
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{place}.{i}", tensors, storages) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$": "tuple", "of": items}
    if isinstance(value, Tensor):
        tensor, kind = value.detach().contiguous(), "tensor"
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensor, kind = torch.from_numpy(np.array(value, order="C")), "array"
    else:
        described = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"a checkpoint cannot hold {place.lstrip('.')}, which is {described}")
    if tensor.untyped_storage().data_ptr() in storages:
        tensor = tensor.clone()  # the file format wants no two tensors to share memory
    storages.add(tensor.untyped_storage().data_ptr())
    name = place.lstrip(".")
    while name in tensors:
        name += "'"
    tensors[name] = tensor
    return {"$": kind, "of": name}


def _encode_key(key: Any, place: str) -> Any:
    if isinstance(key, str | int | bool) or key is None:
        return key
    raise TypeError(f"a checkpoint cannot hold the key {key!r} of {place.lstrip('.')}")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: _decode(item, tensors) for key, item in value.items()}
    kind, of = value["$"], value["of"]
    if kind == "tensor":
        return tensors[of]
    if kind == "array":
        return tensors[of].numpy(force=True)
    if kind == "scalar":
        return _decode(of, tensors)[()]
    if kind == "float":
        return float(of)
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in of)
    return {key: _decode(item, tensors) for key, item in of}
