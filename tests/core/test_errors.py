"""Each error of ours is also the built-in error that fits, so `except ValueError` catches it, and names its parts."""

from __future__ import annotations

import pytest

from mi2p_inject.core import errors

KINDS = [
    getattr(errors, name)
    for name in errors.__all__
    if issubclass(getattr(errors, name), errors.Mi2pError) and name != "Mi2pError"
]


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_built_in_error_too(kind: type[errors.Mi2pError]) -> None:
    assert issubclass(kind, (ValueError, TypeError, RuntimeError))
    error = kind("wrong width", path="layer1", expected="768", given="384", fix="inject again")
    assert str(error).splitlines() == [
        "site 'layer1': wrong width", "  expected: 768", "  given: 384", "  fix: inject again",
    ]  # fmt: skip


def test_every_error_of_the_module_is_listed() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined - {"UserWarning"} == set(errors.__all__)
