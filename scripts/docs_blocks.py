"""The commands of the documentation, page by page."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        language: "sh" or "python".
        code: what stands in it.
    """

    language: str
    code: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block without their remarks."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line for line in (re.sub(r"(^|\s)#.*", "", each).strip() for each in lines) if line]


def blocks(text: str) -> list[Block]:
    """The shell and Python blocks of a page, in order; files that it shows are left out."""
    found = re.findall(r"^```(sh|bash|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        Block("python" if language == "python" else "sh", code)
        for language, code in found
        if not code.startswith("--8<--")
    ]


def pages() -> list[Path]:
    """The README, the page on contributing, and the pages of the site in its order."""
    site = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / name for name in site)]


def plain(command: str) -> str:
    """A command as the tables name it, wherever `slipstream` lies."""
    return command.removeprefix(".venv/bin/")
