"""SVG files as KanjiVG's are."""

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN" "http://www.w3.org/TR/2001/REC-SVG-20010904/DTD/svg10.dtd" [
<!ATTLIST g xmlns:kvg CDATA #FIXED "http://kanjivg.tagaini.net" kvg:element CDATA #IMPLIED >
]>"""  # noqa: E501


def svg(*paths: str, head: str = HEAD) -> bytes:
    """A file as KanjiVG's are."""
    strokes = "".join(f'<path {path} id="kvg:s{n}"/>' for n, path in enumerate(paths))
    return f"""{head}
<svg xmlns="http://www.w3.org/2000/svg" width="109" height="109" viewBox="0 0 109 109">
<g id="kvg:StrokePaths" style="fill:none"><g kvg:element="x">{strokes}</g></g>
<g id="kvg:StrokeNumbers"><text transform="matrix(1 0 0 1 16.5 22.6)">1</text></g>
</svg>""".encode()
