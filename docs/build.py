"""Build the site: python -m docs.build [FOLDER], or make docs.

The pages of this checkout are copied into a folder of their own, with every file that they link to, so that links
work as they stand; pages made from the code join them (``docs/pages.py``), and Sphinx builds all, where every warning
is an error. The checkout stays as it is.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from docs.pages import write_board_pages, write_pages

__all__ = ["build"]

ROOT = Path(__file__).parents[1]
COPIED = ("docs", "examples", "benchmarks", "results", "flsec", "tests", "templates")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "runs", "*.fab")


def build(output: Path) -> int:
    """Build the site into a folder, which is replaced.

    Returns:
        Sphinx's exit status: 0 if there was no warning.
    """
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder).resolve()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
        for file in (*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "pyproject.toml", ROOT / "Makefile"):
            shutil.copy2(file, source / file.name)
        write_pages(source / "docs")
        options = ["-b", "html", "-W", "--keep-going", "-n", "-q", "-j", "2", "-c", str(source / "docs")]
        status = sphinx([*options, "-d", str(source / ".doctrees"), str(source), str(output)])
    write_board_pages(output / "docs")
    return status


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site")
    status = build(target)
    print(f"{target / 'index.html'}" if status == 0 else "The site was not built.")
    sys.exit(status)
