"""A table as LaTeX for the packages booktabs, array and longtable, no wider than a page's text."""

import re
from collections.abc import Iterator, Sequence

from lightning_icl.report.grid import Grid, fitted, name_width, widths

# Backslash and braces are replaced in one pass with the others, so that no replacement is replaced again.
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "--": r"-{}-", "–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "≤": r"$\le$", "≥": r"$\ge$", "η": r"$\eta$", "Δ": r"$\Delta$", "…": r"\dots{}", "—": "---",
}  # fmt: skip
_PATTERN = re.compile("|".join(map(re.escape, sorted(_SIGNS, key=len, reverse=True))))
# Letters of \footnotesize that a line of the article class at 10pt holds (345pt), columns 4pt apart on each side.
_LETTERS, _GAP = 76, 2
# Lines of \footnotesize that stand on a page with a caption above them.
_PAGE = 45
_PACKAGES = r"% \usepackage{booktabs,array,longtable}"


def latex(text: str) -> str:
    r"""Text as LaTeX prints it; what the usual fonts lack becomes a question mark.

    >>> latex("p<0.001, 50% of a_b")
    'p\\textless{}0.001, 50\\% of a\\_b'
    """
    signs = _PATTERN.sub(lambda match: _SIGNS[match.group()], text)
    # Letters beyond Latin Extended-A are missing from the default fonts and would stop LaTeX.
    return "".join(letter if letter.isprintable() and ord(letter) < 0x180 else "?" for letter in signs)


def grid_to_latex(grid: Grid) -> str:
    """A table with the title and the notes as its caption.

    Too wide a table is folded, one block below the other; one taller than a page breaks over pages.
    """
    blocks = fitted(grid, _LETTERS, _GAP)
    caption = r"\caption{" + ". ".join(latex(part) for part in (grid.title, *grid.notes)) + ".}"
    # A table float cannot break over pages; a longtable can, but takes no `\centering`.
    if sum(_height(block) for block in blocks) > _PAGE:
        head, foot = [r"\begingroup"], [r"\endgroup"]
        bodies = [_longtable(block, caption if number == 0 else "") for number, block in enumerate(blocks)]
    else:
        head, foot = [r"\begin{table}", r"\centering", caption], [r"\end{table}"]
        bodies = [_tabular(block) for block in blocks]
    lines = [line for body in bodies for line in (*body, r"\par\medskip")][:-1]
    sizes = [r"\footnotesize", r"\setlength{\tabcolsep}{4pt}"]
    return "\n".join([_PACKAGES, *head, *sizes, *lines, *foot, ""])


def _height(grid: Grid) -> int:
    """Lines of a block, its names' small print broken into two or so."""
    # Small print is one line more than it has breaks, since names are often wrapped.
    return sum(max(cell.count("\n") + 1 + (cell.count("\n") > 0) for cell in row) for row in (grid.header, *grid.rows))


def _columns(grid: Grid) -> str:
    names = name_width(grid, _LETTERS, _GAP)
    # A letter of \footnotesize is 4.8pt wide in the mean; names that are longer are broken into lines.
    # Names too long for their column wrap; short ones keep their own width.
    first = "l" if names == widths(grid)[0] else rf">{{\raggedright\arraybackslash}}p{{{4.8 * names:.0f}pt}}"
    return f"{{@{{}}{first}{'r' * (len(grid.header) - 1)}@{{}}}}"


def _tabular(grid: Grid) -> list[str]:
    head = [rf"\begin{{tabular}}{_columns(grid)}", r"\toprule", *_lines(grid.header), r"\midrule"]
    return [*head, *_body(grid), r"\bottomrule", r"\end{tabular}"]


def _longtable(grid: Grid, caption: str) -> list[str]:
    """The head is repeated on every page."""
    # A longtable takes its caption inside, and only once.
    head = [rf"\begin{{longtable}}{_columns(grid)}", *([caption + r" \\"] if caption else [])]
    head += [r"\toprule", *_lines(grid.header), r"\midrule", r"\endhead"]
    return [*head, *_body(grid), r"\bottomrule", r"\end{longtable}"]


def _body(grid: Grid) -> Iterator[str]:
    for number, row in enumerate(grid.rows):
        if number and number in grid.sections:
            yield r"\addlinespace"
        yield from _lines(row)


def _lines(cells: Sequence[str]) -> Iterator[str]:
    """A row of cells; small print has rows of its own."""
    columns = [cell.split("\n") for cell in cells]
    for depth in range(max(map(len, columns))):
        # Cells with less small print than others are filled with nothing.
        line = [column[depth] if depth < len(column) else "" for column in columns]
        indent = r"\quad " if line[0].startswith(" ") else ""
        small = [rf"\scriptsize {latex(text.strip())}" if depth and text else latex(text.strip()) for text in line]
        yield f"{indent}{' & '.join(small)} \\\\"
