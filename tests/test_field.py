"""The field on one page: every public learner is there, no cell is empty, no link goes nowhere, all is up to date."""

import functools
import inspect
import re
from dataclasses import replace

import pytest

import bayesmeta as bm
from docs.tools import the_field
from tests.test_public_api import PUBLIC

cases_of = functools.cache(the_field.cases_of)
EXPLICIT = {
    "bayesmeta.learners.GaussianClasses": "the model of `Prototypical`, written out",
    "bayesmeta.learners.LatentModel": "the model of `LatentNeuralProcess`, written out",
}


def check_row(row: the_field.Row) -> None:
    """No cell is empty, and what it names is there."""
    cells = dict(zip(the_field.COLUMNS, the_field.cells(row, cases_of()), strict=True))
    assert [column for column, cell in cells.items() if not cell.strip()] == []
    assert len({value.__module__ for value in row.values}) == 1
    assert (the_field.DOCS / row.page).is_file()
    assert not row.tests or (the_field.DOCS.parent / row.tests).is_file()
    api = "".join(page.read_text() for page in (the_field.DOCS / "reference").glob("*.md"))
    assert f"\n::: {row.values[0].__module__}\n" in api
    section = the_field.sections()[the_field.heading(row)].text
    measured = re.findall(r"\d*\.\d+", row.figure)
    assert measured
    assert [number for number in measured if not re.search(rf"(?<!\d){re.escape(number)}(?!\d)", section)] == []


@pytest.mark.parametrize("row", the_field.ROWS, ids=lambda row: row.names)
def test_a_row_is_whole(row: the_field.Row) -> None:
    check_row(row)


@pytest.mark.parametrize(
    "change",
    [
        {"cost": ""},
        {"page": "methods/nowhere.md"},
        {"section": "No such section"},
        {"figure": "regret 12.3456 nats"},
        {"names": "Predictive"},
    ],
)
def test_a_row_that_is_not_whole_is_found(change: dict[str, str]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_row(replace(the_field.ROWS[0], **change))


def test_every_public_learner_has_a_row() -> None:
    listed = [value for row in the_field.ROWS for value in row.values]
    assert len(listed) == len(set(listed))
    learners = {path: value for path, value in PUBLIC if isinstance(value, type) and issubclass(value, bm.Learner)}
    missing = {path for path, value in learners.items() if not inspect.isabstract(value)} - set(EXPLICIT)
    assert {path for path in missing if learners[path] not in listed} == set()
    assert len(listed) >= 30


@pytest.mark.parametrize("name", the_field.PAGES)
def test_the_pages_are_up_to_date(name: str) -> None:
    assert (the_field.DOCS / name).read_text() == the_field.PAGES[name](), "run python -m docs.tools.the_field"


def test_the_pages_are_in_the_navigation() -> None:
    site = (the_field.DOCS.parent / "mkdocs.yml").read_text()
    assert [
        page for page in (*the_field.PAGES, *(row.page for row in the_field.ROWS)) if f": {page}\n" not in site
    ] == []


def test_anchors_are_those_of_the_table_of_contents() -> None:
    assert the_field.anchor("Classes in real tables: `class_tables`") == "classes-in-real-tables-class_tables"
