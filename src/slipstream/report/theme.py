"""Colours and fonts of the report's pictures, once for light and once for dark pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType


@dataclass(frozen=True)
class Theme:
    """Colours on one background, told apart by colour-blind readers too.

    Actors and methods use Okabe and Ito's set (lighter kin of it on a dark page), the parts of the
    time bars a scale of rising lightness.
    """

    name: str
    paper: str
    ink: str
    faint: str
    grid: str
    accelerator: str
    transformer: str
    groups: tuple[str, ...]
    parts: tuple[str, ...]


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1c2430",
    faint="#667085",
    grid="#e6e9ef",
    accelerator="#d55e00",
    transformer="#0072b2",
    groups=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9"),
    parts=("#46327e", "#277f8e", "#5ec262", "#e3d32b", "#a8b0bd"),
)
DARK = Theme(
    name="dark",
    paper="#161b24",
    ink="#e6eaf1",
    faint="#98a2b3",
    grid="#2a3140",
    accelerator="#f5893d",
    transformer="#56b4e9",
    groups=("#56b4e9", "#f5893d", "#2fc49a", "#e39cc4", "#e6c84f", "#9aa8ff"),
    parts=("#8c7bd8", "#3aa6b5", "#74d07a", "#f0e15a", "#6b7688"),
)


@contextmanager
def matplotlib_style(theme: Theme) -> Iterator[None]:
    """Draws what is made inside it in the theme's colours and fonts."""
    settings: dict[RcKeyType, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": theme.faint,
        "axes.facecolor": theme.paper,
        "axes.labelcolor": theme.faint,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "text.color": theme.ink,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "lines.linewidth": 2.2,
        "lines.solid_capstyle": "round",
    }
    with mpl.rc_context(settings):
        yield
