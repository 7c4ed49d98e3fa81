"""Every situation of ``situations.SITUATIONS``, and the page that lists them."""

from pathlib import Path

import pytest

from . import situations

ROWS = [row for rows in situations.SITUATIONS.values() for row in rows]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_situation(row, tmp_path):
    row.check(tmp_path, row.write(tmp_path))
