"""Answers questions with Portage's own code, for tests/portage.rs.

A line on standard input is a question: words parted by tabs. A line on standard output is its answer. Anything that Portage
refuses is answered with ERROR.
"""

import os
import re
import shlex
import sys

import portage
from portage._sets.files import StaticFileSet, WorldSelectedPackagesSet, WorldSelectedSetsSet
from portage.dbapi.virtual import fakedbapi
from portage.dep import Atom, match_from_list, use_reduce
from portage.dbapi.porttree import _parse_uri_map
from portage.manifest import Manifest
from portage.repository.config import RepoConfigLoader
from portage.util import getconfig, grabdict, stack_dictlist
from portage.versions import _pkg_str, vercmp


KEYS = portage.auxdbkeys
LOADERS = {}


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


def loaded(root):
    settings = Settings(EPREFIX="", EROOT="/", ROOT="/", PORTAGE_CONFIGROOT=root)
    # As portage.config does before it loads the repositories.
    for path in ("usr/share/portage/config/make.globals", "etc/make.conf", "etc/portage/make.conf"):
        values = getconfig(os.path.join(root, path), allow_sourcing=True, expand=dict(settings), recursive=True) or {}
        settings.update((key, values[key]) for key in ("PORTDIR", "PORTDIR_OVERLAY") if key in values)
    paths = [os.path.join(root, "usr/share/portage/config/repos.conf"), os.path.join(root, "etc/portage/repos.conf")]
    return RepoConfigLoader(paths, settings)


def repos(root):
    loader = loaded(root)
    main = loader.mainRepo()
    listed = []
    for repo in loader:
        masters = ",".join(master.name for master in repo.masters)
        eclasses = ",".join(repo.eclass_locations)
        listed.append(f"{repo.name} {repo.location} {repo.priority or 0} {masters} {eclasses}")
    return "\t".join([main.name if main else "-"] + listed)


class NoCache(dict):
    readonly = True


def belongs(root, repo, cpv):
    # What portdbapi does with a pregenerated cache, without the cache that a Portage of this machine may have made itself.
    loader = LOADERS.setdefault(root, loaded(root))
    location = loader.treemap[repo]
    cache = loader[repo].get_pregenerated_cache(KEYS)
    db = portage.dbapi.porttree.portdbapi.__new__(portage.dbapi.porttree.portdbapi)
    db.repositories = loader
    db._pregen_auxdb = {} if cache is None else {location: cache}
    db._ro_auxdb, db.auxdb = {}, {location: NoCache()}
    category, pf = cpv.split("/")
    ebuild = os.path.join(location, category, portage.versions.pkgsplit(cpv)[0].split("/")[1], pf + ".ebuild")
    metadata, _ = db._pull_valid_cache(cpv, ebuild, location)
    return "no" if metadata is None else "yes"


def mirrors(root, uri, local):
    custom = grabdict(os.path.join(root, "etc/portage/mirrors"), recursive=1)
    tables = [grabdict(os.path.join(repo.location, "profiles/thirdpartymirrors")) for repo in reversed(list(loaded(root)))]
    thirdparty = stack_dictlist(tables, incremental=True)
    # The part of fetch() that expands a URI; only the shuffling is left out.
    name, path = uri[len("mirror://"):].split("/", 1)
    uris = [host.rstrip("/") + "/" + path for host in custom.get(name, [])]
    uris += [host.rstrip("/") + "/" + path for host in thirdparty.get(name, [])]
    return " ".join([host.rstrip("/") for host in custom.get(local, [])] + ["|"] + uris)


def words(text):
    return "\t".join(shlex.split(bytes.fromhex(text).decode())) or "-"


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
    db = fakedbapi(portage.config(config_profile_path="", local_config=False))
    metadata = {"EAPI": "8", "SLOT": "0", "IUSE": iuse, "USE": use, "KEYWORDS": "x"}
    db.cpv_inject(_pkg_str("a/b-1", slot="0", eapi="8"), metadata)
    return "yes" if db.match(Atom(atom)) else "no"


QUESTIONS = {
    "set": set_file,
    "use": use_match,
    "packages": packages,
    "sourced": sourced,
    "version": version,
    "src_uri": src_uri,
    "restrict": restrict,
    "match": match,
    "config": config,
    "repos": repos,
    "belongs": belongs,
    "mirrors": mirrors,
    "words": words,
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
