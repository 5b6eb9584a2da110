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

import portage  # noqa: E402  (after its environment was set)
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
# Whose files of the image become whose (_post_src_install_uid_fix): in a recipe where they are not what they are everywhere.
OWNERS = {"PORTAGE_USERNAME": "portage", "PORTAGE_GRPNAME": "portage", "PORTAGE_INST_UID": "0", "PORTAGE_INST_GID": "0"}
# PORTAGE_* of the environment says where Portage works; only these say how the image is made.
PORTAGE_IN_IMAGE = frozenset(
    """
    PORTAGE_COMPRESS PORTAGE_COMPRESS_FLAGS PORTAGE_COMPRESS_EXCLUDE_SUFFIXES PORTAGE_DOCOMPRESS_SIZE_LIMIT
    PORTAGE_STRIP_FLAGS
    """.split()
) | set(OWNERS)
NATIVE = ("-march=native", "-mcpu=native", "-mtune=native")


def in_recipe(name):
    """Whether a variable of an ebuild's environment may change the image, whoever set it."""
    if name in PLACES or name.startswith(("EMERGE_", "SANDBOX_", "BINPKG_", "CCACHE_", "DISTCC_")):
        return False
    if name.endswith("_proxy") or name.startswith("PORTAGE_") and name not in PORTAGE_IN_IMAGE:
        return False
    # Functions that Portage hands on are its own, and say the members of a set in any order.
    return not name.startswith(("BASH_FUNC_", "USE_EXPAND", "PROFILE_ONLY", "IUSE"))


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
        return {
            name: value for name, value in environ(self).items() if name not in of_user or reaches(name, self)
        }

    config._grab_pkg_env, config.environ = grab_and_note, environ_that_may_reach


# What stands in the way of describing the package that is looked at: its own trouble, and of nobody else.
troubles = []


def compiler(settings, name, fallback):
    """The command of CC or CXX as an ebuild finds it: set, with the CHOST in front, or plain."""
    try:
        said = shlex.split(settings.get(name, ""))
    except ValueError as error:
        troubles.append(f"{name}={settings[name]!r} is no command: {error}")
        said = settings[name].split()
    if said:
        return said
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
