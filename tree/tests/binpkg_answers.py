"""Tells what Portage and Python's tarfile make of binary packages, for tests/binpkg.rs.

    binpkg_answers.py verify FILE   Portage's own check of a gpkg, then its metadata: a line KEY<tab>HEX a key
    binpkg_answers.py image FILE    the digest of the canonical image, made with tarfile and not with the code under test
    binpkg_answers.py index FILE    what Portage reads in a Packages index: the header, then the entries, a line KEY<tab>VALUE
                                    a key and an empty line behind each
"""

import hashlib
import io
import subprocess
import sys
import tarfile

import portage
from portage.dbapi.bintree import binarytree
from portage.gpkg import gpkg


class Settings(dict):
    features = frozenset()

    def environ(self):
        return {}


def verify(path):
    package = gpkg(Settings(BINPKG_COMPRESS="zstd"), None, path)
    package._verify_binpkg()
    for key, value in sorted(package.get_metadata().items()):
        print(key, value.hex(), sep="\t")


def below_image(path):
    return "/".join(path.split("/")[1:]).encode("utf-8", "surrogateescape")


def image(path):
    with tarfile.open(path) as container:
        member = next(m for m in container.getmembers() if "/image.tar" in m.name and not m.name.endswith(".sig"))
        packed = container.extractfile(member).read()
    if member.name.endswith(".zst"):
        packed = subprocess.run(["zstd", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    archive = tarfile.open(fileobj=io.BytesIO(packed))
    members = {below_image(m.name): m for m in archive.getmembers()}
    # Of files linked together the name that sorts first is the file.
    names = {}
    for name, m in members.items():
        names.setdefault(below_image(m.linkname) if m.islnk() else name, []).append(name)
    lines = []
    for source, linked in names.items():
        m = members[source]
        for name in linked:
            if m.isreg() and name != min(linked):
                kind, rest = "hardlink", [min(linked)]
            elif m.isreg():
                content = archive.extractfile(m).read()
                kind, rest = "file", [str(len(content)).encode(), hashlib.blake2b(content).hexdigest().encode()]
            elif m.issym():
                kind, rest = "symlink", [m.linkname.encode("utf-8", "surrogateescape")]
            else:
                kind, rest = {tarfile.DIRTYPE: "directory", tarfile.FIFOTYPE: "fifo"}[m.type], []
            fields = [kind, f"{m.mode & 0o7777:o}", str(m.uid), str(m.gid), m.uname, m.gname]
            lines.append([name] + [field.encode() for field in fields] + rest)
    text = b"peerage image 1\n" + b"".join(b"".join(f + b"\0" for f in line) + b"\n" for line in sorted(lines))
    print(hashlib.blake2b(text).hexdigest())


def index(path):
    tree = binarytree(pkgdir="/nonexistent", settings=Settings())
    read = tree._new_pkgindex()
    with open(path, encoding="utf-8", errors="replace") as file:
        read.read(file)
    for block in [read.header] + read.packages:
        for key, value in sorted(block.items()):
            print(key, value, sep="\t")
        print()


{"verify": verify, "image": image, "index": index}[sys.argv[1]](sys.argv[2])
