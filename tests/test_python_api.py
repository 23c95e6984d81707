"""The five names of the package, light to import, whatever was imported before."""

import subprocess
import sys

import pytest

import slipstream


def in_a_fresh_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_is_light_to_import():
    in_a_fresh_process(
        "import sys, slipstream\n"
        "assert set(slipstream.__all__) < set(dir(slipstream)) and slipstream.__version__\n"
        "heavy = {'torch', 'numpy', 'gymnasium'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_no_module_hides_a_function():
    in_a_fresh_process(
        "import pkgutil, slipstream\n"
        "modules = {module.name for module in pkgutil.iter_modules(slipstream.__path__)}\n"
        "assert not modules & set(slipstream.__all__)\n"
        "import slipstream.training, slipstream.judging.evaluation\n"
        "assert callable(slipstream.train) and callable(slipstream.evaluate)"
    )


def test_the_five_names_are_what_they_say():
    from slipstream.policies.policy import evaluate_policy, load_policy
    from slipstream.presets import preset

    assert slipstream.__all__ == ["evaluate", "load_policy", "preset", "resume", "train"]
    assert slipstream.evaluate is evaluate_policy
    assert slipstream.load_policy is load_policy
    assert slipstream.preset is preset
    assert slipstream.resume.__module__ == slipstream.train.__module__ == "slipstream.training"
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        getattr(slipstream, "fly")  # noqa: B009 - a plain attribute would not type
