# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="One C program: a source file with a plain https address"
HOMEPAGE="https://example.invalid/hello"
SRC_URI="https://example.invalid/${P}.tar"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
