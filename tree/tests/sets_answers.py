"""Answers questions about sets and USE dependencies with Portage's own code, for tests/sets.rs.

A line on standard input is a question: words parted by tabs. A line on standard output is its answer.
"""

import os
import re
import sys

import portage
from portage._sets.files import StaticFileSet, WorldSelectedPackagesSet, WorldSelectedSetsSet
from portage.dbapi.virtual import fakedbapi
from portage.dep import Atom
from portage.versions import _pkg_str


def set_file(kind, path):
    made = {
        "world": lambda: WorldSelectedPackagesSet(path),
        "world_sets": lambda: WorldSelectedSetsSet(path),
        "mine": lambda: StaticFileSet(os.path.join(path, "mine")),
    }
    found = made[kind]()
    atoms, sets = sorted(map(str, found.getAtoms())), sorted(map(str, found.getNonAtoms()))
    lines = sorted({int(re.search(r"at line: (\d+)", error).group(1)) for error in found.errors})
    return " | ".join(" ".join(part) for part in (atoms, sets, map(str, lines)))


def use_match(atom, iuse, use):
    db = fakedbapi(settings)
    metadata = {"EAPI": "8", "SLOT": "0", "IUSE": iuse, "USE": use, "KEYWORDS": "x"}
    db.cpv_inject(_pkg_str("a/b-1", slot="0", eapi="8"), metadata)
    return "yes" if db.match(Atom(atom)) else "no"


portage.util.noiselimit = -10
settings = portage.config(config_profile_path="", local_config=False)
questions = {"set": set_file, "use": use_match}
for line in sys.stdin.readlines():
    question, *words = line.rstrip("\n").split("\t")
    print(questions[question](*words))
