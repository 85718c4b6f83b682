#!/usr/bin/env bash
# zfpy 1.0.1.post0 beside numcodecs 0.16.6: `import numcodecs` ends in a ValueError.
#
# Expected: zfpy is optional for numcodecs; installing its newest release adds a codec, or numcodecs says that it cannot use it.
# Seen: numcodecs splits zfpy's version at the dots and takes each part for a number. The part "post0" is none, the error is not an ImportError,
# and so `import numcodecs`, and with it `import zarr`, fails wherever zfpy's post-release is installed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numcodecs==0.16.6 numpy==2.4.6
"$work/venv/bin/python" -c 'import numcodecs; print("numcodecs", numcodecs.__version__, "alone: imported")'
"$work/venv/bin/pip" install --quiet --no-deps zfpy==1.0.1.post0
if said=$("$work/venv/bin/python" -c 'import numcodecs' 2>&1); then echo "CHANGED: it is imported beside zfpy"; exit 1; fi
echo "beside zfpy 1.0.1.post0: $(tail -1 <<< "$said")"
grep -q "ValueError" <<< "$said" && echo "as before: a ValueError, not an ImportError"
