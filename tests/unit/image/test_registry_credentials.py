"""Where credentials come from: docker's and podman's files, and helpers; and that none of it is ever shown."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import EnvironmentFailure, UsageError
from deadweight.image.reference import parse_destination, parse_reference
from deadweight.image.transports.registry_auth import Authority, Challenge, parse_challenges
from deadweight.image.transports.registry_client import Registry
from deadweight.image.transports.registry_credentials import Credential, Found, find_credential
from deadweight.image.transports.registry_settings import Settings, is_loopback, may_be_plain, scheme_of, tls_context

SECRET = "a-very-secret-password"


def encoded(user: str = "me", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def helper(folder: Path, name: str, script: str) -> None:
    path = put(folder / f"docker-credential-{name}", f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **more}


PLACES = {
    "docker": ("home/.docker/config.json", {}),
    "DOCKER_CONFIG": ("elsewhere/config.json", {"DOCKER_CONFIG": "elsewhere"}),
    "REGISTRY_AUTH_FILE": ("any/file", {"REGISTRY_AUTH_FILE": "any/file"}),
    "podman while logged in": ("run/containers/auth.json", {"XDG_RUNTIME_DIR": "run"}),
    "podman": ("home/.config/containers/auth.json", {}),
    "XDG_CONFIG_HOME": ("configuration/containers/auth.json", {"XDG_CONFIG_HOME": "configuration"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_usual_places(tmp_path: Path, place: str) -> None:
    file, variables = PLACES[place]
    put(tmp_path / file, {"auths": {"registry.example:5000": encoded()}})
    env = environment(tmp_path, **{name: str(tmp_path / value) for name, value in variables.items()})
    found = find_credential("registry.example:5000", "team/app", env)
    assert found.credential == Credential("me", SECRET)
    assert found.troubles == ()
    assert find_credential("registry.example", "team/app", env).credential is None
    assert find_credential("other.example:5000", "team/app", env).credential is None


KEYS = {
    "registry.example": ("registry.example", "team/app"),
    "https://registry.example": ("registry.example", "team/app"),
    "https://registry.example/v2/": ("registry.example", "team/app"),
    "http://registry.example/v1/": ("registry.example", "team/app"),
    "https://index.docker.io/v1/": ("docker.io", "library/python"),
    "index.docker.io": ("docker.io", "library/python"),
    "docker.io": ("docker.io", "library/python"),
    "registry.example/team": ("registry.example", "team/app"),
    "registry.example/team/app": ("registry.example", "team/app"),
}


@pytest.mark.parametrize("key", KEYS)
def test_keys_as_tools_write_them(tmp_path: Path, key: str) -> None:
    put(tmp_path / "home/.docker/config.json", {"auths": {key: encoded(), "other.example": encoded("no")}})
    found = find_credential(*KEYS[key], environment(tmp_path))
    assert found.credential == Credential("me", SECRET)


def test_the_nearest_key_holds(tmp_path: Path) -> None:
    auths = {"r.example": encoded("all"), "r.example/team": encoded("team"), "r.example/team/app": encoded("app")}
    put(tmp_path / "home/.config/containers/auth.json", {"auths": auths})
    users = []
    for path in ("team/app", "team/other", "else/app"):
        credential = find_credential("r.example", path, environment(tmp_path)).credential
        assert credential is not None
        users.append(credential.username)
    assert users == ["app", "team", "all"]


def test_tokens_in_files(tmp_path: Path) -> None:
    auths = {"one.example": {"identitytoken": SECRET}, "two.example": {"registrytoken": SECRET}, "three.example": {}}
    put(tmp_path / "home/.docker/config.json", {"auths": auths})
    env = environment(tmp_path)
    assert find_credential("one.example", "a", env).credential == Credential(identity_token=SECRET)
    assert find_credential("two.example", "a", env).credential == Credential(bearer=SECRET)
    assert find_credential("three.example", "a", env).credential is None


def test_helpers(tmp_path: Path) -> None:
    """One for a registry, and one for all the others; what they are asked for is as docker asks it."""
    config = {"credHelpers": {"one.example": "one"}, "credsStore": "all", "auths": {"two.example": {}}}
    put(tmp_path / "home/.docker/config.json", config)
    answer = '{"ServerURL":"x","Username":"%s","Secret":"' + SECRET + '"}'
    helper(tmp_path / "bin", "one", f"cat >{tmp_path}/asked-one; echo '{answer % 'me'}'")
    helper(tmp_path / "bin", "all", f"cat >{tmp_path}/asked-all; echo '{answer % '<token>'}'")
    env = environment(tmp_path)
    assert find_credential("one.example", "a", env).credential == Credential("me", SECRET)
    assert (tmp_path / "asked-one").read_text() == "one.example"
    assert find_credential("two.example", "a", env).credential == Credential(identity_token=SECRET)
    assert find_credential("docker.io", "library/a", env).credential == Credential(identity_token=SECRET)
    assert (tmp_path / "asked-all").read_text() == "https://index.docker.io/v1/"


TROUBLES = {
    "missing": (None, "is not in PATH"),
    "failing": (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "exit status 3"),
    "garbage": (f"echo {SECRET}", "gave no credential"),
    "unknown": ("echo credentials not found in native keychain; exit 1", None),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_helpers_that_fail(tmp_path: Path, what: str) -> None:
    script, says = TROUBLES[what]
    put(tmp_path / "home/.docker/config.json", {"credsStore": "some"})
    if script is not None:
        helper(tmp_path / "bin", "some", script)
    found = find_credential("one.example", "a", environment(tmp_path))
    assert found.credential is None
    assert len(found.troubles) == (says is not None)
    assert (says or "") in " ".join(found.troubles)
    assert SECRET not in " ".join(found.troubles)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"auths": []}',
        '{"auths": {"one.example": {"auth": "%%%"}}}',
        '{"credsStore": "../../bin/sh"}',
        "\xff",
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, content: str) -> None:
    """They are passed over, and what was wrong is kept for the case that a credential is needed."""
    put(tmp_path / "home/.docker/config.json", content)
    put(tmp_path / "home/.config/containers/auth.json", {"auths": {"one.example": encoded()}})
    found = find_credential("one.example", "a", environment(tmp_path))
    assert found.credential == Credential("me", SECRET)
    assert len(found.troubles) == 1


def test_null_is_nothing(tmp_path: Path) -> None:
    entry = {**encoded(), "username": None, "password": None, "identitytoken": None, "registrytoken": None}
    auths = {"one.example": entry, "two.example": None, "three.example": {"auth": None}}
    config = {"auths": auths, "credHelpers": {"one.example": None}, "credsStore": None}
    put(tmp_path / "home/.docker/config.json", config)
    env = environment(tmp_path)
    found = [find_credential(f"{which}.example", "a", env) for which in ("one", "two", "three")]
    assert [one.credential for one in found] == [Credential("me", SECRET), None, None]
    assert not any(one.troubles for one in found)


def test_secrets_are_in_no_repr() -> None:
    credential = Credential("me", SECRET, "identity-" + SECRET, "bearer-" + SECRET)
    assert SECRET not in repr(credential)
    assert {SECRET, credential.basic} < set(credential.secrets)


def test_challenges() -> None:
    bearer = Challenge(True, "https://auth.example/token", "registry.example", "repository:a/b:pull,push")
    header = 'realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'
    assert parse_challenges([f"Bearer {header}"]) == [bearer]
    assert parse_challenges([f'bearer {header}, error="invalid_token"']) == [bearer]
    assert parse_challenges([f'Basic realm="x", Bearer {header}']) == [Challenge(False, "x", "", ""), bearer]
    assert parse_challenges(['Basic realm="Bearer of bad news"']) == [Challenge(False, "Bearer of bad news", "", "")]
    assert parse_challenges([f"Bearer {header}", "Basic"]) == [bearer, Challenge(False, "", "", "")]
    assert parse_challenges(["Negotiate", "Bearer", 'Digest realm="x"', ""]) == []


def test_long_challenges_take_no_time() -> None:
    began = time.process_time()
    for text in ("a" * 8192, "a=" * 4096, 'a="' * 2730, 'a="\\' * 2048, 'a="' + "\\a" * 4096):
        parse_challenges([f"Bearer {text}"] * 1000)
    assert time.process_time() - began < 1


def test_certificates_that_are_not_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that may not be entered are passed over, as /etc/docker often is; an encrypted key asks nobody."""
    folder = tmp_path / "home/.config/docker/certs.d/one.example"
    folder.mkdir(parents=True)
    env = environment(tmp_path)
    is_dir = Path.is_dir

    def refused(path: Path) -> bool:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", refused)
        tls_context("one.example", Settings(), env)
    name = ["-subj", "/CN=me", "-passout", "pass:secret"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *name]
    command += ["-keyout", str(folder / "c.key"), "-out", str(folder / "c.cert")]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(EnvironmentFailure, match="a key is encrypted"):
        tls_context("one.example", Settings(), env)


