"""What plan.py, emerge.py and capture.py begin with: which variables of the user reach an ebuild, a recipe and a domain.

Only what Portage, the profile or this list knows. So a token that somebody exports in make.conf is in no build and leaves
no machine, and a recipe does not depend on what no ebuild asks for.
"""

import os
import re
import shlex
import subprocess

# Names the user lets through besides, by `[build] variables`; not for an ebuild itself.
USER_LETS_THROUGH = frozenset(os.environ.pop("PEERAGE_VARIABLES", "").split())
# Whether the configuration is another machine's: then nothing of it reaches an ebuild that its recipe does not name.
FOREIGN = bool(os.environ.pop("PEERAGE_FOREIGN", ""))
# What the recipe of another machine's package names, once there is one and it is built; until then what a recipe would name.
OF_RECIPE = os.environ.pop("PEERAGE_RECIPE", None)
OF_RECIPE = None if OF_RECIPE is None else frozenset(OF_RECIPE.split())

import portage  # noqa: E402  (after its environment was set)
import portage.util  # noqa: E402
from portage.package.ebuild._config.special_env_vars import environ_whitelist  # noqa: E402

# What ebuilds and eclasses take from a user (make.conf(5), toolchain-funcs, cmake, meson, cargo, go, python eclasses).
KNOWN = frozenset(
    """
    ADAFLAGS AR ARCH AS ASFLAGS AWK BUILD_AR BUILD_AS BUILD_CC BUILD_CFLAGS BUILD_CPP BUILD_CPPFLAGS BUILD_CXX
    BUILD_CXXFLAGS BUILD_LD BUILD_LDFLAGS BUILD_NM BUILD_OBJCOPY BUILD_PKG_CONFIG BUILD_RANLIB BUILD_STRIP CBUILD CC CCAS
    CCASFLAGS CCLD CFLAGS CGO_CFLAGS CGO_CPPFLAGS CGO_CXXFLAGS CGO_ENABLED CGO_FFLAGS CGO_LDFLAGS CHOST COMMON_FLAGS CPP
    CPPFLAGS CTARGET CXX CXXCPP CXXFLAGS DC DFLAGS DISTUTILS_USE_PEP517 DLLTOOL DOC_SYMLINKS_DIR DMDFLAGS ENV_UNSET EPYTHON
    EXTRA_ECONF EXTRA_EINSTALL EXTRA_EMAKE F77 F77FLAGS F90 FC FCFLAGS FEATURES FFLAGS GDCFLAGS GNATMAKE GO386 GOAMD64 GOARM
    GOARM64 GOFLAGS GOMIPS GOMIPS64 GOPPC64 GORISCV64 HOSTCC HOSTCXX INSTALL_MASK I_KNOW_WHAT_I_AM_DOING KBUILD_OUTPUT
    KERNEL_DIR L10N LANG LD LDCFLAGS LDFLAGS LEX LINGUAS M4 MAKEFLAGS MAKEOPTS MYCMAKEARGS MYMESONARGS NINJA NINJAFLAGS
    NINJAOPTS NM OBJC OBJCFLAGS OBJCOPY OBJCXX OBJCXXFLAGS OBJDUMP PKG_CONFIG PKG_INSTALL_MASK PORTAGE_COMPRESS
    PORTAGE_COMPRESS_EXCLUDE_SUFFIXES PORTAGE_COMPRESS_FLAGS PORTAGE_DOCOMPRESS_SIZE_LIMIT PORTAGE_GRPNAME PORTAGE_INST_GID
    PORTAGE_INST_UID PORTAGE_STRIP_FLAGS PORTAGE_USERNAME PYTHON RANLIB
    RC READELF RUSTC RUSTDOCFLAGS RUSTFLAGS SED SIZE SOURCE_DATE_EPOCH STRINGS STRIP STRIP_MASK TEST_VERBOSE TZ USE VALAFLAGS
    WANT_AUTOCONF WANT_AUTOMAKE WINDRES YACC YFLAGS
    """.split()
)
# Families of them: one name a tool, a library folder, a version or a test.
FAMILIES = re.compile(
    r"(ABI|CCACHE|CDEFINE|CFLAGS|CHOST|CMAKE|CPPFLAGS|CTARGET|CXXFLAGS|DISTCC|FFLAGS|FCFLAGS|LC|LDFLAGS|LIBDIR|LLVM|LUA|MESON"
    r"|MULTILIB|PHP|PYTHON|QA|QEMU|RUBY|USE_EXPAND|(ac|am|gl|gt|lt|mr)_cv)_\w+$"
)
# Never, whoever knows them: what holds a secret by its name, and what is an address or a command that may hold one.
NEVER = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_KEY$|_PROXY$|^(FETCH|RESUME)COMMAND|BINHOST|^GENTOO_MIRRORS$|MAILURI"
    r"|_GPG_|^GPG_|^PORTAGE_(RSYNC|SSH|SOCKS)",
    re.IGNORECASE,
)


