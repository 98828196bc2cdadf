#!/usr/bin/env python3
"""Counts the instructions of parts of the request path, and compares them with the accepted counts.

    check.py             fails if a count differs by more than 2 % from the one in accepted.toml
    check.py --accept    writes the current counts to accepted.toml: say in the commit why they changed

Instruction counts, by callgrind, can be repeated; times cannot. Each part is run a few times and then many times. The
difference of the counts, divided by the difference of the runs, excludes the cost of the start and the set-up.

The unoptimised build is measured, since the tests have already compiled it, and an optimised build takes longer than
everything else here. Its counts are about ten times those of a release build, so they do not show the cost of a request.
But an additional allocation, copy, hash or lookup shows in both.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ACCEPTED = Path(__file__).resolve().parent / "accepted.toml"
FEW, MANY = 100, 4100
TOLERANCE = 0.02
# Another compiler version generates different code.
TOLERANCE_OTHER_COMPILER = 0.20
HEAD = """\
# Instructions of one run of each part (benches/parts.rs) in the unoptimised build. `benches/instructions/check.py` compares
# with these counts, and writes this file with --accept.
"""


def build():
    """Builds the benchmark and returns its path."""
    command = ["cargo", "build", "--locked", "--bench", "parts", "--message-format=json-render-diagnostics"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, run.stdout.splitlines())
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "parts")


def instructions(binary, part, times):
    """Returns the instructions of a whole run, and the meaning of a regression."""
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", binary, "count", part, str(times)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    counted = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not counted:
        sys.exit(f"{part} cannot be counted:\n{run.stderr}")
    return int(counted[1]), run.stdout.strip()


def count(binary, part):
    few, _ = instructions(binary, part, FEW)
    many, meaning = instructions(binary, part, MANY)
    return round((many - few) / (MANY - FEW)), meaning


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("first: apt-get install -y --no-install-recommends valgrind")
    accepted = tomllib.loads(ACCEPTED.read_text())
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    same = compiler == accepted["compiler"]
    tolerance = TOLERANCE if same else TOLERANCE_OTHER_COMPILER
    if not same and not options.accept:
        print(f"The counts were accepted with {accepted['compiler']}, and this is {compiler}:")
        print(f"only differences of more than {tolerance:.0%} are reported. Accept new counts with the new compiler.")
    binary = build()
    counts, off = {}, []
    for part, before in accepted["instructions"].items():
        counts[part], meaning = count(binary, part)
        change = counts[part] / before - 1
        print(f"{part}: {counts[part]} instructions, {change:+.1%} of the accepted {before}", flush=True)
        if abs(change) > tolerance:
            off.append(f"{part} changed by {change:+.1%}. A regression {meaning}.")
    if options.accept:
        lines = "".join(f"{part} = {counted}\n" for part, counted in counts.items())
        ACCEPTED.write_text(f'{HEAD}compiler = "{compiler}"\n\n[instructions]\n{lines}')
        return 0
    if off:
        print("\n".join(off), file=sys.stderr)
        print(f"If this is intended, run {Path(__file__).relative_to(ROOT)} --accept, and say why in the commit.", file=sys.stderr)
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
