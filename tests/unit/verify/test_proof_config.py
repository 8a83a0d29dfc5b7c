"""The static proof of the configuration: all that makes a container run is as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deadweight import Options, Plan
from deadweight.verify.proof.config import config_differences
from support.careless import service_image
from support.images import FixtureImage, Json, file, make_image, make_tar
from support.proofs import Slim, differences, notes, opened, proved, slimmed, with_config, with_run

RUN: Json = {
    "Env": ["PATH=/usr/bin", "MODE=prod"],
    "Entrypoint": ["/entry"],
    "Cmd": ["serve"],
    "User": "app",
    "WorkingDir": "/app",
    "ExposedPorts": {"8000/tcp": {}},
    "Volumes": {"/data": {}},
    "Healthcheck": {"Test": ["CMD", "curl", "localhost"], "Interval": 3},
    "StopSignal": "SIGTERM",
    "Shell": ["/bin/sh", "-c"],
    "OnBuild": ["RUN true"],
    "Labels": {"maintainer": "us", "deadweight.version": "0.0.9"},
}


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Slim:
    image = make_image(*service_image().layers, run=RUN, author="us", created="2024-01-01T00:00:00Z", variant="v8")
    return slimmed(tmp_path_factory.mktemp("config"), image, Options())


@pytest.fixture(params=["with its plan", "without a plan"])
def plan(request: pytest.FixtureRequest, slim: Slim) -> Plan | None:
    return slim.plan if request.param == "with its plan" else None


def test_labels_and_a_note_are_all_that_is_new(slim: Slim, plan: Plan | None) -> None:
    labels = slim.after.config["config"]["Labels"]
    assert labels["deadweight.version"] != "0.0.9"
    assert labels["maintainer"] == "us"
    assert len(slim.after.config["history"]) == len(slim.before.config["history"]) + 1
    assert differences(proved(slim.before, slim.after, plan)) == []


OTHER: dict[str, Any] = {
    "Env": ["PATH=/usr/bin", "MODE=test"],
    "Entrypoint": None,
    "Cmd": ["serve", "--debug"],
    "User": "root",
    "WorkingDir": "/",
    "ExposedPorts": {},
    "Volumes": {"/data": {}, "/more": {}},
    "Healthcheck": {"Test": ["NONE"]},
    "StopSignal": "SIGKILL",
    "Shell": ["/bin/bash"],
    "OnBuild": [],
    "Domainname": "new",
    "ArgsEscaped": True,
    "env": ["PATH=/tmp"],
}


@pytest.mark.parametrize("key", OTHER)
def test_another_setting_is_caught_by_its_key(key: str, slim: Slim, plan: Plan | None) -> None:
    proof = proved(slim.before, with_run(slim.after, **{key: OTHER[key]}), plan)
    (found,) = differences(proof)
    assert found.startswith(f"config.{key}: ")
    assert [result.outcome for result in proof.results] == ["same" if plan is not None else "undeclared", "differs"]


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "User", "Healthcheck"])
def test_a_lost_setting_is_caught(key: str, slim: Slim, plan: Plan | None) -> None:
    run = {name: value for name, value in slim.after.config["config"].items() if name != key}
    (found,) = differences(proved(slim.before, with_config(slim.after, config=run), plan))
    assert found.startswith(f"config.{key}: ")
    assert found.endswith("then nothing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "arm64"),
        ("os", "windows"),
        ("variant", "v7"),
        ("author", "them"),
        ("created", "2025-01-01T00:00:00Z"),
        ("os.version", "10"),
    ],
)
def test_the_platform_and_the_rest_are_held(key: str, value: str, slim: Slim, plan: Plan | None) -> None:
    found = differences(proved(slim.before, with_config(slim.after, **{key: value}), plan))
    assert [each for each in found if each.startswith(f"{key}: ")]


def labelled(image: FixtureImage, **labels: str) -> FixtureImage:
    more = {key.replace("_", "."): value for key, value in labels.items()}
    return with_run(image, Labels={**image.config["config"]["Labels"], **more})


def test_labels_of_others_are_held(slim: Slim, plan: Plan | None) -> None:
    assert differences(proved(slim.before, labelled(slim.after, deadweight_more="x"), plan)) == []
    for image in (
        labelled(slim.after, maintainer="them"),
        labelled(slim.after, deadweightlike="x"),
        with_run(slim.after, Labels={}),
    ):
        (found,) = differences(proved(slim.before, image, plan))
        assert found.startswith("config.Labels.")


def test_the_image_names_the_original_and_the_plan(slim: Slim) -> None:
    other = labelled(slim.after, deadweight_source="sha256:" + "0" * 64)
    (found,) = differences(proved(slim.before, other))
    assert "deadweight.source" in found
    other = labelled(slim.after, deadweight_plan="sha256:" + "0" * 64)
    assert differences(proved(slim.before, other)) == []
    (found,) = differences(proved(slim.before, other, slim.plan))
    assert "deadweight.plan" in found
    (found,) = differences(proved(slim.before, slim.after, msgspec.structs.replace(slim.plan, notes=["another"])))
    assert "deadweight.plan" in found


def test_a_plan_s_place_is_no_part_of_it(slim: Slim) -> None:
    image = msgspec.structs.replace(slim.plan.image, reference="elsewhere")
    assert differences(proved(slim.before, slim.after, msgspec.structs.replace(slim.plan, image=image))) == []


def test_a_plan_edited_by_hand_is_not_held_to_its_digest(slim: Slim) -> None:
    cut = next(cut for cut in slim.plan.cuts if cut.action == "drop")
    cuts = [each for each in slim.plan.cuts if each is not cut]
    assert differences(proved(slim.before, slim.after, msgspec.structs.replace(slim.plan, cuts=cuts))) == []


def test_the_history_is_the_original_s(slim: Slim, plan: Plan | None) -> None:
    first, *rest, note = slim.after.config["history"]
    wrong: list[list[Any]] = [
        [{**first, "created_by": "something else"}, *rest, note],
        [first, *rest, note, note],
        [first, *rest, {"created_by": "RUN evil", "empty_layer": True}],
        [first, *rest, {**note, "empty_layer": False}],
        [first, *rest, "text"],
        rest,
        [],
    ]
    for history in wrong:
        (found,) = differences(proved(slim.before, with_config(slim.after, history=history), plan))
        assert found.startswith("history: ")
    assert differences(proved(slim.before, with_config(slim.after, history=[first, *rest]), plan)) == []


def test_a_key_that_is_there_twice_is_caught(slim: Slim, tmp_path: Path) -> None:
    """Engines merge the two, readers of JSON take the last."""
    with opened(slim.before) as before, opened(slim.after) as after:
        data = after.config_bytes.replace(b'"config":', b'"config":{"User":"evil"},"config":', 1)
        twice = dataclasses.replace(after, config_bytes=data)
        assert after.config == twice.config
        assert config_differences(before, twice, None) == ["'config' is there twice"]


def test_numbers_are_not_taken_for_truth() -> None:
    one = make_image(b"", run={"ArgsEscaped": True})
    two = make_image(b"", run={"ArgsEscaped": 1})
    assert [each.partition(":")[0] for each in differences(proved(one, two))] == ["config.ArgsEscaped"]


@pytest.mark.parametrize("run", [None, [], "text", {"Labels": []}, {"Env": "text"}])
def test_odd_configurations_compare(run: Any) -> None:
    one = make_image(b"")
    odd = dataclasses.replace(one, config={**one.config, "config": run, "history": run})
    assert differences(proved(odd, odd)) == []
    assert isinstance(differences(proved(one, odd)), list)


def test_an_image_is_proved_the_same_as_itself_in_words_that_fit() -> None:
    image = make_image(make_tar(file("etc/x", b"x")), run={"Env": ["A=b"]})
    proof = proved(image, image)
    assert not any(" gone" in note for note in notes(proof))
    assert "1 key" in [probe.after for probe in proof.results]
