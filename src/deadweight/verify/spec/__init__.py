"""deadweight.toml: what is to be probed, as data.

One struct for each kind of probe; `kind` says which. Fields that a kind does not know are errors, never passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from deadweight.application.table import AppTable

Size = Annotated[str, Meta(description="A size: 3GB, 2.5GiB or 1000000.")]
Seconds = Annotated[float, Meta(gt=0, le=86_400, description="Seconds.")]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class ProbeBase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every probe has."""

    name: Name = ""
    """Shown in the table; made up from the rest where it is missing."""
    must: bool = False
    """Whether it has to succeed, and not only do the same in both images."""
    timeout: Seconds | None = None
    """How long it may take in one image, instead of what [limits] says."""


class ImportProbe(ProbeBase, frozen=True, kw_only=True, tag="import"):
    """Modules import, in both images or in neither, each in a process of its own."""

    modules: list[Name] | None = None
    """Without: every top-level module of every distribution that is in both images."""
    time_ratio: Annotated[float, Meta(ge=1)] | None = None
    """How many times as long as in the original an import may take; not measured without."""
    memory_ratio: Annotated[float, Meta(ge=1)] | None = None
    """The same for the memory that is resident afterwards."""


class RunProbe(ProbeBase, frozen=True, kw_only=True, tag="run"):
    """A command or a script prints the same, byte for byte, and exits the same."""

    command: list[str] | str | None = None
    """A list of words, or a line for the image's /bin/sh."""
    script: str | None = None
    """A Python file beside the spec, run by the image's Python instead of a command."""
    code: str | None = None
    """Python, run by the image's Python instead of a command."""
    arrays: bool = False
    """Compare the .npy and .npz files that a script leaves in the directory that DEADWEIGHT_OUT names."""
    tolerance: Annotated[float, Meta(ge=0)] = 0.0
    """How far numbers in the output and in arrays may be apart, absolutely or relative to the larger; 0: not at all."""
    ignore: list[str] = []
    """Regular expressions: what they match in the output is left out of the comparison."""
    status: int | None = None
    """The exit status that it must have; what it must have without is that of success, where `must` is set."""
    output: list[str] = []
    """Regular expressions that standard output must match."""
    no_output: list[str] = []
    error: list[str] = []
    """The same for standard error, which is not compared otherwise."""
    no_error: list[str] = []
    env: dict[str, str] = {}
    stdin: str = ""
    setup: list[list[str]] = []
    """Commands that run before it, in the same container: what they write is there."""
    teardown: list[list[str]] = []
    """Commands that run after it."""
    expand: bool = False
    """Whether `$NAME` and `${NAME}` in the words of commands and in `env` stand for variables of the image."""


class AccuracyProbe(ProbeBase, frozen=True, kw_only=True, tag="accuracy"):
    """What a script computes of sentences is nearly the same: vectors by cosine similarity, verdicts by agreement.

    The script finds the sentences as JSON in the file that DEADWEIGHT_INPUT names, and leaves arrays in the directory
    that DEADWEIGHT_OUT names: of floats, vectors along the last dimension, or single numbers where that is 1 or none
    is there; of integers or texts, verdicts. The loss is the largest of 1 - the lowest cosine similarity, the share of
    other verdicts, and the distance of single numbers a and b by max(1, |a|, |b|). A number that is finite on one side
    alone is never allowed.
    """

    script: str | None = None
    """A Python file beside the spec, run by the image's Python."""
    code: str | None = None
    """Python, run by the image's Python instead of a script."""
    sentences: list[str | list[str]] = []
    """What to compute of: texts, or lists of texts, as claim and evidence."""
    sentences_file: str | None = None
    """The same as a file beside the spec: JSON (.json), or a text a line."""
    max_loss: Annotated[float, Meta(ge=0, le=1)] = 0.001
    """The most that may be lost; `--max-accuracy-loss` takes its place."""
    env: dict[str, str] = {}


class HttpProbe(ProbeBase, frozen=True, kw_only=True, tag="http"):
    """The image's own server gives the same answer to a request."""

    path: Name
    method: str = "GET"
    headers: dict[str, str] = {}
    json: Any = None
    """The request's body, as JSON."""
    body: str | None = None
    """The request's body, as it is."""
    status: int | None = None
    """The status that the answer must have."""
    ignore: list[str] = []
    """Keys of a JSON answer (`a.b` for one inside), or regular expressions, whose values may differ."""
    tolerance: Annotated[float, Meta(ge=0)] = 0.0
    """How far numbers in a JSON answer may be apart."""


