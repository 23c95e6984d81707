"""The doctor tries what is there, names what is not, and says how to get it."""

import io
import json
from importlib import metadata
from types import SimpleNamespace

import pytest
from rich.console import Console

from slipstream import doctor
from slipstream.cli import main
from slipstream.doctor import Finding

OK = Finding("python", True, "3.11.7", required=True)
NO_VULKAN = Finding("Vulkan device", False, "no driver [at all]", "scripts/install-it")
NO_TORCH = Finding("torch", False, "not installed", "make setup", required=True)


def versions(monkeypatch, **installed: str) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_what_is_missing_is_found_and_has_a_remedy(monkeypatch):
    versions(monkeypatch, torch="2.13.0", gymnasium="1.4.0")
    monkeypatch.setattr(doctor, "_tried", lambda *_: (False, "nothing there"))
    findings = by_name(list(doctor.examine()))
    assert findings["torch"] == Finding("torch", True, "2.13.0", required=True)
    assert findings["mujoco"] == Finding("mujoco", False, "not installed", "make setup", True)
    assert findings["mani_skill"].remedy == "make setup-maniskill"
    assert findings["sbx-rl"].remedy == "make setup-bench"
    assert findings["OpenGL by egl"].remedy == "scripts/install-system-packages pixels"
    assert "libosmesa6" in findings["OpenGL by osmesa"].remedy
    assert findings["Vulkan device"].remedy == "scripts/install-system-packages maniskill"
    # There is nothing to render with: not asked for.
    assert "ManiSkill renders" not in findings
    assert not doctor.all_required(list(findings.values()))


def test_one_way_to_opengl_is_enough(monkeypatch):
    monkeypatch.setattr(doctor, "_tried", lambda _, name: (name == "egl", "llvmpipe"))
    egl, osmesa = doctor._opengl()
    assert (egl.ok, osmesa.ok) == (True, False)
    assert osmesa.remedy == ""


@pytest.mark.parametrize(
    ("device", "ok"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits), Mesa 22.3.6 (LLVM 15.0.6)", False),
        ("llvmpipe (LLVM 15.0.6, 256 bits), Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)", True),
        ("NVIDIA H200, 580.95", True),
    ],
)
def test_an_old_mesa_is_told(monkeypatch, device, ok):
    monkeypatch.setattr(doctor, "_tried", lambda _: (True, device))
    finding = doctor._vulkan()
    assert finding.ok is ok
    assert device in finding.detail
    if not ok:
        assert "too old for ManiSkill, which needs Mesa 24" in finding.detail
        assert finding.remedy == "scripts/install-system-packages maniskill"


def test_an_installed_maniskill_is_tried(monkeypatch):
    versions(monkeypatch, mani_skill="3.0.1")
    monkeypatch.setattr(doctor, "_tried", lambda *_: (False, "ErrorIncompatibleDriver"))
    finding = by_name(list(doctor.examine()))["ManiSkill renders"]
    assert (finding.ok, finding.detail) == (False, "ErrorIncompatibleDriver")
    assert finding.remedy == "scripts/install-system-packages maniskill"


@pytest.mark.parametrize(("there", "remedy"), [(True, ""), (False, "sapien.physx.enable_gpu()")])
def test_physx_for_cuda_is_tried_where_it_lies_and_never_downloaded(
    monkeypatch, tmp_path, there, remedy
):
    loaded = []
    physx = SimpleNamespace(version=lambda: "105.1", enable_gpu=lambda: loaded.append(True))
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    modules = {"torch": torch, "sapien.physx": physx}
    monkeypatch.setattr(doctor.importlib, "import_module", modules.get)
    monkeypatch.setattr(doctor.Path, "home", lambda: tmp_path)
    if there:
        library = tmp_path / ".sapien" / "physx" / "105.1" / "libPhysXGpu_64.so"
        library.parent.mkdir(parents=True)
        library.touch()

    def tried(attempt):
        try:
            return True, attempt()
        except RuntimeError as error:
            return False, str(error)

    monkeypatch.setattr(doctor, "_tried", tried)
    finding = doctor._maniskill_on_cuda()
    assert (finding.ok, bool(loaded)) == (there, there)
    assert remedy in finding.remedy and bool(finding.remedy) == bool(remedy)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("print('noise'); print('found a device')", (True, "a device")),
        ("import os; os.abort()", (False, "crashed with signal 6")),
        ("raise RuntimeError('no driver: none')", (False, "no driver: none")),
        ("import sys; sys.exit(3)", (False, "no error message")),
    ],
)
def test_a_driver_that_takes_its_process_with_it_is_survived(code, answer):
    assert doctor._ask(code) == answer


def test_a_driver_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "_TIMEOUT", 0.2)
    assert doctor._ask("import time; time.sleep(60)") == (False, "no answer within 0 s")


def test_the_attempts_fail_with_words_where_there_is_no_driver(monkeypatch, tmp_path):
    nothing = str(tmp_path / "none.json")
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_FILENAMES"):
        monkeypatch.setenv(name, nothing)
    ok, detail = doctor._tried(doctor._try_vulkan)
    assert not ok
    assert detail in ("no Vulkan driver is installed", "libvulkan.so.1 is not installed")
    ok, detail = doctor._tried(doctor._try_opengl, "egl")
    assert not ok
    assert "EGL" in detail


def test_the_table_marks_each_and_ends_with_the_remedies():
    out = io.StringIO()
    drawn = doctor.show([OK, NO_VULKAN], Console(file=out, width=70))
    assert drawn == [OK, NO_VULKAN]
    text = out.getvalue()
    assert "no driver [at all]" in text
    assert text.splitlines()[-1] == "  Vulkan device: scripts/install-it"


@pytest.mark.parametrize(("found", "status"), [([OK, NO_VULKAN], 0), ([OK, NO_TORCH], 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command(monkeypatch, capsys, found, status, as_json):
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    assert main(["doctor", *(["--json"] if as_json else [])]) == status
    printed = capsys.readouterr().out
    if as_json:
        answer = json.loads(printed)
        assert answer["ok"] is (status == 0)
        assert [finding["name"] for finding in answer["findings"]] == [each.name for each in found]
    else:
        assert f"  {found[1].name}: {found[1].remedy}" in printed
