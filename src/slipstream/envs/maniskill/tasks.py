"""What is known of ManiSkill's tasks by their ids, and whether their files are here."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from slipstream.errors import SlipstreamError

# All are of version 1. Known by name, so that one can be told what is missing where ManiSkill is.
_NAMES = frozenset(
    """
    AnymalC-Reach AnymalC-Spin ArchitecTHOR_SceneManipulation AssemblingKits DrawSVG
    DrawTriangle Empty FMBAssembly1Easy InsertFlower LiftPegUpright MS-AntRun MS-AntWalk
    MS-CartpoleBalance MS-CartpoleSwingUp MS-HopperHop MS-HopperStand MS-HumanoidRun
    MS-HumanoidStand MS-HumanoidWalk OpenCabinetDoor OpenCabinetDrawer PegInsertionSide
    PickClutterYCB PickCube PickCubeSO100 PickCubeWidowXAI PickSingleYCB PlaceSphere
    PlugCharger PokeCube PullCube PullCubeTool PushCube PushT PutCarrotOnPlateInScene
    PutEggplantInBasketScene PutSpoonOnTableClothInScene
    ReplicaCADPrepareGroceriesTrain_SceneManipulation
    ReplicaCADPrepareGroceriesVal_SceneManipulation ReplicaCADSetTableTrain_SceneManipulation
    ReplicaCADSetTableVal_SceneManipulation ReplicaCADTidyHouseTrain_SceneManipulation
    ReplicaCADTidyHouseVal_SceneManipulation ReplicaCAD_SceneManipulation RoboCasaKitchen
    RollBall RotateSingleObjectInHandLevel0 RotateSingleObjectInHandLevel1
    RotateSingleObjectInHandLevel2 RotateSingleObjectInHandLevel3 RotateValveLevel0
    RotateValveLevel1 RotateValveLevel2 RotateValveLevel3 RotateValveLevel4 SO100GraspCube
    SceneManipulation StackCube StackGreenCubeOnYellowCubeBakedTexInScene StackPyramid
    TableTopFreeDraw TriFingerRotateCubeLevel0 TriFingerRotateCubeLevel1
    TriFingerRotateCubeLevel2 TriFingerRotateCubeLevel3 TriFingerRotateCubeLevel4 TurnFaucet
    TwoRobotPickCube TwoRobotStackCube UnitreeG1PlaceAppleInBowl UnitreeG1Stand
    UnitreeG1TransportBox UnitreeGo2-Reach UnitreeH1Stand
    """.split()  # noqa: SIM905 - one a line would be longer than the rest
)

# What ManiSkill does not say of its own tasks, robots that are named inside of them included:
# ids -> what they need beside what is declared.
_UNDECLARED_ASSETS = {
    r"ArchitecTHOR_.*": ("AI2THOR",),
    r"ReplicaCAD_.*|SceneManipulation-v1": ("ReplicaCAD",),
    r"ReplicaCAD[^_]+_.*": ("ReplicaCAD", "ReplicaCADRearrange"),
    r"PickCubeWidowXAI-v1": ("widowxai",),
    r"Put(Carrot|Eggplant|Spoon)[OI]n.+Scene-v1|StackGreenCubeOnYellowCube.+": ("widowx250s",),
}

# Tasks whose episodes depend on the episode before unless each has a new scene (contact forces in
# the first observation, the solver's memory), so that a saved one could not be replayed. A scene
# costs 0.1 to 0.2 s of CPU.
_NEEDS_NEW_SCENE = re.compile(
    r"(MS-.+|PushT|PlugCharger|UnitreeG1.+|RotateSingleObjectInHand.+|Empty)-v1"
)

# Tasks of an arm over a table whose tool can be told where to go ("pd_ee_delta_pos").
_TABLETOP_ARM = frozenset(
    """
    LiftPegUpright PegInsertionSide PickCube PlaceSphere PlugCharger PokeCube PullCube
    PullCubeTool PushCube PushT RollBall StackCube StackPyramid
    """.split()  # noqa: SIM905 - as above
)


def is_tabletop_arm(env_id: str) -> bool:
    """Whether the id is a ManiSkill task whose arm knows the control mode `pd_ee_delta_pos`."""
    return env_id.rpartition(":")[2].removesuffix("-v1") in _TABLETOP_ARM


def is_maniskill(env_id: str) -> bool:
    """Whether the id is a ManiSkill task: one of its own, or one that a `module:` registers."""
    module, _, name = env_id.rpartition(":")
    if name.removesuffix("-v1") in _NAMES:
        return True
    if module and importlib.util.find_spec("mani_skill") is not None:
        with suppress(ImportError):  # is told of where the environment is made
            importlib.import_module(module)
    registration = sys.modules.get("mani_skill.utils.registration")
    return registration is not None and name in registration.REGISTERED_ENVS


def needs_new_scene(name: str) -> bool:
    """Whether every episode of a task must have a new scene, to be the same when it is replayed."""
    return _NEEDS_NEW_SCENE.fullmatch(name) is not None


def check_assets(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise SlipstreamError where files of the task or its robot have not been downloaded."""
    agents: Any = importlib.import_module("mani_skill.agents.registration").REGISTERED_AGENTS
    tasks: Any = importlib.import_module("mani_skill.utils.registration").REGISTERED_ENVS
    assets: Any = importlib.import_module("mani_skill.utils.assets")
    if name not in tasks:
        raise SlipstreamError(f"ManiSkill has no task '{name}'; it has {', '.join(tasks)}")
    task = tasks[name]
    robots = kwargs.get("robot_uids")
    if robots is None:
        parameter = inspect.signature(task.cls.__init__).parameters.get("robot_uids")
        robots = None if parameter is None else parameter.default
    groups = [*(task.asset_download_ids or ())]
    if "scene_builder_cls" not in kwargs:  # which builds another scene
        for pattern, undeclared in _UNDECLARED_ASSETS.items():
            if re.fullmatch(pattern, name):
                groups += undeclared
    for robot in robots if isinstance(robots, tuple | list) else (robots,):
        if isinstance(robot, str) and robot in agents:
            groups += agents[robot].asset_download_ids
    missing = [group for group in groups if not _is_there(assets, group)]
    if missing:
        raise SlipstreamError(missing_files(name, missing, ", ".join(missing)))


def _is_there(assets: Any, group: str) -> bool:
    sources = [group]
    if group not in assets.DATA_SOURCES:
        sources = assets.expand_data_group_into_individual_data_source_ids(group)
    for source in map(assets.DATA_SOURCES.__getitem__, sources):
        path = Path(source.output_dir) / source.target_path
        # A download that failed leaves an empty folder.
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return False
    return True


def missing_files(name: str, groups: Sequence[str], what: str) -> str:
    """Say what a task lacks (`what`), and the command that downloads these groups of files."""
    commands = " && ".join(f"python -m mani_skill.utils.download_asset {each}" for each in groups)
    return f"{name} needs files that are not here ({what}): {commands}"
