"""Whether every extra can be installed today: pip resolves each by itself, and installs nothing.

`python -m tools.extras [NAME...]`; the exit status is 1 where one does not resolve.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def extras(root: Path = ROOT) -> dict[str, list[str]]:
    """Name -> requirements."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["optional-dependencies"]


def resolves(name: str, root: Path = ROOT) -> bool:
    """Whether pip finds versions of the package and the extra that fit each other."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--dry-run", "--ignore-installed", f"{root}[{name}]"]
    return subprocess.run(command, check=False).returncode == 0


def main(names: list[str]) -> int:
    broken = 0
    for name in names or list(extras()):
        fits = resolves(name)
        broken += not fits
        print(f"{name}: {'resolves' if fits else 'DOES NOT RESOLVE'}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
