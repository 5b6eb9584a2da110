"""What plan.py, emerge.py and capture.py begin with: which variables of the user reach an ebuild, a recipe and a domain.

Only what Portage, the profile or this list knows. So a token that somebody exports in make.conf is in no build and leaves
no machine, and a recipe does not depend on what no ebuild asks for.
"""

import os
import re

# Names the user lets through besides, by `[build] variables`; not for an ebuild itself.
USER_LETS_THROUGH = frozenset(os.environ.pop("PEERAGE_VARIABLES", "").split())

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
    PORTAGE_COMPRESS_EXCLUDE_SUFFIXES PORTAGE_COMPRESS_FLAGS PORTAGE_DOCOMPRESS_SIZE_LIMIT PORTAGE_STRIP_FLAGS PYTHON RANLIB
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


def reaches(name, settings):
    """Whether a variable that the user sets is one an ebuild may see."""
    if NEVER.search(name):
        return False
    if name in KNOWN or name in USER_LETS_THROUGH or name in environ_whitelist or FAMILIES.match(name):
        return True
    if name in expanded(settings):
        return True
    return any(name in settings.configdict[layer] for layer in ("defaults", "globals"))


def expanded(settings):
    return f"{settings.get('USE_EXPAND', '')} {settings.get('USE_EXPAND_UNPREFIXED', '')}".split()


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
        of_user = of_package_env | set(self.configdict["conf"])
        of_root.update(set(self.configdict["env.d"]) - of_user)
        return {
            name: value for name, value in environ(self).items() if name not in of_user or reaches(name, self)
        }

    config._grab_pkg_env, config.environ = grab_and_note, environ_that_may_reach


