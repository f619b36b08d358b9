"""What a release and its contributors stand on: citation, changelog, workflows, image, extras."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import preceptor
from tools import extras, release_notes

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# citation: fields of the Citation File Format, version 1.2.0 (its schema guide lists them)

OF_THE_FILE = set(
    "abstract authors cff-version commit contact date-released doi identifiers keywords license "
    "license-url message preferred-citation references repository repository-artifact "
    "repository-code title type url version".split()
)
OF_A_REFERENCE = set(
    "abbreviation abstract authors collection-doi collection-title collection-type commit "
    "conference contact copyright data-type database date-accessed date-downloaded date-published "
    "date-released department doi edition editors editors-series end entry filename format "
    "identifiers institution isbn issn issue issue-date issue-title journal keywords languages "
    "license license-url loc-end loc-start location medium month nihmsid notes number "
    "number-volumes pages patent-states pmcid publisher recipients repository repository-artifact "
    "repository-code scope section senders start status term thesis-type title translators type "
    "url version volume volume-title year year-original".split()
)
OF_A_PERSON = set(
    "address affiliation alias city country email family-names fax given-names name-particle "
    "name-suffix orcid post-code region tel website".split()
)
OF_AN_ENTITY = set(
    "address alias city country date-end date-start email fax location name orcid post-code region "
    "tel website".split()
)


def test_the_citation_is_a_citation() -> None:
    cff: dict[str, Any] = yaml.safe_load(text_of("CITATION.cff"))
    assert {"authors", "cff-version", "message", "title"} <= set(cff) <= OF_THE_FILE
    assert cff["cff-version"] == "1.2.0" and cff["type"] == "software"
    assert cff["version"] == preceptor.__version__
    assert cff["license"] == PROJECT["license"]
    assert cff["keywords"] == PROJECT["keywords"]
    assert cff["abstract"] == PROJECT["description"]
    for own in cff["references"]:
        assert {"authors", "title", "type"} <= set(own) <= OF_A_REFERENCE
        assert own["type"] in ("article", "conference-paper", "software", "report", "generic")
        for one in own.get("identifiers", []):
            assert set(one) <= {"type", "value", "description"}
            assert one["type"] in ("doi", "url", "swh", "other")
    for own in (cff, *cff["references"]):
        for author in own["authors"]:
            assert set(author) <= (OF_AN_ENTITY if "name" in author else OF_A_PERSON)
            assert {"name", "family-names"} & set(author)


# changelog


def version_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_changelog_keeps_its_form() -> None:
    known = release_notes.sections()
    assert next(iter(known)) == "Unreleased"
    released = [name for name in known if name != "Unreleased"]
    assert preceptor.__version__ in released
    assert released == sorted(released, key=version_of, reverse=True)
    dates = [known[name][0] for name in released]
    assert all(dates) and dates == sorted(dates, reverse=True)
    for name, (_, text) in known.items():
        heads = re.findall(r"^### (.*)$", text, re.M)
        assert set(heads) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        assert len(heads) == len(set(heads)), f"{name} has a heading twice"
    assert len(re.findall(r"^## ", text_of("CHANGELOG.md"), re.M)) == len(known)


def test_a_tag_is_the_version_with_its_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src" / "preceptor").mkdir(parents=True)
    (tmp_path / "src" / "preceptor" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    log = tmp_path / "CHANGELOG.md"
    log.write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.0]\n\n- New.\n\n## [1.1.0]\n")
    assert release_notes.main("v1.1.0", tmp_path) == 1
    assert capsys.readouterr().err == "the tag is v1.1.0, the version makes it v1.2.0\n"
    assert release_notes.main("v1.2.0", tmp_path) == 1
    assert "no section `## [1.2.0] - YYYY-MM-DD`" in capsys.readouterr().err
    log.write_text(log.read_text().replace("[1.2.0]", "[1.2.0] - 2026-01-02"))
    assert release_notes.main("v1.2.0", tmp_path) == 0
    assert capsys.readouterr().out == "- New.\n"


# workflows


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}: {name}", step)
        for path in WORKFLOWS
        for name, job in jobs(path).items()
        for step in job["steps"]
    ]


def test_workflows_run_what_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    ran: set[str] = set()
    for where, step in steps():
        for made in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
            assert made in targets, f"{where}: no target {made}"
            ran.add(made)
        for module in re.findall(r"-m (tools\.\w+)", step.get("run", "")):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), where
    assert {"check", "package", "site", "screenshots", "extras"} <= ran
    run = {step.get("run") for _, step in steps()}
    assert ".ci/run" in run and "make test" in text_of(".ci/run")


def test_actions_are_pinned_and_rights_are_few() -> None:
    used = [(where, step["uses"]) for where, step in steps() if "uses" in step]
    assert len(used) > 10
    for where, action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", action), f"{where}: {action}"
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, where
    rights = {
        (path.name, name): own.get("permissions", {})
        for path in WORKFLOWS
        for name, own in {"": yaml.safe_load(path.read_text()), **jobs(path)}.items()
    }
    for place, given in rights.items():
        assert isinstance(given, dict), f"{place}: rights are named one by one"
    writing = {
        (*place, right)
        for place, given in rights.items()
        for right, how in given.items()
        if how == "write"
    }
    assert writing == {
        ("release.yml", "publish", "id-token"),
        ("release.yml", "publish", "attestations"),
        ("release.yml", "announce", "contents"),
    }
    whole = "".join(path.read_text() for path in WORKFLOWS)
    assert "pull_request_target" not in whole and "secrets." not in whole
    for path in WORKFLOWS:
        assert all("timeout-minutes" in job for job in jobs(path).values()), path.name


def test_versions_of_python_are_those_that_are_promised() -> None:
    matrix = jobs(ROOT / ".github/workflows/ci.yml")["test"]["strategy"]["matrix"]["python"]
    gate = [
        step["with"]["python-version"]
        for step in jobs(ROOT / ".github/workflows/ci.yml")["check"]["steps"]
        if "setup-python" in step.get("uses", "")
    ]
    named = [
        own.rpartition(" ")[2]
        for own in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", own)
    ]
    assert [*gate, *matrix] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_forms_for_issues_ask_for_what_is_needed() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    assert {path.name for path in folder.iterdir()} == {
        "bug_report.yml",
        "config.yml",
        "feature_request.yml",
    }
    for name in ("bug_report.yml", "feature_request.yml"):
        form = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        assert (
            {"name", "description", "body"}
            <= set(form)
            <= {
                *("name", "description", "body", "labels", "title", "assignees", "projects", "type")
            }
        )
        kinds = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) and ids
        for part in form["body"]:
            assert part["type"] in kinds and part["attributes"]
            assert part["type"] == "markdown" or part["attributes"]["label"]
    updates = yaml.safe_load(text_of(".github/dependabot.yml"))
    assert updates["version"] == 2
    kinds = {own["package-ecosystem"] for own in updates["updates"]}
    assert kinds == {"github-actions", "docker", "pip"}


# image


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each instruction of the Dockerfile; comments and line breaks joined."""
    lines = [line for line in text_of("Dockerfile").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    rows = [line.strip() for line in joined.splitlines() if line.strip()]
    return [(row.partition(" ")[0], row.partition(" ")[2].strip()) for row in rows]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build; the last rule that fits decides."""
    out = False
    for rule in text_of(".dockerignore").splitlines():
        if rule and not rule.startswith("#"):
            name = rule.removeprefix("!")
            fits = name == "*" or Path(path).parts[0] == name
            out = (not rule.startswith("!")) if fits else out
    return out


def test_the_image_is_built_of_what_is_there() -> None:
    found = instructions()
    stages = [arguments.split() for name, arguments in found if name == "FROM"]
    assert [stage[2] for stage in stages] == ["wheel", "cpu", "cuda"]
    assert all(stage[1] == "AS" for stage in stages)
    for image, *_ in stages:
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", image), f"{image} is pinned by no tag"
    known = {
        *("FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD"),
    }
    assert {name for name, _ in found} <= known
    copied = [arguments.split() for name, arguments in found if name == "COPY"]
    sources = [path for row in copied for path in row[:-1]]
    sources += re.findall(r"type=bind,source=([\w./-]+)", text_of("Dockerfile"))
    assert {"src", "pyproject.toml", "constraints.txt"} <= set(sources)
    for path in sources:
        assert (ROOT / path).exists() and not ignored(path), path
    assert ignored("runs") and ignored(".git") and ignored("tests")
    of_the_build = {PROJECT["readme"], "LICENSE", "src", "pyproject.toml"}
    assert of_the_build <= set(sources), "the wheel cannot be built of what is copied"


def test_the_image_runs_preceptor_as_nobody_special() -> None:
    stage, last = "", {}
    for name, arguments in instructions():
        stage = arguments.split()[2] if name == "FROM" else stage
        last[stage, name] = arguments
    for own in ("cpu", "cuda"):
        assert last[own, "USER"] == "preceptor"
        assert json.loads(last[own, "ENTRYPOINT"]) == ["preceptor"]
        assert json.loads(last[own, "CMD"]) == ["--help"]
    (wanted,) = {arguments for name, arguments in instructions() if arguments.startswith("EXTRAS=")}
    assert set(wanted.removeprefix("EXTRAS=").split(",")) <= set(extras.extras())


# all of it


def test_slow_files_are_there() -> None:
    """`tests/conftest.py` starts them first; each that it names exists, and names are unique."""
    tree = ast.parse(text_of("tests/conftest.py"))
    (named,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SLOWEST"
    )
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
    assert len(named) == len(set(named)) > 10
    files = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in set(files) if files.count(name) > 1] == []


def test_hooks_and_the_gate_run_the_same_tools() -> None:
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    gate = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0]
    for hook in hooks:
        program = hook["entry"].removeprefix(".venv/bin/")
        assert f"$(BIN)/{program.partition(' --pythonpath')[0]}" in gate, hook["name"]


def test_no_index_is_named() -> None:
    """Where packages come from is the user's to say."""
    places = [*WORKFLOWS, *(ROOT / name for name in ("Dockerfile", "Makefile", "pyproject.toml"))]
    places += [ROOT / "README.md", ROOT / "constraints.txt", *(ROOT / "tools").glob("*.py")]
    hosts = re.compile(r"pypi\.org|pythonhosted|download\.pytorch|index-url\s*=?\s*http", re.I)
    assert [str(path) for path in places if hosts.search(path.read_text("utf-8"))] == []
