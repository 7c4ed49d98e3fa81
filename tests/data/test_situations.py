"""Every situation of ``situations.SITUATIONS``, and the page that lists them."""

from pathlib import Path

import pytest

from . import situations

ROWS = [row for rows in situations.SITUATIONS.values() for row in rows]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_situation(row, tmp_path):
    row.check(tmp_path, row.write(tmp_path))


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_page_is_up_to_date():
    """If this fails: python -m tests.data.situations > docs/situations.md"""
    page = Path(__file__).resolve().parents[2] / "docs" / "situations.md"
    assert page.read_text(encoding="utf-8") == situations.docs_page()
