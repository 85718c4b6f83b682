#!/usr/bin/env bash
# jaxtyping 0.3.11 with beartype 0.23.1: its import hook makes calls of functions that define a function hundreds of times slower.
#
# Expected: `install_import_hook` decorates each function once, when its module is imported.
# Seen: the hook adds the decorator to nested functions too, and a nested function is defined anew at every call of the outer one. So
# every call of the outer function pays for a type checker to be generated. A module-level function or a lambda does not: the hook leaves
# lambdas alone. In a test suite under the hook such helpers can take most of the time, and a profile shows beartype, not the helper.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jaxtyping==0.3.11 beartype==0.23.1
cat > "$work/nested.py" <<'PYTHON'
def nested(numbers: list[int]) -> int:
    def key(number: int) -> int:
        return -number

    return min(numbers, key=key)


def _key(number: int) -> int:
    return -number


def flat(numbers: list[int]) -> int:
    return min(numbers, key=_key)
PYTHON
cd "$work" && "$work/venv/bin/python" - <<'PYTHON'
import sys
import timeit
from importlib.metadata import version

from jaxtyping import install_import_hook

with install_import_hook("nested", "beartype.beartype"):
    import nested


def microseconds(function):
    return min(timeit.repeat(lambda: function([1, 2, 3]), number=200, repeat=5)) / 200 * 1e6


slow, fast = microseconds(nested.nested), microseconds(nested.flat)
print(f"jaxtyping {version('jaxtyping')}, beartype {version('beartype')}: nested {slow:.0f} us, flat {fast:.1f} us a call")
print("as before: over ten times" if slow > 10 * fast else "CHANGED: under ten times")
sys.exit(slow <= 10 * fast)
PYTHON