def listed(text):
    """The sections of names.txt."""
    sections, words = {}, []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            words = sections.setdefault(line.strip("[]"), [])
        else:
            words += line.split()
    return {name: tuple(words) for name, words in sections.items()}


LISTED = listed(NAMES)
UNNAMED, PORTAGE_IN_IMAGE = frozenset(LISTED["unnamed"]), frozenset(LISTED["portage in image"])
NEVER_FOREIGN, CHOOSES = frozenset(LISTED["never foreign"]), frozenset(LISTED["chooses"])
FEATURES_IN_IMAGE = frozenset(LISTED["features in image"])
# Whose files of the image become whose (_post_src_install_uid_fix): in a recipe where they are not what they are everywhere.
OWNERS = {"PORTAGE_USERNAME": "portage", "PORTAGE_GRPNAME": "portage", "PORTAGE_INST_UID": "0", "PORTAGE_INST_GID": "0"}
NATIVE = ("-march=native", "-mcpu=native", "-mtune=native")


def in_recipe(name):
    """Whether a variable of an ebuild's environment may change the image, whoever set it."""
    if name in UNNAMED or name.startswith(LISTED["unnamed begins"]) or name.endswith(LISTED["unnamed ends"]):
        return False
    return not name.startswith("PORTAGE_") or name in PORTAGE_IN_IMAGE


def may_be_foreign(name):
    """Whether another machine's configuration may set a variable: domain_names.rs decides the same by the same list."""
    if name in CHOOSES:
        return True
    if name in NEVER_FOREIGN or name.startswith(LISTED["never foreign begins"]):
        return False
    # How Python starts: PYTHON itself and PYTHON_TARGETS are what ebuilds ask for.
    python = name.removeprefix("PYTHON") if name.startswith("PYTHON") else ""
    return in_recipe(name) and (not python or python.startswith("_"))


def reaches(name, settings):
    """Whether a variable that the user sets is one an ebuild may see."""
    if NEVER.search(name) or FOREIGN and not in_recipe(name):
        return False
    if name in KNOWN or name in USER_LETS_THROUGH or name in environ_whitelist or FAMILIES.match(name):
        return True
    if name in expanded(settings):
        return True
    return any(name in settings.configdict[layer] for layer in ("defaults", "globals"))


def expanded(settings):
    return f"{settings.get('USE_EXPAND', '')} {settings.get('USE_EXPAND_UNPREFIXED', '')}".split()


# The environment that the node gives to Portage.
said_by_node = frozenset(os.environ)
# What files of package.env set; Portage keeps these among what it sets itself.
of_package_env = set()
# In /etc/profile.env: what packages of this root say, not its user.
of_root = set()


def keep_the_rest_out():
    """From now on Portage gives an ebuild only what may reach it."""
    config = portage.config
    grab, environ = config._grab_pkg_env, config.environ

    def grab_and_note(self, penv, container, protected_keys=None):
        before = dict(container)
        grab(self, penv, container, protected_keys=protected_keys)
        of_package_env.update(name for name in container if container[name] != before.get(name))

    def environ_that_may_reach(self):
        # What the node says wins over the user's word, and the last ones Portage makes of several.
        of_user = (of_package_env | set(self.configdict["conf"])) - said_by_node - {"USE", "FEATURES"}
        of_root.update(set(self.configdict["env.d"]) - of_user)
        given = {
            name: value for name, value in environ(self).items() if name not in of_user or reaches(name, self)
        }
        return as_the_recipe_says(self, given) if FOREIGN else given

    config._grab_pkg_env, config.environ = grab_and_note, environ_that_may_reach


of_make_defaults = {}


def set_by_profiles(settings):
    """Names that the make.defaults of profiles set: of those in repositories, and of those that are the configuration's own."""
    if settings.profiles not in of_make_defaults:
        of_repositories, own = set(), set()
        for place in settings.profiles:
            path = os.path.join(place, "make.defaults")
            names = portage.util.getconfig(path, tolerant=True, expand=False, recursive=True) if os.path.exists(path) else {}
            (of_repositories if profile_in_repository(place, settings.repositories) else own).update(names or ())
        of_make_defaults[settings.profiles] = of_repositories, own
    return of_make_defaults[settings.profiles]


