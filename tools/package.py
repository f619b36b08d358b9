"""Whether the wheel and the sdist hold what they should, and work where nothing else is installed.

`python -m tools.package DIST` compares the archives of a folder with the sources. With `--install`
each is also installed into an environment of its own, with all that it depends on, and used there:
help, the lab, and a small selection. `--borrow` is the same without downloads: the packages that it
depends on are those of this interpreter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from preceptor.core import artifacts

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "preceptor"
# of the package, one of each kind at least: a pattern that matches nothing is a fault
KINDS = (
    "cli.py",
    "py.typed",
    "benchmarks/prompts/*.txt",
    "lab/models/*/config.json",
    "lab/models/*/model.safetensors",
    "lab/models/*/tokenizer.json",
    "recipes/select.yaml",
    "recipes/*.yaml",
    "reporting/pages/*/*.css",
    "reporting/pages/*/*.html.j2",
    "reporting/pages/*/*.js",
    "reporting/pages/*.css",
    "reporting/pages/*.js",
    "reporting/pages/*.html.j2",
    "reporting/parts/page*",
    "reporting/serving/*.css",
    "reporting/serving/*.html.j2",
    "reporting/serving/*.js",
    "reporting/vendor/*.min.js",
    "reporting/vendor/LICENSE.*",
    "rewards/prompts/*.txt",
)
OF_SDIST = (
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("SECURITY.md", "constraints.txt", "mkdocs.yml", "pyproject.toml"),
    *("bench/*.py", "docs/*.md", "examples/*.yaml", "tests/conftest.py", "tools/*.py"),
)
NOWHERE = (
    *("*/__pycache__/*", "*.pyc", "*/.*_cache/*", "*.lock", "*/.venv/*", "*/.site/*", "*/dist/*"),
    *(
        f"*/{artifacts.PROVENANCE}",
        f"*/{artifacts.WORK}/*",
        "*/runs/*",
        "*/tests/vendor/*",
        "*.tmp",
    ),
)
SMALL = ("max_instructions=4", "teachers=[lab:elm-m, lab:aster-s]", "resamples=100")


def names_in(archive: Path) -> set[str]:
    """Files of a wheel, or of an sdist without its top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as sdist:
        files = [member.name for member in sdist.getmembers() if member.isfile()]
    return {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in files}


def sources() -> set[str]:
    """Files of the package as they lie here, without what Python leaves behind."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in files
        if "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def faults(archive: Path) -> list[str]:
    """What an archive lacks, and what it should not hold, each in one line."""
    names = names_in(archive)
    is_wheel = archive.suffix == ".whl"
    prefix = "preceptor/" if is_wheel else "src/preceptor/"
    packed = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    found = [f"lacks {prefix}{name}" for name in sorted(sources() - packed)]
    found += [f"holds {prefix}{name}, which is not here" for name in sorted(packed - sources())]
    wanted = [f"{prefix}{kind}" for kind in KINDS]
    if is_wheel:
        wanted += ["preceptor-*.dist-info/licenses/LICENSE", "*/licenses/*/vendor/LICENSE.*"]
        extra = {name.partition("/")[0] for name in names} - {"preceptor"}
        found += [f"holds {name}" for name in sorted(extra) if not name.endswith(".dist-info")]
    else:
        wanted += OF_SDIST
    found += [
        f"lacks {pattern}"
        for pattern in wanted
        if not any(fnmatch(name, pattern) for name in names)
    ]
    found += [
        f"holds {name}"
        for name in sorted(names)
        if any(fnmatch(f"/{name}", pattern) for pattern in NOWHERE)
    ]
    return found


def archives(dist: Path) -> list[Path]:
    """The wheel and the sdist of a folder (raises ValueError where it is not one of each)."""
    found = [*dist.glob("*.whl"), *dist.glob("*.tar.gz")]
    if sorted(path.suffix for path in found) != [".gz", ".whl"]:
        raise ValueError(f"{dist}: one wheel and one sdist are expected, not {len(found)} archives")
    return found


def use(archive: Path, borrow: bool) -> None:
    """Install into an environment of its own, and use it (raises CalledProcessError)."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = home / "env" / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if borrow:
            (site,) = (home / "env").glob("lib/python*/site-packages")
            (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
            run([*pip, "--no-deps", "--no-build-isolation", archive], home)
        else:
            run([*pip, "-c", ROOT / "constraints.txt", archive], home)
        preceptor = home / "env" / "bin" / "preceptor"
        where = "import preceptor; print(preceptor.__file__)"
        place = run([python, "-c", where], home)
        if not place.startswith(str(home)):
            raise ValueError(f"the installed package is not the one that is used: {place}")
        run([preceptor, "--help"], home)
        run([preceptor, "lab"], home)
        run([preceptor, "init"], home)
        run([preceptor, "select", "select.yaml", "--out", "run", *SMALL], home)
        for name in ("ranking.json", "report.html"):
            if not (home / "run" / name).stat().st_size:
                raise ValueError(f"{archive.name}: the selection left an empty {name}")


def run(command: list[str | Path], folder: Path) -> str:
    """Standard output of a program that knows nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=kept,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.package")
    parser.add_argument("dist", type=Path)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--borrow", action="store_true")
    options = parser.parse_args(arguments)
    wrong = 0
    for archive in archives(options.dist):
        told = faults(archive)
        wrong += len(told)
        for line in told:
            print(f"{archive.name}: {line}", file=sys.stderr)
        if options.install or options.borrow:
            use(archive.resolve(), options.borrow)
        print(f"{archive.name}: {len(names_in(archive))} files, {archive.stat().st_size:,} bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
