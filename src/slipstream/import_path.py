"""What a user names by an import path: `my_pkg.module:name`."""

import difflib
import importlib
import os
import re
import sys
from typing import Any

from slipstream.errors import SlipstreamError

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_import_path(text: str) -> bool:
    """Whether `text` has the form `module:name`; an id with a version (`module:Id-v0`) has not."""
    return _PATH.fullmatch(text) is not None


def load_object(path: str, what: str) -> Any:
    """Import the object that a path names.

    The working folder is searched too, behind everything that is installed.

    Args:
        path: `module:name`; the name may be dotted (`module:Class.method`).
        what: what the object is to be, for error messages.

    Raises:
        SlipstreamError: not of that form, no such module, one that cannot be imported, or no such
            name in it.
    """
    if not is_import_path(path):
        raise SlipstreamError(
            f"{what} {path!r} is no import path; write module:name, such as my_pkg.module:name"
        )
    search_working_folder()
    module_name, _, name = path.partition(":")
    found = _import(module_name, path, what)
    for part in name.split("."):
        if not hasattr(found, part):
            raise SlipstreamError(
                f"{what} {path}: {getattr(found, '__name__', found)!s} has no {part!r}; "
                f"{_hint(part, found)}"
            )
        found = getattr(found, part)
    return found


def search_working_folder() -> None:
    """Let imports find what lies in the working folder, behind everything that is installed."""
    folder = os.getcwd()  # not searched where a console script was started
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()


def _import(module_name: str, path: str, what: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise SlipstreamError(
                f"{what} {path}: there is no module {error.name!r}, neither installed nor in "
                f"{os.getcwd()}; pip install it, or start from the folder that holds it"
            ) from error
        raise SlipstreamError(
            f"{what} {path}: importing {module_name} failed, which needs the module "
            f"{error.name!r}; pip install the package that provides it"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise SlipstreamError(
            f"{what} {path}: importing {module_name} failed with {type(error).__name__}: {text}; "
            f"mend the module (python -c 'import {module_name}' shows where)"
        ) from error


def _hint(name: str, found: Any) -> str:
    known = [each for each in dir(found) if not each.startswith("_")]
    close = difflib.get_close_matches(name, known, 3, 0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"it has {', '.join(known[:8]) or 'no public names'}"
