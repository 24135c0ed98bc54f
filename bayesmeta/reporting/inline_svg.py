"""A figure as SVG that stands in a page: its text is text, and its colours are the page's, by day and by night.

What matplotlib writes is a file of its own: with style attributes, which the page's policy forbids, and with colours on
white paper. Here styles become presentation attributes, colours become the page's variables, and names of parts get a
prefix, so that figures do not take each other's.
"""

import re
import xml.etree.ElementTree as ET

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"

VARIABLES = {
    "#0072b2": "--blue",
    "#d55e00": "--vermillion",
    "#009e73": "--green",
    "#e69f00": "--orange",
    "#cc79a7": "--purple",
    "#56b4e9": "--sky",
    "#000000": "--ink",
    "black": "--ink",
    "#737373": "--quiet",
    "#cccccc": "--line",
    "#d9d9d9": "--line",
    "#808080": "--quiet",
    "#ffffff": "--paper",
    "white": "--paper",
}
"""The colours that figures are drawn in, and the page's variables that stand for them."""

INHERITED = ("font", "font-family", "font-stretch", "font-variant", "-webkit-", "text-shadow", "white-space")


def inline(svg: bytes, prefix: str, label: str) -> str:
    """The figure as a part of a page.

    Args:
        svg: as matplotlib writes it, text as text.
        prefix: of the names of its parts, no two figures of a page have the same.
        label: what it shows, for those who cannot see it.

    Example:
        >>> small = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><g id="a" style="fill: #0072b2"/></svg>'
        >>> print(inline(small, "p", "one point"))
        <svg viewBox="0 0 1 1" role="img" aria-label="one point"><g id="p-a" fill="var(--blue)" /></svg>
    """
    root = ET.fromstring(svg)
    for part in list(root.iter()):
        for child in list(part):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):  # who made it; how all lines are joined
                part.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        attributes = dict(element.attrib)
        element.attrib.clear()
        for name, value in attributes.items():
            for key, text in _attributes(name, value, prefix).items():
                element.set(key, text)
    drawing = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": label}
    root.attrib.clear()
    root.attrib.update(drawing)
    return ET.tostring(root, encoding="unicode")


def _attributes(name: str, value: str, prefix: str) -> dict[str, str]:
    """What an attribute becomes."""
    if name == "id":
        return {"id": f"{prefix}-{value}"}
    if name == XLINK:
        return {"href": f"#{prefix}-{value[1:]}" if value.startswith("#") else value}  # a part, or a picture itself
    if name == "clip-path":
        return {name: value.replace("url(#", f"url(#{prefix}-")}
    if name == "style":
        return _presentation(value)
    return {name: _colour(value) if name in ("fill", "stroke") else value}


def _presentation(style: str) -> dict[str, str]:
    """A style as presentation attributes; fonts but for their size are the page's."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font-size":
            found[name] = value
        elif name == "font":
            size = re.search(r"[\d.]+px", value)
            found |= {"font-size": size.group()} if size else {}
        elif name and not name.startswith(INHERITED):
            found[name] = _colour(value) if name in ("fill", "stroke") else value
    return found


def _colour(value: str) -> str:
    variable = VARIABLES.get(value.lower())
    return value if variable is None else f"var({variable})"
