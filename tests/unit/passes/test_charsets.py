"""charsets: glibc's extra converters leave, unless a locale, a program or the application asks for one."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.passes.base import Options
from deadweight.passes.charsets import PASS
from support.contexts import Dpkg, context, elf, paths
from support.images import Member, file, symlink

GCONV = "usr/lib/x86_64-linux-gnu/gconv"
EXTRA = f"{GCONV}/gconv-modules.d/gconv-modules-extra.conf"
MAIN = b"#\tfrom\tto\tmodule\tcost\nalias\tUTF16//\tUTF-16//\nmodule\tUTF-16//\tINTERNAL\tUTF-16\t1\n"
MORE = b"module BIG5// INTERNAL BIG5 1\nmodule UTF-16// BIG5// UTF-16 1\nmodule\tINTERNAL\tGBK//\tGBK.so\t1\n"
MORE += b"module X// INTERNAL ../../libc 1\nmodule Y// INTERNAL /usr/lib/libc.so 1\nno module SJIS// Z SJIS 1\n"
LEAVE = {EXTRA, f"{GCONV}/gconv-modules.cache", *(f"{GCONV}/{n}.so" for n in ("BIG5", "GBK", "libGB"))}


def left(
    *more: Member,
    env: tuple[str, ...] = (),
    cmd: Any = None,
    owned: bool = True,
    extra: bytes = MORE,
    **options: Any,
) -> set[str]:
    members = [
        file(f"{GCONV}/gconv-modules", MAIN),
        file(EXTRA, extra),
        file(f"{GCONV}/UTF-16.so", elf(["libU.so"], runpath="$ORIGIN")),
        file(f"{GCONV}/BIG5.so", elf(["libU.so"], runpath="$ORIGIN")),
        file(f"{GCONV}/GBK.so", elf(["libGB.so"], runpath="$ORIGIN")),
        file(f"{GCONV}/SJIS.so", elf(["libU.so"], runpath="$ORIGIN", tail=b"1")),
        file(f"{GCONV}/libGB.so", elf(["libc.so"])),
        file(f"{GCONV}/libU.so", elf(["libc.so"], tail=b"2")),
        file("usr/lib/libc.so", elf(["iconv_open"])),
    ]
    dpkg = Dpkg()
    dpkg.add("libc6", *(members if owned else members[-1:]))
    dpkg.add("bash", file("usr/bin/bash", elf(["iconv_open"])), essential=True)
    cache = file(f"{GCONV}/gconv-modules.cache", b"x")
    others = [] if owned else members[:-1]
    run = {"Env": list(env), "WorkingDir": "/app", "Cmd": cmd}
    return set(paths(PASS, context([*dpkg.members(), *others, cache, *more], run=run, options=Options(**options))))


def test_what_leaves_and_what_stays() -> None:
    assert left() == LEAVE


def test_of_other_package_managers_nothing_leaves() -> None:
    assert left(owned=False) == set()


@pytest.mark.parametrize("env", ["LANG=C.UTF-8", "LC_ALL=de_DE.utf8@euro", "LC_CTYPE=POSIX", "LANGUAGE=ja_JP.SJIS"])
def test_locales_of_unicode_need_none(env: str) -> None:
    assert left(env=(env,)) == LEAVE


@pytest.mark.parametrize("env", ["LANG=zh_TW.BIG5", "LC_ALL=ja_JP", "LC_CTYPE=utf-8x"])
def test_other_locales_keep_them(env: str) -> None:
    assert left(env=(env,)) == set()


@pytest.mark.parametrize(
    "cmd",
    [
        ["env", "LC_ALL=zh_TW.BIG5", "python3", "main.py"],
        ["sh", "-c", "LANG=ja_JP.SJIS exec python3 main.py"],
        ["sh", "-c", "exec env 'LC_CTYPE=ja_JP.SJIS' python3 main.py"],
        ["/app/start"],
        ["sh", "-c", "/app/start"],
    ],
)
def test_commands_and_scripts_that_set_another_locale_keep_them(cmd: list[str]) -> None:
    script = file("app/start", b"#!/bin/sh\nset -e\nexport LC_ALL=ja_JP.SJIS\nexec python3 main.py\n", mode=0o755)
    assert left(script, cmd=cmd) == set()


@pytest.mark.parametrize("cmd", [["env", "LC_ALL=C.UTF-8", "x"], ["sh", "-c", "export LANG='de_DE.UTF-8'; LANG= x"]])
def test_commands_that_set_one_of_unicode_do_not(cmd: list[str]) -> None:
    assert left(cmd=cmd) == LEAVE


@pytest.mark.parametrize(
    "more",
    [
        file("opt/lib/libxml2.so", elf(["iconv_open"])),
        file("app/main.py", b"subprocess.run(['iconv', '-f', 'big5'])"),
        file("app/main.py", b"locale.setlocale(locale.LC_ALL, 'ja_JP.SJIS')"),
        file("app/main.py", b"from locale import setlocale as s\ns(0, 'ja_JP.SJIS')"),
        file("app/main.py", b"import locale as l\nl.setlocale(l.LC_ALL, 'zh_TW.BIG5')"),
    ],
)
def test_who_asks_for_one_keeps_all(more: Member) -> None:
    assert left(more) == set()


@pytest.mark.parametrize(
    "more",
    [
        file("opt/lib/libxml2.so", elf(["xiconv_open", "iconv_openx"])),
        file("opt/lib/broken.so", elf(["iconv_open"])[:90]),
        file("app/main.py", b"'siliconvalley'"),
        symlink("opt/iconv", "/usr/bin/bash"),
    ],
)
def test_what_does_not_ask(more: Member) -> None:
    assert left(more) == LEAVE


def test_without_the_second_list_nothing_is_known_to_be_extra() -> None:
    assert left(keep=(EXTRA,)) == set()
    assert left(extra=b"") == {EXTRA, f"{GCONV}/gconv-modules.cache"}


def test_a_converter_that_is_to_stay_keeps_the_lists_that_it_is_found_by() -> None:
    assert left(keep=("*/BIG5.so",)) == set()
