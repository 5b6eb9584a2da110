# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="A source file that is kept under another name than upstream's"
HOMEPAGE="https://example.invalid/renamed"
SRC_URI="https://example.invalid/tags/${PV}.tar -> ${P}.tar"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
