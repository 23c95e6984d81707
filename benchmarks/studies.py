"""What is compared: the studies, their tasks and variants. `benchmarks.study` runs them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """An environment, an algorithm and a budget."""

    env_id: str
    algorithm: str = "sac"
    total_steps: int = 40_000
    eval_every: int = 4_000
    arguments: tuple[str, ...] = ()
    measure: str = "return"
    """What of an evaluation is drawn and tabled."""
    episodes: int = 10
    """Of each evaluation."""


@dataclass(frozen=True)
class Variant:
    """One of the methods that are compared: its name and colour in the figure, and its flags."""

    label: str
    colour: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """Every task with every variant."""

    name: str
    tasks: dict[str, Task]
    variants: dict[str, Variant]


ACCELERATOR = ("--preset", "accelerator")
SCRATCH = ("--preset", "scratch")

LEARNING = Study(
    "learning",
    {
        "HalfCheetah-v5-sac": Task("HalfCheetah-v5", total_steps=60_000, eval_every=6_000),
        "HalfCheetah-v5-td3": Task("HalfCheetah-v5", "td3"),
        "Hopper-v5-td3": Task("Hopper-v5", "td3"),
    },
    {
        "two-stage": Variant("Slipstream, two stages", "#0072B2"),
        "scratch": Variant("Transformer from scratch", "#D55E00", SCRATCH),
        "accelerator": Variant("Accelerator (MLP) alone", "#009E73", ACCELERATOR),
        "two-stage-bf16": Variant("two stages, bf16 products", "#CC79A7", ("--matmul", "bf16")),
        "sb3": Variant("Stable-Baselines3", "#555555"),
    },
)
"""Full observations: does the transformer win by stage 1, and against whom?"""


def _masked(
    name: str, differences: bool, mask: str = "paper", steps: int = 40_000, *flags: str
) -> Task:
    arguments = ("--mask", mask, "--env.differences", str(differences), *flags)
    return Task(f"{name}-v5", total_steps=steps, eval_every=steps // 10, arguments=arguments)


MEMORY = Study(
    "memory",
    {f"{name}-v5-paper-mask": _masked(name, False) for name in ("HalfCheetah", "Hopper", "Ant")},
    {
        "two-stage": Variant("Two stages, stacked MLP first", "#0072B2"),
        "two-stage-late": Variant(
            "the same, no switch before 70 %", "#999933", ("--switch.earliest", "0.7")
        ),
        "stacked": Variant("Stacked MLP alone", "#009E73", ACCELERATOR),
        "scratch": Variant("Transformer from scratch", "#D55E00", SCRATCH),
        "privileged": Variant(
            "Two stages, privileged MLP and critic",
            "#E69F00",
            ("--privileged", "accelerator", "critic"),
        ),
        "mlp": Variant(
            "MLP on the masked observation",
            "#999999",
            (
                *ACCELERATOR,
                *("--networks.mlp.frame-stack", "1", "--networks.critic.frame-stack", "1"),
            ),
        ),
        "lstm": Variant("LSTM alone", "#CC79A7", (*ACCELERATOR, "--accelerator", "lstm")),
        "two-stage-lstm": Variant("Two stages, LSTM first", "#56B4E9", ("--accelerator", "lstm")),
    },
)
"""The paper's masks: what is hidden, who finds it out, and what does it cost?"""

VELOCITIES = Study(
    "velocities",
    {
        # Of HalfCheetah the paper's mask leaves half of the velocities; this one none.
        "HalfCheetah-v5-positions": _masked("HalfCheetah", False, "positions"),
        "HalfCheetah-v5-positions-differences": _masked("HalfCheetah", True, "positions"),
        "HalfCheetah-v5-paper-mask-differences": _masked("HalfCheetah", True),
        "Hopper-v5-paper-mask-differences": _masked("Hopper", True),
        "Hopper-v5-paper-mask-100k": _masked("Hopper", False, steps=100_000),
        "Hopper-v5-paper-mask-100k-differences": _masked("Hopper", True, steps=100_000),
        # No contact forces: whoever is privileged sees positions and velocities, 27 numbers.
        "Ant-v5-27-paper-mask-100k": _masked(
            "Ant",
            False,
            "paper",
            100_000,
            *("--env.kwargs", "include_cfrc_ext_in_observation", "False"),
        ),
    },
    MEMORY.variants,
)
"""What is worth more where velocities are hidden: differences, privilege, or more steps?"""

ALONE = ("--stages", "accelerate", "--cloning.no-enabled")


def _corridor(length: int) -> Task:
    context = str(length + 2)
    return Task(
        "slipstream/ProbeMemory-v0",
        total_steps=6_000,
        eval_every=500,
        arguments=(
            *("--preset", "memory-probe", "--env.kwargs", "delay", str(length)),
            *("--networks.transformer.context-length", context),
            *("--networks.recurrent.context-length", context),
        ),
    )


