"""Installs the checkout in place on a machine without a network: `python -m benchmarks.gpu_install --site DIR`.

pip builds in the environment that is there and fetches nothing; setup.py builds csrc/ where it finds nvcc. Where pip
cannot, say because of an old setuptools, a finder in DIR stands in for the installation: a process with DIR on
PYTHONPATH then imports fastgan from the checkout, Triton kernels included, without the native library.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "fastgan" / "native_build.txt"
PIP = ("pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")

_FINDER = '''"""Lets fastgan.kernels be imported from a checkout that is not installed."""

import importlib.util
import sys


class KernelsFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "fastgan.kernels":
            folder = {folder!r}
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
        return None


sys.meta_path.append(KernelsFinder)
'''


def install(site: Path, *, pip: Sequence[str] = PIP, is_dry_run: bool = False) -> str:
    """What became of it, in a sentence."""
    options = ["--dry-run", "--quiet"] if is_dry_run else ["--quiet"]
    done = subprocess.run([sys.executable, "-m", *pip, *options, "-e", "."], cwd=ROOT, check=False)
    if done.returncode == 0 and is_dry_run:
        return "pip would install the checkout"
    if done.returncode == 0:
        return f"note: pip has installed the checkout; csrc/ is {_build_record()}"
    site.mkdir(parents=True, exist_ok=True)
    # Python runs a module of this name at its start.
    (site / "sitecustomize.py").write_text(_FINDER.format(folder=str(ROOT / "kernels")), encoding="utf-8")
    return f"note: pip failed; {site} on PYTHONPATH stands in for the installation, and csrc/ is not built"


def _build_record() -> str:
    """What setup.py has left: how the library was built, or why it was not."""
    try:
        return RECORD.read_text(encoding="utf-8").strip()
    except OSError:
        return f"not built: setup.py has left no {RECORD.name}"


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_install", description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=Path, required=True, help="folder for the stand-in")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    sys.stdout.write(install(arguments.site, is_dry_run=arguments.dry_run) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
