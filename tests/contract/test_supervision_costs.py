"""docs/supervision-costs.md has the form that its script makes; its figures are of one day."""

import pytest

from benchmarks.costs import DOCUMENT, page, read_page
from benchmarks.tasks import TASKS
from benchmarks.ways import ByKeys, ByTools

pytestmark = pytest.mark.once


def test_the_document_is_as_its_script_writes_it() -> None:
    rows, facts = read_page(DOCUMENT.read_text())
    assert page(rows, facts) == DOCUMENT.read_text(), "run benchmarks/tasks.py --write"
    assert [row.task for row in rows] == list(TASKS.values())


def test_both_ways_know_every_task() -> None:
    assert len(TASKS) == 10
    for way in (ByTools, ByKeys):
        assert all(callable(getattr(way, task)) for task in TASKS)


def test_each_task_has_calls_and_costs_something() -> None:
    rows, _ = read_page(DOCUMENT.read_text())
    for row in rows:
        for cost in (row.tools, row.keys):
            assert cost.calls
            assert cost.tokens
            assert cost.told
