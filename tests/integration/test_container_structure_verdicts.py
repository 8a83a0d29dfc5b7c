"""container-structure-test itself (its tar driver) and deadweight come to the same verdicts on the same tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.verify.spec.container_structure import read_cst
from deadweight.verify.verification import check
from support.cuda import oracle
from support.images import directory, file, make_image, make_tar, symlink, whiteout, write_docker_archive

CONFIG = {
    "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "WHERE=/etc"],
    "Labels": {"vendor": "ACME Incorporated", "date": "2024-01-02T03:04:05.000006"},
    "Cmd": ["python3", "-m", "service"],
    "Entrypoint": ["/entry.sh"],
    "ExposedPorts": {"8000/tcp": {}, "53/udp": {}},
    "Volumes": {"/data": {}},
    "WorkingDir": "/app",
    "User": "1001",
}
MEMBERS = [
    directory("etc"),
    file("etc/motd", b"hello\nworld\n"),
    file("etc/latin", b"caf\xe9\n"),
    file("etc/empty"),
    file("etc/unicode", "na\u00efve\n".encode()),
    symlink("etc/relative", "motd"),
    symlink("etc/dangling", "nowhere"),
    symlink("linked", "etc"),
    file("bin/run", b"x", mode=0o750),
    file("bin/other", b"x", mode=0o601),
    file("bin/su", b"x", mode=0o4755),
    directory("tmp", 0o1777),
    file("removed", b"x"),
]
EXISTENCE: list[dict[str, Any]] = [
    {"path": "/etc/motd"},
    {"path": "etc/motd"},
    {"path": "/etc/motd/"},
    {"path": "/etc/motd", "shouldExist": False},
    {"path": "/etc/none"},
    {"path": "/etc/none", "shouldExist": False, "permissions": "-rw-r--r--"},
    {"path": "$WHERE/motd"},
    {"path": "${GLOBAL}/motd"},
    {"path": "/$NONE/etc/motd"},
    {"path": "/removed"},
    {"path": "/removed", "shouldExist": False},
    {"path": "/etc/dangling"},
    {"path": "/etc/dangling", "shouldExist": False},
    {"path": "/etc/relative", "permissions": "Lrwxrwxrwx"},
    {"path": "/etc/relative", "permissions": "-rw-r--r--"},
    {"path": "/linked/motd", "permissions": "-rw-r--r--"},
    {"path": "/linked/../etc/motd"},
    {"path": "/etc", "permissions": "drwxr-xr-x"},
    {"path": "/etc", "permissions": "-rwxr-xr-x"},
    {"path": "/tmp", "permissions": "dtrwxrwxrwx"},
    {"path": "/tmp", "permissions": "drwxrwxrwx"},
    {"path": "/bin/su", "permissions": "urwxr-xr-x"},
    {"path": "/bin/su", "permissions": "-rwxr-xr-x"},
    *({"path": f"/bin/{name}", "isExecutableBy": who} for name in ("run", "other") for who in ("owner", "group")),
    *({"path": f"/bin/{name}", "isExecutableBy": who} for name in ("run", "other") for who in ("other", "any")),
    {"path": "/etc/motd", "isExecutableBy": "any"},
]
CONTENT: list[dict[str, Any]] = [
    {"path": "/etc/none"},
    {"path": "/etc"},
    {"path": "/etc/empty", "expectedContents": ["^$"], "excludedContents": ["."]},
    {"path": "/etc/relative", "expectedContents": ["hello"]},
    {"path": "/linked/motd", "expectedContents": ["hello"]},
    {"path": "/etc/dangling"},
    *(
        {"path": "/etc/motd", key: [pattern]}
        for key in ("expectedContents", "excludedContents")
        for pattern in (
            *("hello", "world$", r"world\n$", "(?m)world$", "^world", "(?m)^world", "(?m)^hello$", r"hello\nworld\n\z"),
            *("HELLO", "(?i)HELLO", "x(?i)|HELLO", "(?i)x|HELLO", "hello.world", "(?s)hello.world", "hello(?s).world"),
            *(r"\Qhello\E", "[[:lower:]]{5}", "^[[:alpha:]]+$", r"\bworld\b", r"[\s]w", "h{,2}", "[]h]"),
        )
    ),
    *(
        {"path": "/etc/unicode", "expectedContents": [p]}
        for p in (r"na\wve", r"na\Wve", "na.ve", r"na\x{ef}ve", "(?i)NAÏVE")
    ),
    *({"path": "/etc/latin", "expectedContents": [p]} for p in ("caf.$", "caf.\n$", r"caf\W")),
]
METADATA: list[dict[str, Any]] = [
    {"envVars": [{"key": "LANG", "value": "C.UTF-8"}]},
    {"envVars": [{"key": "LANG", "value": "C"}]},
    {"envVars": [{"key": "LANG", "value": "C", "isRegex": True}]},
    {"envVars": [{"key": "LANG", "value": "^c", "isRegex": True}]},
    {"envVars": [{"key": "NONE", "value": ""}]},
    {"envVars": [{"key": "PATH", "value": "usr", "isRegex": True}, {"key": "PATH", "value": "none", "isRegex": True}]},
    {"unboundEnvVars": [{"key": "LANG"}]},
    {"unboundEnvVars": [{"key": "NONE"}]},
    {"labels": [{"key": "vendor", "value": "ACME Incorporated"}]},
    {"labels": [{"key": "date", "value": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$", "isRegex": True}]},
    {"labels": [{"key": "date", "value": r"^\d{4}$", "isRegex": True}]},
    {"labels": [{"key": "none", "value": "x"}]},
    {"cmd": ["python3", "-m", "service"]},
    {"cmd": ["python3"]},
    {"cmd": []},
    {"entrypoint": ["/entry.sh"]},
    {"entrypoint": []},
    {"exposedPorts": ["8000", "53"]},
    {"exposedPorts": ["80"]},
    {"unexposedPorts": ["80"]},
    {"unexposedPorts": ["8000"]},
    {"volumes": ["/data"]},
    {"volumes": ["/data/"]},
    {"unmountedVolumes": ["/data"]},
    {"unmountedVolumes": ["/none"]},
    {"workdir": "/app", "user": "1001"},
    {"workdir": "/app/"},
    {"user": "root"},
]


def judged(archive: Path, tests: Path) -> dict[str, bool]:
    """What container-structure-test says of each test."""
    program = oracle("bin/container-structure-test")
    command: list[str | Path] = [
        program,
        "test",
        "--driver",
        "tar",
        "--image",
        archive,
        "--config",
        tests,
        "--output",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"TMPDIR": str(archive.parent)})
    results = json.loads(done.stdout)["Results"]
    return {found["Name"].split(": ", 1)[-1]: found["Pass"] for found in results}


def ours(archive: Path, tests: Path) -> dict[str, bool]:
    """What deadweight says."""
    with open_image(f"docker-archive:{archive}") as image:
        verdict = check(Ledger(image), read_cst(tests))
    assert verdict.sandbox == "", "nothing was to be run"
    found: dict[str, bool] = {}
    for probe in verdict.probes:
        name = probe.name.split(" (")[0]
        found[name] = found.get(name, True) and probe.outcome == "met"
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("structure") / "image.tar"
    image = make_image(make_tar(*MEMBERS), make_tar(whiteout("removed")), run=CONFIG)
    write_docker_archive(path, image, "structure:test", style="25")
    return path


def test_file_tests(archive: Path, tmp_path: Path) -> None:
    existence = [{"shouldExist": True, **test, "name": f"existence {n}"} for n, test in enumerate(EXISTENCE)]
    content = [{**test, "name": f"content {n}"} for n, test in enumerate(CONTENT)]
    tests = tmp_path / "tests.yaml"
    data = {"schemaVersion": "2.0.0", "fileExistenceTests": existence, "fileContentTests": content}
    tests.write_text(json.dumps({**data, "globalEnvVars": [{"key": "GLOBAL", "value": "/etc"}]}))
    theirs, found = judged(archive, tests), ours(archive, tests)
    by_name = {test["name"]: test for test in (*existence, *content)}
    assert [(by_name[name], theirs[name], found[name]) for name in by_name if theirs[name] != found[name]] == []
    assert 20 < sum(theirs.values()) < len(theirs) - 20


@pytest.mark.parametrize("test", METADATA, ids=[json.dumps(test) for test in METADATA])
def test_metadata(archive: Path, tmp_path: Path, test: dict[str, Any]) -> None:
    tests = tmp_path / "tests.yaml"
    tests.write_text(json.dumps({"schemaVersion": "2.0.0", "metadataTest": test}))
    assert ours(archive, tests) == judged(archive, tests)
