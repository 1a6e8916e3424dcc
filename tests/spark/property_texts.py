"""Seeded texts that try every corner of the syntax of Java properties."""

from __future__ import annotations

import random

SEED = 8
COUNT = 500
KEY = "spark.executor.memory"

NOTABLE = [
    "",
    "\n",
    "a",
    "a=",
    "=b",
    ":",
    "\\",
    "a=b\\",
    "a=b\\\n",
    "a=b\\\n  c\n",
    "a=b\\\r\n\t c\r\nd=e",
    "a=b\\\\\nc=d",
    "a=b\\\n\nc=d",
    "a=b\\\n#c\n",
    "\\\n#a=b\n",
    "\\\n\n#a=b\nc=d",
    "# a comment \\\na=b",
    " \t\f! a comment\na:b",
    "a = = b",
    "a : = b",
    "a\t\f b",
    "a\\ b c",
    "a\\=b=c",
    "a\\:b:c",
    "\\#a=b",
    "a=b=c:d e",
    "a=1\na=2",
    "a=\\u0041\\u00e9",
    "a=\\ud83d\\ude00",
    "a=\\u004",
    "a=\\u004g",
    "a=\\uu0041",
    "a=\\U0041",
    "\\u0061=b",
    'a=\\t\\n\\r\\f\\q\\0\\"',
    "a=b \t ",
    "a=\\ b\\ ",
    "a=b\\n\\t ",
    "a=\\t\\u0001b\\r",
    "é=ü😀",
    "a=b\x0bc\x85d\u2028e",
    "a=b\rc=d\n\re=f",
]

_TOKENS = [
    *" \t\f\n\r\\=:#!",
    "\n",
    "\n",
    "\\",
    "\\\n",
    "\\\r\n",
    "\\u0041",
    "\\u00",
    "\\n",
    "\\t",
    "a",
    "b1",
    "é",
    "😀",
    "\x01",
    KEY,
    f"\n{KEY} ",
    f"\n{KEY}=",
    "4g",
]


def texts(seed: int = SEED, count: int = COUNT) -> list[str]:
    """The notable ones, and ``count`` drawn at random."""
    draw = random.Random(seed)
    return [*NOTABLE, *("".join(draw.choices(_TOKENS, k=draw.randint(1, 24))) for _ in range(count))]
