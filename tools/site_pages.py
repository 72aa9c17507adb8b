"""Makes the pages of the site that are written elsewhere: a hook of MkDocs, named in mkdocs.yml.

Recipes, examples, notebooks, cards of shipped losses and the reference are pages of the site, made of the files
themselves; so they cannot age. Links of the pages in `docs/` to files of the checkout lead to these pages.
"""

import ast
import functools
import importlib
import inspect
import json
import posixpath
import pydoc
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
WINGS = ("", ".datasets", ".diagnosis", ".rl", ".envs", ".baselines", ".inspection", ".commands", ".saving", ".serving")
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "serving/README.md": "serving.md",
    "recipes/README.md": "recipes/index.md",
}
"""File of the checkout -> page of the site."""
CODE = re.compile(r"^Code: `([\w.]+)`$", re.MULTILINE)
LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)\s#]+)(#[^)\s]*)?(\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the made pages in the places that `nav` keeps for them, `examples/` for instance."""
    made = pages()
    of_folder = lambda folder: sorted((name for name in made if name.startswith(folder)), key=_index_first)
    config.nav = [
        {title: of_folder(part) if isinstance(part, str) and part.endswith("/") else part}
        for section in config.nav or []
        for title, part in section.items()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the made pages, and the pictures that they show."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for picture in pictures():
        name = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, f"pictures/{name}", abs_src_path=str(picture)))
    for path in notebooks():
        for name, content in notebook_page(path)[1].items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to files of the checkout to the pages that show them, and puts code where a page names it."""
    markdown = CODE.sub(lambda match: source_block(match[1]), markdown)
    source = source_of(page.file.src_uri)
    to_page = lambda match: match[1] + lead(match[2], source, page.file.src_uri) + (match[3] or "") + match[4]
    return LINK.sub(to_page, markdown)


def pages() -> dict[str, str]:
    """Returns the made pages: name -> Markdown."""
    made = {page: read(source) for source, page in MOVED.items()}
    for path in sorted((ROOT / "examples").glob("[a-z]*.py")):
        made[f"examples/{path.stem}.md"] = code_page(path)
    for path in sorted((ROOT / "recipes").glob("[a-z]*.py")):
        made[f"recipes/{path.stem}.md"] = recipe_page(path)
    for path in notebooks():
        made[f"notebooks/{path.stem}.md"] = notebook_page(path)[0]
    for path in sorted((ROOT / "savedmodels").glob("*/README.md")):
        made[f"losses/{path.parent.name}.md"] = read(path)
    for wing in WINGS:
        made[f"reference/ml3_tf{wing}.md"] = reference_page(f"ml3_tf{wing}")
    made["gallery.md"] = gallery()
    return made


def notebooks() -> list[Path]:
    return sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@functools.cache
def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Returns a notebook as Markdown, with what its cells show, and its pictures: name -> content."""
    text, resources = MarkdownExporter().from_filename(str(path), {"output_files_dir": "", "unique_key": path.stem})
    return f"{text}\n\n[This page as a notebook]({path.name})\n", resources["outputs"]


def pictures() -> list[Path]:
    patterns = "results/*/*.png", "results/*/*.gif", "savedmodels/*/*.png"
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def code_page(path: Path) -> str:
    """Returns an example: its docstring, then its code."""
    docstring, code = split_docstring(path)
    return f"# {path.name}\n\n{as_markdown(docstring)}\n\n```python\n{code.strip()}\n```\n"


def recipe_page(path: Path) -> str:
    """Returns a recipe: what its docstring says, and the figures of its reported runs."""
    docstring, _ = split_docstring(path)
    figures = [figure_of(run) for run in runs_of(path.stem)]
    return "\n\n".join([f"# {path.name}", as_markdown(docstring), *figures]) + "\n"


def gallery() -> str:
    """Returns the figures and animations of all recipes, each with its sentence and its command."""
    parts = ["# Gallery", "What each recipe shows, and the command that draws it."]
    for path in sorted((ROOT / "recipes").glob("[a-z]*.py")):
        sentence = split_docstring(path)[0].splitlines()[0]
        parts += [f"## [{path.stem}](../recipes/{path.name})", sentence]
        parts += [figure_of(run, animations=True) for run in runs_of(path.stem)]
    return "\n\n".join(parts) + "\n"