def test_who_may_get_secrets_without_tls() -> None:
    settings = Settings(frozenset({"plain.example:5000", "plain.example"}))
    assert all(may_be_plain(host, settings) for host in ("127.0.0.1:1", "plain.example", "plain.example:5000"))
    assert not any(may_be_plain(host, settings) for host in ("other.example", "plain.example:5001", "127.0.0.1.x:", ""))


def test_who_is_spoken_to_without_tls() -> None:
    assert all(
        map(is_loopback, ("localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]:5000", "a.localhost"))
    )
    assert not any(map(is_loopback, ("localhost.example", "10.0.0.1", "registry.example", "127.0.0.1.example")))
    assert scheme_of("registry.example", Settings()) == "https"
    assert scheme_of("registry.example:5000", Settings(frozenset({"registry.example"}))) == "https"
    assert scheme_of("registry.example:5000", Settings(frozenset({"registry.example:5000"}))) == "http"


def test_nothing_goes_out_without_tls_by_the_back_door() -> None:
    """A registry that is spoken to by TLS names a token service, or a place to go on, without: no secret goes there."""

    def fetch(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        raise AssertionError("nothing is to be sent")

    found = Found(Credential("me", SECRET))
    authority = Authority("registry.example", lambda _: False, lambda: found, fetch)
    with pytest.raises(EnvironmentFailure, match="token service without TLS"):
        authority.answer(['Bearer realm="http://registry.example/token"'], ("repository:a:pull",), None)
    registry = Registry("registry.example", "a", Settings())
    try:
        assert registry.base.scheme == "https"
        with pytest.raises(EnvironmentFailure, match="without TLS: not followed"):
            registry.follow(registry.base, "http://registry.example/v2/a/blobs/uploads/1?state=secret")
        for location in ("https://user:pass@other.example/", "ftp://other.example/", "file:///etc/passwd"):
            with pytest.raises(EnvironmentFailure, match="no address"):
                registry.follow(registry.base, location)
        assert str(registry.follow(registry.base, "/v2/x")) == "https://registry.example/v2/x"
    finally:
        registry.close()


def test_a_login_in_an_address_is_not_repeated() -> None:
    for text in (f"docker://me:{SECRET}@registry.example/a:b", f"docker://{SECRET}@registry.example/a:b"):
        for parse in (parse_reference, parse_destination):
            with pytest.raises(UsageError, match="names no image") as caught:
                parse(text)
            assert SECRET not in str(caught.value)
