"""The locks agree with each other: one version of everything, but for the torch of a variant."""

import re
import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
WITH_TORCH = runpy.run_path(str(PROJECT / "scripts/with_torch.py"))
OF_TORCH = re.compile(r"torch|triton|(cuda|nvidia)-.*")


def _pins(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE)
    assert found, lock
    return dict(found)


def test_core_has_the_versions_of_the_whole() -> None:
    core, whole = (_pins(PROJECT / f"requirements/{name}.txt") for name in ("core", "ml"))
    assert core.items() <= whole.items()
    assert not {"torch", "transformers", "sentence-transformers"} & core.keys()


@pytest.mark.parametrize(("version", "more"), [("2.13", set()), ("2.13-int8", {"torchao"})])
def test_a_variant_differs_in_torch_alone(version: str, more: set[str], tmp_path: Path) -> None:
    WITH_TORCH["copy"](version, tmp_path / "copy")
    whole, variant = _pins(PROJECT / "requirements/ml.txt"), _pins(tmp_path / "copy/requirements/ml.txt")
    assert (whole["torch"], variant["torch"]) == ("2.9.0", "2.13.0")
    rest, others = ({n: v for n, v in pins.items() if not OF_TORCH.fullmatch(n)} for pins in (whole, variant))
    assert others.keys() - rest.keys() == more
    assert rest.items() <= others.items()
    for name in ("pyproject.toml", "README.md", "src/truthgraph/main.py", "requirements/core.txt"):
        assert (tmp_path / "copy" / name).read_bytes() == (PROJECT / name).read_bytes()


def test_a_version_without_a_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the versions with a lock are 2\.13"):
        WITH_TORCH["copy"]("1.0", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
