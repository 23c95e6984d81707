"""Whose folder a path is in, and who may write there."""

from pathlib import Path

import pytest

from slipstream import rundir
from slipstream.errors import SlipstreamError
from slipstream.rundir import check_free, held, run_of


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A run below a folder that is called as those of checkpoints are, which is none."""
    monkeypatch.chdir(tmp_path)
    run = Path("checkpoints") / "run"
    (run / "checkpoints" / "300" / "policy").mkdir(parents=True)
    (run / "config.json").touch()
    return run


@pytest.mark.parametrize("inside", [".", "checkpoints/300", "checkpoints/300/policy"])
def test_the_run_of_what_is_in_it_as_it_was_written(kept, inside):
    assert run_of(kept / inside) == kept
    assert run_of((kept / inside).absolute()) == kept.absolute()


def test_the_run_of_a_checkpoint_from_within(kept, monkeypatch):
    whole = kept.absolute()
    monkeypatch.chdir(kept / "checkpoints" / "300")
    assert run_of(Path()) == whole


def test_a_folder_of_no_run_is_its_own():
    assert run_of(Path("alone") / "checkpoints" / "policy") == Path("alone/checkpoints/policy")


def test_two_do_not_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "LOCK_SECONDS", 0.05)
    refused = pytest.raises(SlipstreamError, match="is being written by another process")
    with held(tmp_path), refused, held(tmp_path):
        pass
    with held(tmp_path):
        pass


@pytest.mark.parametrize("name", ["metrics.jsonl", "videos", "checkpoints"])
def test_what_another_run_kept_is_not_written_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SlipstreamError, match=f"holds {name} already"):
        check_free(tmp_path)


def test_a_folder_with_the_log_of_the_terminal_is_free(tmp_path):
    (tmp_path / "out.log").touch()
    check_free(tmp_path)
