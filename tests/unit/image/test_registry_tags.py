"""Tags of a registry that holds more than whole images: indexes with gaps, artifacts, many releases. No original is
lost, and every one is found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deadweight.cli.main import main
from deadweight.image.transports import names
from deadweight.image.transports.registry_settings import Settings, using
from support.bad_registry import OCI_MANIFEST, Registry, bad_registry
from support.images import FixtureImage, descriptor, digest, directory, dump, file, make_image, make_tar
from support.registries import no_logins
from support.schemas import checked

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
CHART = "application/vnd.example.chart"


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    no_logins(monkeypatch, tmp_path / "home")
    with using(Settings(tries=2, pause=0.01, timeout=3.0)):
        yield


@pytest.fixture
def registry() -> Iterator[Registry]:
    with bad_registry() as found:
        yield found


def release(number: int, architecture: str = "amd64") -> FixtureImage:
    """An image from which a pip cache leaves."""
    folders = [directory("/".join(["root", ".cache", "pip", "http"][:n])) for n in range(1, 5)]
    tar = make_tar(file("app.py", b"#%d" % number), *folders, file("root/.cache/pip/http/a", b"x" * 5000))
    return make_image(tar, architecture=architecture)


def at(registry: Registry, tag: str) -> str:
    """The digest of what a tag names."""
    return digest(registry.manifests[tag][1])


def tags(registry: Registry) -> list[str]:
    return sorted(name for name in registry.manifests if ":" not in name)


def member(registry: Registry, tag: str, architecture: str, variant: str | None = None) -> dict[str, Any]:
    platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}
    return descriptor(OCI_MANIFEST, registry.manifests[tag][1], platform=platform)


def put_index(registry: Registry, tag: str, *members: dict[str, Any]) -> None:
    registry.put(tag, OCI_INDEX, dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(members)}))


def slim(registry: Registry, source: str, to: str, *more: str) -> int:
    here = f"docker://{registry.host}/team/app"
    return main(["slim", f"{here}:{source}", "--to", f"{here}:{to}", *more])


def rollback(registry: Registry, tag: str, *more: str) -> int:
    return main(["rollback", f"docker://{registry.host}/team/app:{tag}", *more])


def test_platforms_that_share_an_image(registry: Registry) -> None:
    registry.add("arm", release(1, "arm"))
    registry.add("amd64", release(2))
    members = [member(registry, "amd64", "amd64"), *(member(registry, "arm", "arm", one) for one in ("v6", "v7"))]
    put_index(registry, "v1", *members)
    assert slim(registry, "v1", "slim", "--all-platforms") == 0
    after = json.loads(registry.manifests["slim"][1])["manifests"]
    assert [one["platform"] for one in after] == [one["platform"] for one in members]
    assert after[1]["digest"] == after[2]["digest"] != members[1]["digest"]


def test_every_image_of_an_index_has_its_documents(registry: Registry, tmp_path: Path) -> None:
    for number, tag in enumerate(("arm", "amd64", "odd", "even"), 1):
        registry.add(tag, release(number))
    members = [member(registry, "amd64", "amd64"), *(member(registry, "arm", "arm", one) for one in ("v6", "v7"))]
    put_index(
        registry, "v1", *members, *(member(registry, tag, "../x/\x1b\u202e" + "y" * 300) for tag in ("odd", "even"))
    )
    documents = (
        "--html",
        f"{tmp_path}/page.html",
        "--sbom",
        f"cyclonedx={tmp_path}/bom.cdx.json",
        "--json",
        f"{tmp_path}/r",
    )
    assert slim(registry, "v1", "slim", "--all-platforms", *documents) == 0
    odd = "linux-..-x-y"
    suffixes = ["linux-amd64", "linux-arm-v6"]
    found = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert found >= {"r", *(f"page.{one}.html" for one in suffixes), *(f"bom.cdx.{one}.json" for one in suffixes)}
    rest = sorted(name for name in found if "..-x" in name)
    assert len(found) == 9
    assert len(rest) == 4
    assert all(name.startswith((f"page.{odd}", f"bom.cdx.{odd}")) and len(name) < 80 for name in rest)
    # Each has the numbers and components of its own image.
    reports = json.loads((tmp_path / "r").read_text())["platforms"]
    for report, name in zip(reports, (*suffixes, "", ""), strict=True):
        if name:
            assert f"now {report['after']['digest'][:19]}<" in (tmp_path / f"page.{name}.html").read_text()
            bom = json.loads((tmp_path / f"bom.cdx.{name}.json").read_text())
            assert report["after"]["digest"] in json.dumps(bom)


def test_what_is_not_named_is_counted(registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    registry.add("amd64", release(0))
    beside = [descriptor(OCI_MANIFEST, b"%d" % n, artifactType=CHART) for n in range(23)]
    put_index(registry, "v1", member(registry, "amd64", "amd64"), *beside)
    assert slim(registry, "v1", "slim", "--all-platforms", "--json", "-") == 0
    notes = checked(json.loads(capfd.readouterr().out))["notes"]
    assert "left out: 3 more that lie beside the images" in notes


@pytest.mark.parametrize("deleted", [False, True])
def test_every_release_has_its_way_back(registry: Registry, deleted: bool) -> None:
    for number in range(1, 12):
        registry.add("latest", release(number))
        original = at(registry, "latest")
        assert slim(registry, "latest", "latest", "--replace") == 0
    assert at(registry, "latest-original-11") == original
    if deleted:  # then its digest leads there
        for number in range(2, 12):
            del registry.manifests[f"latest-original-{number}"]
    assert rollback(registry, "latest") == 0
    assert at(registry, "latest") == original
    # And again: the original has a name that is its own.
    before = set(tags(registry))
    assert slim(registry, "latest", "latest", "--replace") == 0
    assert set(tags(registry)) - before == ({"latest-original-2"} if deleted else set())


def test_an_index_with_gaps(registry: Registry) -> None:
    registry.add("amd64", release(1))
    missing = {**member(registry, "amd64", "arm64"), "digest": "sha256:" + "1" * 64}
    put_index(registry, "v1", member(registry, "amd64", "amd64"), missing)
    original = at(registry, "v1")
    assert slim(registry, "v1", "v1", "--platform", "linux/amd64") == 2
    assert slim(registry, "v1", "v1", "--platform", "linux/amd64", "--replace") == 0
    assert at(registry, "v1-original") == original
    assert rollback(registry, "v1") == 0
    assert at(registry, "v1") == original


def test_names_that_artifacts_have(registry: Registry) -> None:
    registry.add("v1", release(1))
    original = at(registry, "v1")
    chart = dump({"schemaVersion": 2, "mediaType": CHART})
    registry.put("v1-original", CHART, chart)
    assert slim(registry, "v1", "v1", "--replace") == 0
    assert registry.manifests["v1-original"] == (CHART, chart)
    assert at(registry, "v1-original-2") == original
    assert rollback(registry, "v1") == 0
    assert at(registry, "v1") == original


@pytest.mark.parametrize("what", ["no images", "too many", "a gap among ours"])
def test_an_index_that_is_not_known_to_be_ours_keeps_its_tag(registry: Registry, what: str) -> None:
    registry.add("v1", release(1))
    assert slim(registry, "v1", "ours") == 0
    ours = member(registry, "ours", "amd64")
    members = {
        "no images": [{**ours, "artifactType": CHART}],
        "too many": [ours] * 64 + [member(registry, "v1", "amd64")],
        "a gap among ours": [ours, {**ours, "digest": "sha256:" + "1" * 64}],
    }[what]
    put_index(registry, "bundle", *members)
    before = at(registry, "bundle")
    registry.add("v2", release(2))
    assert slim(registry, "v2", "bundle") == 2
    assert at(registry, "bundle") == before
    assert slim(registry, "v2", "bundle", "--replace") == 0
    assert at(registry, "bundle-original") == before


def test_names_end(registry: Registry, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "NAME_LIMIT", 20)  # a thousand requests take long
    registry.add("v1", release(1))
    taken = registry.manifests["v1"]

    def all_there(handler: Any) -> bool:
        if handler.command != "GET" or "-original" not in handler.path:
            return False
        return bool(handler.answer(200, dump({"schemaVersion": 2, "mediaType": CHART}), Content_Type=CHART))

    registry.faults.append(all_there)
    assert slim(registry, "v1", "v1", "--replace") == 2
    assert "-original-20" in capfd.readouterr().err
    assert registry.manifests["v1"] == taken


def test_the_same_again_where_nothing_leaves(registry: Registry) -> None:
    registry.add("base", make_image(make_tar(file("app.py", b"x"))))
    assert slim(registry, "base", "slim") == 0
    assert slim(registry, "base", "slim") == 0
    assert slim(registry, "base", "base") == 2
    # Where something leaves, another tag of the original is refused as well.
    registry.add("more", release(1))
    registry.put("also", *registry.manifests["more"])
    before = registry.manifests["also"]
    assert slim(registry, "more", "also") == 2
    assert registry.manifests["also"] == before


def test_an_index_with_an_image_from_which_nothing_left_goes_back(registry: Registry) -> None:
    registry.add("arm", make_image(make_tar(file("app.py", b"x")), architecture="arm64"))
    registry.add("amd64", release(1))
    put_index(registry, "v1", member(registry, "amd64", "amd64"), member(registry, "arm", "arm64"))
    original = at(registry, "v1")
    assert slim(registry, "v1", "v1", "--replace", "--all-platforms") == 0
    after = json.loads(registry.manifests["v1"][1])["manifests"]
    assert after[0]["digest"] != at(registry, "amd64")
    config = json.loads(registry.manifests[after[1]["digest"]][1])["config"]["digest"]
    assert config == json.loads(registry.manifests["arm"][1])["config"]["digest"]
    assert rollback(registry, "v1") == 0
    assert at(registry, "v1") == original
    # An index of images of which none is slim has no way back, and an image made FROM a slim one has none either.
    assert rollback(registry, "v1") == 2


def test_tags_come_in_pages_and_from_few_registries_not_at_all(
    registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    registry.add("original", release(1))
    assert slim(registry, "original", "slim") == 0
    data = registry.manifests.pop("original")[1]
    del registry.manifests[digest(data)]
    assert rollback(registry, "slim") == 3
    assert "its tags cannot be looked through" in capfd.readouterr().err
    registry.add("zz", release(1))
    pages = {"": (["slim", "../x"], True), "slim": (["zz"], False)}

    def listed(handler: Any) -> bool:
        url = urlsplit(handler.path)
        if not url.path.endswith("/tags/list"):
            return False
        names, more = pages[parse_qs(url.query).get("last", [""])[0]]
        link = {"Link": f'<{url.path}?last=slim>; rel="next"'} if more else {}
        return bool(handler.answer(200, dump({"tags": names}), **link))

    registry.faults.append(listed)
    del registry.manifests[at(registry, "zz")]
    assert rollback(registry, "slim") == 0
    assert at(registry, "slim") == digest(registry.manifests["zz"][1])


@pytest.mark.parametrize("ours", [False, True])
def test_one_image_does_not_take_the_tag_of_several_platforms(
    registry: Registry, capfd: pytest.CaptureFixture[str], ours: bool
) -> None:
    registry.add("amd64", release(1))
    registry.add("arm", release(2, "arm64"))
    put_index(registry, "v1", member(registry, "amd64", "amd64"), member(registry, "arm", "arm64"))
    if ours:
        assert slim(registry, "v1", "v1", "--all-platforms", "--replace") == 0
    before = at(registry, "v1")
    source = "v1-original" if ours else "v1"
    for more in ([], ["--replace"]):
        assert slim(registry, source, "v1", *more) == 2
        said = capfd.readouterr().err
        assert "is an index for 'linux/amd64', 'linux/arm64'" in said
        assert "--all-platforms" in said
    assert at(registry, "v1") == before
    assert slim(registry, source, "v1", "--replace", "--all-platforms") == 0
    assert slim(registry, source if ours else "v1-original", "v1", "--platform", "linux/amd64", "--replace") == 0
    assert json.loads(registry.manifests["v1"][1])["mediaType"] == OCI_MANIFEST
