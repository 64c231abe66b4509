"""The small programs of the images, as processes: the supervisor, the stripper, the inventory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from matrix.workloads import inventory
from tests.real.orphans import ended

ROOT = Path(__file__).parents[2]


def supervised(code: str) -> subprocess.Popen[bytes]:
    """A launch of `code` under the supervisor, as a container starts it."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "matrix.supervised", "-c", code]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT)


def test_events_and_words_take_different_ways() -> None:
    """Standard output is the events' alone; the exit code is the launch's."""
    code = "import os; os.write(int(os.environ['MATRIX_EVENTS']), b'{}\\n'); print('words'); raise SystemExit(7)"
    with supervised(code) as process:  # not `communicate`: it closes the input first, which ends the launch
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == (b"{}\n", b"words\n")
        assert process.wait(timeout=10) == 7


def test_a_launch_ends_when_its_client_is_gone() -> None:
    """Closing its input is all that a killed client does."""
    with supervised("import os, time; os.write(int(os.environ['MATRIX_EVENTS']), b'up'); time.sleep(600)") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.read(2) == b"up"
        (child,) = psutil.Process(process.pid).children()
        process.stdin.close()
        assert process.wait(timeout=10) == 128 + 9
        assert ended(child, within_s=5)


@pytest.mark.skipif(sys.platform != "linux", reason="ELF files are Linux's")
def test_a_stripped_library_is_smaller_and_loads(tmp_path: Path) -> None:
    """Numpy's own, with more behind the last segment, as a symbol table is: cut, imported, and then nothing is left to cut."""
    package = Path(sysconfig.get_path("platlib")) / "numpy"
    shutil.copytree(package, tmp_path / "numpy")
    if (libraries := package.with_name("numpy.libs")).exists():
        shutil.copytree(libraries, tmp_path / "numpy.libs")
    (library,) = (tmp_path / "numpy" / "_core").glob("_multiarray_umath*.so")
    with library.open("ab") as file:
        file.write(bytes(10_000_000))
    strip = [sys.executable, str(ROOT / "images" / "strip.py"), str(tmp_path)]
    first, second = (subprocess.run(strip, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert int(first.split()[1]) >= 10
    assert second == "stripped 0 MB\n"
    ask = "import numpy; print(numpy.__file__, (numpy.ones((3, 3)) @ numpy.ones(3)).sum())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(tmp_path) in done.stdout
    assert done.stdout.endswith(" 9.0\n")


def test_the_inventory_is_a_program_of_its_own() -> None:
    """It runs from its text, as in a function's image that holds nothing of the matrix, and finds what is installed."""
    text = Path(inventory.__file__).read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, check=True)
    found = {one["name"].lower(): one for one in json.loads(done.stdout)["python"]}
    assert found["numpy"]["bytes"] > 1e6
    assert "BSD" in found["numpy"]["licence"]


def test_debian_packages_are_read_from_dpkgs_status(tmp_path: Path) -> None:
    """Name, version, architecture; continuation lines are not fields."""
    status = tmp_path / "status"
    status.write_text(
        "Package: libc6\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 2.36-9\n"
        "Description: C library\n Package: no\n\nPackage: bash\nArchitecture: amd64\nVersion: 5.2\n",
        encoding="utf-8",
    )
    assert [one["name"] for one in inventory.debian(status)] == ["libc6", "bash"]
    assert inventory.debian(tmp_path / "none") == []
