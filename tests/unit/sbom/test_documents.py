"""Bills of materials: valid by the judgement of the formats' own libraries, whatever the image's names are."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.errors import BadInputError, UsageError
from deadweight.sbom.document import document
from deadweight.sbom.inventory import with_refs
from deadweight.sbom.model import Component, Inventory, Subject, purl, text
from support.images import file
from support.sboms import FORMS, NOTHING, check, image_of, purls, read
from support.service import HOSTILE, SITE, distribution, save, service


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return read(save(tmp_path_factory.mktemp("image")))


@pytest.mark.parametrize("form", FORMS)
def test_a_service_image_has_its_packages_and_is_valid(found: Inventory, form: str) -> None:
    parsed = check(form, document(form, found, NOTHING))
    assert purls(form, parsed) == {
        "pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64&distro=debian",
        "pkg:deb/debian/gcc@4:12.2?arch=amd64&distro=debian",
        "pkg:deb/debian/libc6@2.36?arch=amd64&distro=debian",
        "pkg:pypi/numlib@1.0",
        "pkg:pypi/webapp@1.0",
    }


def test_what_needs_what_is_said_in_both_forms(found: Inventory) -> None:
    cdx = check("cyclonedx", document("cyclonedx", found, NOTHING))
    needs = {one["ref"]: one.get("dependsOn", []) for one in cdx["dependencies"]}
    assert needs["pkg:pypi/webapp@1.0"] == ["pkg:pypi/numlib@1.0"]
    assert "pkg:pypi/webapp@1.0" in needs["image"]
    assert "pkg:pypi/numlib@1.0" not in needs["image"]
    spdx = check("spdx", document("spdx", found, NOTHING))
    names = {one["SPDXID"]: one["name"] for one in spdx["packages"]}
    pairs = {
        (names[each["spdxElementId"]], names[each["relatedSpdxElement"]])
        for each in spdx["relationships"]
        if each["relationshipType"] == "DEPENDS_ON"
    }
    assert pairs == {("webapp", "numlib"), ("gcc", "gcc-12"), ("gcc", "libc6"), ("gcc-12", "libc6")}
    contained = {r["relatedSpdxElement"] for r in spdx["relationships"] if r["relationshipType"] == "CONTAINS"}
    assert contained == names.keys() - {"SPDXRef-image"}


@pytest.mark.parametrize("form", FORMS)
def test_two_runs_give_the_same_bytes_and_another_image_another_number(
    tmp_path: Path, found: Inventory, form: str
) -> None:
    first = document(form, found, NOTHING)
    (tmp_path / "elsewhere").mkdir()
    assert document(form, read(save(tmp_path / "elsewhere")), NOTHING) == first
    other = document(form, read(save(tmp_path, service("other"))), NOTHING)
    number = "serialNumber" if form == "cyclonedx" else "documentNamespace"
    assert json.loads(first)[number].startswith("urn:uuid:")
    assert json.loads(first)[number] != json.loads(other)[number]


def test_the_time_is_the_images_or_what_source_date_epoch_says(found: Inventory) -> None:
    def times(environment: dict[str, str], created: str = "2026-01-02T03:04:05.678+02:00") -> tuple[str, str]:
        subject = msgspec.structs.replace(found.subject, created=created)
        dated = msgspec.structs.replace(found, subject=subject)
        cdx = json.loads(document("cyclonedx", dated, environment))["metadata"]["timestamp"]
        return cdx, json.loads(document("spdx", dated, environment))["creationInfo"]["created"]

    assert times(NOTHING) == ("2026-01-02T01:04:05+00:00", "2026-01-02T01:04:05Z")
    assert times(NOTHING, "last week") == ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00Z")
    assert times({"SOURCE_DATE_EPOCH": "86400"}) == ("1970-01-02T00:00:00+00:00", "1970-01-02T00:00:00Z")
    for wrong in ("yesterday", "1" * 30):
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            document("spdx", found, {"SOURCE_DATE_EPOCH": wrong})


@pytest.mark.parametrize("form", FORMS)
def test_hostile_names_make_valid_documents(tmp_path: Path, form: str) -> None:
    evil = f"x{HOSTILE}<script>@2?#é\udce9/../y"
    status = "Package: g\x1b[31m@?#%\nStatus: install ok installed\nVersion: 1~%\x07\nArchitecture: a&b=c\n\n"
    members = (
        file("etc/os-release", b'ID="deb\x1b[1mian/../x"\nVERSION_ID=12&x\n'),
        file("var/lib/dpkg/status", status.encode()),
        *distribution("numlib", {"numlib/__init__.py": b""}),
        file(
            f"{SITE}/evil.dist-info/METADATA",
            f"Name: {evil}\nVersion: 1 2\nLicense: {evil}\n".encode("utf-8", "replace"),
        ),
        file(f"{SITE}/{HOSTILE}.dist-info/METADATA", b"Name: \xff\xfe\nVersion: \x00\n"),
        file(f"{SITE}/empty.dist-info/METADATA", b""),
        file("models/<b>\x1b[0m/model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
    )
    found = image_of(tmp_path, *members)
    assert len(found.components) >= 5
    check(form, document(form, found, NOTHING))


def test_more_components_than_any_image_has_are_refused(tmp_path: Path) -> None:
    stanzas = (f"Package: p{i}\nStatus: install ok installed\nVersion: 1\n\n" for i in range(5001))
    with pytest.raises(BadInputError, match="5,001 packages"):
        image_of(tmp_path, file("var/lib/dpkg/status", "".join(stanzas).encode()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["/", "//", "  ", "/ /", " / ", ":/ / "])
def test_names_of_spaces_and_slashes_have_no_package_url(found: Inventory, form: str, name: str) -> None:
    assert purl("deb", "debian", name, "1") == ""
    one = Component("python", name, "1", purl("pypi", "", name, "1"), "python:odd", "/x")
    check(form, document(form, msgspec.structs.replace(found, components=(one,), needs={}), NOTHING))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost/x", "http://127.0.0.1:8080/x", "ssh://u:p@h\u00e9/x y", "git+ssh://git@host.example/x.git"),
        *("https://index.internal:8443/simple/x.whl", "git+https://host/x", "https://\u00e9.example/x"),
    ],
)
def test_urls_of_any_host_make_valid_documents_and_are_said(tmp_path: Path, form: str, url: str) -> None:
    info = f"{SITE}/numlib-1.0.dist-info"
    members = (
        *distribution("numlib", {"numlib/__init__.py": b""}),
        file(f"{info}/METADATA", f"Name: numlib\nVersion: 1.0\nHome-Page: {url}\n".encode()),
        file(f"{info}/direct_url.json", json.dumps({"url": url}).encode()),
    )
    written = image_of(tmp_path, *members)
    (one,) = (each for each in written.components if each.name == "numlib")
    assert one.source_url
    assert one.homepage
    data = document(form, written, NOTHING)
    check(form, data)
    assert data.decode().count(one.source_url) >= 2  # wherever there is room for it


words = st.text(st.characters(exclude_categories=()), max_size=30)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(words, words, st.lists(words, max_size=3), st.sampled_from(["python", "debian", "model"])), max_size=4
    )
)
def test_any_texts_make_valid_documents(drawn: list[tuple[str, str, list[str], str]]) -> None:
    made = [
        Component(
            kind,
            text(name) or "x",
            text(version),
            purl("pypi", "", text(name), text(version)),
            "",
            f"/{number}",
            licences=tuple(text(each) for each in licences if text(each).strip()),
        )
        for number, (name, version, licences, kind) in enumerate(drawn)
    ]
    subject = Subject("x:1", "sha256:" + "0" * 64, None, "linux/amd64", "")
    found = Inventory(subject, tuple(with_refs(made)), {})
    for form in FORMS:
        check(form, document(form, found, NOTHING))
