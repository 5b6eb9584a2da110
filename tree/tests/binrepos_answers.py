"""Answers for tests/binrepos.rs: what Portage's own BinRepoConfigLoader makes of a configuration root.

A line on standard input is a root and, after a tab, a value of PORTAGE_BINHOST. The answer is a line: one binhost after
the other, lowest priority first, or ERROR.
"""

import os
import sys

import portage
from portage.binrepo.config import BinRepoConfigLoader


def told(repo):
    words = [repo.name or "-", repo.priority or 0, repo.sync_uri, repo.verify_signature, bool(repo.frozen), repo.fetchcommand]
    return " ".join(str(word) for word in words)


def main():
    portage.util.noiselimit = -10
    for line in sys.stdin:
        root, binhost = line.rstrip("\n").split("\t")
        settings = {"EPREFIX": "", "EROOT": "/", "ROOT": "/", "PORTAGE_CONFIGROOT": f"{root}/", "PORTAGE_BINHOST": binhost}
        places = [f"{root}/usr/share/portage/config/binrepos.conf", f"{root}/etc/portage/binrepos.conf"]
        try:
            print("\t".join(told(repo) for repo in BinRepoConfigLoader(places, settings).values()).replace("\n", "|"))
        except Exception:
            print("ERROR")


main()
