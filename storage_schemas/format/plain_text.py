"""Text for a terminal or a log, without the characters that could change what a reader sees there.

Keys of images, names in tables and messages of libraries can contain anything. An escape sequence in them could clear a
terminal or change its title, and a newline could make one line of a log look like two.
"""

import re

DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Characters that change the direction of the text after them."""
UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{DIRECTIONS}]")
"""Control characters with newlines and tabs, separators of lines and paragraphs, halves of characters, directions."""
SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def one_line(text: str) -> str:
    r"""Return text as one line that shows unsafe characters as escapes: `\n`, `\u001b`.

    The escapes are those of JSON, so a JSON document whose line is changed stays the same document.
    """
    return UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return SHORT.get(found[0], f"\\u{ord(found[0]):04x}")
