"""SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/), by spdx-tools.

The document describes the image, which contains the components. Of a slim image the original is there as well, and
contains nothing: what left is said in annotations of the slim image, so that no scanner takes it for what is there.
What deadweight did to a component that stays is an annotation of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from license_expression import ExpressionError, LicenseExpression, combine_expressions, get_spdx_licensing
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Annotation,
    AnnotationType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)
from spdx_tools.spdx.validation.uri_validators import validate_download_location, validate_url
from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

from deadweight.sbom.model import About, Component, Inventory, Subject, identifier, image_purl, what_was_done

_DOCUMENT: Final = "SPDXRef-DOCUMENT"
_IMAGE: Final = "SPDXRef-image"
_ORIGINAL: Final = "SPDXRef-original"
_PURPOSES: Final = {
    "os": PackagePurpose.OPERATING_SYSTEM,
    "debian": PackagePurpose.LIBRARY,
    "python": PackagePurpose.LIBRARY,
    "interpreter": PackagePurpose.APPLICATION,
    "model": PackagePurpose.OTHER,
}


def write(found: Inventory, about: About) -> str:
    """The inventory as a document."""
    tool = Actor(ActorType.TOOL, f"deadweight-{about.tool_version}")
    licences = _Licences()
    ids = {one.ref: f"SPDXRef-{one.kind}-{identifier(one.ref)}" for one in found.components}
    packages = [_image(found.subject, _IMAGE)]
    packages += [_image(found.original, _ORIGINAL)] if found.original is not None else []
    packages += [_package(one, ids[one.ref], licences) for one in found.components]
    relationships = [Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE)]
    if found.original is not None:
        relationships.append(Relationship(_IMAGE, RelationshipType.DESCENDANT_OF, _ORIGINAL))
    relationships += [Relationship(_IMAGE, RelationshipType.CONTAINS, ids[one.ref]) for one in found.components]
    relationships += [
        Relationship(ids[ref], RelationshipType.DEPENDS_ON, ids[each])
        for ref, targets in found.needs.items()
        for each in targets
    ]
    document = Document(
        CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id=_DOCUMENT,
            name=found.subject.name,
            document_namespace=f"urn:uuid:{about.number}",
            creators=[tool],
            created=about.made.replace(tzinfo=None),
            document_comment="\n".join(found.notes) or None,
        ),
        packages,
        annotations=[
            Annotation(spdx_id, AnnotationType.OTHER, tool, about.made.replace(tzinfo=None), comment)
            for spdx_id, comment in _comments(found, ids)
        ],
        relationships=relationships,
        extracted_licensing_info=[licences.named[name] for name in sorted(licences.named)],
    )
    out = io.StringIO()
    write_document_to_stream(document, out, validate=False)
    return out.getvalue()


def _image(subject: Subject, spdx_id: str) -> Package:
    return Package(
        spdx_id=spdx_id,
        name=subject.name,
        version=subject.digest,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, subject.digest.removeprefix("sha256:"))],
        external_references=_purl(image_purl(subject)),
        primary_package_purpose=PackagePurpose.CONTAINER,
        comment=f"platform {subject.platform}" if subject.platform else None,
    )


def _package(one: Component, spdx_id: str, licences: _Licences) -> Package:
    said = [f"installed at {one.path}" if one.installed else f"lies at {one.path}"]
    # SPDX's fields take URLs of public hosts: others, as an index inside a company, are said in words.
    source, homepage = one.source_url, one.homepage
    if source and validate_download_location(source):
        said.append(f"from {source}")
        source = ""
    if homepage and validate_url(homepage):
        said.append(f"homepage {homepage}")
        homepage = ""
    return Package(
        spdx_id=spdx_id,
        name=one.name,
        version=one.version or None,
        download_location=source or SpdxNoAssertion(),
        files_analyzed=False,
        homepage=homepage or None,
        source_info="; ".join(said),
        license_declared=licences.declared(one.licences),
        comment=one.why or None,
        external_references=_purl(one.purl),
        primary_package_purpose=_PURPOSES[one.kind],
    )


def _purl(url: str) -> list[ExternalPackageRef]:
    return [ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", url)] if url else []


def _comments(found: Inventory, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What there is to say of what, by identifier."""
    for gone in found.removed:
        one = gone.component
        what = one.purl or f"{' '.join(filter(None, (one.name, one.version)))} at {one.path}"
        reason = f" ({gone.pass_}: {gone.why})" if gone.pass_ else ""
        yield _IMAGE, f"deadweight:removed {what}{reason}"
    for one in found.components:
        done = what_was_done(one)
        if done:
            yield ids[one.ref], f"deadweight:modified {done}"
        if one.record_sha256:
            yield ids[one.ref], f"deadweight:record-sha256 {one.record_sha256}"


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


class _Licences:
    """Licences as SPDX writes them: those that are not on its list become references to names."""

    def __init__(self) -> None:
        self.named: dict[str, ExtractedLicensingInfo] = {}

    def declared(self, stated: Sequence[str]) -> LicenseExpression | SpdxNoAssertion:
        """All of the licences that are stated; no assertion where there are none."""
        if not stated:
            return SpdxNoAssertion()
        known = [self._known(each) for each in stated]
        parts = [self._reference(each) if found is None else found for each, found in zip(stated, known, strict=True)]
        return combine_expressions(parts, licensing=_licensing())

    def _known(self, stated: str) -> LicenseExpression | None:
        try:
            return _licensing().parse(stated, validate=True, strict=True)
        except (ExpressionError, ValueError, TypeError, RecursionError):  # some texts make its parser fail oddly
            return None

    def _reference(self, stated: str) -> LicenseExpression:
        name = f"LicenseRef-{identifier(stated)}"
        self.named[name] = ExtractedLicensingInfo(license_id=name, extracted_text=stated, license_name=stated)
        return _licensing().parse(name)
