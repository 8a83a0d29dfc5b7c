"""Bills of materials of slim images: what is listed is what the written image has, and what left is marked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from deadweight import Ledger, open_image, parse_reference
from deadweight.apply import Applied, apply_plan
from deadweight.image.changed import changed_image
from deadweight.passes.base import Options
from deadweight.planning import draw_up
from deadweight.sbom.changes import slim_inventory
from deadweight.sbom.document import document
from deadweight.sbom.inventory import inventory
from deadweight.sbom.model import Component, Inventory, Modified, text
from deadweight.swap.join import joined
from support.careless import CACHE, SITE, distribution, service_image
from support.images import Member, file, make_image, make_tar, symlink, write_docker_archive
from support.layers import merged_view
from support.sboms import FORMS, NOTHING, check, purls, read
from support.swapping import cpu_wheel, gpu_image, saved, swapping
from support.weights import model, transformers, weights


class Made(NamedTuple):
    """A slim image."""

    before: Inventory
    slim: Inventory
    after: Inventory
    """As read of the image that was written."""
    applied: Applied
    layers: tuple[list[bytes], list[bytes]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("slim")
    image = service_image()
    path = write_docker_archive(folder / "image.tar", image, "service:1", style="25")
    to = parse_reference(f"docker-archive:{folder / 'slim.tar'}:service:slim")
    with open_image(str(path)) as source:
        ledger = Ledger(source)
        plan = draw_up(ledger, all_layers=True).plan
        applied = apply_plan(plan, ledger, to)
        slim = slim_inventory(inventory(ledger), ledger, ledger, applied, to)
    with open_image(str(folder / "slim.tar")) as written:
        layers = [b"".join(layer.tar.chunks()) for layer in written.layers]
    return Made(read(path), slim, read(folder / "slim.tar"), applied, (list(image.layers), layers))


def unmarked(components: tuple[Component, ...]) -> list[Component]:
    return [msgspec.structs.replace(one, modified=None, swapped=None) for one in components]


def test_what_is_listed_is_what_the_written_image_has(made: Made) -> None:
    assert unmarked(made.slim.components) == list(made.after.components)
    assert made.slim.subject.digest == made.after.subject.digest == made.applied.written.config_digest
    assert (made.slim.subject.name, made.slim.needs) == ("service:slim", made.after.needs)
    assert made.slim.original == made.before.subject


def test_what_left_is_what_the_original_had_besides(made: Made) -> None:
    listed = {one.ref for one in made.slim.components}
    assert {one.component.ref for one in made.slim.removed} == {one.ref for one in made.before.components} - listed
    reasons = {one.component.name: (one.pass_, one.why) for one in made.slim.removed}
    assert reasons["gcc"][0] == "build-tools"
    assert reasons["pytest"][0] == "dev-tools"
    assert all(pass_ and why for pass_, why in reasons.values())


def test_what_is_marked_is_what_differs(made: Made) -> None:
    before, after = map(merged_view, made.layers)
    (numlib,) = (one for one in made.slim.components if one.name == "numlib")
    own = [path for path in before if "/numlib/" in path and before[path].kind == "file"]
    gone = [path for path in own if path not in after]
    changed = [path for path in own if path in after and after[path].content != before[path].content]
    assert gone
    assert changed
    assert [cut.path for cut in made.applied.plan.cuts if cut.action == "link"]  # which is no other content
    assert numlib.modified == Modified(("development-files", "symbols", "tests"), len(gone), len(changed))
    untouched = {one.name: one.modified for one in made.slim.components}
    assert untouched["service"] is None


def slimmed(folder: Path, *members: Member) -> Inventory:
    """The inventory of an image's slim version."""
    path = write_docker_archive(folder / "image.tar", make_image(make_tar(*members)), "service:1", style="25")
    to = parse_reference(f"docker-archive:{folder / 'slim.tar'}")
    with open_image(str(path)) as source:
        ledger = Ledger(source)
        applied = apply_plan(draw_up(ledger, all_layers=True).plan, ledger, to)
        return slim_inventory(inventory(ledger), ledger, ledger, applied, to)


def test_files_that_become_links_to_equal_ones_modify_nothing(tmp_path: Path) -> None:
    found = slimmed(
        tmp_path, *distribution("twice", "1.0", {f"twice/{name}.bin": b"same" * 2000 for name in ("one", "two")})
    )
    with open_image(str(tmp_path / "slim.tar")) as slim:
        kinds = {entry.name: entry.kind for layer in slim.layers for entry in layer.entries}
    assert kinds[f"{SITE}/twice/two.bin"] == "hardlink"
    (one,) = found.components
    assert (one.name, one.modified) == ("twice", None)


def test_a_model_left_for_the_reason_for_which_its_files_did(tmp_path: Path) -> None:
    place = f"{CACHE}/caf\u00e9\x1b/models--org--tiny"
    snapshot = f"{place}/snapshots/{'c0' * 20}"
    found = slimmed(
        tmp_path,
        *model(f"{CACHE}/plain", safetensors=weights(rows=40)),
        file(f"{place}/blobs/aa", weights(2.0, rows=40)),
        symlink(f"{snapshot}/model.safetensors", "../../blobs/aa"),
    )
    assert {(one.component.path, one.pass_, one.why) for one in found.removed} == {
        (f"/{CACHE}/plain", "caches", "uv's cache"),
        (text(f"/{snapshot}"), "caches", "uv's cache"),
    }
    assert not found.components
    (cdx,) = check("cyclonedx", document("cyclonedx", found, NOTHING))["metadata"]["component"]["pedigree"]["ancestors"]
    assert {property_of(one, "pass") for one in cdx["components"]} == {"caches"}
    spdx = of(check("spdx", document("spdx", found, NOTHING)), "SPDXRef-image")["annotations"]
    assert f"deadweight:removed plain at /{CACHE}/plain (caches: uv's cache)" in {one["comment"] for one in spdx}