def as_the_recipe_says(settings, given):
    """The environment of another machine's ebuild: of what that machine's files set, in whatever way, only what its recipe
    names. The rest is the node's or Portage's own."""
    of_repositories, of_domain = set_by_profiles(settings)
    of_domain = (of_domain | of_package_env | set(settings.configdict["conf"]) | CHOOSES) - said_by_node
    if "LC_ALL" in of_domain:
        # Portage makes the others of it, for the phases of an ebuild.
        of_domain |= {name for name in given if name.startswith("LC_")}
    # What an ebuild says of itself does not depend on who asks, and there is no recipe yet that could name anything.
    asked_for_metadata = settings.get("EBUILD_PHASE") == "depend"

    def may(name, value):
        if name not in of_domain or name in ("USE", "FEATURES"):
            return name != "PKGUSE"
        if asked_for_metadata or not may_be_foreign(name) or name in CHOOSES:
            return False
        if not value:
            # A recipe does not tell what is empty from what is not there: it is only taken away, and never set.
            return name in of_repositories or name in settings.configdict["globals"]
        of_all = name.startswith("LC_") and "LC_ALL" in (OF_RECIPE or ())
        return OF_RECIPE is None or name in OF_RECIPE or of_all or OWNERS.get(name) == value

    return {name: value for name, value in given.items() if may(name, value)}


# What stands in the way of describing the package that is looked at: its own trouble, and of nobody else.
troubles = []


def compiler(settings, name, fallback):
    """The command of CC or CXX as an ebuild finds it: set, with the CHOST in front, or plain."""
    try:
        said = shlex.split(settings.get(name, ""))
    except ValueError as error:
        troubles.append(f"{name}={settings[name]!r} is no command: {error}")
        said = settings[name].split()
    if said and FOREIGN:
        # Asked for its name and version before there is a recipe: what else stands there would run as it likes.
        if COMPILER.fullmatch(said[0]):
            return said[:1]
        troubles.append(f"{name}={settings[name]!r} of another machine is no compiler that is known here")
        return ["false"]
    if said:
        return said
    prefixed = f"{settings.get('CHOST', '')}-{fallback}"
    found = portage.process.find_binary(prefixed)
    return [prefixed if found else fallback]


native_meaning = {}
# What may be run of another machine's CC and CXX: a compiler of this machine, found by its name.
COMPILER = re.compile(r"([A-Za-z0-9_]+-)*(cc|c\+\+|gcc|g\+\+|clang|clang\+\+|icx|icpx|tcc|pcc)(-[0-9][0-9.]*)?")


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
    if FOREIGN:
        troubles.append(f"{word} of another machine: what it means there was to be said by it")
        return [word]
    command = tuple(compiler(settings, "CC", "gcc"))
    if (command, word) not in native_meaning:
        native_meaning[command, word] = ask_native(command, word)
    meaning = native_meaning[command, word]
    if isinstance(meaning, str):
        troubles.append(meaning)
        return [word]
    return meaning


def ask_native(command, word):
    """The options that the compiler proper is given for a word: gcc's `cc1`, or clang itself with `-cc1`. Text, when it does
    not say."""
    try:
        ended = subprocess.run(
            [*command, word, "-E", "-v", "-x", "c", "/dev/null"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20, check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)} cannot be asked what {word} means: {getattr(error, 'strerror', None) or error}"
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
    return f"{' '.join(command)} does not say what {word} means: give the processor by name in make.conf"


def environment(settings):
    """What the ebuild's environment says that may change the image: what a recipe names."""
    kept = {}
    for name, value in settings.environ().items():
        if not value or not in_recipe(name) or OWNERS.get(name) == value:
            continue
        # What packages put into /etc/env.d: those it needs are among the dependencies, and the others are none of its.
        if name in of_root and not reaches(name, settings):
            continue
        kept[name] = resolved(value, settings)
    return kept


def files_below(top, within=None):
    """Every file below a directory: links to directories are followed, round ones once, and with `within` only if they stay
    in one of those."""
    seen, ahead = set(), [top]
    while ahead:
        folder = ahead.pop()
        real = os.path.realpath(folder) + os.sep
        if real in seen or within is not None and not any(real.startswith(place) for place in within):
            continue
        seen.add(real)
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                ahead.append(path)
            else:
                yield path


def profile_in_repository(place, repositories):
    """A directory as REPOSITORY:PATH, or nothing when it is no profile of a repository."""
    place = os.path.realpath(place)
    for repo in repositories:
        inside = os.path.join(os.path.realpath(repo.location), "profiles") + os.sep
        if (place + os.sep).startswith(inside):
            return f"{repo.name}:{place[len(inside):]}"
    return ""
