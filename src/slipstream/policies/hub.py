"""A run's policy as a folder for the Hugging Face Hub: weights, model card and picture."""

import json
from pathlib import Path
from typing import Any, Literal

import yaml

from slipstream.checkpoint import resolve
from slipstream.errors import SlipstreamError
from slipstream.policies.folder import written_whole
from slipstream.policies.model_card import PICTURE, SETTINGS, card_of, evaluated_at
from slipstream.policies.policy import DESCRIPTION, WEIGHTS, load_policy
from slipstream.report.figures import group_pictures, save
from slipstream.report.runs import Run, group_runs, load_run
from slipstream.report.summary import summarise_group
from slipstream.report.theme import LIGHT

CARD = "README.md"
FILES = (DESCRIPTION, WEIGHTS, CARD, SETTINGS, PICTURE)
PLACE = "user/name"


def write_hub_folder(
    run_dir: Path | str,
    folder: Path | str,
    checkpoint: Literal["last", "best"] = "last",
    repo: str | None = None,
) -> Path:
    """Write the folder that `push` uploads; `load_policy` loads it.

    `config.json` and `model.safetensors` are a policy as checkpoints hold it, and where
    `huggingface_hub.PyTorchModelHubMixin` looks for a model; `README.md` is the model card,
    `train.yaml` the run's configuration, `learning-steps.png` its learning curve.

    Args:
        run_dir: a run's folder.
        folder: made if missing; such a folder that is there is replaced.
        checkpoint: which one of the run.
        repo: the place it is meant for, as the card names it.

    Returns:
        The folder.

    Raises:
        SlipstreamError: no run, no checkpoint or no evaluation there, huggingface_hub is missing,
            or the folder holds something else or cannot be written.
    """
    hub = _import_hub()
    run_dir, folder = Path(run_dir), Path(folder)
    run = load_run(run_dir)
    policy = load_policy(run_dir, checkpoint)
    actor = str(policy.description["actor"])
    evaluated = evaluated_at(run, actor, _step(resolve(run_dir, checkpoint)))
    with written_whole(folder, FILES) as made:
        policy.save(made)
        (made / SETTINGS).write_text(yaml.safe_dump(dict(run.config), sort_keys=False))
        caption = _draw(run, made)
        described = policy.description
        card = card_of(run, described, evaluated, checkpoint, repo or PLACE, caption)
        hub.ModelCard(card).save(made / CARD)
    return folder


def push(
    run_dir: Path | str,
    repo: str,
    private: bool = False,
    checkpoint: Literal["last", "best"] = "last",
    folder: Path | str | None = None,
) -> str:
    """Write the folder (see `write_hub_folder`) and upload it.

    Args:
        run_dir: a run's folder.
        repo: user/name on the Hub; made if missing.
        private: nobody else may see it.
        checkpoint: which one of the run.
        folder: where the folder is written; `hub` in the run's folder by default.

    Returns:
        The address of the upload.

    Raises:
        SlipstreamError: as `write_hub_folder`; a name that the Hub does not have, a public
            repository that was to be private, or an upload that failed.
    """
    check_repo(repo)
    hub = _import_hub()
    folder = write_hub_folder(run_dir, folder or Path(run_dir) / "hub", checkpoint, repo)
    api = hub.HfApi()
    try:
        api.create_repo(repo, repo_type="model", private=private or None, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="model").private:
            raise SlipstreamError(
                f"{repo} is there already and is public; make it private on the Hub, choose "
                "another name, or leave out --private"
            )
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="model",
            allow_patterns=list(FILES),
            commit_message=f"Upload a policy of Slipstream, checkpoint '{checkpoint}'",
        )
    except SlipstreamError:
        raise
    except Exception as error:  # the library's own errors, its transport's and the socket's
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SlipstreamError(
            f"the upload to {repo} failed ({lines[0]}); log in with `hf auth login`; the folder "
            f"to upload is {folder}"
        ) from error
    return str(commit.commit_url)


def check_repo(repo: str) -> None:
    """See that a name is one of a repository, with its owner.

    Raises:
        SlipstreamError: it is not, or huggingface_hub is missing.
    """
    _import_hub()
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise SlipstreamError(
            f"repo is '{repo}'; it must be user/name, of letters, digits, '-', '_' and '.'"
        )


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise SlipstreamError(
            f"the Hub needs the package {error.name or 'huggingface_hub'}; install it with: "
            "pip install 'slipstream-rl[hub]'"
        ) from error
    return huggingface_hub


def _step(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "manifest.json").read_text())["step"])


def _draw(run: Run, folder: Path) -> str | None:
    """The learning curve; returns how to read it, or None where there is no curve."""
    (group,) = group_runs([run])
    for picture in group_pictures(summarise_group(group), ""):
        if f"{picture.name}.png" == PICTURE:
            save(picture, LIGHT, folder)
            return picture.caption
    return None
