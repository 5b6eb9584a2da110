"""Runs inside the sandbox, after variables.py: this machine's configuration as another machine may have it.

Writes one JSON object. Values are those that Portage itself makes of make.conf; of /etc/portage only what stands in a
list is read, so that what nobody thought of stays at home. Problems say why it cannot be given away as a whole.
"""

import json
import sys
from collections import ChainMap

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

portage._internal_caller = True
from portage.util import getconfig  # noqa: E402

FILE_MAX, ALL_MAX, FILES_MAX = 1 << 20, 32 << 20, 10_000
# Files or directories of lines, read as Portage reads them.
LINES = (
    "package.accept_keywords", "package.accept_restrict", "package.env", "package.keywords", "package.license",
    "package.mask", "package.properties", "package.provided", "package.unmask", "package.use",
)
# Of a profile of the user's own: lines, too.
OF_PROFILE = (
    "eapi", "packages", "packages.build", "package.accept_keywords", "package.accept_restrict", "package.keywords",
    "package.license", "package.mask", "package.properties", "package.provided", "package.unmask", "package.use",
    "package.use.force", "package.use.mask", "package.use.stable", "package.use.stable.force", "package.use.stable.mask",
    "use.force", "use.mask", "use.stable", "use.stable.force", "use.stable.mask",
)
settings = portage.settings
top = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage")
files, problems, total = {}, [], 0


def problem(text):
    if text not in problems and len(problems) < 20:
        problems.append(text)


def take(name, content):
    global total
    if len(content) > FILE_MAX:
        return problem(f"/etc/portage/{name} is larger than {FILE_MAX} bytes")
    total += len(content)
    if total > ALL_MAX or len(files) >= FILES_MAX:
        return problem(f"/etc/portage has more than {FILES_MAX} files or {ALL_MAX} bytes for builds")
    files[name] = content


def path_of(name):
    """Where a name lies; the profile may be at its older place."""
    if name.split("/")[0] == "make.profile":
        return settings.profile_path + name.removeprefix("make.profile")
    return os.path.join(top, name)


def found_below(name):
    """Names of the regular files that Portage reads for a name: the file, or those of the directory, links followed."""
    if os.path.isfile(path_of(name)):
        return [name]
    found, ahead = [], [(name, ())] if os.path.isdir(path_of(name)) else []
    while ahead and len(found) <= FILES_MAX:
        folder, parents = ahead.pop()
        real = os.path.realpath(path_of(folder))
        if real in parents:
            continue
        for one in os.listdir(real):
            if one.startswith(".") or one.endswith("~") or one in ("CVS", "RCS", "SCCS"):
                continue
            if os.path.isdir(os.path.join(real, one)):
                ahead.append((f"{folder}/{one}", (*parents, real)))
            else:
                found.append(f"{folder}/{one}")
    return sorted(found)


def read(name):
    """A file that Portage reads under this name, wherever it lies: what is for nobody is not seen here."""
    if not os.path.isfile(path_of(name)):
        return None
    with open(path_of(name), "rb") as file:
        return file.read(FILE_MAX + 1)


def is_usable(name, word):
    """Whether Portage can use a line: one that it passes over says nothing of a build, and may be anything, behind a link."""
    kind = next((part for part in name.split("/") if part.startswith("package.")), "")
    word = word.removeprefix("-")
    if not kind:
        return True
    if kind == "package.provided":
        return portage.versions.catpkgsplit(word) is not None
    try:
        portage.dep.Atom(word, allow_wildcard=True, allow_repo=True)
    except portage.exception.InvalidAtom:
        return False
    return True


def take_lines(name):
    """Without comments, where people write what is nobody's business."""
    content = read(name)
    if content is None:
        return
    kept = []
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        words = line.split()
        ends = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
        if words[:ends] and is_usable(name, words[0]):
            kept.append(" ".join(words[:ends]))
    take(name, "".join(f"{line}\n" for line in kept).encode("utf-8", "surrogateescape"))


