"""Runs inside the sandbox: asks this machine's Portage which USE flags it would build packages with now.

Reads a JSON list of packages, writes one JSON object: what the machine is, and for each package (in the same order) the
IUSE of the ebuild that it would take (none when there is none any more: then the package's own counts), the flags that
would be on, and those that nobody can choose.
"""

import json
import os
import sys

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

import portage  # noqa: E402

portage._internal_caller = True
from _emerge.actions import load_emerge_config  # noqa: E402
from _emerge.Package import Package  # noqa: E402
from portage.versions import _pkg_str  # noqa: E402

FLAGS = ("CFLAGS", "CXXFLAGS", "FFLAGS", "FCFLAGS", "RUSTFLAGS", "GOAMD64")


def ebuild_of(asked, root, db):
    """The ebuild of this version: that of the package's repository, else that of any."""
    for repo in (asked["repo"], None):
        if repo == "":
            continue
        try:
            values = db.aux_get(asked["cpv"], keys, myrepo=repo)
        except (KeyError, portage.exception.PortageException):
            continue
        metadata = dict(zip(keys, values))
        cpv = _pkg_str(asked["cpv"], metadata=metadata, settings=root.settings, db=db)
        return Package(built=False, cpv=cpv, installed=False, metadata=metadata, root_config=root, type_name="ebuild")
    return None


def would_build(asked, root, db):
    ebuild = ebuild_of(asked, root, db)
    if ebuild is not None:
        forced = {*ebuild.use.force, *ebuild.use.mask}
        return {"iuse": sorted(ebuild.iuse.all), "use": sorted(ebuild.use.enabled), "forced": sorted(forced)}
    metadata = {
        **dict.fromkeys(Package.metadata_keys, ""),
        "CHOST": asked["chost"], "EAPI": asked["eapi"], "IUSE": asked["iuse"], "KEYWORDS": asked["keywords"],
        "SLOT": asked["slot"], "USE": asked["use"], "repository": asked["repo"],
    }
    cpv = _pkg_str(asked["cpv"], metadata=metadata, settings=root.settings, db=root.trees["bintree"].dbapi)
    binary = Package(built=True, cpv=cpv, installed=False, metadata=metadata, root_config=root, type_name="binary")
    settings.setcpv(binary)
    forced = {*settings.useforce, *settings.usemask}
    return {"iuse": None, "use": sorted(settings["PORTAGE_USE"].split()), "forced": sorted(forced)}


root = load_emerge_config().target_config
db = root.trees["porttree"].dbapi
keys = sorted(db._aux_cache_keys)
settings = portage.config(clone=root.settings)
packages = []
for asked in json.load(sys.stdin):
    try:
        packages.append(would_build(asked, root, db))
    except (KeyError, portage.exception.PortageException) as error:
        print(f"{asked['cpv']}: {error!r}", file=sys.stderr)
        packages.append(None)
machine = {
    "chost": root.settings.get("CHOST", ""),
    "arch": root.settings.get("ARCH", ""),
    "flags": " ".join(root.settings.get(name, "") for name in FLAGS),
}
json.dump({"machine": machine, "packages": packages}, answer)
answer.flush()
