"""What is installed here, what works, and the exact remedy for what does not.

Drivers are tried, not looked for, each in a process of its own: a broken one may take the process
with it, and a process that has loaded one way to OpenGL cannot try another.
"""

import ctypes
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from slipstream.envs.gl import BACKENDS, open_context
from slipstream.envs.maniskill.making import PACKAGES
from slipstream.errors import SlipstreamError

PYTHON_NEEDED = (3, 11)
MESA_NEEDED = 24
"""Major version of Mesa from which on its Vulkan device is one that ManiSkill accepts."""

_PIXELS = "scripts/install-system-packages pixels"
_NO_PHYSX = "PhysX's library for CUDA is not here"
_PHYSX = "python -c 'import sapien.physx; sapien.physx.enable_gpu()'"
"""Downloads it."""
_TIMEOUT = 120.0  # seconds, for a driver on a busy machine


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: what.
        ok: whether it is there and works.
        detail: its version, or what went wrong.
        remedy: what to do where it does not work; empty where there is nothing to do.
        required: whether nothing can be trained without it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = False


def examine() -> Iterator[Finding]:
    """Look at one thing after another; takes some seconds."""
    yield _python()
    yield _package("torch", "make setup", required=True)
    yield _cuda()
    yield _package("gymnasium", "make setup", required=True)
    yield _package("mujoco", "make setup", required=True)
    yield from _opengl()
    yield _vulkan()
    maniskill = _package("mani_skill", "make setup-maniskill")
    yield maniskill
    if maniskill.ok:
        yield _maniskill_renders()
        yield _maniskill_on_cuda()
    for name, remedy in {
        "onnxruntime": "make setup",
        "stable-baselines3": "make setup-bench",
        "sbx-rl": "make setup-bench",
        "popgym": "make setup",
    }.items():
        yield _package(name, remedy)


def show(findings: Iterable[Finding], console: Console | None = None) -> list[Finding]:
    """Draw a table, and below it the remedies; returns what was drawn.

    Args:
        findings: drawn one by one as they come.
        console: where to; standard output by default.
    """
    console = console or Console(highlight=False)
    table = Table("", "", "found", box=None, padding=(0, 1))
    drawn: list[Finding] = []
    with Live(table, console=console, auto_refresh=False) as live:
        for finding in findings:
            drawn.append(finding)
            mark = "[green]ok[/]" if finding.ok else "[red]no[/]" if finding.required else "-"
            table.add_row(mark, finding.name, escape(finding.detail))
            live.refresh()
    remedies = [finding for finding in drawn if finding.remedy]
    if remedies:
        console.print("\nTo have what is missing:")
    for finding in remedies:
        # Whole on its line, that it can be copied.
        console.print(f"  {finding.name}: [bold]{escape(finding.remedy)}[/]", soft_wrap=True)
    return drawn


def all_required(findings: list[Finding]) -> bool:
    """Whether everything is there without which nothing can be trained."""
    return all(finding.ok for finding in findings if finding.required)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    needed = ".".join(map(str, PYTHON_NEEDED))
    ok = sys.version_info >= PYTHON_NEEDED
    return Finding("python", ok, found, "" if ok else f"install Python {needed} or newer", True)


def _package(name: str, remedy: str, required: bool = False) -> Finding:
    try:
        return Finding(name, True, metadata.version(name), required=required)
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", remedy, required)


def _cuda() -> Finding:
    name = "CUDA"
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        return Finding(name, False, f"torch cannot be imported ({_line(error)})", "make setup")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(name, True, f"{torch.version.cuda}: {', '.join(devices)}")
    if torch.version.cuda is None:
        if not os.path.exists("/proc/driver/nvidia"):
            return Finding(name, False, "no NVIDIA driver, and torch is built for the CPU")
        remedy = (
            f"pip install --force-reinstall torch=={metadata.version('torch').partition('+')[0]}"
        )
        remedy += " --index-url https://download.pytorch.org/whl/cu130"
        return Finding(name, False, "torch is built for the CPU", remedy)
    return Finding(name, False, "no device that torch can use", "install NVIDIA's driver")


def _opengl() -> Iterator[Finding]:
    tried = {name: _tried(_try_opengl, name) for name in BACKENDS}
    remedies = {"egl": _PIXELS, "osmesa": "apt-get install libosmesa6, then set MUJOCO_GL=osmesa"}
    for name, (ok, detail) in tried.items():
        enough = any(works for works, _ in tried.values())  # one way to render is enough
        yield Finding(f"OpenGL by {name}", ok, detail, "" if enough else remedies[name])


def _vulkan() -> Finding:
    name = "Vulkan device"
    ok, detail = _tried(_try_vulkan)
    if not ok:
        return Finding(name, False, detail, PACKAGES)
    mesa = re.search(r"llvmpipe.*, Mesa (\d+)\.", detail)
    if mesa is not None and int(mesa[1]) < MESA_NEEDED:
        detail = f"{detail}: too old for ManiSkill, which needs Mesa {MESA_NEEDED}"
        return Finding(name, False, detail, PACKAGES)
    return Finding(name, True, detail)


