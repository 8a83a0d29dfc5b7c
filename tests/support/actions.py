"""A stand-in for GitHub's runner: one job of a workflow, its `run:` steps and those that use this repository's action.

What it does as the runner documents it: expressions `${{ a.b }}` are substituted as text, each step is a file that the
shell named by it runs with the runner's own options, GITHUB_OUTPUT and GITHUB_STEP_SUMMARY are files, and a step that
fails ends the job. What is not the real runner: expressions are names alone, conditions (`if:`) are asked of the
test, actions of others (checkout) do nothing, and GITHUB_OUTPUT has one line for each value.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
OURS = "deadweight/deadweight@"
_EXPRESSION = re.compile(r"\$\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
_SHELLS = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"], "": ["bash", "-e"]}
"""By https://docs.github.com/actions/reference/workflow-syntax, `jobs.<job_id>.steps[*].shell`."""


class StepFailed(AssertionError):
    """A step ended with another status than 0."""


@dataclass
class Runner:
    """A runner with one workspace. `contexts` is what expressions may name: github, secrets, runner, ..."""

    workspace: Path
    temp: Path
    contexts: dict[str, Any]
    environment: Mapping[str, str]
    said: list[str] = field(default_factory=list)
    """What each step printed."""

    @property
    def summary(self) -> str:
        """What steps have written into the job's summary."""
        path = self.temp / "summary"
        return path.read_text() if path.exists() else ""

    def job(self, workflow: Mapping[str, Any], name: str, conditions: Mapping[str, bool]) -> dict[str, dict[str, str]]:
        """Runs a job; gives the outputs of its steps that have an id. `conditions` answers each `if:`."""
        steps: dict[str, dict[str, dict[str, str]]] = {}
        contexts = {**self.contexts, "steps": steps}
        contexts["env"] = {key: substituted(value, contexts) for key, value in workflow.get("env", {}).items()}
        for step in workflow["jobs"][name]["steps"]:
            if "if" in step and not conditions[step["if"]]:
                continue
            if str(step.get("uses", "")).startswith(OURS):
                given = {key: substituted(str(value), contexts) for key, value in step.get("with", {}).items()}
                outputs = self.action(given, contexts["env"])
            elif "run" in step:
                outputs = self.step(step, contexts, contexts["env"])
            else:
                continue
            if "id" in step:
                steps[step["id"]] = {"outputs": outputs}
        return {name: about["outputs"] for name, about in steps.items()}

    def action(self, given: Mapping[str, str], env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Runs this repository's composite action with inputs; gives its outputs."""
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        unknown = given.keys() - action["inputs"].keys()
        missing = {name for name, about in action["inputs"].items() if about.get("required")} - given.keys()
        assert not unknown | missing, f"inputs: {unknown} unknown, {missing} missing"
        inputs = {name: given.get(name, str(about.get("default", ""))) for name, about in action["inputs"].items()}
        steps: dict[str, dict[str, dict[str, str]]] = {}
        contexts = {**self.contexts, "inputs": inputs, "steps": steps}
        for step in action["runs"]["steps"]:
            assert step["shell"] in _SHELLS  # which composite actions have to name
            outputs = self.step(step, contexts, {**(env or {}), "GITHUB_ACTION_PATH": str(ROOT)})
            if "id" in step:
                steps[step["id"]] = {"outputs": outputs}
        return {name: substituted(about["value"], contexts) for name, about in action["outputs"].items()}

    def step(self, step: Mapping[str, Any], contexts: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
        """Runs a `run:` step; gives its outputs. Raises StepFailed."""
        number = len(self.said)
        script, output = self.temp / f"step-{number}.sh", self.temp / f"output-{number}"
        script.write_text(substituted(step["run"], contexts))
        output.touch()
        github = {f"GITHUB_{name.upper()}": str(value) for name, value in contexts["github"].items()}
        own = {name: substituted(str(value), contexts) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.temp / "summary")}
        done = subprocess.run(
            [*_SHELLS[step.get("shell", "")], script],
            cwd=self.workspace,
            env={**os.environ, **self.environment, **github, "RUNNER_TEMP": str(self.temp), **env, **files, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.said.append(done.stdout)
        if done.returncode:
            raise StepFailed(f"{step.get('name', step['run'])}: status {done.returncode}\n{done.stdout[-3000:]}")
        return dict(line.split("=", 1) for line in output.read_text().splitlines())


def substituted(text: str, contexts: Mapping[str, Any]) -> str:
    """The text with the value of each expression; what is not there is empty, as on GitHub."""

    def value(match: re.Match[str]) -> str:
        found: Any = contexts
        for name in match[1].split("."):
            found = found.get(name, "") if isinstance(found, Mapping) else ""
        return str(found)

    return _EXPRESSION.sub(value, text)