@pytest.mark.parametrize("form", FORMS)
def test_documents_of_slim_images(made: Made, form: str) -> None:
    parsed = check(form, document(form, made.slim, NOTHING))
    assert purls(form, parsed) == purls(form, check(form, document(form, made.after, NOTHING)))
    if form == "cyclonedx":
        image = parsed["metadata"]["component"]
        (original,) = image["pedigree"]["ancestors"]
        assert original["version"] == made.before.subject.digest
        said = {one["purl"] for one in original["components"]}
        marked = {one["name"] for one in parsed["components"] if property_of(one, "modified") == "true"}
    else:
        comments = [one["comment"] for one in of(parsed, "SPDXRef-image")["annotations"]]
        said = {comment.split()[1] for comment in comments if comment.startswith("deadweight:removed ")}
        marked = {
            one["name"]
            for one in parsed["packages"]
            if any(note["comment"].startswith("deadweight:modified ") for note in one.get("annotations", []))
        }
        links = {(each["relationshipType"], each["relatedSpdxElement"]) for each in parsed["relationships"]}
        assert ("DESCENDANT_OF", "SPDXRef-original") in links
    assert said == {one.component.purl for one in made.slim.removed}
    assert marked == {one.name for one in made.slim.components if one.modified is not None} >= {"numlib"}


def of(parsed: dict[str, Any], spdx_id: str) -> dict[str, Any]:
    (found,) = (one for one in parsed["packages"] if one["SPDXID"] == spdx_id)
    assert isinstance(found, dict)
    return found


def property_of(one: dict[str, Any], name: str) -> str | None:
    return next((each["value"] for each in one["properties"] if each["name"] == f"deadweight:{name}"), None)


@contextmanager
def swapped_slim(folder: Path) -> Iterator[Inventory]:
    """The inventory of an image in which torch's CPU build took the GPU build's place."""
    reference = saved(folder, gpu_image())
    to = parse_reference(f"docker-archive:{folder / 'cpu.tar'}")
    with swapping(reference, f"torch={cpu_wheel(folder)}") as swapped:
        worked = joined(draw_up(swapped.ledger, Options(orphans=swapped.orphans), all_layers=True), swapped)
        applied = apply_plan(worked.plan, swapped.original, to, swapped=swapped)
        yield slim_inventory(inventory(swapped.original), swapped.original, swapped.ledger, applied, to)


def test_a_swapped_build_is_known_by_its_wheel(tmp_path: Path) -> None:
    with swapped_slim(tmp_path) as found:
        torch = next(one for one in found.components if one.name == "torch")
        assert torch.version == "2.9.0+cpu"
        assert torch.swapped is not None
        assert torch.swapped.before == "2.9.0"
        assert unmarked(found.components) == list(read(tmp_path / "cpu.tar").components)
        gone = {(one.component.name, one.component.version): one.pass_ for one in found.removed}
        assert gone["torch", "2.9.0"] == "swap"
        assert gone["triton", "3.5"] == "orphans"
        cdx = check("cyclonedx", document("cyclonedx", found, NOTHING))
        check("spdx", document("spdx", found, NOTHING))
    (said,) = (one for one in cdx["components"] if one["name"] == "torch")
    assert said["pedigree"]["ancestors"][0]["version"] == "2.9.0"
    (wheel,) = (one for one in said["externalReferences"] if one["type"] == "distribution")
    assert wheel["hashes"] == [{"alg": "SHA-256", "content": torch.swapped.sha256}]


def test_models_that_were_converted_are_marked_and_their_bytes_are_made_when_they_are_read(tmp_path: Path) -> None:
    hub = f"models/hub/models--org--tiny/snapshots/{'c0' * 20}"
    image = make_image(make_tar(*transformers(), *model(hub, safetensors=weights(rows=40))))
    path = write_docker_archive(tmp_path / "image.tar", image, "service:1", style="25")
    with open_image(str(path)) as source, ExitStack() as resources:
        ledger = Ledger(source)
        worked = draw_up(ledger, Options(weights="fp16"), all_layers=True)
        to = parse_reference(f"docker-archive:{tmp_path / 'slim.tar'}")
        applied = apply_plan(worked.plan, ledger, to)
        found = slim_inventory(inventory(ledger), ledger, ledger, applied, to)
        (layer,) = changed_image(source, worked.edited, b"", resources).layers
        with open_image(str(tmp_path / "slim.tar")) as slim:
            content = b"".join(slim.layers[0].tar.chunks())
            assert b"".join(layer.tar.chunks()) == content
            for at in range(0, len(content), 997):
                assert layer.tar.read_at(at, 1500) == content[at : at + 1500]
                part = layer.tar.window(at, min(500, len(content) - at))
                assert part.read_at(90, 33) == content[at + 90 : at + 123]
    (one,) = (each for each in found.components if each.kind == "model")
    assert one.modified == Modified(("weights",), 0, 1)
    assert one.purl == f"pkg:huggingface/org/tiny@{'c0' * 20}"