class StartProbe(ProbeBase, frozen=True, kw_only=True, tag="start"):
    """The image's own entrypoint starts and answers its health check."""

    path: str | None = None
    """Without: [app] health, the image's HEALTHCHECK, or `/`."""
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    status: int | None = None
    """Which status means that it is up; any below 500 without."""
    command: list[str] | None = None
    """Instead of the image's own ENTRYPOINT and CMD."""
    env: dict[str, str] = {}


class RoutesProbe(ProbeBase, frozen=True, kw_only=True, tag="routes"):
    """The application object loads and has the same routes (FastAPI, Starlette, Flask, Django)."""

    app: str | None = None
    """As `package.module:attribute`; [app] says it otherwise."""
    count: Annotated[int, Meta(ge=0)] | None = None
    """How many there must be."""


class AbsentProbe(ProbeBase, frozen=True, kw_only=True, tag="absent"):
    """Commands that must not be in PATH, modules that must not import."""

    commands: list[Name] = []
    modules: list[Name] = []


class LibrariesProbe(ProbeBase, frozen=True, kw_only=True, tag="libraries"):
    """Every ELF file's libraries are found where they were, with all their symbols."""

    paths: list[str] = []
    """Patterns of paths; all ELF files without."""


class SizeProbe(ProbeBase, frozen=True, kw_only=True, tag="size"):
    """The image's layers, uncompressed, have at most so many bytes."""

    max: Size | None = None
    """Without: the slim image is not larger than the original."""


class TestsProbe(ProbeBase, frozen=True, kw_only=True, tag="tests"):
    """A distribution's test suite has the same results, run from the original's test files in both images."""

    tests: list[Name]
    """Distributions."""
    select: list[str] = []
    """Files, directories or modules of the suite (`numpy.linalg`, `numpy/linalg/tests/test_linalg.py`); all without."""
    tools: list[str] = msgspec.field(default_factory=lambda: ["pytest", "hypothesis"])
    """What pip brings in from outside."""
    arguments: list[str] = []
    """Further arguments for pytest."""


class FileProbe(ProbeBase, frozen=True, kw_only=True, tag="file"):
    """A path is in the image, or is not, and has this content."""

    path: Name
    """Absolute."""
    exists: bool = True
    expand: bool = False
    """Whether `$NAME` and `${NAME}` in `path` stand for variables of the image."""
    follow: bool = True
    """Whether a symbolic link at the end of `path` is followed, inside the image; those on the way to it always are."""
    permissions: str | None = None
    """As `ls -l` writes them: -rw-r--r--."""
    uid: int | None = None
    gid: int | None = None
    executable_by: Literal["any", "owner", "group", "other"] | None = None
    contents: list[str] = []
    """Regular expressions that the content must match."""
    no_contents: list[str] = []


class ConfigProbe(ProbeBase, frozen=True, kw_only=True, tag="config"):
    """What the image's configuration must say."""

    env: dict[str, str] = {}
    no_env: list[Name] = []
    """Variables that must not be set."""
    labels: dict[str, str] = {}
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    ports: list[str] = []
    """As `8000`, or with the protocol: `8000/tcp`."""
    no_ports: list[str] = []
    volumes: list[str] = []
    no_volumes: list[str] = []
    workdir: str | None = None
    user: str | None = None
    regex: list[str] = []
    """Names in `env` and `labels` whose values are regular expressions."""


class ModelsProbe(ProbeBase, frozen=True, kw_only=True, tag="models"):
    """Models open with the image's own library (transformers, sentence-transformers), and are what they were."""

    folders: list[Name] | None = None
    """Absolute; without: every folder with a model."""
    converted: list[Name] = []
    """Those of them whose weights are smaller numbers now: their shapes are compared, and not every number."""


Probe = (
    ImportProbe
    | RunProbe
    | HttpProbe
    | StartProbe
    | RoutesProbe
    | AbsentProbe
    | LibrariesProbe
    | SizeProbe
    | TestsProbe
    | FileProbe
    | ConfigProbe
    | AccuracyProbe
    | ModelsProbe
)


class ImageTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[image]: about the image as a whole."""

    max_size: Size | None = None


class LimitsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[limits]: what one run of a probe may take."""

    memory: Size = "8GB"
    processes: Annotated[int, Meta(ge=1)] = 4096
    timeout: Seconds = 600.0


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deadweight.toml."""

    defaults: bool = True
    """Whether the default probes run as well, but for those that the spec has itself."""
    image: ImageTable = ImageTable()
    app: AppTable = AppTable()
    limits: LimitsTable = LimitsTable()
    probe: list[Probe] = []
    folder: str = ""
    """Where the files that it names are: not to be written into a spec."""
    notes: list[str] = []
    """What was passed over in reading, and why: not to be written into a spec."""
