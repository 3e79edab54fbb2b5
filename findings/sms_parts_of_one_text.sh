#!/usr/bin/env bash
# Three libraries cut one long text into SMS parts; one cuts a character in two, one makes parts that are too long.
#
# Versions: smpplib 2.2.4, aiosmpplib 0.7.4, smsutil 1.1.3.
# Expected: in the 7-bit alphabet a euro sign is an escape and a code: two septets, one character. A message holds 160
#   septets, a part of a longer one 153 (seven go to its header), and no part ends between an escape and its code.
# Seen: smpplib counts septets but cuts anywhere: a part may end in the escape, and the phone shows a blank and an "e".
#   aiosmpplib counts characters: 161 septets are sent as one message, and a part gets 154. smsutil is right in both.
# Matters: whoever sends, or counts what a carrier will bill.
# Source: 3GPP TS 23.038 section 6.2.1.1 (extension table), TS 23.040 section 9.2.3.24.1 (parts)
#   https://github.com/python-smpplib/python-smpplib/blob/master/smpplib/gsm.py (split_sequence) and its issue 182
#   split_sms_udh in the package's own aiosmpplib/utils.py
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    smpplib==2.2.4 aiosmpplib==0.7.4 smsutil==1.1.3; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import sys

import smsutil
from aiosmpplib.utils import split_sms_udh
from smpplib.gsm import make_parts

HEADER = 6  # octets before the text, in a part of a longer message
ESCAPE = b"\x1b"


def septets_of(parts, before):
    """The text of each part as septets, one a byte; `before` is what stands ahead of a lone message."""
    skip = HEADER if len(parts) > 1 else before
    return [part[skip:] for part in parts]


def cut(text):
    return {
        "smpplib": septets_of(make_parts(text)[0], 0),
        "aiosmpplib": septets_of(split_sms_udh(text), 1),
        "smsutil": [part.content.encode("gsm0338") for part in smsutil.split(text).parts],
    }


in_161_septets = cut("a" * 159 + "€")
at_the_cut = cut("a" * 152 + "€" + "b" * 10)
for title, seen in (("161 septets", in_161_septets), ("a euro sign at the cut", at_the_cut)):
    for name, parts in seen.items():
        split = any(part.endswith(ESCAPE) for part in parts)
        sizes = [len(part) for part in parts]
        print(f"{title:24} {name:11} septets in each part: {sizes}{', a character in two' if split else ''}")

as_stated = (
    [len(part) for part in in_161_septets["smpplib"]] == [153, 8]
    and [len(part) for part in in_161_septets["aiosmpplib"]] == [161]
    and [len(part) for part in in_161_septets["smsutil"]] == [153, 8]
    and at_the_cut["smpplib"][0].endswith(ESCAPE)
    and [len(part) for part in at_the_cut["aiosmpplib"]] == [154, 10]
    and [len(part) for part in at_the_cut["smsutil"]] == [152, 12]
)
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
