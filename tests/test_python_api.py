"""The five names of the package, light to import, whatever was imported before."""

import subprocess
import sys

import pytest

import slipstream
from slipstream.errors import SlipstreamError
from tests.tiny_runs import tiny


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


def test_what_cannot_be_trained_is_told_with_the_remedy():
    with pytest.raises(SlipstreamError, match=r"not 'Pendulum-v1'; .*slipstream\.preset\("):
        slipstream.train("Pendulum-v1")  # pyright: ignore[reportArgumentType]


def test_a_run_goes_by_strings_too_and_its_policy_shows_itself_in_a_line(tmp_path):
    run = slipstream.train(tiny(), str(tmp_path / "run"), show_progress=False)
    assert slipstream.resume(str(run), show_progress=False) == run
    policy = slipstream.load_policy(str(run))
    assert repr(policy) == ("<Policy: transformer of Pendulum-v1, state (3,) -> action (1,)>")
    with pytest.raises(SlipstreamError, match="checkpoint is 'bst'; choose last or best"):
        slipstream.load_policy(run, "bst")  # pyright: ignore[reportArgumentType]
