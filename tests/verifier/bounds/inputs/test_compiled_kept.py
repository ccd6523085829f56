"""Loops that are kept on disk are compiled again once a file with a loop in them has changed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from verifier.bounds.inputs import compiled_tree
from verifier.bounds.inputs.compiled_tree import grown

HOME = Path(compiled_tree.__file__).parent
PART = """
from numba import njit
@njit
def part(x):
    return x + {}
"""
WHOLE = """
from compiled_part import part
from encoders.kept_loops import kept
@kept("compiled*.py")
def whole(x):
    return part(x)
print(whole(1.0), sum(whole.stats.cache_hits.values()))
"""


def test_a_change_of_a_loop_in_another_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "compiled_whole.py").write_text(WHOLE)
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, tmp_path / "compiled_whole.py"]
    said = []
    for added in ("1.0", "1.0", "2.0"):
        (tmp_path / "compiled_part.py").write_text(PART.format(added))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout.split())
    assert said == [["2.0", "0"], ["2.0", "1"], ["3.0", "0"]]


def test_all_files_with_loops_count() -> None:
    loops = {path.name for path in HOME.glob("*.py") if re.search(r"^@(inner|kept|njit)", path.read_text(), re.M)}
    assert loops == {path.name for path in HOME.glob("compiled*.py")} - {"compiled_search.py"}
    assert re.fullmatch(r"grown-[0-9a-f]{16}", grown.py_func.__qualname__)
