"""Sphinx's settings, and the two places where the code's own words go into what autodoc shows."""

import inspect
import re
from typing import Any

import flsec
from docs.coverage import public_items
from flsec.parameters import describe_type, parameters_of

project = "flsec"
author = "the flsec authors"
release = version = flsec.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**"]
include_patterns += [f"{folder}{inside}README.md" for folder in ("examples", "templates") for inside in ("/", "/*/")]
include_patterns += ["benchmarks/README.md", "results/README.md"]
exclude_patterns = ["docs/*.py", "docs/deployment/*"]
html_theme = "furo"
html_title = f"flsec {release}"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["toc.not_included"]  # a test asks that every page can be reached by links
nb_execution_mode = "force"
nb_execution_timeout = 90
nb_execution_raise_on_error = True
nitpick_ignore_regex = [("py:class", ".*")]  # types of attributes; those of parameters are words
nitpick_ignore = [("py:exc", "Damaged")]  # of a private module
copybutton_prompt_text = ">>> "
copybutton_exclude = ".linenos, .gp, .go"

add_module_names = False
autodoc_typehints = "none"  # what is allowed stands in words beside each parameter
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_include_init_with_doc = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def without_types(app: Any, what: str, name: str, item: Any, options: Any, signature: str, returns: str) -> Any:
    """Return a signature with names and defaults alone."""
    if what not in ("class", "function", "method") or signature is None:
        return None
    try:
        bare = inspect.signature(item)
    except (TypeError, ValueError):
        return None
    empty = inspect.Parameter.empty
    shown = [p.replace(annotation=empty) for p in bare.parameters.values() if p.name not in ("self", "cls")]
    return str(bare.replace(parameters=shown, return_annotation=inspect.Signature.empty)), ""


def without_markup(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Escape what would be markup: in docstrings only ``code`` is; ``|x|``, ``*args`` and ``x_`` are plain text."""
    example = False
    for number, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [plain(part) for part in parts[::2]]
            lines[number] = "".join(parts)


def plain(text: str) -> str:
    """Return text in which nothing is markup."""
    return re.sub(r"(?<!\\)(?:[*|]|(?<=\w)_(?!\w))", r"\\\g<0>", text)


def with_types_in_words(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Put before what ``Args:`` says about a parameter what it may be, in the words of ``flsec describe``."""
    if what in ("attribute", "property", "data"):
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type
    if what not in ("class", "function") or "Args:" not in lines:
        return
    try:
        allowed = {key: describe_type(hint) for key, (hint, _) in parameters_of(item).items()}
    except Exception:  # a class of somebody else's making: it is shown without
        return
    inside = False
    for number, line in enumerate(lines):
        inside = (inside or line == "Args:") and (line in ("", "Args:") or line.startswith("    "))
        found = re.fullmatch(r" {4}(\w+): (.*)", line)
        if inside and found and found[1] in allowed and found[1] != "strategy":
            lines[number] = f"    {found[1]}: ({plain(allowed[found[1]].replace('`', ''))}) {found[2]}"


def check_all_names_are_there(app: Any, environment: Any) -> None:
    """Warn, which fails the build, of a public class or function that no page documents."""
    from sphinx.util import logging

    documented = {entry[0] for entry in environment.domains["py"].get_objects()}
    short = {(name.rpartition(".")[2], name.split(".")[1]) for name in documented if "." in name}
    for name, _ in public_items():
        if (name.rpartition(".")[2], name.split(".")[1]) not in short:
            logging.getLogger("flsec").warning("%s is public, and no page documents it", name)


def setup(app: Any) -> None:
    """Connect the functions above; those of docstrings run before napoleon, which is at 500."""
    app.connect("autodoc-process-signature", without_types)
    app.connect("autodoc-process-docstring", without_markup, priority=300)
    app.connect("autodoc-process-docstring", with_types_in_words, priority=400)
    app.connect("env-check-consistency", check_all_names_are_there)