def reference_page(module: str) -> str:
    """Returns the public names of a module, from their docstrings."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items() if getattr(value, "__module__", None) == module and name[0] != "_"
    ]
    summary = (found.__doc__ or "").strip()
    entries = [f"::: {module}.{name}" for name in sorted(names, key=str.lower) if not name.startswith("__")]
    return "\n\n".join([f"# {module}", summary, *entries]) + "\n"


def source_block(name: str) -> str:
    """Returns the code of a function, without its docstring, under the name of its file."""
    found: Any = pydoc.locate(name)
    if found is None:
        raise ValueError(f"A page names code that is not there: `{name}`")
    found = inspect.unwrap(found)
    path = Path(inspect.getsourcefile(found)).relative_to(ROOT)
    lines = textwrap.dedent(inspect.getsource(found)).splitlines()
    [function] = ast.parse("\n".join(lines)).body
    docstring = function.body[0] if ast.get_docstring(function) else None
    kept = lines if docstring is None else lines[: docstring.lineno - 1] + lines[docstring.end_lineno :]
    return "\n".join([f"`{path}`, `{found.__qualname__}`:\n", "```python", *kept, "```"])


def figure_of(run: Path, animations: bool = False) -> str:
    """Returns the command of a reported run, its figure, and its animations."""
    command = json.loads(read(run / "summary.json"))["command"]
    shown = [run / "figure.png", *(sorted(run.glob("*.gif")) if animations else [])]
    pictures = [f"![{run.name}: {path.stem}](../results/{run.name}/{path.name})" for path in shown]
    return "\n\n".join([f"`{command}`", *pictures])


def runs_of(recipe: str) -> list[Path]:
    """Returns the folders of the reported runs of a recipe."""
    summaries = sorted((ROOT / "results").glob("*/summary.json"))
    return [path.parent for path in summaries if json.loads(read(path))["recipe"] == recipe]


def recipe_of(run: str) -> str:
    return json.loads(read(ROOT / "results" / run / "summary.json"))["recipe"]


def split_docstring(path: Path) -> tuple[str, str]:
    """Returns the docstring of a file, and the code behind it."""
    text = read(path)
    first = ast.parse(text).body[0]
    return ast.get_docstring(ast.parse(text)) or "", "\n".join(text.splitlines()[first.end_lineno :])


def as_markdown(docstring: str) -> str:
    """Returns the text of a docstring; what is indented in it is kept as it stands."""
    blocks = ["\n".join(block.splitlines()) for block in re.split(r"\n\s*\n", docstring)]
    shown = [f"```text\n{block}\n```" if re.search(r"^ {4}", block, re.MULTILINE) else block for block in blocks]
    return "\n\n".join(shown)


def read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def source_of(page: str) -> str:
    """Returns the file of the checkout that a page shows, relative to the root."""
    sources = {page: source for source, page in MOVED.items()}
    if page in sources:
        return sources[page]
    kind, _, name = page.partition("/")
    stem = Path(name).stem
    if kind in ("examples", "recipes"):
        return f"{kind}/{stem}.py"
    if kind == "notebooks":
        return f"docs/notebooks/{stem}.ipynb"
    return f"savedmodels/{stem}/README.md" if kind == "losses" else f"docs/{page}"


def page_of(source: str) -> str | None:
    """Returns the page, or the picture, that shows a file or folder of the checkout; `None`: there is none."""
    if source in MOVED:
        return MOVED[source]
    parts = source.split("/")
    if parts[0] in ("examples", "recipes") and len(parts) == 2 and source.endswith(".py"):
        return source.removesuffix(".py") + ".md"
    if parts[0] == "savedmodels" and (len(parts) == 2 or parts[-1] == "README.md"):
        return f"losses/{parts[1]}.md"
    if parts[0] == "docs":
        return source.removeprefix("docs/").replace(".ipynb", ".md")
    if parts[0] == "results" and len(parts) == 2:
        return f"recipes/{recipe_of(parts[1])}.md"
    return f"pictures/{source}" if source.endswith((".png", ".gif")) else None


def lead(link: str, source: str, page: str) -> str:
    """Returns a link of a file as a link of the page that shows it; other files are named by their path."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    found = page_of(target)
    if found is None:
        return link
    return posixpath.relpath(found, posixpath.dirname(page) or ".")


def _index_first(name: str) -> tuple[bool, str]:
    return not name.endswith("index.md"), name
