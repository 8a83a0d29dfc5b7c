"""What is read of an image for a bill of materials: licences, sources, and what lies there without being installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deadweight.sbom.document import document
from deadweight.sbom.model import Component, Subject, image_purl
from deadweight.sbom.python import safe_url
from support.images import file
from support.sboms import NOTHING, check, image_of
from support.service import SITE, distribution


def metadata(folder: Path, *lines: str, more: dict[str, bytes] | None = None) -> Component:
    """The component of a distribution with these lines in its metadata."""
    info = f"{SITE}/demo-1.0.dist-info"
    content = "\n".join(("Metadata-Version: 2.4", "Name: Demo_Lib", "Version: 1.0", *lines, "", "License: of the text"))
    found = image_of(
        folder,
        file(f"{info}/METADATA", content.encode()),
        *(file(f"{info}/{name}", data) for name, data in (more or {}).items()),
    )
    (one,) = found.components
    check("spdx", document("spdx", found, NOTHING))
    check("cyclonedx", document("cyclonedx", found, NOTHING))
    return one


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (("License-Expression: MIT OR Apache-2.0", "License: BSD"), ("MIT OR Apache-2.0",)),
        (("License: BSD-3-Clause",), ("BSD-3-Clause",)),
        (("License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"), ("MIT License",)),
        (
            (
                "Classifier: License :: OSI Approved",
                "Classifier: License :: OSI Approved :: MIT License",
                "Classifier: License :: OSI Approved :: BSD License",
                "Classifier: Topic :: X",
            ),
            ("MIT License; BSD License",),
        ),
        (("License: Copyright (c) me", "        All rights reserved.", "        Go away."), ("Copyright (c) me",)),
        ((), ()),
    ],
)
def test_licences_of_distributions(tmp_path: Path, lines: tuple[str, ...], licence: tuple[str, ...]) -> None:
    one = metadata(tmp_path, *lines)
    assert one.licences == licence
    assert (one.name, one.purl) == ("Demo_Lib", "pkg:pypi/demo-lib@1.0")


def test_where_a_distribution_was_installed_from(tmp_path: Path) -> None:
    digest = "ab" * 32
    place = "https://me:secret@host.example/x y.whl?token=s3cr3t#f"
    url = {"url": place, "archive_info": {"hashes": {"sha256": digest}}}
    one = metadata(
        tmp_path, "Project-URL: Homepage, https://example.org/demo", more={"direct_url.json": json.dumps(url).encode()}
    )
    assert one.source_url == "https://host.example/x%20y.whl"
    assert one.source_sha256 == digest
    assert one.homepage == "https://example.org/demo"


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("ssh://u:p@h\u00e9/x y", "ssh://xn--h-bga/x%20y"),
        ("https://u:p@h\u00e9.example:8443/\u00e9?t=\u00e9", "https://xn--h-bga.example:8443/%C3%A9"),
        ("http://localhost/x", "http://localhost/x"),
    ],
)
def test_hosts_are_written_as_they_are_asked_for(url: str, given: str) -> None:
    assert safe_url(url) == given


@pytest.mark.parametrize(
    "url",
    ["https://a b/", "https://h\u00e9..x/", "https://" + 70 * "\u00e9" + "/", "https://[::1]:8080/x", "https://a<b>/x"],
)
def test_what_is_no_host_is_left_out(url: str) -> None:
    assert safe_url(url) == ""


@pytest.mark.parametrize("url", ["", "file:///home/me/x", "javascript:alert(1)", "https://", "https://[", "x"])
def test_what_is_no_url_to_give_away(url: str) -> None:
    assert safe_url(url) == ""


def test_what_lies_there_is_listed_and_said_not_to_be_installed(tmp_path: Path) -> None:
    text = b"Name: %s\nVersion: 2.0\n"
    found = image_of(
        tmp_path,
        *distribution("demo", {"demo.py": b""}),
        file(f"{SITE}/setuptools/_vendor/zipp-2.0.dist-info/METADATA", text % b"zipp"),
        file("root/.cache/uv/archive-v0/q/demo-2.0.dist-info/METADATA", text % b"demo"),
    )
    listed = {(one.name, one.version): one for one in found.components}
    assert {key: one.installed for key, one in listed.items()} == {
        ("demo", "1.0"): True,
        ("demo", "2.0"): False,
        ("zipp", "2.0"): False,
    }
    assert listed["zipp", "2.0"].why == "inside another distribution"
    assert listed["demo", "1.0"].record_sha256
    assert len({one.ref for one in found.components}) == 3


def test_debian_packages(tmp_path: Path) -> None:
    status = (
        "Package: bash\nStatus: install ok installed\nVersion: 5.2-2+b1\nArchitecture: amd64\nSource: bash (5.2-2)\n\n"
        "Package: libz\nStatus: install ok installed\nVersion: 1:1.2\nArchitecture: arm64\nSource: zlib\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n"
    )
    copyright_ = (
        "Format: https://x\n\nFiles: *\nLicense: GPL-3+\n text\n\nFiles: a\nLicense: MIT\n\nLicense: MIT\n text\n"
    )
    found = image_of(
        tmp_path,
        file("usr/lib/os-release", b"ID=ubuntu\nVERSION_ID='24.04'\n"),
        file("etc/os-release", b"ID=ubuntu\nVERSION_ID='24.04'\n"),
        file("var/lib/dpkg/status", status.encode()),
        file("usr/share/doc/bash/copyright", copyright_.encode()),
        file(
            "usr/share/doc/libz/copyright",
            b"It is /usr/share/common-licenses/Artistic, and\n/usr/share/common-licenses/GPL-1.",
        ),
    )
    os, bash, libz = sorted(found.components, key=lambda one: (one.kind != "os", one.name))
    assert (os.kind, os.name, os.version) == ("os", "ubuntu", "24.04")
    assert bash.purl == "pkg:deb/ubuntu/bash@5.2-2%2Bb1?arch=amd64&distro=ubuntu-24.04&upstream=bash%405.2-2"
    assert libz.purl == "pkg:deb/ubuntu/libz@1:1.2?arch=arm64&distro=ubuntu-24.04&upstream=zlib"
    assert bash.licences == ("GPL-3+", "MIT")
    assert libz.licences == ("Artistic", "GPL-1")
    check("spdx", document("spdx", found, NOTHING))
    check("cyclonedx", document("cyclonedx", found, NOTHING))


def test_a_model_of_the_hub_is_known_by_name_and_revision(tmp_path: Path) -> None:
    revision = "c0" * 20
    hub = f"models/hub/models--org--tiny/snapshots/{revision}"
    tensors = b"\x08\0\0\0\0\0\0\0{}      "
    found = image_of(tmp_path, file(f"{hub}/model.safetensors", tensors), file("srv/own/model.safetensors", tensors))
    assert [(one.kind, one.name, one.version, one.purl) for one in found.components] == [
        ("model", "own", "", ""),
        ("model", "tiny", revision, f"pkg:huggingface/org/tiny@{revision}"),
    ]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (
            "registry.example:5000/team/api:1.4",
            "pkg:oci/api@sha256:{d}?repository_url=registry.example:5000/team/api&tag=1.4",
        ),
        ("api", "pkg:oci/api@sha256:{d}"),
        ("Some File.tar", ""),
    ],
)
def test_the_image_itself(name: str, url: str) -> None:
    digest = "ab" * 32
    subject = Subject(name, "sha256:" + "0" * 64, f"sha256:{digest}", "linux/amd64", "")
    assert image_purl(subject) == url.format(d=digest)
