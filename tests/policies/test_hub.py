"""The folder for the Hub: what it holds, who can read it, and what the library is asked to do."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from slipstream.checkpoint import link, save_checkpoint
from slipstream.cli import main
from slipstream.config import EnvConfig, NetworksConfig, load, strict_converter, to_dict
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, Normalizer, build_actor
from slipstream.policies.hub import FILES, push, write_hub_folder
from slipstream.policies.policy import Policy, load_policy
from slipstream.spec import EnvSpec
from tests.policies.live_policies import live
from tests.report.sample_runs import VERSIONS, write_folder
from tests.tiny_runs import TINY

hub = pytest.importorskip("huggingface_hub")

RETURNS = {"random": [-40.0, -60.0], 10: [1.0, 2.0, 3.0], 20: [10.0, 20.0, 30.0, 40.0]}


def same_actions(first: Policy, second: Policy) -> bool:
    obs = np.random.default_rng(0).normal(size=(5, 3))
    return np.array_equal(first.predict(obs)[0], second.predict(obs)[0])


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A run whose last checkpoint, at 20, is a transformer, and whose best, at 10, is an MLP."""
    lines = [
        {"step": 0, "stage": "accelerate", "eval/random/returns": RETURNS["random"]},
        {"step": 0, "stage": "accelerate", "eval/random/return": -50.0},
    ]
    for step, stage in ((10, "accelerate"), (20, "online")):
        returns = RETURNS[step]
        lines.append(
            {
                "step": step,
                "stage": stage,
                "eval_steps": 7 * step,
                "wall_seconds": float(step),
                "eval/accelerator/return": 15.0,
                "eval/transformer/returns": returns,
                "eval/transformer/return": float(np.mean(returns)),
                "eval/transformer/return_std": float(np.std(returns)),
            }
        )
        if step == 10:
            lines.append({"step": 10, "stage": stage, "event": "switch", "reason": "matched"})
    config = {**to_dict(TINY), "total_steps": 40}
    folder = write_folder(tmp_path / "run", config, lines)
    for step, name in ((10, "mlp"), (20, "transformer")):
        policy = live(name)
        save_checkpoint(folder, step, (policy.description, dict(policy.actor.state_dict())), {})
    link(folder, "best", 10)
    link(folder, "last", 20)
    return folder


def test_the_folder_holds_the_policy_and_loads_again(run_dir, tmp_path):
    folder = write_hub_folder(run_dir, tmp_path / "hub")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert same_actions(load_policy(folder), live("transformer"))
    best = write_hub_folder(run_dir, tmp_path / "hub", "best")  # in the place of the first
    assert same_actions(load_policy(best), live("mlp"))
    assert load(folder / "train.yaml").total_steps == 40


def test_a_downloaded_snapshot_loads(run_dir, tmp_path):
    folder = write_hub_folder(run_dir, tmp_path / "hub")
    # The library's cache as a download leaves it: blobs, and links to them.
    repo, revision = tmp_path / "cache" / "models--user--name", "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    (repo / "blobs").mkdir()
    (repo / "snapshots" / revision).mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, repo / "blobs" / str(number))
        (repo / "snapshots" / revision / path.name).symlink_to(f"../../blobs/{number}")
    path = hub.snapshot_download("user/name", cache_dir=tmp_path / "cache", local_files_only=True)
    assert same_actions(load_policy(path), live("transformer"))


def test_the_librarys_mixin_loads_it(run_dir, tmp_path):
    class HubActor(Actor, hub.PyTorchModelHubMixin):
        def __init__(self, kind, head, networks, env, spec, actor="transformer"):
            converter = strict_converter()
            read = converter.structure(spec, EnvSpec)
            normalizers = {}
            if converter.structure(env, EnvConfig).normalize_obs:
                normalizers = {key: Normalizer(value.size) for key, value in read.obs.items()}
            sizes = converter.structure(networks, NetworksConfig)
            built = build_actor(kind, head, read, tuple(read.obs), sizes, normalizers)
            super().__init__(built.inputs, built.backbone, built.head)

    folder = write_hub_folder(run_dir, tmp_path / "hub")
    loaded = HubActor.from_pretrained(folder)
    expected = live("transformer").actor.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert value.equal(expected[name]), name


def test_the_card_tells_the_evaluation_of_these_weights(run_dir, tmp_path):
    folder = write_hub_folder(run_dir, tmp_path / "hub", repo="me/pendulum")
    card = hub.ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("mean_return", 25.0)
    assert result.dataset_name == "Pendulum-v1"
    # All means of four of 10, 20, 30, 40 lie between those; the middle 95 % are known by counting.
    grid = np.array(np.meshgrid(*[RETURNS[20]] * 4)).reshape(4, -1).mean(0)
    low, high = np.percentile(grid, [2.5, 97.5])
    assert result.metric_args["episodes"] == 4
    assert result.metric_args["bootstrap_95"] == pytest.approx([low, high], abs=1.3)
    assert {"reinforcement-learning", "transformer", "Pendulum-v1"} <= set(card.data.tags)
    assert "**25.0** (95 % interval 1" in card.text
    assert "| return of random actions | −50.0 |" in card.text  # noqa: RUF001
    assert "| return of the accelerator at the switch | 15.0 |" in card.text
    assert "20: 10 in stage 'accelerate', 10 in stage 'online'" in card.text
    assert "| steps of evaluation, not counted | 140 |" in card.text
    assert 'slipstream.load_policy(snapshot_download("me/pendulum"))' in card.text
    assert f"torch {VERSIONS['torch']}" in card.text
    assert "![Return over counted steps](learning-steps.png)" in card.text
    assert "highest return" not in card.text
    assert "Over 4 episodes such an interval is rough" in card.text
    with Image.open(folder / "learning-steps.png") as picture:
        assert picture.width > 1000


