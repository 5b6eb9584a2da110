//! A package of a real overlay, `dev-python/chevron` of guru: its source comes from its registry by the registry's own
//! client, is taken in under the overlay's own Manifest line, and is built.
//!
//! The ebuild says what the overlay's says, written anew; the eclasses it inherits are stand-ins that build with
//! setuptools, as the real ones need half of the Gentoo repository. Without the registry, and only then, nothing is
//! tested, and the test says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use crate::builder::{Builder, jobs, portage};
use crate::gentoo::Sums;
use crate::peer::{Start, both};
use crate::wait;

/// The line of guru's `dev-python/chevron/Manifest`.
const MANIFEST: &str = "DIST chevron-0.14.0.tar.gz 11440 BLAKE2B \
    a1ab4ae938a29008b654d300702aad0bef1e797b3de5d731d44b763fbfc7f14dd92fcaff274643f526361629c3cba70c0c6c4156a4ad5e359c110af93b91fd81 \
    SHA512 \
    e209a36b5c7eda4f4dedba0f07a63ef3067b90606a7bac61897ebe1c2f229239a6cf9d53d23880f2bf71a5d25772a3734bb74ce64686cbb87f9db49babb498a7\n";

const EBUILD: &str = r#"EAPI=8

DISTUTILS_USE_PEP517=setuptools
PYTHON_COMPAT=( python3_{12..13} )

inherit distutils-r1 pypi

DESCRIPTION="A Python implementation of mustache"
HOMEPAGE="https://github.com/noahmorrison/chevron"

LICENSE="MIT"
SLOT="0"
KEYWORDS="~amd64"
"#;

/// Where a source of this name and version is, as far as a test needs to know.
const PYPI: &str = "SRC_URI=\"https://example.invalid/source/${PN::1}/${PN}/${P}.tar.gz\"\n";

/// `python3` is that of the build; what setuptools installs goes where a Gentoo system has it.
const DISTUTILS: &str = r#"distutils-r1_src_compile() { python3 setup.py build || die; }
distutils-r1_src_install() {
	python3 setup.py install --skip-build --single-version-externally-managed --record="${T}/record" \
		--prefix=/usr --root="${D}" || die
}
EXPORT_FUNCTIONS src_compile src_install
"#;

/// `pip` of the private Portage. Nothing where the registry cannot be asked, and then says so.
fn pip(words: &[&str]) -> Option<()> {
    let mut command = Command::new(portage().join("bin/python3"));
    command.args(["-m", "pip"]).args(words).args([
        "--quiet",
        "--disable-pip-version-check",
        "--timeout=10",
        "--retries=1",
    ]);
    let output = wait::run(&mut command);
    if !output.status.success() {
        eprintln!("skipped: pip cannot ask its registry: pip {words:?}: {}", both(&output));
        return None;
    }
    Some(())
}

#[test]
fn a_package_of_a_real_overlay_is_built_from_what_its_registry_has() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let fetched = dir.path().join("fetched");
    let setuptools = dir.path().join("setuptools");
    let (fetched_text, setuptools_text) = (fetched.to_str().unwrap(), setuptools.to_str().unwrap());
    let asked = pip(&["download", "--no-deps", "--no-binary=chevron", "--dest", fetched_text, "chevron==0.14.0"])
        .and_then(|()| pip(&["install", "--no-deps", "--target", setuptools_text, "setuptools"]));
    if asked.is_none() {
        return;
    }
    let source = fetched.join("chevron-0.14.0.tar.gz");
    let Sums { size, blake2b, sha512 } = Sums::of_file(&source);
    let line = format!("DIST chevron-0.14.0.tar.gz {size} BLAKE2B {blake2b} SHA512 {sha512}\n");
    assert_eq!(line, MANIFEST, "the registry has what the overlay's Manifest names");

    machine.repo.write("profiles/categories", "app-misc\ndev-libs\ndev-python\n");
    machine.repo.write("dev-python/chevron/chevron-0.14.0-r1.ebuild", EBUILD);
    machine.repo.write("dev-python/chevron/Manifest", MANIFEST);
    machine.repo.write("eclass/pypi.eclass", PYPI);
    machine.repo.write("eclass/distutils-r1.eclass", DISTUTILS);
    machine.repo.write("licenses/MIT", "The MIT licence\n");
    machine.etc("package.accept_keywords/chevron", "dev-python/chevron ~amd64\n");
    machine.etc("env/setuptools", &format!("PYTHONPATH=\"{setuptools_text}\"\n"));
    machine.etc("package.env", "dev-python/chevron setuptools\n");
    let portage = portage();
    let portage = portage.display();
    let config = format!(
        "[build]\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\", \"{setuptools_text}\"]\n"
    );
    let peer = Start::new(dir.path())
        .config(&config)
        .repo(&machine.repo)
        .flag("--config-root", dir.path().join("root").to_str().unwrap())
        .start();
    let refused = peer.verb(&["build", "dev-python/chevron"]);
    assert_eq!(refused.status.code(), Some(1), "nobody has the source yet: {}", both(&refused));
    peer.import(&source);
    peer.holds_only(1);
    let said = peer.does(&["build", "dev-python/chevron"]);
    assert!(said.contains("built dev-python/chevron-0.14.0-r1"), "{said}");
    let job = jobs(&peer).into_iter().next().unwrap();
    assert_eq!(job["state"], "done", "{job}");
    works(&peer, dir.path());
    peer.must_verify();
}

/// The package that the binhost gives does what chevron is for.
fn works(peer: &crate::peer::TestPeer, dir: &Path) {
    let url = peer.status()["binhost"].as_str().unwrap().to_owned();
    let base = url.strip_prefix(&peer.url()).unwrap().to_owned();
    let index = peer.get(&format!("{base}/Packages")).text();
    let path = index.lines().find_map(|line| line.strip_prefix("PATH: ")).expect("the package is listed");
    let reply = peer.get(&format!("{base}/{path}"));
    let image = dir.join("image");
    fs::create_dir_all(&image).unwrap();
    let gpkg = dir.join("chevron.gpkg.tar");
    fs::write(&gpkg, &reply.body).unwrap();
    let unpack = "tar -xOf \"$1\" --wildcards '*/image.tar.zst' | zstd -dc | tar -xC \"$2\" --strip-components=1";
    let unpacked = wait::run(Command::new("bash").args(["-ec", unpack, "bash"]).arg(&gpkg).arg(&image));
    assert!(unpacked.status.success(), "{}", both(&unpacked));
    assert!(image.join("usr/bin/chevron").is_file(), "it installs its program");
    let run = "export PYTHONPATH=$(dirname \"$(find \"$1\" -type d -name chevron | head -n 1)\")\n\
               \"$2\" -c 'import chevron; print(chevron.render(\"{{word}} world\", {\"word\": \"hello\"}))'";
    let python = portage().join("bin/python3");
    let rendered = wait::run(Command::new("bash").args(["-ec", run, "bash"]).arg(&image).arg(python));
    assert_eq!(String::from_utf8_lossy(&rendered.stdout).trim(), "hello world", "{}", both(&rendered));
}
