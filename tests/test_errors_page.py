"""The pages of errors: up to date, complete as far as code can be read, and nothing is explained that is gone."""

import re

import pytest

from docs.tools import the_errors


def texts(kind: str) -> list[str]:
    return [each.text for each in the_errors.found().sentences if each.kind == kind]


@pytest.mark.parametrize("name", the_errors.PAGES_OF)
def test_the_pages_are_up_to_date(name: str) -> None:
    assert (the_errors.DOCS / name).read_text() == the_errors.page(name), "run python -m docs.tools.the_errors"


def test_every_message_is_understood() -> None:
    assert set(the_errors.found().holes) <= the_errors.RETOLD  # elsewhere the words must stand where they are raised


def test_all_kinds_are_found() -> None:
    assert {each.kind for each in the_errors.found().sentences} == set(the_errors.KINDS)
    assert len(the_errors.found().sentences) > 900


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ShapeError", "expected x (N, D) and y (N, C) of one length, got … and …"),  # an f-string
        ("DataError", "expected … to be finite, got … at index …: drop missing rows first"),  # of several lines
        ("UnsupportedError", "expected data without known noise (yerr), got some: …"),  # made by a function
        ("PrecisionWarning", "points or features that are nearly alike"),  # handed to a function that warns
        ("ConvergenceWarning", "nats per point in scaled coordinates after … steps: raise max_iterations"),
        ("CheckpointWarning", "expected whole states, got a damaged one of …"),
        ("warning of the command line", "none of … to predict has context, so that the prior predicts them all"),
        ("warning of the command line", "tasks are unlike those that were learned from"),  # made in another module
    ],
)
def test_a_sentence_is_found(kind: str, text: str) -> None:
    assert [each for each in texts(kind) if text in each] != []


def test_what_is_explained_is_said() -> None:
    quoted = the_errors.explained()
    said = [each.text for each in the_errors.found().sentences]
    assert [each for each in quoted if not any(the_errors.is_said(each, sentence) for sentence in said)] == []
    assert len(set(quoted.values())) >= 30
    shown = (the_errors.DOCS / "how_to" / "common_errors.md").read_text()
    assert set(quoted.values()) == set(re.findall(r"\{#([\w-]+)\}", shown))  # each heading quotes one


def test_what_nobody_says_is_not_found() -> None:
    assert not any(the_errors.is_said("expected a unicorn, got …", each.text) for each in the_errors.found().sentences)
