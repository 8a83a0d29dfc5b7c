"""The user database, with one user more."""

from __future__ import annotations

import pytest

from deadweight.build.base import Account, Base, Python
from deadweight.build.users import user_items
from deadweight.errors import BadInputError

PYTHON = Python("3.11", "3.11.2", "/usr/bin/python3.11", "x86_64", False, (2, 36))
ROOT = "root:x:0:0:root:/root:/bin/sh\n"


def base(**texts: str) -> Base:
    accounts = {f"etc/{name}": Account(text, 0o640, 0, 42) for name, text in texts.items()}
    return Base(PYTHON, "/bin", accounts, (1,), ("dev", "opt"))


def test_entries_are_appended_and_files_keep_their_owners() -> None:
    found = {item.path: item for item in user_items(base(passwd=ROOT, group="root:x:0:", shadow="root:*:1::::::\n"))}
    assert sorted(found) == ["app", "etc/group", "etc/passwd", "etc/shadow"]
    assert found["etc/passwd"].content == ROOT.encode() + b"app:x:10001:10001::/app:/usr/sbin/nologin\n"
    assert found["etc/group"].content == b"root:x:0:\napp:x:10001:\n"
    assert found["etc/shadow"].content == b"root:*:1::::::\napp:!:::::::\n"
    assert (found["etc/shadow"].mode, found["etc/shadow"].uid, found["etc/shadow"].gid) == (0o640, 0, 42)
    assert (found["app"].uid, found["app"].gid, found["app"].content) == (10001, 10001, None)


def test_a_base_without_users_gets_the_two_files_it_needs() -> None:
    found = {item.path: item.content for item in user_items(base())}
    assert sorted(found) == ["app", "etc/group", "etc/passwd"]
    assert found["etc/group"] == b"app:x:10001:\n"


def test_a_base_without_a_place_for_devices_gets_one() -> None:
    found = [item.path for item in user_items(Base(PYTHON, "/bin", {}, (1,), ("opt",)))]
    assert found.count("dev") == 1
    assert "dev" not in [item.path for item in user_items(base())]


def test_bytes_that_are_no_text_stay() -> None:
    found = {item.path: item.content for item in user_items(base(passwd="r\xff:x:0:0:::\n"))}
    assert found["etc/passwd"] == b"r\xff:x:0:0:::\napp:x:10001:10001::/app:/usr/sbin/nologin\n"


def test_a_line_ends_at_a_newline_alone() -> None:
    odd = "r:x:5:5:\x85app:/:\x0b\n"  # of which str.splitlines makes three
    found = {item.path: item.content for item in user_items(base(passwd=odd))}
    assert found["etc/passwd"] == odd.encode("latin-1") + b"app:x:10001:10001::/app:/usr/sbin/nologin\n"


def test_the_user_may_be_there_already() -> None:
    line = "app:x:10001:10001::/:/bin/sh\n"
    found = {item.path: item.content for item in user_items(base(passwd=line, group="app:x:10001:\n"))}
    assert found["etc/passwd"] == line.encode()


@pytest.mark.parametrize(
    "texts",
    [
        {"passwd": "app:x:999:999::/:/bin/sh\n"},
        {"passwd": "other:x:10001:5::/:/bin/sh\n"},
        {"group": "app:x:50:\n"},
        {"group": "\x1b[31m:x:10001:\n"},
    ],
)
def test_another_user_of_that_name_or_number_is_refused(texts: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match="another base") as raised:
        list(user_items(base(**texts)))
    assert str(raised.value).isprintable()
