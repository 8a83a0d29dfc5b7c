"""Reads images' bills of materials, and holds documents to their formats by the formats' own libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from deadweight import Ledger, open_image
from deadweight.sbom.inventory import inventory
from deadweight.sbom.model import Inventory
from support.images import Member, make_image, make_tar
from support.service import save

FORMS = ("cyclonedx", "spdx")
NOTHING: dict[str, str] = {}


def read(image: Path) -> Inventory:
    with open_image(str(image)) as source:
        return inventory(Ledger(source))


def image_of(folder: Path, *members: Member) -> Inventory:
    return read(save(folder, make_image(make_tar(*members))))


def check(form: str, data: bytes) -> dict[str, Any]:
    """Holds a document to its format; gives it parsed."""
    text = data.decode()
    assert all(line.isprintable() for line in text.splitlines())
    parsed: dict[str, Any] = json.loads(text)
    if form == "cyclonedx":
        errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text, all_errors=True)
        assert [str(error)[:500] for error in errors or ()] == []
    else:
        found = validate_full_spdx_document(JsonLikeDictParser().parse(parsed))  # type: ignore[no-untyped-call]
        assert [message.validation_message for message in found] == []
    return parsed


def purls(form: str, parsed: dict[str, Any]) -> set[str]:
    """The package URLs of the components."""
    if form == "cyclonedx":
        return {one["purl"] for one in parsed["components"] if "purl" in one}
    packages = [one for one in parsed["packages"] if one.get("primaryPackagePurpose") != "CONTAINER"]
    return {ref["referenceLocator"] for one in packages for ref in one.get("externalRefs", [])}
