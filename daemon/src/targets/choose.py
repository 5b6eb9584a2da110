"""Runs inside the sandbox: asks this machine's Portage which ebuilds atoms and sets mean.

Reads a JSON list of atoms and of sets (with @ in front), writes one JSON object: whether there is a profile to judge by, and
for each target (in the same order) the ebuilds that emerge would take, what was left out of it with file, line and reason,
and why it means nothing, if so.
"""

import json
import os
import re
import sys

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

import portage  # noqa: E402

portage._internal_caller = True
from _emerge.actions import load_emerge_config  # noqa: E402
from _emerge.Package import Package  # noqa: E402
from portage._sets.base import InternalPackageSet  # noqa: E402
from portage.dep import Atom  # noqa: E402
from portage.exception import InvalidAtom, PortageException  # noqa: E402

# What ItemFileLoader and KeyListFileLoader say of a line that they pass over (portage/env/loaders.py).
PASSED_OVER = re.compile(r"(?s)(.*): (?:Malformed data|(?:Key v|Value v|V)alidation failed) at line: (\d+), data:? (.*)")
# A machine on which nothing was chosen yet has none of these files.
WITHOUT_FILE = frozenset(("selected", "selected-packages", "selected-sets"))


def why_not(text):
    """What is wrong with a line that is in no set."""
    if text.startswith("@"):
        return "a set does not belong into this file: world_sets names sets"
    try:
        atom = Atom(text, allow_wildcard=True, allow_repo=True)
    except InvalidAtom:
        return "it is no atom"
    if atom.blocker:
        return "a blocker names nothing to get"
    if atom.extended_syntax:
        return "Portage takes no wildcards in a set"
    return "it is no set: the names of sets begin with @"


def place(files, text):
    """The file of a set, and the line that has this text as its first word."""
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file, 1):
                    if line.split()[:1] == [text]:
                        return path, number
        except OSError:
            continue
    return None, None


class Expansion:
    """The atoms of a set, and what was left out on the way to them."""

    def __init__(self, sets):
        self.sets = sets
        self.atoms, self.left_out, self.seen = {}, [], set()

    def leave(self, file, line, text, why):
        self.left_out.append({"file": file, "line": line, "text": text, "why": why})

    def passed_over(self, pset):
        for error in pset.errors:
            known = PASSED_OVER.fullmatch(error)
            if known:
                file, line, text = known.groups()
                self.leave(file, int(line), text, why_not(text))
            else:
                self.leave(None, None, "", error)

    def add(self, name):
        self.seen.add(name)
        pset = self.sets[name]
        parts = [part for part in (getattr(pset, "_pkgset", None), getattr(pset, "_setset", None)) if part] or [pset]
        files = [part._filename for part in parts if getattr(part, "_filename", None)]
        try:
            atoms, others = pset.getAtoms(), sorted(map(str, pset.getNonAtoms()))
        except (InvalidAtom, OSError, PortageException) as error:
            self.leave(*(files or [None])[:1], None, f"@{name}", f"Portage cannot load this set: {error}")
            return
        for part in parts:
            self.passed_over(part)
        if name not in WITHOUT_FILE:
            for path in files:
                if not os.path.exists(path):
                    self.leave(path, None, f"@{name}", "there is no such file")
        self.atoms.update((atom, files) for atom in sorted(atoms, key=str) if atom not in self.atoms)
        for text in others:
            if text.startswith("@") and text[1:] in self.sets:
                if text[1:] not in self.seen:
                    self.add(text[1:])
                continue
            why = "there is no such set" if text.startswith("@") else "it is no atom"
            self.leave(*place(files, text), text, why)


def has_use(pkg, atom):
    return InternalPackageSet(initial_atoms=(atom,)).findAtomForPackage(pkg) is not None


def best(atom, root, db):
    """The ebuild that emerge takes for an atom, and what is to be known of it; else none, and why."""
    found = db.xmatch("bestmatch-visible", atom)
    if not found:
        every = db.xmatch("match-all", atom)
        if not every:
            return None, "no ebuild of a repository here matches"
        newest = every[-1]
        why = portage.getmaskingstatus(newest, settings=root.settings, portdb=db, myrepo=newest.repo)
        return None, f"{newest}::{newest.repo} is masked: {', '.join(map(str, why)) or 'Portage does not say why'}"
    if atom.use is None:
        return {"cpv": str(found), "repo": found.repo}, None
    # Of what has these flags at all, what is built with them as things are.
    for cpv in reversed(db.xmatch("match-visible", atom)):
        metadata = dict(zip(Package.metadata_keys, db.aux_get(cpv, Package.metadata_keys, myrepo=cpv.repo)))
        pkg = Package(built=False, cpv=cpv, installed=False, metadata=metadata, root_config=root, type_name="ebuild")
        if has_use(pkg, atom):
            return {"cpv": str(cpv), "repo": cpv.repo}, None
    return {"cpv": str(found), "repo": found.repo}, "its USE flags are others now: emerge asks to change them first"


def meaning(target, root, db):
    packages, notes = [], []

    def take(text, package, note):
        if package not in packages:
            packages.append(package)
        if note is not None:
            notes.append(f"{text}: {package['cpv']}: {note}")

    if not target.startswith("@"):
        package, why = best(Atom(target, allow_repo=True), root, db)
        if package is None:
            return nothing(why)
        take(target, package, why)
        return {"packages": packages, "left_out": [], "notes": notes, "nothing": None}
    sets = root.setconfig.getSets()
    if target[1:] not in sets:
        return nothing("; ".join(["Portage knows no such set", *root.setconfig.errors]))
    expansion = Expansion(sets)
    expansion.add(target[1:])
    for atom, files in expansion.atoms.items():
        package, why = best(atom, root, db)
        if package is None:
            expansion.leave(*place(files, str(atom)), str(atom), why)
        else:
            take(atom, package, why)
    return {"packages": packages, "left_out": expansion.left_out, "notes": notes, "nothing": None}


def nothing(why):
    return {"packages": [], "left_out": [], "notes": [], "nothing": why}


def answered(target, root, db):
    try:
        return meaning(target, root, db)
    except (InvalidAtom, PortageException, KeyError, ValueError) as error:
        return nothing(f"Portage does not take it: {error!r}")


root = load_emerge_config().target_config
db = root.trees["porttree"].dbapi
has_profile = bool(root.settings.profiles and root.settings.get("ARCH"))
answers = [answered(target, root, db) for target in json.load(sys.stdin)] if has_profile else []
json.dump({"has_profile": has_profile, "answers": answers}, answer)
answer.flush()
