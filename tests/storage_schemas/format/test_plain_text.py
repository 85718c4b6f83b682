"""Text that reaches a terminal: one line, without characters that the terminal would obey."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.command_line import run_command, say
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.plain_text import one_line

NASTY = "a\x1b[2J\x1b]0;title\x07\nb\r\x9b31m\u202egnp.exe\u2028\udcff\x00c"
SHOWN = r"a\u001b[2J\u001b]0;title\u0007\nb\r\u009b31m\u202egnp.exe\u2028\udcff\u0000c"


@given(st.text(st.characters(max_codepoint=0x2100)) | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_no_unsafe_character_is_left(text: str) -> None:
    shown = one_line(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not any(unicodedata.bidirectional(character) in DIRECTIONS for character in shown)
    shown.encode()


DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_letters_of_every_script_stay() -> None:
    text = "Zoë/图像/изображение/صورة/👩‍🚀/é.png"
    assert one_line(text) == text


def test_escapes_leave_a_json_document_the_same() -> None:
    document = json.dumps({"key": NASTY}, ensure_ascii=False)
    assert json.loads(one_line(document)) == {"key": NASTY}


def test_a_message_has_one_line_for_each_problem_whatever_its_texts_hold() -> None:
    error = SettingError(f"list {NASTY}", [Problem(place=NASTY, found=NASTY, fix=NASTY)])
    assert str(error) == f"list {SHOWN} cannot be used:\n  {SHOWN}: {SHOWN} ({SHOWN})"


def test_what_a_command_says_and_refuses_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say(NASTY)
    assert run_command({}, "", [NASTY], package="pipeline") == 2
    printed = capsys.readouterr()
    assert printed.out == f"{SHOWN}\n"
    assert printed.err == f"error: command cannot be used:\n  {SHOWN}: is no command (there are )\n"
