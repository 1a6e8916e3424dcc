"""The syntax of ``java.util.Properties``, as ``load(Reader)`` of JDK 17 reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from muster.spark.errors import PropertiesError

_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK = " \t\f"
_PAIR = re.compile(r"([^\\=: \t\f]*(?:\\.[^\\=: \t\f]*)*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u(.{0,4})|(.))", re.DOTALL)
_FOUR_HEX = re.compile(r"[0-9A-Fa-f]{4}", re.ASCII)
_CONTROL = {"t": "\t", "r": "\r", "n": "\n", "f": "\f"}


def parse(text: str) -> dict[str, str]:
    """All pairs; of several with one key the last wins.

    Raises:
        PropertiesError: a ``\\u`` escape without four hex digits, naming the line.
    """
    pairs: dict[str, str] = {}
    for number, line in logical_lines(text):
        match = _PAIR.match(line)
        assert match is not None  # the pattern matches every text
        key, value = match.groups()
        pairs[_unescape(key, number)] = _unescape(value, number)
    return pairs


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, blank ones and leading blanks, continuations joined, each with its first line's number.

    An odd number of backslashes at the end of a line continues it, the next line's leading blanks go. A line is a
    comment when the first thing of a *logical* line is ``#`` or ``!``; comments are not continued.
    """
    parts: list[str] = []
    first, continued = 0, False
    naturals = _LINE_END.split(text)
    for number, natural in enumerate(naturals, start=1):
        rest = natural.lstrip(_BLANK)
        if not parts and (not rest or rest[0] in "#!"):
            # A lone backslash and the end of the text make an empty line, unless CR LF is between them (as in the JDK).
            continued = continued and not natural and number == len(naturals) and not text.endswith("\r\n")
            continue
        if not continued:
            first = number
        continued = rest.endswith("\\") and (len(rest) - len(rest.rstrip("\\"))) % 2 == 1
        if not continued:
            yield first, "".join(parts) + rest
            parts.clear()
        elif rest != "\\":
            parts.append(rest[:-1])
    if continued or parts:
        yield first, "".join(parts)


def _unescape(text: str, line: int) -> str:
    if "\\" not in text:
        return text

    def replacement(match: re.Match[str]) -> str:
        digits, character = match.groups()
        if digits is None:
            return _CONTROL.get(character, character)
        if not _FOUR_HEX.fullmatch(digits):
            raise PropertiesError("an escape \\u without four hexadecimal digits", line)
        return chr(int(digits, 16))

    plain = _ESCAPE.sub(replacement, text)
    # Java's characters are UTF-16 units: two escapes may make one character.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") if "\\u" in text else plain
