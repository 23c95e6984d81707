"""Slipstream trains transformer policies in online reinforcement learning.

Five names cover the common uses: `preset` and `train`, `resume`, `load_policy`, `evaluate`. They
are imported when first used, so that `import slipstream` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slipstream.policies.policy import evaluate_policy as evaluate
    from slipstream.policies.policy import load_policy
    from slipstream.presets import preset
    from slipstream.training import resume, train

__version__ = "0.1.0"
__all__ = ["evaluate", "load_policy", "preset", "resume", "train"]

_HOMES = {
    "evaluate": ("slipstream.policies.policy", "evaluate_policy"),
    "load_policy": ("slipstream.policies.policy", "load_policy"),
    "preset": ("slipstream.presets", "preset"),
    "resume": ("slipstream.training", "resume"),
    "train": ("slipstream.training", "train"),
}
"""Public name -> the module that it lives in, and its name there."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slipstream' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
