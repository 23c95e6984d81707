"""OpenGL without a screen: which way works here, and what to do where none does."""

import ctypes
import importlib
import os
import sys
from typing import Any

from slipstream.errors import SlipstreamError

BACKENDS = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
"""Way to render without a screen -> the library that it needs."""

REMEDY = (
    "install EGL with scripts/install-system-packages pixels (Debian: libegl1 libegl-mesa0 "
    "libgl1-mesa-dri libopengl0), or choose another way with MUJOCO_GL=egl, osmesa or glfw; "
    "`slipstream doctor` tells what works here"
)


def choose_backend() -> str:
    """The way that MUJOCO_GL names, else the first of `BACKENDS` whose library is there.

    Raises:
        SlipstreamError: MUJOCO_GL names none that can render, or no library is there.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower()
    known = (*BACKENDS, "glfw")
    if asked in known:
        return asked
    if asked:
        raise SlipstreamError(
            f"MUJOCO_GL is '{asked}', with which no image can be rendered; "
            f"set it to one of {', '.join(known)}, or unset it"
        )
    if sys.platform != "linux":
        return "glfw"
    for name, library in BACKENDS.items():
        if _loads(library):
            return name
    raise SlipstreamError(f"no image can be rendered: no OpenGL library was found; {REMEDY}")


def open_context(size: int) -> Any:
    """An OpenGL context of MuJoCo's for images of `size` pixels; `as_current()` binds it.

    Raises:
        SlipstreamError: OpenGL cannot be had here; says how to get it.
    """
    backend = choose_backend()
    # Mesa's threads cost more than they bring at this size, most of all beside other processes.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        # Not mujoco.GLContext: what that is was settled by MUJOCO_GL when mujoco was imported.
        return importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
    except Exception as error:  # PyOpenGL raises what it pleases, AttributeError included
        detail = " ".join(str(error).split()) or type(error).__name__
        raise SlipstreamError(
            f"no image can be rendered: OpenGL by {backend} failed ({detail}); {REMEDY}"
        ) from error


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
