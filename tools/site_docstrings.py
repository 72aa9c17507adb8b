"""Shows the examples of docstrings as code: an extension of Griffe, which reads docstrings for the site.

Griffe knows a section "Examples:". Ours is called "Example:", with a sentence behind it at times.
"""

import re
from typing import Any

import griffe

HEADING = re.compile(r"^( *)Example:(?: (.+))?$", re.MULTILINE)


def with_examples(docstring: str) -> str:
    """Returns a docstring with its examples in the section that Griffe knows, "Examples:"."""
    found = HEADING.search(docstring)
    if found is None:
        return docstring if ">>>" not in docstring else with_examples(docstring.replace(">>>", "Example:\n\n>>>", 1))
    # Up to the next section, or the end.
    rest = docstring[found.end() :]
    end = re.search(r"^(?:Sources?|Raises|Returns|Args|Note):", rest, re.MULTILINE)
    body, behind = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    lines = [*([found[2], ""] if found[2] else []), *body.strip("\n").splitlines()]
    indented = "\n".join(f"    {line}" if line.strip() else "" for line in lines)
    return f"{docstring[: found.start()]}Examples:\n{indented}\n\n{behind}".rstrip()


class Examples(griffe.Extension):
    """Rewrites each docstring before it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_examples(obj.docstring.value)