def given(name):
    """Whether a variable is told: what a recipe names, and what decides which packages are taken."""
    if NEVER.search(name):
        return False
    if name in CHOOSES:
        return True
    private = name in environ_whitelist and name not in KNOWN
    return may_be_foreign(name) and reaches(name, settings) and not private


def quoted(name, value):
    text = value.replace("\\", "\\\\\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'{name}="{text}"\n'


def take_variables(name, base):
    """A file of variables as what they come to."""
    if read(name) is None:
        return
    values = getconfig(path_of(name), tolerant=True, allow_sourcing=True, expand=dict(base)) or {}
    around = ChainMap(values, settings)
    kept = {key: resolved(value, around) for key, value in sorted(values.items()) if given(key)}
    take(name, "".join(quoted(key, value) for key, value in kept.items()).encode())


def take_profile(name):
    """A profile that is the user's own: its parents as REPOSITORY:PATH."""
    if os.path.exists(path_of(f"{name}/profile.bashrc")) or os.path.exists(path_of(f"{name}/package.bashrc")):
        problem(f"/etc/portage/{name} has a bashrc, which is given to nobody")
    for kind in OF_PROFILE:
        for one in found_below(f"{name}/{kind}"):
            take_lines(one)
    if os.path.isfile(path_of(f"{name}/make.defaults")):
        take_variables(f"{name}/make.defaults", settings._expand_map)
    parents = read(f"{name}/parent")
    if parents is None:
        return
    kept = []
    for line in parents.decode("utf-8", "replace").splitlines():
        line = line.split("#")[0].strip()
        if line and ":" not in line:
            place = os.path.realpath(os.path.join(os.path.realpath(path_of(name)), line))
            line = profile_in_repository(place, settings.repositories)
            if not line:
                problem(f"the profile {name} has a parent outside of the repositories: {place}")
                continue
        if line:
            kept.append(line)
    take(f"{name}/parent", "".join(f"{line}\n" for line in kept).encode())


def state(location):
    """What a repository says of its own age; for people only, as the recipe has what counts."""
    for name in ("metadata/timestamp.chk", "metadata/timestamp.commit"):
        try:
            with open(os.path.join(location, name), encoding="utf-8", errors="replace") as file:
                return file.readline().strip()[:200]
        except OSError:
            pass
    return ""


def main():
    for name in LINES:
        for one in found_below(name):
            take_lines(one)
    for one in found_below("patches"):
        if one.endswith((".patch", ".diff")):
            content = read(one)
            if content is not None:
                take(one, content)
    named = set()
    for one, content in list(files.items()):
        if one == "package.env" or one.startswith("package.env/"):
            for line in content.decode("utf-8", "surrogateescape").splitlines():
                named.update(line.split()[1:])
    for one in sorted(named):
        if os.path.normpath(one) != one or one.startswith(("/", "..")):
            problem(f"package.env names {one}, which is not below /etc/portage/env")
        elif os.path.isfile(os.path.join(top, "env", one)):
            take_variables(f"env/{one}", settings._expand_map)
    if os.path.isdir(os.path.join(top, "profile")):
        take_profile("profile")
    profile = profile_in_repository(settings.profile_path or "", settings.repositories)
    if not profile and settings.profile_path:
        take_profile("make.profile")
    conf = settings.configdict["conf"]
    variables = {name: resolved(value, settings) for name, value in conf.items() if isinstance(value, str) and given(name)}
    main_repo = settings.repositories.mainRepo()
    repositories = [
        {
            "name": repo.name,
            "main": repo is main_repo,
            "priority": repo.priority or 0,
            "masters": [master.name for master in repo.masters or ()],
            "state": state(repo.location),
        }
        for repo in settings.repositories
    ]
    json.dump(
        {
            "variables": variables,
            "profile": profile,
            "repositories": repositories,
            "files": {name: content.hex() for name, content in files.items()},
            "problems": problems,
        },
        answer,
    )


main()
answer.flush()
