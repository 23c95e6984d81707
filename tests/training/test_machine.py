"""What a run does to its process, and that it takes back what others would notice."""

import gc

import pytest

from slipstream.training.machine import spare_collector


@pytest.fixture
def thawed():
    """A process whose collector nobody has spared anything, and leaves as it was after the test."""
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    yield
    gc.unfreeze()
    if frozen:
        gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_the_collector_is_spared_what_exists_and_only_meanwhile():
    with pytest.raises(RuntimeError), spare_collector():
        assert gc.get_freeze_count() > 1_000
        raise RuntimeError
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("thawed")
def test_what_the_caller_set_aside_stays_so():
    gc.freeze()
    with spare_collector():
        pass
    assert gc.get_freeze_count() > 1_000
