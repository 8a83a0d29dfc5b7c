"""deadweight's own image, built by `deadweight build` and without an engine: `make image` runs it.

    scripts/image/build.py [--to DEST] [--base IMAGE] [--cache DIR]

DEST is any destination of `deadweight build`, or oci:build/image:latest; docker://HOST/NAME:TAG pushes.
To what the build gives, one small layer is added: the program /usr/bin/deadweight, which runs wherever the root of the
image lies, so that another image's build can mount or copy it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from deadweight.build.pack import Item, file_item, pack
from deadweight.build.running import EPOCH
from deadweight.errors import DeadweightError
from deadweight.image.model import Image
from deadweight.image.output import NewImage, OutputLayer, keep_layer
from deadweight.image.reference import parse_destination
from deadweight.image.transports import open_image, write_image

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
PROGRAMS = ("deadweight", "deadweight-python")
WORK = "work"
"""The working directory, where a caller mounts what is worked on."""
MADE_BY = "scripts/image: the program, wherever the image lies"


def build(to: str, base: str, cache: str | None) -> None:
    """Builds the image and writes it to `to`. Raises CalledProcessError where `deadweight build` fails."""
    with tempfile.TemporaryDirectory(prefix="deadweight-image-") as work:
        plain = f"oci:{work}/plain:latest"
        command = [sys.executable, "-m", "deadweight", "build", str(PROJECT), "--base", base, "--slim", "--no-extras"]
        command += ["--to", plain, *(["--cache", cache] if cache else [])]
        subprocess.run(command, check=True, stdout=sys.stderr)
        layer = Path(work, "layer")
        with layer.open("w+b") as file:
            items = [Item(WORK, mode=0o777), *(file_item(HERE / name, f"usr/bin/{name}") for name in PROGRAMS)]
            packed = pack(items, file, EPOCH)
        with open_image(plain) as image:
            program = OutputLayer(packed.size, lambda: iter([layer.read_bytes()]))
            new = NewImage((*map(keep_layer, image.layers), program), lambda ids: configuration(image, ids), "latest")
            written = write_image(new, parse_destination(to), compression="gzip", force=True)
    size, stored = sum(written.sizes), sum(written.stored_sizes)
    print(f"{to}\n{written.config_digest}\n{size:,} bytes in layers, {stored:,} as stored")


def configuration(image: Image, diff_ids: list[str]) -> bytes:
    """The image's configuration with the layer that was added: it runs the program, and takes its arguments."""
    run = {name: value for name, value in image.run_config.items() if name != "Cmd"}
    moment = image.config["created"]
    config = {
        **image.config,
        "config": {**run, "Entrypoint": ["deadweight"], "WorkingDir": f"/{WORK}"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*image.config["history"], {"created": moment, "created_by": MADE_BY}],
    }
    return json.dumps(config, separators=(",", ":")).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", default=f"oci:{PROJECT}/build/image:latest", metavar="DEST")
    parser.add_argument("--base", default="debian:bookworm-minimal", metavar="IMAGE")
    parser.add_argument("--cache", metavar="DIR", help="as of deadweight build")
    given = parser.parse_args()
    try:
        build(given.to, given.base, given.cache)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except DeadweightError as error:
        print(f"scripts/image: error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
