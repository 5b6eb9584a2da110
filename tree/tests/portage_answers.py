"""Answers questions with Portage's own code, for tests/portage.rs.

A line on standard input is a question: words parted by tabs. A line on standard output is its answer. Anything that Portage
refuses is answered with ERROR.
"""

import os
import sys

import portage
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


QUESTIONS = {
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