PROBE = Study(
    "probe",
    {f"corridor-{length}": _corridor(length) for length in (4, 12, 24)},
    {
        "two-stage": Variant("Two stages, GRU first", "#0072B2"),
        "scratch": Variant(
            "Transformer from scratch, critic too",
            "#D55E00",
            (
                *("--stages", "online", "--cloning.no-enabled"),
                *("--networks.critic.memory", "transformer"),
            ),
        ),
        "gru": Variant("GRU alone, critic too", "#CC79A7", ALONE),
        "mlp": Variant("MLP policy, GRU critic", "#999999", (*ALONE, "--accelerator", "mlp")),
    },
)
"""A cue to be remembered over a corridor: the best return is 1, without memory 0."""

POPGYM = Study(
    "popgym",
    {
        "NoisyPositionOnlyPendulumEasy": Task(
            "popgym.envs:popgym-NoisyPositionOnlyPendulumEasy-v0",
            total_steps=20_000,
            eval_every=2_000,
            arguments=("--preset", "popgym"),
            episodes=20,
        )
    },
    {
        "two-stage": Variant("Two stages, stacked MLP first", "#0072B2"),
        "scratch": Variant(
            "Transformer from scratch",
            "#D55E00",
            (
                *("--stages", "online", "--cloning.no-enabled"),
                *("--online.replay-capacity", "100000", "--online.guard-fraction", "0"),
            ),
        ),
        "stacked": Variant("Stacked MLP alone", "#009E73", ALONE),
        "lstm": Variant("LSTM alone", "#CC79A7", (*ALONE, "--accelerator", "lstm")),
    },
)
"""POPGym (Morad et al. 2023, arXiv 2303.01859): angles with noise, no velocities."""


def _manipulation(env_id: str, *flags: str, steps: int = 24_000, every: int = 8_000) -> Task:
    return Task(
        env_id,
        total_steps=steps,
        eval_every=every,
        arguments=flags,
        measure="success_once",
        episodes=20,
    )


MANIPULATION = Study(
    "manipulation",
    {
        "PushCube-v1": _manipulation("PushCube-v1", every=3_000),
        "PullCube-v1": _manipulation("PullCube-v1", every=3_000),
        "PickCube-v1": _manipulation("PickCube-v1", steps=60_000, every=6_000),
        "MS-HopperStand-v1": Task("MS-HopperStand-v1", total_steps=24_000, episodes=5),
    },
    {
        "two-stage": Variant("Two stages", "#0072B2"),
        "scratch": Variant("Transformer from scratch", "#D55E00", SCRATCH),
        "accelerator": Variant("Accelerator (MLP) alone", "#009E73", ACCELERATOR),
    },
)
"""ManiSkill from the state: what a robot arm learns in minutes on one core."""


def _with_replay(rows: int) -> Variant:
    capacity = str(rows)
    return Variant(
        f"taught by a state MLP, both replays {rows:,} rows",
        {10_000: "#56B4E9", 15_000: "#999933", 20_000: "#882255"}[rows],
        (
            *("--preset", "quick", "--accelerate.replay-capacity", capacity),
            *("--online.replay-capacity", capacity),
        ),
    )


PIXELS = Study(
    "pixels",
    {
        "HalfCheetah-v5-64px": Task("HalfCheetah-v5", eval_every=7_000, arguments=("--obs", "rgb")),
        "PullCube-v1-64px": _manipulation("PullCube-v1", "--obs", "rgb"),
        "PushCube-v1-64px": _manipulation("PushCube-v1", "--obs", "rgb"),
    },
    {
        "quick": Variant(
            "Two stages from pixels, taught by a state MLP", "#E69F00", ("--preset", "quick")
        ),
        "blind": Variant(
            "taught so, images blackened", "#999999", ("--preset", "quick", "--env.blind")
        ),
        "scratch": Variant(
            "Transformer from scratch on pixels",
            "#D55E00",
            (*SCRATCH, "--online.replay-capacity", "20000"),
        ),
        "state-critic": Variant(
            "From scratch on pixels, critics see the state",
            "#CC79A7",
            (*SCRATCH, "--privileged", "critic", "--online.replay-capacity", "20000"),
        ),
        "cnn": Variant("Two stages, a CNN first", "#0072B2", ("--preset", "cnn")),
        "cnn-alone": Variant("CNN alone", "#009E73", ("--preset", "cnn", *ALONE)),
        **{f"replay-{rows // 1000}k": _with_replay(rows) for rows in (10_000, 15_000, 20_000)},
    },
)
"""Images alone at 64 x 64: what a teacher that sees the state is worth."""

STUDIES = {
    study.name: study
    for study in (LEARNING, MEMORY, VELOCITIES, PROBE, POPGYM, MANIPULATION, PIXELS)
}
