# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="A source file large enough to watch it travel"
HOMEPAGE="https://example.invalid/large"
SRC_URI="https://example.invalid/${P}.bin"
S="${WORKDIR}"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
