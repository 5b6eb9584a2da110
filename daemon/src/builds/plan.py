"""Runs inside the sandbox: asks Portage's own resolver what building the atoms of the command line takes.

Writes one JSON object. Everything that can change what a build makes is in it, as Portage itself sees it; nothing that
differs between two machines with the same configuration (places, times, host names) is.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

import portage  # noqa: E402

portage._internal_caller = True
from _emerge.actions import load_emerge_config  # noqa: E402
from _emerge.create_depgraph_params import create_depgraph_params  # noqa: E402
from _emerge.depgraph import backtrack_depgraph  # noqa: E402
from _emerge.main import parse_opts  # noqa: E402
from _emerge.stdout_spinner import stdout_spinner  # noqa: E402

# Of the environment an ebuild gets: what names a place, a user or a moment of this machine, or cannot reach the image.
PLACES = frozenset(
    """
    BROOT D DISTDIR ECLASSDIR ED EROOT ESYSROOT EPREFIX FILESDIR HOME PATH PKGDIR PKG_TMPDIR PORTAGE_TMPDIR PORTDIR
    PORTDIR_OVERLAY PORTAGE_CONFIGROOT PORTAGE_REPOSITORIES PORTAGE_ACTUAL_DISTDIR PORTAGE_BUILDDIR ROOT SYSROOT T TEMP
    TMP TMPDIR WORKDIR PWD OLDPWD TERM TERMCAP DISPLAY LOGNAME USER USERNAME MAIL SHELL EDITOR PAGER LESS LESSOPEN
    MANPATH INFOPATH INFODIR CONFIG_PROTECT CONFIG_PROTECT_MASK MAKEOPTS NINJAOPTS GENTOO_MIRRORS ACCEPT_KEYWORDS
    ACCEPT_LICENSE ACCEPT_PROPERTIES ACCEPT_RESTRICT FETCHCOMMAND RESUMECOMMAND ROOTPATH EMERGE_DEFAULT_OPTS
    EMERGE_LOG_DIR NOCOLOR NO_COLOR COLUMNS LINES SANDBOX_LOG USE USE_ORDER FEATURES PORTAGE_FEATURES COLLISION_IGNORE
    PKGUSE UNINSTALL_IGNORE CLEAN_DELAY EMERGE_WARNING_DELAY AUTOCLEAN DCO_SIGNED_OFF_BY SSH_AGENT_PID SSH_AUTH_SOCK
    SIGNED_OFF_BY TWISTED_DISABLE_WRITING_OF_PLUGIN_CACHE UNCACHED_ERR_FD INSTALL_MASK_ENV QA_INTERCEPTORS
    ALL_DEPEND BDEPEND FAKEROOTDONTTRYCHOWN DEPEND RDEPEND PDEPEND IDEPEND MERGE_TYPE EMERGE_FROM EBUILD EBUILD_PHASE CPV REPO_REVISIONS
    DEFINED_PHASES EAPI HOMEPAGE INHERIT INHERITED KEYWORDS LANG LICENSE PROPERTIES REQUIRED_USE RESTRICT RPMDIR SLOT
    SRC_URI GPG_VERIFY_GROUP_DROP GPG_VERIFY_USER_DROP A AA CATEGORY P PN PV PR PF PVR
    """.split()
)
# PORTAGE_* of the environment says where Portage works; only these say how the image is made.
PORTAGE_IN_IMAGE = frozenset(
    "PORTAGE_COMPRESS PORTAGE_COMPRESS_FLAGS PORTAGE_COMPRESS_EXCLUDE_SUFFIXES PORTAGE_DOCOMPRESS_SIZE_LIMIT".split()
)
# FEATURES that change what lands in the image.
FEATURES_IN_IMAGE = frozenset(
    """
    binpkg-docompress binpkg-dostrip compressdebug dedupdebug installsources nodoc noinfo noman nostrip splitdebug test
    xattr
    """.split()
)
# What Portage records of an installed package (__dyn_install) that says how it was made, whatever its ebuild exports.
RECORDED = ("CFLAGS", "CXXFLAGS", "LDFLAGS", "CHOST", "EXTRA_ECONF")
NATIVE = ("-march=native", "-mcpu=native", "-mtune=native")
CHUNK = 1 << 20


def digest(path):
    total = hashlib.blake2b()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def digest_tree(top):
    """Digest of names, contents and x bits below a directory, or of a file; None when there is nothing to read."""
    if os.path.isfile(top):
        return digest(top)
    if not os.path.isdir(top):
        return None
    found = []
    for folder, _folders, names in os.walk(top):
        for path in (os.path.join(folder, name) for name in names):
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


def compiler(settings, name, fallback):
    """The command of CC or CXX as an ebuild finds it: set, with the CHOST in front, or plain."""
    if settings.get(name):
        return shlex.split(settings[name])
    prefixed = f"{settings.get('CHOST', '')}-{fallback}"
    found = portage.process.find_binary(prefixed)
    return [prefixed if found else fallback]


native_meaning = {}


def resolved(flags, settings):
    """The flags with each `native` as what this compiler makes of it on this processor."""
    if "=native" not in flags:
        return flags
    words = []
    for word in flags.split():
        if word in NATIVE:
            words += native(word, settings)
        elif word.endswith("target-cpu=native"):
            # rustc's: the C compiler tells processors apart as finely.
            words.append(word.removesuffix("native") + ",".join(native("-march=native", settings)))
        else:
            words.append(word)
    return " ".join(words)


def native(word, settings):
    command = tuple(compiler(settings, "CC", "gcc"))
    if (command, word) not in native_meaning:
        native_meaning[command, word] = ask_native(command, word)
    return native_meaning[command, word]


def ask_native(command, word):
    """The options that the compiler proper is given for a word: gcc's `cc1`, or clang itself with `-cc1`."""
    ended = subprocess.run(
        [*command, word, "-E", "-v", "-x", "c", "/dev/null"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20, check=False,
    )
    for line in ended.stderr.decode("utf-8", "replace").splitlines():
        words = line.replace('"', "").split()
        if not words or not (os.path.basename(words[0]) == "cc1" or "-cc1" in words[1:]):
            continue
        kept, it = [], iter(words[1:])
        for meaning in it:
            if meaning in ("--param", "-target-cpu", "-tune-cpu", "-target-feature"):
                kept.append(f"{meaning}={next(it, '')}")
            elif meaning.startswith(("-march=", "-mcpu=", "-mtune=", "-mabi=", "--param=")):
                kept.append(meaning)
            elif meaning.startswith("-m") and "-cc1" not in words:
                kept.append(meaning)
        return kept
    raise SystemExit(f"{' '.join(command)} does not say what {word} means: give the processor by name in make.conf")


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
            tools[f"ld.{linker}"] = version(f"ld.{linker}", "--version")
    return {name: line for name, line in tools.items() if line}


def environment(pkg, settings):
    """What the ebuild's environment says that may change the image."""
    kept = {}
    for name, value in settings.environ().items():
        place = name in PLACES or name.startswith(("EMERGE_", "SANDBOX_", "BINPKG_", "CCACHE_", "DISTCC_"))
        # Functions that Portage hands on are its own, and say the members of a set in any order.
        if not value or place or name.endswith("_proxy") or name.startswith("BASH_FUNC_"):
            continue
        if name.startswith("PORTAGE_") and name not in PORTAGE_IN_IMAGE:
            continue
        if name.startswith(("USE_EXPAND", "PROFILE_ONLY", "IUSE")):
            continue
        kept[name] = resolved(value, settings)
    return kept


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


def identity_of(pkg, config):
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


known_settings = {}


def settings_of(pkg, config):
    if pkg not in known_settings:
        db = config.trees[pkg.root]["porttree"].dbapi
        settings = portage.config(clone=config.trees[pkg.root]["root_config"].settings)
        settings.setcpv(pkg)
        path, _tree = db.findname2(pkg.cpv, myrepo=pkg.repo)
        settings["EBUILD"] = path
        known_settings[pkg] = settings
    return known_settings[pkg]


def profile_of(settings, db):
    """The profile as REPOSITORY:PATH where it lies in one, and the digests of the bashrc files of it and of the user."""
    top = settings.profile_path or ""
    name = os.path.basename(top)
    for repo in db.repositories:
        inside = os.path.join(os.path.realpath(repo.location), "profiles") + os.sep
        if os.path.realpath(top).startswith(inside):
            name = f"{repo.name}:{os.path.realpath(top)[len(inside):]}"
    return name


def bashrcs(pkg, settings):
    """Digests of what is sourced before the ebuild, in that order (__source_all_bashrcs of ebuild.sh)."""
    user = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage")
    hooks = os.path.join(user, "env", pkg.category)
    name = pkg.cpv.cp.split("/")[1]
    paths = [
        *settings._pbashrc,
        os.path.join(user, "bashrc"),
        # Not Portage's own: where bashrc files that source others have them.
        os.path.join(user, "bashrc.d"),
        *(os.path.join(hooks, script) for script in (name, f"{name}:{pkg.slot}", without_revision(pkg), pkg.pf)),
    ]
    return [total for path in dict.fromkeys(paths) if (total := digest_tree(path))]


def without_revision(pkg):
    name, version, _revision = portage.versions.catpkgsplit(pkg.cpv)[1:]
    return f"{name}-{version}"


def user_patches(pkg, settings):
    """Digests of the user's patches, from each place where eapply_user looks (phase-helpers.sh)."""
    top = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage/patches", pkg.category)
    name, version, revision = portage.versions.catpkgsplit(pkg.cpv)[1:]
    places = [name, f"{name}-{version}", f"{name}-{version}-{revision}"]
    names = [f"{place}{suffix}" for place in places for suffix in ("", f":{pkg.slot}")]
    return {name: total for name in names if (total := digest_tree(os.path.join(top, name)))}


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


def describe(pkg, config, graph, chosen):
    db = config.trees[pkg.root]["porttree"].dbapi
    path, tree = db.findname2(pkg.cpv, myrepo=pkg.repo)
    settings = settings_of(pkg, config)
    inherited = pkg._metadata.get("INHERITED", "").split() or sorted(pkg.inherited)
    eclasses = db.repositories.get_repo_for_location(tree).eclass_db.eclasses
    edges = graph.nodes[pkg][0] if pkg in graph.nodes else {}
    built_with = sorted({child for child, why in edges.items() if any(priority.buildtime for priority in why)}, key=str)
    features = sorted(name for name in FEATURES_IN_IMAGE if name in settings.features)
    return {
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
        "files": digest_tree(os.path.join(os.path.dirname(path), "files")),
        "patches": user_patches(pkg, settings),
        "bashrc": bashrcs(pkg, settings),
        "toolchain": toolchain(settings),
        "profile": profile_of(settings, db),
        "features": features,
        "environment": environment(pkg, settings),
        "distfiles": distfiles(pkg, db, tree, path),
        "dependencies": sorted(
            f"{child.cpv} {identity_of(child, config)}" for child in built_with if hasattr(child, "cpv")
        ),
        "layer": [str(other.cpv) for other in chosen if other in needed_inside(pkg, graph, chosen)],
        "runtime": [str(other.cpv) for other in chosen if other is not pkg and any(not priority.buildtime or getattr(priority, "runtime", False) for priority in edges.get(other, ()))],
        # Its parents in the graph are packages, or the words of the command line. An update asks for what those need too
        # that are installed and stay.
        "asked": any(
            not hasattr(parent, "cpv") or ("--update" in config.opts and parent.installed and parent not in chosen)
            for parent in graph.nodes.get(pkg, ({}, {}))[1]
        ),
        "inputs": [path, *(eclasses[name].location for name in inherited if name in eclasses), os.path.dirname(path)],
    }


def needed_inside(pkg, graph, chosen):
    """What of this plan must be there when pkg is built: its build dependencies and what those need to run."""
    found, ahead = set(), [(pkg, "buildtime")]
    while ahead:
        parent, kind = ahead.pop()
        for child, why in (graph.nodes[parent][0] if parent in graph.nodes else {}).items():
            wanted = any(getattr(priority, kind, False) or kind == "runtime" and priority.runtime_post for priority in why)
            if wanted and child not in found:
                found.add(child)
                ahead.append((child, "runtime"))
    return found & set(chosen)


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
    settings = config.target_config.settings
    header = ("ARCH", "CHOST", "CBUILD", "KERNEL", "ELIBC", "USERLAND", "ACCEPT_KEYWORDS", "USE_EXPAND",
              "USE_EXPAND_HIDDEN", "USE_EXPAND_IMPLICIT", "USE_EXPAND_UNPREFIXED", "IUSE_IMPLICIT")
    header = [*header, *(f"USE_EXPAND_VALUES_{name}" for name in settings.get("USE_EXPAND_IMPLICIT", "").split())]
    json.dump(
        {
            "portage": portage.VERSION,
            "eula": sorted(settings._license_manager._expandLicenseToken("@EULA", None)),
            "inputs": [*settings.profiles, os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage")],
            "header": {name: settings[name] for name in header if settings.get(name)},
            "packages": [describe(pkg, config, graph, chosen) for pkg in chosen],
        },
        answer,
    )


main()
answer.flush()
