"""Shows the `Example:` sections of docstrings as code.

Griffe, which reads the docstrings for the API pages, knows `Examples:` alone, and takes the singular for a paragraph of
prose, in which `>>>` is a quotation.
"""

import re
from typing import Any

import griffe


class ExamplesAsCode(griffe.Extension):
    """Gives the section the name that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
