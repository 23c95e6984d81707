"""A folder of files that belong together, written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slipstream.errors import SlipstreamError

_UNFINISHED = ".unfinished-"


@contextmanager
def written_whole(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """Write files beside their place and move them there together: a failure leaves no half.

    Args:
        folder: made if missing. An earlier one of its kind is replaced; of its files, those that
            are not written again are removed.
        files: the names that one of this kind may hold.

    Yields:
        Where to write them.

    Raises:
        SlipstreamError: the folder holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        known = {*files, "__pycache__"}
        found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others := [name for name in found if name not in known]:
            raise SlipstreamError(
                f"{folder} holds something else already ({', '.join(others[:3])}); give a new "
                "folder"
            )
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder) as made:
            yield Path(made)
            for name in files:
                if (Path(made) / name).exists():
                    (Path(made) / name).replace(folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise SlipstreamError(
            f"cannot write to {folder}: {error}; give another folder or make room"
        ) from error
