"""Runs inside the sandbox, after variables.py: asks Portage's own resolver what building the atoms of the command line takes.

Writes one JSON object. Everything that can change what a build makes is in it, as Portage itself sees it; nothing that
differs between two machines with the same configuration (places, times, host names) is.
"""

import functools
import hashlib
import json
import os
import subprocess
import sys

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

portage._internal_caller = True
import portage.output  # noqa: E402

portage.output.nocolor()  # what it says is shown as text
from _emerge.actions import load_emerge_config  # noqa: E402
from _emerge.create_depgraph_params import create_depgraph_params  # noqa: E402
from _emerge.depgraph import backtrack_depgraph  # noqa: E402
from _emerge.main import parse_opts  # noqa: E402
from _emerge.stdout_spinner import stdout_spinner  # noqa: E402

keep_the_rest_out()

# What Portage records of an installed package (__dyn_install) that says how it was made, whatever its ebuild exports.
RECORDED = ("CFLAGS", "CXXFLAGS", "LDFLAGS", "CHOST", "EXTRA_ECONF")
CHUNK = 1 << 20


@functools.cache
def digest(path):
    total = hashlib.blake2b()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def patches_in(top):
    """Digest of names and contents of what eapply_user applies of a directory; None when there is nothing. What is empty,
    or a link to nothing, takes away a patch of the same name of another directory."""
    if not os.path.isdir(top):
        return None
    found = []
    for path in (os.path.join(top, name) for name in os.listdir(top) if name.endswith((".patch", ".diff"))):
        content = digest(path) if os.path.isfile(path) and os.path.getsize(path) else ""
        found.append(f"{os.path.relpath(path, top)}\0{content}\0")
    return hashlib.blake2b("".join(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest() if found else None


def digest_tree(top, within=None):
    """Digest of names, contents and x bits below a directory, or of a file; None when there is nothing to read."""
    if os.path.isfile(top):
        return digest(top)
    if not os.path.isdir(top):
        return None
    found = []
    for path in files_below(top, within):
        if os.path.isfile(path):
            found.append(f"{os.path.relpath(path, top)}\0{os.access(path, os.X_OK)}\0{digest(path)}\0")
    return hashlib.blake2b("".join(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest() if found else None


def first_line(*command):
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = ended.stdout.decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else None


versions = {}


def version(*command):
    if command not in versions:
        versions[command] = first_line(*command)
    return versions[command]


def toolchain(settings):
    """The tools that no ebuild names among its dependencies, as they call themselves."""
    tools = {
        "cc": version(*compiler(settings, "CC", "gcc"), "--version"),
        "c++": version(*compiler(settings, "CXX", "g++"), "--version"),
        "ld": version("ld", "--version"),
        "libc": version("ldd", "--version"),
    }
    for word in f"{settings.get('LDFLAGS', '')} {settings.get('CFLAGS', '')}".split():
        if word.startswith("-fuse-ld="):
            linker = word.removeprefix("-fuse-ld=")
            if re.fullmatch(r"[A-Za-z0-9_.+-]+", linker):
                tools[f"ld.{linker}"] = version(f"ld.{linker}", "--version")
    return {name: line for name, line in tools.items() if line}


def identity(cpv, slot, repo, use, values, ebuild):
    """What a dependency was made from: the same whether it is installed here, was built elsewhere, or will be built now."""
    lines = [str(cpv), slot, repo or "", " ".join(sorted(use)), *(f"{name}={values[name]}" for name in sorted(values)), ebuild or ""]
    return hashlib.blake2b("\n".join(lines).encode()).hexdigest()


def recorded(db, cpv, name):
    """The text of one file of /var/db/pkg; aux_get would unpack the whole environment for each that is not there."""
    try:
        with open(db.getpath(cpv, filename=name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


known_identities = {}


def identity_of(pkg, config):
    """That of a dependency, found once; its trouble is that of each package which needs it."""
    if pkg not in known_identities:
        own, troubles[:] = list(troubles), []
        known_identities[pkg] = find_identity(pkg, config), list(troubles)
        troubles[:] = own
    troubles.extend(known_identities[pkg][1])
    return known_identities[pkg][0]


def find_identity(pkg, config):
    trees = config.trees[pkg.root]
    if pkg.installed:
        db = trees["vartree"].dbapi
        values = {name: recorded(db, pkg.cpv, name) for name in RECORDED}
        ebuild = db.findname(pkg.cpv)
        settings = trees["vartree"].settings
    else:
        settings = settings_of(pkg, config)
        values = {name: settings.get(name, "") for name in RECORDED}
        ebuild = trees["porttree"].dbapi.findname(pkg.cpv, myrepo=pkg.repo)
    # Portage records only the flags that are set, one space between words.
    values = {name: resolved(" ".join(value.split()), settings) for name, value in values.items() if value.split()}
    use = [flag for flag in pkg.use.enabled if flag in pkg.iuse.all]
    stored = digest(ebuild) if ebuild and os.path.isfile(ebuild) else None
    return identity(pkg.cpv, f"{pkg.slot}/{pkg.sub_slot}", pkg.repo, use, values, stored)


settings_of_root = {}


def settings_of(pkg, config):
    """The configuration as it is for one package, until it is asked for another: one object for all, as Portage's own scheduler
    has it, since to copy it costs more than all else that is said of a package."""
    if pkg.root not in settings_of_root:
        settings_of_root[pkg.root] = portage.config(clone=config.trees[pkg.root]["root_config"].settings), None
    settings, current = settings_of_root[pkg.root]
    if current is not pkg:
        settings.reset()
        settings.setcpv(pkg)
        settings["EBUILD"], _tree = config.trees[pkg.root]["porttree"].dbapi.findname2(pkg.cpv, myrepo=pkg.repo)
        settings_of_root[pkg.root] = settings, pkg
    return settings


@functools.cache
def profile_at(top, repositories):
    """The profile as REPOSITORY:PATH where it lies in one, else its name."""
    return profile_in_repository(top, repositories) or os.path.basename(top)


def bashrc_paths(pkg, settings):
    """What is sourced before the ebuild, in that order (__source_all_bashrcs of ebuild.sh): the profiles', the user's."""
    user = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage")
    hooks = os.path.join(user, "env", pkg.category)
    name = pkg.cpv.cp.split("/")[1]
    return [*settings._pbashrc], [
        os.path.join(user, "bashrc"),
        # Not Portage's own: where bashrc files that source others have them.
        os.path.join(user, "bashrc.d"),
        *(os.path.join(hooks, script) for script in (name, f"{name}:{pkg.slot}", without_revision(pkg), pkg.pf)),
    ]


def sourced_by(path, settings):
    """The files that a script sources by a name that needs no shell to be understood (reach/named.rs shows the same)."""
    root = settings["PORTAGE_CONFIGROOT"].rstrip("/")
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read(4 << 20).splitlines()
    for line in lines:
        words = line.split()
        comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
        for before, word, name in zip([";", *words], words[:comment], words[1:comment]):
            if word in ("source", ".") and (before.endswith(";") or before in ("then", "do", "else", "{", "&&", "||", "!")):
                name = name.rstrip(";").replace('"', "").replace("'", "")
                for spelt in ("${PORTAGE_CONFIGROOT%/}", "${PORTAGE_CONFIGROOT}", "$PORTAGE_CONFIGROOT"):
                    name = name.replace(spelt, root)
                if name.startswith("/") and not set("$`*?[{(\\") & set(name):
                    yield name


def with_sourced(paths, settings):
    """Scripts, and behind each those that it sources, each once."""
    ahead, all_paths = list(reversed(paths)), {}
    while ahead:
        path = ahead.pop()
        if path not in all_paths:
            all_paths[path] = None
            files = [path] if os.path.isfile(path) else files_below(path) if os.path.isdir(path) else []
            ahead += [name for file in files if os.path.isfile(file) for name in sourced_by(file, settings) if os.path.isfile(name)]
    return list(all_paths)


def bashrcs(pkg, settings):
    of_profiles, of_user = bashrc_paths(pkg, settings)
    return [total for path in with_sourced([*of_profiles, *of_user], settings) if (total := digest_tree(path))]


def private(pkg, settings):
    """Scripts of this machine's user that the build runs: no other machine is given them."""
    of_profiles, of_user = bashrc_paths(pkg, settings)
    etc = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage") + os.sep
    repositories = settings.repositories
    of_user += [path for path in of_profiles if not profile_in_repository(os.path.dirname(path), repositories)]
    of_user += saved_config_paths(pkg, settings)
    return [os.path.relpath(path, etc) for path in of_user if digest_tree(path)]


def without_revision(pkg):
    name, version, _revision = portage.versions.catpkgsplit(pkg.cpv)[1:]
    return f"{name}-{version}"


def user_patches(pkg, settings):
    """Digests of the user's patches, from each place where eapply_user looks (phase-helpers.sh)."""
    top = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage/patches", pkg.category)
    name, version, revision = portage.versions.catpkgsplit(pkg.cpv)[1:]
    places = [name, f"{name}-{version}", f"{name}-{version}-{revision}"]
    names = [f"{place}{suffix}" for place in places for suffix in ("", f":{pkg.slot}")]
    return {name: total for name in names if (total := patches_in(os.path.join(top, name)))}


def saved_config_paths(pkg, settings):
    """Where savedconfig.eclass looks for the user's configuration of a package; no other package sees it."""
    if "savedconfig" not in pkg.use.enabled:
        return []
    top = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage/savedconfig")
    hosts = [settings[name] for name in ("CTARGET", "CHOST") if settings.get(name)]
    names = [pkg.pf, f"{pkg.cpv.cp.split('/')[1]}-{portage.versions.catpkgsplit(pkg.cpv)[2]}", pkg.cpv.cp.split("/")[1]]
    return [os.path.join(top, host, pkg.category, name) for host in [*hosts, ""] for name in names]


def saved_config(pkg, settings):
    """The first that is there is taken."""
    return next((total for path in saved_config_paths(pkg, settings) if (total := digest_tree(path))), None)


def distfiles(pkg, db, tree, path):
    wanted = db.getFetchMap(pkg.cpv, useflags=pkg.use.enabled, mytree=tree)
    known = db.repositories.get_repo_for_location(tree).load_manifest(os.path.dirname(path), None).getTypeDigests("DIST")
    return [
        {
            "name": name,
            "size": known.get(name, {}).get("size"),
            "blake2b": known.get(name, {}).get("BLAKE2B"),
        }
        for name in sorted(wanted)
    ]


def describe(pkg, config):
    """What its files and the configuration say of a package, and the trouble with that."""
    troubles.clear()
    db = config.trees[pkg.root]["porttree"].dbapi
    path, tree = db.findname2(pkg.cpv, myrepo=pkg.repo)
    settings = settings_of(pkg, config)
    inherited = pkg._metadata.get("INHERITED", "").split() or sorted(pkg.inherited)
    eclasses = db.repositories.get_repo_for_location(tree).eclass_db.eclasses
    features = sorted(name for name in FEATURES_IN_IMAGE if name in settings.features)
    described = {
        "cpv": str(pkg.cpv),
        "slot": f"{pkg.slot}/{pkg.sub_slot}",
        "repo": pkg.repo,
        "eapi": pkg.eapi,
        "license": portage.dep.paren_enclose(portage.dep.use_reduce(pkg._metadata.get("LICENSE", ""), uselist=pkg.use.enabled, opconvert=False)),
        "properties": pkg._metadata.get("PROPERTIES", "").split(),
        "restrict": sorted(map(str, portage.dep.use_reduce(pkg._metadata.get("RESTRICT", ""), uselist=pkg.use.enabled, flat=True))),
        "use": sorted(flag for flag in pkg.use.enabled if flag in pkg.iuse.all),
        "iuse": sorted(pkg.iuse.all),
        "ebuild": digest(path),
        "eclasses": {name: digest(eclasses[name].location) for name in inherited if name in eclasses},
        "files": digest_tree(os.path.join(os.path.dirname(path), "files"), [repo.location + os.sep for repo in db.repositories]),
        "patches": user_patches(pkg, settings),
        "savedconfig": saved_config(pkg, settings),
        "bashrc": bashrcs(pkg, settings),
        "private": private(pkg, settings),
        "toolchain": toolchain(settings),
        "profile": profile_at(settings.profile_path or "", db.repositories),
        "features": features,
        "environment": environment(settings),
        "distfiles": distfiles(pkg, db, tree, path),
        "inputs": [path, *(eclasses[name].location for name in inherited if name in eclasses), os.path.dirname(path)],
    }
    own = list(troubles)
    identity_of(pkg, config)  # now, while the configuration is this package's
    return described, own


def with_needs(pkg, described, own_troubles, config, graph, needs):
    """And what it needs, and who needs it. Asks for the configuration of other packages."""
    troubles[:] = own_troubles
    edges = edges_of(pkg, graph)
    built_with = sorted({child for child, why in edges.items() if any(priority.buildtime for priority in why)}, key=str)
    more = {
        "dependencies": sorted(
            f"{child.cpv} {identity_of(child, config)}" for child in built_with if hasattr(child, "cpv")
        ),
        "layer": [str(other.cpv) for other in needs.inside(pkg)],
        "runtime": [str(other.cpv) for other in needs.beside(pkg)],
        # Its parents in the graph are packages, or the words of the command line. An update asks for what those need too
        # that are installed and stay.
        "asked": any(
            not hasattr(parent, "cpv") or ("--update" in config.opts and parent.installed and parent not in needs.order)
            for parent in graph.nodes.get(pkg, ({}, {}))[1]
        ),
    }
    return {**described, **more, "trouble": troubles[0] if troubles else None}


def edges_of(pkg, graph):
    """What a package needs, and why; no more than its own children are ever looked at."""
    return graph.nodes[pkg][0] if pkg in graph.nodes else {}


def is_wanted(why, kind):
    return any(getattr(priority, kind, False) or kind == "runtime" and priority.runtime_post for priority in why)


class Needs:
    """What packages of the plan need of each other.

    A plan of a thousand packages has as many walks through one graph, so what is needed to run is found once for each package,
    by one walk over all (Tarjan's: packages that need each other to run need the same), as a number with a bit a package.
    """

    def __init__(self, chosen, graph):
        self.chosen, self.graph = chosen, graph
        self.order = {pkg: at for at, pkg in enumerate(chosen)}
        self.running = {}

    def bit(self, pkg):
        return 1 << self.order[pkg] if pkg in self.order else 0

    def listed(self, bits):
        found = []
        while bits:
            lowest = bits & -bits
            found.append(self.chosen[lowest.bit_length() - 1])
            bits ^= lowest
        return found

    def inside(self, pkg):
        """What must be there when pkg is built: its build dependencies and what those need to run."""
        bits = 0
        for child, why in edges_of(pkg, self.graph).items():
            if is_wanted(why, "buildtime"):
                bits |= self.bit(child) | self.to_run(child)
        return self.listed(bits)

    def beside(self, pkg):
        """What pkg itself needs when it is installed."""
        bits = 0
        for child, why in edges_of(pkg, self.graph).items():
            if child is not pkg and any(not priority.buildtime or getattr(priority, "runtime", False) for priority in why):
                bits |= self.bit(child)
        return self.listed(bits)

    def to_run(self, start):
        """The packages of the plan that one needs to run, and those that these do."""
        if start in self.running:
            return self.running[start]
        # Tarjan's, without recursion: a chain of dependencies may be longer than Python's stack.
        number, low, open_, bits = {start: 0}, {start: 0}, [start], {start: 0}
        ahead = [(start, iter(edges_of(start, self.graph).items()))]
        while ahead:
            pkg, children = ahead[-1]
            for child, why in children:
                if not is_wanted(why, "runtime"):
                    continue
                bits[pkg] |= self.bit(child)
                if child in self.running:
                    bits[pkg] |= self.running[child]
                elif child in number:
                    low[pkg] = min(low[pkg], number[child])
                else:
                    number[child] = low[child] = len(number)
                    bits[child] = 0
                    open_.append(child)
                    ahead.append((child, iter(edges_of(child, self.graph).items())))
                    break
            else:
                ahead.pop()
                if low[pkg] == number[pkg]:
                    circle = [open_.pop()]
                    while circle[-1] is not pkg:
                        circle.append(open_.pop())
                    together = functools.reduce(lambda all_, other: all_ | bits[other], circle, 0)
                    self.running.update(dict.fromkeys(circle, together))
                if ahead:
                    parent = ahead[-1][0]
                    low[parent] = min(low[parent], low[pkg])
                    bits[parent] |= bits[pkg] if pkg not in self.running else self.running[pkg]
        return self.running[start]


def main():
    action, opts, files = parse_opts(["--pretend", "--quiet", "--oneshot", "--with-bdeps=y", *sys.argv[1:]], silent=True)
    config = load_emerge_config(action=action, args=files, opts=opts)
    config.opts = opts
    spinner = stdout_spinner()
    spinner.update = lambda *_arguments, **_options: None
    params = create_depgraph_params(opts, action)
    good, found, _favorites = backtrack_depgraph(
        config.target_config.settings, config.trees, opts, params, action, files, spinner
    )
    if not good:
        found.display_problems()
        json.dump({"error": "Portage finds no way to build this"}, answer)
        return
    graph = found._dynamic_config.digraph
    chosen = [
        pkg for pkg in found.altlist()
        if getattr(pkg, "type_name", "") == "ebuild" and pkg.operation == "merge"
    ]
    needs = Needs(chosen, graph)
    settings = config.target_config.settings
    header = ("ARCH", "CHOST", "CBUILD", "KERNEL", "ELIBC", "USERLAND", "ACCEPT_KEYWORDS", "USE_EXPAND",
              "USE_EXPAND_HIDDEN", "USE_EXPAND_IMPLICIT", "USE_EXPAND_UNPREFIXED", "IUSE_IMPLICIT")
    header = [*header, *(f"USE_EXPAND_VALUES_{name}" for name in settings.get("USE_EXPAND_IMPLICIT", "").split())]
    said = {
        "portage": portage.VERSION,
        "eula": sorted(settings._license_manager._expandLicenseToken("@EULA", None)),
        "inputs": [*settings.profiles, os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage")],
        "header": {name: settings[name] for name in header if settings.get(name)},
        "packages": [
            with_needs(pkg, *known, config, graph, needs)
            for pkg, known in [(pkg, describe(pkg, config)) for pkg in chosen]
        ],
    }
    # At once: piece by piece it is made by Python itself, which takes as long as all the rest.
    answer.write(json.dumps(said))


main()
answer.flush()
