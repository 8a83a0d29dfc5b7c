"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])
Documents = Mapping[str, str | None]
"""Where the documents go that were asked for, by form (`json`): a file, `-`, or None."""

RISKS = ("lossless", "target", "policy", "observed")
COMPRESSIONS = ("keep", "none", "gzip", "zstd")


def size(value: str) -> int:
    """The bytes of a size as `3GB`, `2.5GiB` or `1000000`: a type for click's options."""
    from deadweight.errors import UsageError  # noqa: PLC0415
    from deadweight.sizes import parse_size  # noqa: PLC0415

    try:
        return parse_size(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


def together(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


image_argument = click.argument("image")


def _plain_http(context: click.Context, _: click.Parameter, hosts: tuple[str, ...]) -> None:
    _reach_registries(context, frozenset(hosts), None)


def _registry_ca(context: click.Context, _: click.Parameter, file: str | None) -> None:
    _reach_registries(context, frozenset(), file)


def _reach_registries(context: click.Context, plain_http: frozenset[str], ca: str | None) -> None:
    """Has what was said of registries in force until the command ends."""
    if plain_http or ca is not None:
        from pathlib import Path  # noqa: PLC0415

        from deadweight.image.transports.registry_settings import current_settings, using  # noqa: PLC0415

        more = current_settings().with_more(plain_http, Path(ca) if ca is not None else None)
        context.with_resource(using(more))


registry_options = together(
    click.option(
        "--plain-http",
        multiple=True,
        metavar="HOST[:PORT]",
        expose_value=False,
        callback=_plain_http,
        help="A registry that is spoken to without TLS (or $DEADWEIGHT_PLAIN_HTTP). On this machine that is found out.",
    ),
    click.option(
        "--registry-ca",
        metavar="FILE",
        expose_value=False,
        callback=_registry_ca,
        help="Certificates of authorities that registries are believed by, besides the system's, SSL_CERT_FILE's and "
        "those in /etc/docker/certs.d (or $DEADWEIGHT_REGISTRY_CA).",
    ),
)
platform_option = together(
    click.option(
        "--platform",
        metavar="OS/ARCH",
        help="Which of an image for several platforms, as linux/arm64.  [default: this machine's]",
    ),
    registry_options,
)
_DOCUMENTS = {
    "json": "Write the report as JSON, to a file or, with -, alone to standard output.",
    "html": "Write the report as a page of its own, with a treemap of every byte; it needs nothing but a browser.",
    "markdown": "Write the report's sums as Markdown, for a pull request or a page of CI.",
}


def document_options(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options by which a report is written as documents of these forms; the command gets them as `documents`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_documents(*arguments: Any, **options: Any) -> Any:
            documents = {form: options.pop(f"{form}_to") for form in forms}
            return function(*arguments, documents=documents, **options)

        names = [click.option(f"--{form}", f"{form}_to", metavar="FILE|-", help=_DOCUMENTS[form]) for form in forms]
        return together(*names)(with_documents)

    return decorate


json_option = document_options("json")
report_options = document_options("json", "markdown")
page_options = document_options("json", "markdown", "html")
cache_option = click.option(
    "--no-cache", is_flag=True, help="Work everything out anew, and keep nothing of it (`deadweight cache --help`)."
)
top_option = click.option(
    "-n", "--top", type=click.IntRange(1), default=15, show_default=True, help="How many rows long tables show."
)

SANDBOXES = ("bubblewrap", "docker", "podman")
spec_option = click.option(
    "--spec",
    "spec_from",
    metavar="FILE",
    help="What to probe: a deadweight.toml, or builtin:ml-api.  [default: deadweight.toml here, where there is one]",
)
sandbox_option = click.option(
    "--sandbox",
    type=click.Choice(SANDBOXES),
    default="bubblewrap",
    show_default=True,
    help="What runs the images' programs: bubblewrap needs no daemon.",
)
tolerance_option = click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    metavar="X",
    help="How far numbers in outputs, arrays and JSON answers may be apart, absolutely or relative to the larger; a "
    "probe's own tolerance holds where it is larger.",
)
max_loss_option = click.option(
    "--max-accuracy-loss",
    "max_loss",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="The most that probes of kind accuracy may find lost: 1 - the lowest cosine similarity, or the share of other "
    "verdicts. Where weights were converted, numbers elsewhere may differ as far as that allows.  [default: each "
    "probe's max_loss]",
)
verdict_options = together(
    sandbox_option,
    click.option("--gpus", is_flag=True, help="Let probes use this machine's GPUs."),
    click.option("--network", is_flag=True, help="Let probes use the network."),
    click.option(
        "--memory",
        type=size,
        metavar="SIZE",
        help="What one probe may take of memory.  [default: the specification's, 8GB]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1),
        metavar="SECONDS",
        help="What one probe may take.  [default: the specification's, 600]",
    ),
    report_options,
    click.option(
        "-n", "--top", type=click.IntRange(1), default=10, show_default=True, help="How many details to show."
    ),
    platform_option,
)
target_options = together(
    click.option(
        "-g",
        "--gpu",
        multiple=True,
        metavar="GPU,...",
        help="The GPUs that it is to run on: h100, sm_90, 9.0, or none. GPU code that only others run leaves; on those "
        "the image no longer works. `deadweight gpus` lists names.",
    ),
    click.option(
        "--keep-ptx/--drop-ptx",
        default=None,
        help="PTX that the declared GPUs do not need: it lets newer GPUs run the image, after compiling at the first "
        "start.  [default: keep]",
    ),
    click.option(
        "--raw-blobs",
        is_flag=True,
        help="Also GPU code that libraries keep outside the sections for it, as cuBLASLt does. Rests on the "
        "assumption that their host code never reads what is for other GPUs.",
    ),
    click.option(
        "--recompress",
        is_flag=True,
        help="Compress the GPU code that stays harder, in a format that every driver reads. Slow: minutes for a large "
        "library, once for planning and once for applying a saved plan.",
    ),
)
VARIANTS = ("cpu",)
source_options = together(
    click.option(
        "--find-links",
        multiple=True,
        metavar="DIR|URL",
        help="Where wheels are: a folder, a wheel file, or a page of links.  [default: where pip looks]",
    ),
    click.option("--index-url", metavar="URL", help="An index that has the builds, in place of pip's."),
)
variant_options = together(
    click.option(
        "--variant",
        type=click.Choice(VARIANTS),
        help="cpu: CPU builds of torch, torchvision and torchaudio in the locked versions, without the distributions "
        "that only GPU builds need.",
    ),
    source_options,
)
swap_options = together(
    click.option(
        "--swap",
        multiple=True,
        metavar="NAME=cpu|FILE.whl",
        help="Replace an installed distribution by another build of the same version: its CPU build, found by pip, or "
        "a wheel file. What only the old build needed leaves.",
    ),
    source_options,
)
weights_option = click.option(
    "--weights",
    type=click.Choice(("fp16", "bf16", "int8")),
    help="Store models' weights (.safetensors of transformers) as smaller numbers. Half precision is computed with as "
    "float32, as before; int8 is torchao's. What it costs in accuracy is measured by a probe of kind accuracy.",
)
planning_options = together(
    target_options,
    swap_options,
    click.option(
        "--risk",
        type=click.Choice(RISKS),
        default="policy",
        show_default=True,
        help="How far to go: nothing that a container can tell; nothing that it can tell on the target; what only "
        "development and operations use; what an observation says is unused.",
    ),
    weights_option,
    click.option("-k", "--keep", multiple=True, metavar="PATTERN", help="Keep paths that match, and all below them."),
    click.option(
        "-s", "--skip", multiple=True, metavar="PASS", help="Leave a pass out; `deadweight passes` lists all."
    ),
    click.option(
        "--remove", multiple=True, metavar="NAME", help="Remove a Python distribution and what only it needs."
    ),
    click.option(
        "--root", multiple=True, metavar="NAME", help="A distribution that is needed though nothing shows it."
    ),
    click.option(
        "--keep-compile/--no-keep-compile",
        default=None,
        help="Keep compilers and headers, for torch.compile and C++ extensions. [default: if the application's code "
        "mentions them]",
    ),
    click.option(
        "--keep-layers", type=click.IntRange(0), default=0, metavar="N", help="Leave the first N layers alone."
    ),
    click.option("--base", metavar="IMAGE", help="Leave alone the layers that this base image has."),
    click.option("--all-layers", is_flag=True, help="Also change layers in which little is won."),
    platform_option,
)
writing_options = together(
    click.option(
        "-t",
        "--to",
        "destination",
        metavar="DEST",
        help="Where to write: docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG], oci-archive:FILE[:TAG], rootfs:DIR, "
        "docker-daemon:NAME:TAG, podman:NAME:TAG, containers-storage:NAME:TAG or docker://HOST/NAME:TAG.",
    ),
    click.option(
        "--tag",
        metavar="NAME:TAG",
        help="Write to the engine that the image comes from, by this name; else to Docker's, or to Podman where that "
        "does not answer.",
    ),
    click.option(
        "-c",
        "--compression",
        type=click.Choice(COMPRESSIONS),
        default="keep",
        show_default=True,
        help="How new layers are stored; keep is as they were, and plain in a docker-archive. zstd is the smallest.",
    ),
    click.option(
        "-f",
        "--force",
        "--replace",
        "force",
        is_flag=True,
        help="Replace a file that is there. In an engine, take the name from an image that deadweight did not make, "
        "which first gets another: NAME:TAG-original.",
    ),
)
