"""Run the policy.onnx beside this file; needs numpy and onnxruntime, nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Policy:
    """A policy and its memory, for one environment or for several side by side."""

    def __init__(self, path: str = "", num_envs: int = 1) -> None:
        """Load the file; `about` says what goes in and comes out."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a network of this size is slower on more
        path = path or str(Path(__file__).with_name("policy.onnx"))
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["slipstream"])
        self.num_envs, self.carry = num_envs, dict[str, np.ndarray]()
        for part in self.about["carry"]:
            self.carry[part["input"]] = np.zeros((num_envs, *part["shape"]), part["dtype"])

    def reset(self, rows: Any = slice(None)) -> None:
        """Begin an episode, in every environment or in `rows` of them: forget what was."""
        for value in self.carry.values():
            value[rows] = 0

    def step(self, obs: Any) -> np.ndarray:
        """Act on an observation (n,) or (N, n), or a dict of such: the action (A,) or (N, A)."""
        feed, single = dict(self.carry), False
        for part in self.about["observations"]:
            value = np.asarray(obs[part["key"]] if isinstance(obs, dict) else obs)
            if part["dtype"] == "uint8" != value.dtype:
                raise ValueError(f"{part['key']} is {value.dtype}, for an image in uint8, 0 to 255")
            value = value.astype(part["dtype"])
            single = value.shape == tuple(part["shape"])
            feed[part["input"]] = value[None] if single else value
            if feed[part["input"]].shape != (self.num_envs, *part["shape"]):
                raise ValueError(f"{part['key']} is {value.shape}, for {self.num_envs} of {part}")
        action, *carry = map(np.asarray, self.session.run(None, feed))
        self.carry = dict(zip(self.carry, carry, strict=True))
        return action[0] if single else action


if __name__ == "__main__":
    policy, random = Policy(), np.random.default_rng(0)
    for _ in range(10):  # noise in place of observations
        noise = {
            part["key"]: random.integers(0, 256, part["shape"], np.uint8)
            if part["dtype"] == "uint8"
            else random.normal(size=part["shape"])
            for part in policy.about["observations"]
        }
        print(policy.step(noise))