def _maniskill_renders() -> Finding:
    ok, detail = _tried(_try_sapien)
    return Finding("ManiSkill renders", ok, detail, "" if ok else PACKAGES)


def _maniskill_on_cuda() -> Finding:
    name = "ManiSkill simulates on CUDA"
    ok, detail = _tried(_try_physx)
    # Without a device there is nothing that the library would help.
    return Finding(name, ok, detail, _PHYSX if detail == _NO_PHYSX else "")


def _tried(attempt: Callable[..., str], *arguments: str) -> tuple[bool, str]:
    """Make one of the attempts below in a process of its own."""
    call = f"doctor.{attempt.__name__}(*{arguments!r})"
    return _ask(f"from slipstream import doctor; print('found', {call})")


def _ask(code: str) -> tuple[bool, str]:
    """Whether a program worked, which then prints `found ...`, and what it found or failed with."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {_TIMEOUT:.0f} s"
    answer = re.search(r"^found (.*)$", done.stdout, re.MULTILINE)
    if answer is not None:
        return True, answer[1]
    if done.returncode < 0:
        return False, f"crashed with signal {-done.returncode}"
    last = done.stderr.strip().splitlines() or ["no error message"]
    return False, last[-1].partition(": ")[2] or last[-1]


def _try_opengl(backend: str) -> str:
    os.environ["MUJOCO_GL"] = backend
    os.environ.pop("PYOPENGL_PLATFORM", None)
    library = BACKENDS[backend]
    try:
        ctypes.CDLL(library)
    except OSError:
        raise RuntimeError(f"{library} is not installed") from None
    try:
        context = open_context(64)
    except SlipstreamError as error:  # without its remedy, which stands in a column of its own
        raise RuntimeError(_line(error.__cause__ or error)) from error
    with context.as_current():
        gl: Any = importlib.import_module("OpenGL.GL")
        return gl.glGetString(gl.GL_RENDERER).decode()


class _Application(ctypes.Structure):  # VkApplicationInfo
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint32),
        ("api_version", ctypes.c_uint32),
    )


class _Instance(ctypes.Structure):  # VkInstanceCreateInfo
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.POINTER(_Application)),
        ("unused", ctypes.c_uint64 * 4),  # no layers, no extensions
    )


class _Driver(ctypes.Structure):  # VkPhysicalDeviceDriverProperties
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_char * 256),
        ("info", ctypes.c_char * 256),
        ("conformance", ctypes.c_uint8 * 4),
    )


class _Device(ctypes.Structure):  # VkPhysicalDeviceProperties2
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.POINTER(_Driver)),
        ("versions_and_ids", ctypes.c_uint32 * 5),
        ("name", ctypes.c_char * 256),
        ("unused", ctypes.c_uint8 * 2048),  # 548 bytes
    )


def _try_vulkan() -> str:
    """Name and driver of every Vulkan device."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        raise RuntimeError("libvulkan.so.1 is not installed") from None
    application = _Application(type=0, api_version=1 << 22 | 2 << 12)  # Vulkan 1.2
    creation = _Instance(type=1, application=ctypes.pointer(application))
    instance = ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(creation), None, ctypes.byref(instance)) != 0:
        raise RuntimeError("no Vulkan driver is installed")
    count = ctypes.c_uint32()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    devices = (ctypes.c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
    if not devices:
        raise RuntimeError("no Vulkan driver found a device")
    return "; ".join(_describe_vulkan(vulkan, device) for device in devices)


def _describe_vulkan(vulkan: ctypes.CDLL, device: int) -> str:
    driver = _Driver(type=1000196000)
    found = _Device(type=1000059001, next=ctypes.pointer(driver))
    vulkan.vkGetPhysicalDeviceProperties2(ctypes.c_void_p(device), ctypes.byref(found))
    return f"{found.name.decode()}, {driver.info.decode() or driver.name.decode()}"


def _try_sapien() -> str:
    os.environ.setdefault("MS_RENDERER_LOG_LEVEL", "critical")
    sapien: Any = importlib.import_module("sapien")
    try:
        device = sapien.Device("cuda")
    except RuntimeError:
        device = sapien.Device("cpu")
    sapien.render.RenderSystem(device)
    return f"sapien {sapien.__version__} on {device.name}"


def _try_physx() -> str:
    """Load PhysX's library for CUDA where it lies; ManiSkill would download a missing one."""
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise RuntimeError("no device that torch can use")
    physx: Any = importlib.import_module("sapien.physx")
    if not any((Path.home() / ".sapien" / "physx" / physx.version()).glob("*PhysXGpu_64.*")):
        raise RuntimeError(_NO_PHYSX)
    physx.enable_gpu()
    return f"PhysX {physx.version()}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
