"""Make the links and pictures of a Markdown file absolute, since an index page has no files beside it.

python .github/absolute_links.py README.md https://github.com/OWNER/NAME v0.1.0
"""

import re
import sys
from pathlib import Path

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


def absolute_links(text: str, repository: str, revision: str) -> str:
    """The text with every relative link led to the repository: pages as `blob`, pictures as `raw`."""

    def link(match: re.Match[str]) -> str:
        picture, label, path = match.groups()
        return f"{picture}[{label}]({repository}/{'raw' if picture else 'blob'}/{revision}/{path})"

    return _LINK.sub(link, text)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(absolute_links(page.read_text(encoding="utf-8"), *sys.argv[2:4]), encoding="utf-8")
