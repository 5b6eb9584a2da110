"""Answers questions with Portage's own code, for tests/portage.rs.

A line on standard input is a question: words parted by tabs. A line on standard output is its answer. Anything that Portage
refuses is answered with ERROR.
"""

import os
import re
import sys

import portage
from portage._sets.files import StaticFileSet, WorldSelectedPackagesSet, WorldSelectedSetsSet
from portage.dbapi.virtual import fakedbapi
from portage.dep import Atom, match_from_list, use_reduce
from portage.dbapi.porttree import _parse_uri_map
from portage.manifest import Manifest
from portage.repository.config import RepoConfigLoader
from portage.util import getconfig
from portage.versions import _pkg_str, vercmp


def version(left, right):
    order = vercmp(left, right)
    return "ERROR" if order is None else str((order > 0) - (order < 0))


def src_uri(eapi, text):
    uri_map = _parse_uri_map("a/b-1", {"EAPI": eapi, "SRC_URI": text, "RESTRICT": ""})
    return "\t".join(" ".join((name,) + tuple(uris)) for name, uris in uri_map.items())


def restrict(text):
    words = use_reduce(text, matchall=True, flat=True)
    return " ".join(word for word in ("fetch", "mirror", "bindist") if word in words)


def match(atom, cpv, slot):
    pkg = _pkg_str(cpv, slot=slot) if slot != "?" else _pkg_str(cpv)
    if atom.startswith("!"):
        raise ValueError("a blocker")
    return "yes" if match_from_list(Atom(atom, allow_repo=True), [pkg]) else "no"


def config(path):
    values = getconfig(path, allow_sourcing=True, expand={"EPREFIX": "", "PORTAGE_CONFIGROOT": "/"}, recursive=True) or {}
    return "\t".join(f"{key}={value.encode().hex()}" for key, value in sorted(values.items()))


class Settings(dict):
    local_config = True


def repos(root):
    settings = Settings(EPREFIX="", EROOT="/", ROOT="/", PORTAGE_CONFIGROOT=root)
    paths = [os.path.join(root, "usr/share/portage/config/repos.conf"), os.path.join(root, "etc/portage/repos.conf")]
    loader = RepoConfigLoader(paths, settings)
    main = loader.mainRepo()
    listed = [f"{repo.name} {repo.location} {repo.priority or 0}" for repo in loader]
    return "\t".join([main.name if main else "-"] + listed)


def manifest(directory):
    lines = []
    for name, sums in Manifest(directory, thin=True).getTypeDigests("DIST").items():
        lines.append(f"{name} {sums['size']} {sums.get('BLAKE2B', '-')} {sums.get('SHA512', '-')}")
    return "\t".join(lines)


def packages(root):
    """The ebuilds of each repository that etc/portage/repos.conf below a root names."""
    settings = portage.config(config_root=root, target_root=root, eprefix="", env={})
    db = portage.portdbapi(mysettings=settings)
    found = []
    for repo in settings.repositories:
        for cp in db.cp_all(trees=[repo.location], sort=True):
            found += [f"{repo.name} {cpv}" for cpv in db.cp_list(cp, mytree=repo.location)]
    return "\t".join(sorted(found))


def sourced(root):
    """The files that reading make.conf opens besides those it is made of."""
    opened, shlex_hook = [], portage.util._getconfig_shlex.sourcehook

    def hook(self, name):
        path, stream = shlex_hook(self, name)
        opened.append(os.path.normpath(path))
        return path, stream

    portage.util._getconfig_shlex.sourcehook = hook
    values = {"EPREFIX": "", "PORTAGE_CONFIGROOT": root}
    try:
        for place in ("etc/make.conf", "etc/portage/make.conf"):
            getconfig(os.path.join(root, place), allow_sourcing=True, expand=values, recursive=True)
    finally:
        portage.util._getconfig_shlex.sourcehook = shlex_hook
    return "\t".join(opened)


def set_file(kind, path):
    settings = {
        "world": lambda: WorldSelectedPackagesSet(path),
        "world_sets": lambda: WorldSelectedSetsSet(path),
        "mine": lambda: StaticFileSet(os.path.join(path, "mine")),
    }
    found = settings[kind]()
    lines = sorted({int(re.search(r"at line: (\d+)", error).group(1)) for error in (found.getAtoms(), found.errors)[1]})
    words = (sorted(map(str, found.getAtoms())), sorted(map(str, found.getNonAtoms())), map(str, lines))
    return " | ".join(" ".join(part) for part in words)


def use_match(atom, iuse, use):
    db = fakedbapi(portage.config(config_profile_path="", local_config=False))
    db.cpv_inject(_pkg_str("a/b-1", slot="0", eapi="8"), {"EAPI": "8", "SLOT": "0", "IUSE": iuse, "USE": use, "KEYWORDS": "x"})
    return "yes" if db.match(Atom(atom)) else "no"


QUESTIONS = {
    "packages": packages,
    "sourced": sourced,
    "set": set_file,
    "use": use_match,
    "version": version,
    "src_uri": src_uri,
    "restrict": restrict,
    "match": match,
    "config": config,
    "repos": repos,
    "manifest": manifest,
}


def main():
    portage.util.noiselimit = -10
    for line in sys.stdin:
        question, *words = line.rstrip("\n").split("\t")
        try:
            answer = QUESTIONS[question](*words)
        except Exception:
            answer = "ERROR"
        print(answer)


main()
