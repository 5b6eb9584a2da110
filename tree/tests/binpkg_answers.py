"""Tells what Portage and Python's tarfile make of binary packages, for tests/binpkg.rs.

    binpkg_answers.py verify FILE   Portage's own check of a gpkg, then its metadata: a line KEY<tab>HEX a key
    binpkg_answers.py image FILE    the digest of the canonical image, made with tarfile and not with the code under test
    binpkg_answers.py index FILE    what Portage reads in a Packages index: the header, then the entries, a line KEY<tab>VALUE
                                    a key and an empty line behind each
    binpkg_answers.py archives      for each package named on standard input a line: the digest of its image as tarfile reads
                                    it, or why not; and, behind a tab, what Portage unpacks of it: `same`, what is another,
                                    or why it refuses it
"""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile

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


def raw(text):
    return text.encode("utf-8", "surrogateescape")


def inside(path):
    """A path below the image; as spelled when it is not below it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(parts[1:]) if parts and parts[0] == "image" and ".." not in parts else "outside:" + path


def read_image(path):
    """The members of an image in the order of the archive: path, kind, its own header, and what its kind needs."""
    with tarfile.open(path) as container:
        packed = container.extractfile(next(m for m in container if m.name.endswith("/image.tar"))).read()
    entries = {}
    with tarfile.open(mode="r|", fileobj=io.BytesIO(packed)) as archive:
        for m in archive:
            if m.isreg():
                content = archive.extractfile(m).read()
                what = ("file", str(len(content)).encode(), hashlib.blake2b(content).hexdigest().encode())
            elif m.islnk():
                target = inside(m.linkname)
                linked = entries[target][1]
                what = ("hardlink", raw(target)) if linked[0] == "file" else linked
            elif m.issym():
                what = ("symlink", raw(m.linkname))
            elif m.isdir() or m.type == tarfile.FIFOTYPE:
                what = ("directory" if m.isdir() else "fifo",)
            else:
                kind = {tarfile.CHRTYPE: "character-device", tarfile.BLKTYPE: "block-device"}[m.type]
                what = (kind, str(m.devmajor).encode(), str(m.devminor).encode())
            entries[inside(m.name)] = (m, what)
    return entries


def image_digest(entries):
    names = {}
    for name, (_, what) in entries.items():
        if what[0] in ("file", "hardlink"):
            names.setdefault(raw(name) if what[0] == "file" else what[1], []).append(raw(name))
    lines = []
    for name, (m, what) in entries.items():
        if what[0] in ("file", "hardlink"):
            source = raw(name) if what[0] == "file" else what[1]
            m, what = entries[source.decode("utf-8", "surrogateescape")]
            first = min(names[source])
            if raw(name) != first:
                what = ("hardlink", first)
        head = [what[0].encode(), f"{m.mode & 0o7777:o}".encode(), str(m.uid).encode(), str(m.gid).encode()]
        lines.append([raw(name)] + head + [raw(m.uname), raw(m.gname)] + list(what[1:]))
    text = b"".join(b"".join(field + b"\0" for field in line) + b"\n" for line in sorted(lines))
    return hashlib.blake2b(b"peerage image 1\n" + text).hexdigest()


def unpacked(path, entries):
    """How what Portage unpacks differs from these entries."""
    with tempfile.TemporaryDirectory() as top:
        gpkg(Settings(BINPKG_COMPRESS="none"), None, path).decompress(top)
        found = {}
        for folder, folders, files in os.walk(top):
            for name in folders + files + ["."]:
                place = os.path.normpath(os.path.join(folder, name))
                found[os.path.relpath(place, top)] = place
        for name, (_, what) in entries.items():
            place = found.get(name or ".")
            if place is None:
                return f"{name!r} is not there"
            if what[0] == "symlink" and raw(os.readlink(place)) != what[1]:
                return f"{name!r} leads elsewhere"
            if what[0] == "file" and hashlib.blake2b(open(place, "rb").read()).hexdigest().encode() != what[2]:
                return f"{name!r} has another content"
        # Directories that no member names are made on the way.
        more = [name for name, place in found.items() if (name if name != "." else "") not in entries]
        more = [name for name in more if not os.path.isdir(found[name]) or os.path.islink(found[name])]
        return f"{more} are there besides" if more else "same"


def archives():
    for path in sys.stdin.read().splitlines():
        try:
            entries = read_image(path)
            digest = image_digest(entries)
        except Exception as error:
            print("no:", repr(error).replace("\n", " "), sep=" ", end="\tno\n")
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):
                said = unpacked(path, entries)
        except Exception as error:
            said = "refused: " + repr(error)
        print(digest, said.replace("\n", " "), sep="\t")


def index(path):
    tree = binarytree(pkgdir="/nonexistent", settings=Settings())
    read = tree._new_pkgindex()
    with open(path, encoding="utf-8", errors="replace") as file:
        read.read(file)
    for block in [read.header] + read.packages:
        for key, value in sorted(block.items()):
            print(key, value, sep="\t")
        print()


{"verify": verify, "image": image, "index": index, "archives": archives}[sys.argv[1]](*sys.argv[2:])