def test_the_card_of_the_best_says_that_it_was_chosen(run_dir, tmp_path):
    text = (write_hub_folder(run_dir, tmp_path / "hub", "best") / "README.md").read_text()
    assert "| mean return | **2.00** (95 % interval 1.00 to 3.00) |" in text
    assert "chosen because it had the highest return" in text


def test_the_card_says_where_weights_and_evaluation_part(run_dir, tmp_path):
    policy = live("mlp")
    save_checkpoint(run_dir, 15, (policy.description, dict(policy.actor.state_dict())), {})
    link(run_dir, "best", 15)
    log = run_dir / "metrics.jsonl"
    event = {"step": 10, "stage": "online", "event": "rollback", "reason": "fell apart"}
    log.write_text(log.read_text() + json.dumps(event) + "\n")
    text = (write_hub_folder(run_dir, tmp_path / "hub", "best") / "README.md").read_text()
    assert "The evaluation was at step 10, the weights are those of step 15." in text
    assert "not those that were evaluated" in text


def test_a_single_episode_has_no_interval(run_dir, tmp_path):
    log = run_dir / "metrics.jsonl"
    log.write_text(log.read_text().replace("[10.0, 20.0, 30.0, 40.0]", "[25.0]"))
    card = hub.ModelCard.load(write_hub_folder(run_dir, tmp_path / "hub") / "README.md")
    assert card.data.eval_results[0].metric_args == {"episodes": 1}
    assert "interval" not in card.text.split("## Learning curve")[0]


class Api:
    """Stands where the library begins to speak to the network."""

    def __init__(self, public: bool = False, fails: bool = False) -> None:
        self.calls: list[tuple] = []
        self.public, self.fails = public, fails

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        if self.fails:
            raise ConnectionError("no route\nto the host")
        self.calls.append(("create", repo_id, private, exist_ok))

    def repo_info(self, repo_id, *, repo_type):
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, *, repo_id, folder_path, repo_type, allow_patterns, commit_message):
        names = sorted(path.name for path in Path(folder_path).iterdir())
        self.calls.append(("upload", repo_id, names, sorted(allow_patterns)))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def api(monkeypatch):
    def use(**fields) -> Api:
        made = Api(**fields)
        monkeypatch.setattr(hub, "HfApi", lambda: made)
        return made

    return use


def test_push_makes_the_repository_and_uploads_the_folder(run_dir, api, capsys):
    used = api()
    assert main(["push", str(run_dir), "--repo", "me/pendulum", "--private"]) == 0
    assert capsys.readouterr().out == "https://hub/me/pendulum/commit/1\n"
    assert used.calls == [
        ("create", "me/pendulum", True, True),
        ("upload", "me/pendulum", sorted(FILES), sorted(FILES)),
    ]
    assert load_policy(run_dir / "hub").description["kind"] == "transformer"


def test_what_should_be_private_does_not_go_to_a_public_repository(run_dir, api):
    used = api(public=True)
    with pytest.raises(SlipstreamError, match="is public"):
        push(run_dir, "me/pendulum", private=True)
    assert [call[0] for call in used.calls] == ["create"]
    push(run_dir, "me/pendulum")
    assert [call[0] for call in used.calls] == ["create", "create", "upload"]


def test_a_dry_run_speaks_to_nobody(run_dir, api, capsys, tmp_path):
    used = api(fails=True)
    out = tmp_path / "out"
    arguments = ["push", str(run_dir), "--repo", "me/pendulum", "--dry-run", "--out", str(out)]
    assert main([*arguments, "--checkpoint", "best"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert load_policy(out).description["kind"] == "mlp" and used.calls == []


def test_mistakes_are_one_line(run_dir, api, capsys, tmp_path, monkeypatch):
    api(fails=True)

    def said(*arguments) -> str:
        assert main(["push", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("slipstream: ") and err.count("\n") == 1
        return err

    assert "upload to me/p failed (no route)" in said(run_dir, "--repo", "me/p")
    for repo in ("pendulum", "a/b/c", "me/pen dulum"):
        assert f"repo is '{repo}'; it must be user/name" in said(run_dir, "--repo", repo)
    assert "is no run folder" in said(tmp_path / "nonesuch", "--repo", "me/p")
    assert "something else already" in said(run_dir, "--repo", "me/p", "--out", run_dir)
    log = run_dir / "metrics.jsonl"
    log.write_text(log.read_text().replace("eval/transformer/returns", "eval/other/returns"))
    assert "no evaluation of its transformer up to step 20" in said(run_dir, "--repo", "me/p")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'slipstream-rl[hub]'" in said(run_dir, "--repo", "me/p")
