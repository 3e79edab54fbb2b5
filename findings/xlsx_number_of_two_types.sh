#!/usr/bin/env bash
# One column of phone numbers in an .xlsx file comes out as whole numbers, as decimals, or as a mixture of both.
#
# Versions: openpyxl 3.1.5, python-calamine 0.9.1, tablib 3.10.0.
# Expected: a cell's number is a double in any of the spellings of XML Schema, so 491512345679 and 4.91512345679E11 are
#   the same value, and readers give the same for both.
# Seen: openpyxl takes the spelling for the type: an int for the first, a float for the second, whose str() ends in ".0".
#   tablib, and through it django-import-export, hands that on. python-calamine gives a float for both.
# Matters: a list that is pasted or uploaded has "491512345679.0" in it, which is no phone number, or one with a digit
#   more once the dot is dropped; and it depends on the program that wrote the file, so the tests' own file is fine.
# Source: https://www.w3.org/TR/xmlschema-2/#double (cell values: ECMA-376 part 1, section 18.3.1.96)
#   https://foss.heptapod.net/openpyxl/openpyxl/-/blob/branch/3.1/openpyxl/worksheet/_reader.py (_cast_number)
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    openpyxl==3.1.5 python-calamine==0.9.1 "tablib[xlsx]==3.10.0"; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import sys
import zipfile

import openpyxl
import tablib
from python_calamine import CalamineWorkbook

PLAIN, SCIENTIFIC = b"<v>491512345679</v>", b"<v>4.91512345679E11</v>"

book = openpyxl.Workbook()
book.active.append(["number"])
book.active.append([491512345678])
book.active.append([491512345679])
book.save("plain.xlsx")
with zipfile.ZipFile("plain.xlsx") as plain, zipfile.ZipFile("list.xlsx", "w") as mixed:
    for name in plain.namelist():  # the same book, its second number in the other spelling
        mixed.writestr(name, plain.read(name).replace(PLAIN, SCIENTIFIC))

with open("list.xlsx", "rb") as file:
    dataset = tablib.Dataset().load(file, format="xlsx")
sheet = CalamineWorkbook.from_path("list.xlsx").get_sheet_by_index(0)
seen = {
    "openpyxl": [cell.value for cell in openpyxl.load_workbook("list.xlsx").active["A"]][1:],
    "tablib": dataset["number"],
    "python-calamine": [number for (number,) in sheet.to_python()][1:],
}
for name, numbers in seen.items():
    print(f"{name:16} as text: {', '.join(map(str, numbers))}")
mixture = ["491512345678", "491512345679.0"]
as_stated = (
    [str(number) for number in seen["openpyxl"]] == [str(number) for number in seen["tablib"]] == mixture
    and [type(number) for number in seen["python-calamine"]] == [float, float]
)
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
