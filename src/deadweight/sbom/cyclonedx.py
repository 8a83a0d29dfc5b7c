"""CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/), by cyclonedx-python-lib.

The image is the document's component. Of a slim image the original is its ancestor (`pedigree`), and what left are
that one's components: no scanner takes them for components of the slim image. A distribution or package of which files
left or changed has itself as ancestor, and properties that say which passes did it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cyclonedx.contrib.license.exceptions import InvalidSpdxLicenseException
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model import component as cdx
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import ComponentType, Pedigree
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from deadweight.sbom.model import About, Component, Inventory, Removed, Subject, image_purl, what_was_done

_TYPES: Final = {
    "os": ComponentType.OPERATING_SYSTEM,
    "debian": ComponentType.LIBRARY,
    "python": ComponentType.LIBRARY,
    "interpreter": ComponentType.PLATFORM,
    "model": ComponentType.MACHINE_LEARNING_MODEL,
}


def write(found: Inventory, about: About) -> str:
    """The inventory as a document."""
    image = _image(found.subject, "image")
    if found.original is not None:
        before = _image(found.original, "original")
        before.components = [_removed(one) for one in found.removed]
        image.pedigree = Pedigree(ancestors=[before], notes=_notes(found))
    metadata = BomMetaData(component=image, timestamp=about.made)
    metadata.tools.components.add(
        cdx.Component(name="deadweight", version=about.tool_version, type=ComponentType.APPLICATION)
    )
    bom = Bom(
        metadata=metadata,
        components=[_component(one) for one in found.components],
        dependencies=_dependencies(found),
        serial_number=about.number,
        properties=[_property("note", note) for note in found.notes],
    )
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _image(subject: Subject, ref: str) -> cdx.Component:
    url = image_purl(subject)
    properties = [_property(f"label:{key}", value) for key, value in subject.labels.items()]
    if subject.platform:
        properties.append(_property("platform", subject.platform))
    return cdx.Component(
        bom_ref=ref,
        type=ComponentType.CONTAINER,
        name=subject.name,
        version=subject.digest,
        hashes=[_sha256(subject.digest.removeprefix("sha256:"))],
        purl=PackageURL.from_string(url) if url else None,
        properties=properties,
    )


def _component(one: Component) -> cdx.Component:
    """A component of the image."""
    made = _plain(one, one.ref)
    made.properties.update(_properties(one))
    if one.swapped is not None:
        ancestor = cdx.Component(name=one.name, version=one.swapped.before)
        made.pedigree = Pedigree(ancestors=[ancestor], notes=what_was_done(one))
    elif one.modified is not None:
        made.pedigree = Pedigree(ancestors=[_plain(one, None)], notes=what_was_done(one))
    return made


def _plain(one: Component, ref: str | None) -> cdx.Component:
    """A component as it was published."""
    return cdx.Component(
        bom_ref=ref,
        type=_TYPES[one.kind],
        name=one.name,
        version=one.version or None,
        purl=PackageURL.from_string(one.purl) if one.purl else None,
        licenses=_licences(one.licences),
        external_references=list(_references(one)),
    )


def _references(one: Component) -> Iterator[ExternalReference]:
    if one.homepage:
        yield ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(one.homepage))
    url, digest = one.source_url, one.source_sha256
    if one.swapped is not None:
        url, digest = one.swapped.wheel, one.swapped.sha256
    if url:
        hashes = [_sha256(digest)] if digest else []
        yield ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(url), hashes=hashes)


def _properties(one: Component) -> Iterator[Property]:
    yield _property("kind", one.kind)
    yield _property("path", one.path)
    if one.why:
        yield _property("why", one.why)
    if one.record_sha256:
        yield _property("record-sha256", one.record_sha256)
    if not one.installed:
        yield _property("installed", "false")
    if one.modified is not None:
        yield _property("modified", "true")
        yield _property("files-removed", str(one.modified.removed))
        yield _property("files-rewritten", str(one.modified.rewritten))
        for name in one.modified.passes:
            yield _property("pass", name)
    if one.swapped is not None:
        yield _property("swapped-from", one.swapped.before)


def _removed(one: Removed) -> cdx.Component:
    made = _plain(one.component, f"removed:{one.component.ref}")
    made.properties.update((_property("removed", "true"), _property("path", one.component.path)))
    if one.pass_:
        made.properties.update((_property("pass", one.pass_), _property("why", one.why)))
    return made


def _notes(found: Inventory) -> str:
    changed = sum(one.modified is not None or one.swapped is not None for one in found.components)
    return (
        f"slimmed by deadweight: {len(found.removed)} components removed (those of the ancestor that is named here), "
        f"{changed} modified (property deadweight:modified)"
    )


def _dependencies(found: Inventory) -> Iterator[Dependency]:
    """What each component needs; the image itself needs what nothing else does."""
    needed = {ref for targets in found.needs.values() for ref in targets}
    roots = tuple(one.ref for one in found.components if one.ref not in needed)
    for ref, targets in (("image", roots), *((one.ref, found.needs.get(one.ref, ())) for one in found.components)):
        yield Dependency(BomRef(ref), [Dependency(BomRef(each)) for each in targets])


def _licences(stated: tuple[str, ...]) -> list[License]:
    factory = LicenseFactory()
    if len(stated) == 1:
        return [factory.make_from_string(stated[0])]
    made: list[License] = []
    for each in stated:  # an expression stands alone, or not at all
        try:
            made.append(factory.make_with_id(each))
        except InvalidSpdxLicenseException:
            made.append(factory.make_with_name(each))
    return made


def _property(name: str, value: str) -> Property:
    return Property(name=f"deadweight:{name}", value=value)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
