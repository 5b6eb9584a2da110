# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="An ebuild of a repository without md5-cache: only Portage can say where its source is"
HOMEPAGE="https://example.invalid/uncached"
MY_P="${PN}-$(ver_rs 1 .)"
SRC_URI="https://example.invalid/${MY_P}.tar"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
