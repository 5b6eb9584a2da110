//! Binary packages built by Portage itself, read by this crate, and what this crate writes, read by Portage.
//!
//! `PEERAGE_PORTAGE` and `PEERAGE_PYTHON` name the private Portage; without it nothing is compared, which only CI takes as a
//! failure.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use tree::digest::Digest;
use tree::gpkg::Gpkg;
use tree::gpkg_write::{GpkgSigner, rewrite};
use tree::image::{Image, ImageKind};
use tree::packages::{PackageEntry, PackageFile, PackagesIndex};

const EBUILD: &str = r#"EAPI=8
DESCRIPTION="Everything that an image can have"
HOMEPAGE="https://example.invalid/many"
LICENSE="Example"
SLOT="0/1"
KEYWORDS="amd64"
IUSE="+color debug"
S="${WORKDIR}"
RDEPEND="color? ( app-misc/other )
	!app-misc/less"
src_install() {
	dodir /usr/bin
	echo one > "${ED}/usr/bin/one" || die
	ln "${ED}/usr/bin/one" "${ED}/usr/bin/a-link" || die
	ln "${ED}/usr/bin/one" "${ED}/usr/bin/z-link" || die
	ln -s ../bin/one "${ED}/usr/bin/soft" || die
	chmod 4755 "${ED}/usr/bin/one" || die
	mkfifo "${ED}/usr/pipe" || die
	printf ü > "${ED}/usr/bin/ü" || die
	local long=$(printf 'x%.0s' {1..120})
	dodir /usr/${long}/${long}
	echo long > "${ED}/usr/${long}/${long}/${long}" || die
	ln -s "/usr/${long}/${long}/${long}" "${ED}/usr/longlink" || die
}
"#;

/// A private Portage and the packages it builds from one ebuild.
struct Portage {
    dir: tempfile::TempDir,
    portage: PathBuf,
    python: PathBuf,
}

impl Portage {
    /// Nothing where there is no Portage.
    #[expect(clippy::disallowed_methods, reason = "tests may read the environment")]
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    fn new() -> Option<Self> {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let (Some(portage), Some(python)) = (named("PEERAGE_PORTAGE"), named("PEERAGE_PYTHON")) else {
            assert!(std::env::var_os("CI").is_none(), "PEERAGE_PORTAGE names no Portage, and this is CI");
            println!("skipped: PEERAGE_PORTAGE does not name a Portage");
            return None;
        };
        let dir = tempfile::tempdir().expect("a test can write");
        let repo = dir.path().join("repo");
        fs::create_dir_all(repo.join("app-misc/many")).expect("a test can write");
        fs::write(repo.join("app-misc/many/many-1.0.ebuild"), EBUILD).expect("a test can write");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/repo");
        for name in ["profiles", "metadata", "licenses"] {
            let status = Command::new("cp").arg("-r").arg(example.join(name)).arg(&repo).status().expect("cp runs");
            assert!(status.success());
        }
        // Its md5-cache is about other ebuilds.
        fs::remove_dir_all(repo.join("metadata/md5-cache")).expect("the example has one");
        Some(Self { dir, portage, python })
    }

    #[expect(clippy::disallowed_methods, reason = "tests may start processes")]
    fn run(&self, features: &str, arguments: &[&str]) {
        let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/portage"))
            .arg(self.dir.path())
            .args(arguments)
            .env("PEERAGE_PORTAGE", &self.portage)
            .env("REPOS", self.dir.path().join("repo"))
            .env("FEATURES", features)
            .env_remove("PYTHONPATH")
            .output()
            .expect("the shell runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} failed:\n{said}");
    }

    /// Builds the ebuild once more; returns the package's path.
    fn build(&self, number: u32) -> PathBuf {
        self.run("-strict", &["emerge", "--color=n", "--buildpkgonly", "--nodeps", "app-misc/many"]);
        self.dir.path().join(format!("binpkgs/app-misc/many/many-1.0-{number}.gpkg.tar"))
    }

    #[expect(clippy::disallowed_methods, reason = "tests may start processes")]
    fn ask(&self, command: &str, path: &Path) -> Result<String, String> {
        let output = Command::new(&self.python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binpkg_answers.py"))
            .arg(command)
            .arg(path)
            .env("PYTHONIOENCODING", "utf-8")
            .output()
            .expect("the Python of PEERAGE_PYTHON starts");
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).expect("answers in UTF-8"))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    #[expect(clippy::disallowed_methods, reason = "tests may write files")]
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("a test can write");
        path
    }
}

fn read(path: &Path) -> Gpkg {
    Gpkg::read(File::open(path).expect("the package is there")).expect("what Portage built is a gpkg")
}

fn image_of(path: &Path) -> Image {
    Image::read(File::open(path).expect("the package is there"), &read(path)).expect("its image is one")
}

/// Signs with words instead of keys: Portage reads such a package where it was told not to look at signatures.
struct Words;

impl GpkgSigner for Words {
    fn detached(&mut self, content: &mut dyn Read) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(format!("signature of {}", Digest::of(&bytes)).into_bytes())
    }

    fn clear(&mut self, text: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
        Ok(format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}-----BEGIN PGP SIGNATURE-----\n\nwords\n\
             -----END PGP SIGNATURE-----\n"
        ))
    }
}

#[test]
fn what_portage_built_reads_as_portage_and_tarfile_read_it() {
    let Some(portage) = Portage::new() else { return };
    let path = portage.build(1);
    let gpkg = read(&path);
    assert_eq!((gpkg.basename.as_str(), gpkg.signed), ("many-1.0-1", false));
    assert_eq!(gpkg.metadata.cpv().expect("it says so").to_string(), "app-misc/many-1.0");
    assert_eq!((gpkg.metadata.slot(), gpkg.metadata.build_id()), ("0/1", Some(1)));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ours: String = gpkg.metadata.iter().map(|(key, value)| format!("{key}\t{}\n", hex(value))).collect();
    assert_eq!(ours, portage.ask("verify", &path).expect("Portage takes its own package"));

    let image = image_of(&path);
    assert_eq!(format!("{}\n", image.digest()), portage.ask("image", &path).expect("tarfile reads it"));
    let entries: BTreeMap<&[u8], _> = image.entries().collect();
    assert_eq!(entries[&b"usr/bin/a-link"[..]].mode, 0o4755);
    assert!(matches!(entries[&b"usr/bin/a-link"[..]].kind, ImageKind::File { size: 4, .. }));
    let target = ImageKind::HardLink { target: b"usr/bin/a-link".to_vec() };
    assert!([&b"usr/bin/one"[..], b"usr/bin/z-link"].iter().all(|path| entries[path].kind == target));
    assert_eq!(entries[&b"usr/pipe"[..]].kind, ImageKind::Fifo);
    assert!(entries.contains_key("usr/bin/ü".as_bytes()) && entries.contains_key(&b""[..]));
    let long = "x".repeat(120);
    let long = format!("usr/{long}/{long}/{long}");
    assert!(entries.contains_key(long.as_bytes()), "names longer than ustar's");
    assert_eq!(entries[&b"usr/longlink"[..]].kind, ImageKind::SymbolicLink { target: format!("/{long}").into_bytes() });
}

#[test]
fn two_builds_differ_as_files_and_are_one_image() {
    let Some(portage) = Portage::new() else { return };
    let (first, second) = (portage.build(1), portage.build(2));
    assert_ne!(fs::read(&first).expect("it is there"), fs::read(&second).expect("it is there"));
    assert_eq!(image_of(&first).digest(), image_of(&second).digest());
    assert_eq!(image_of(&first).differences(&image_of(&second), 10), []);
}

#[test]
fn what_is_written_anew_is_the_same_package_to_portage() {
    let Some(portage) = Portage::new() else { return };
    let path = portage.build(1);
    let gpkg = read(&path);
    let mut stripped = Vec::new();
    rewrite(File::open(&path).expect("it is there"), &gpkg, &mut stripped, None).expect("it is written");
    let mut signed = Vec::new();
    rewrite(
        Cursor::new(&stripped),
        &read(&portage.write("stripped.gpkg.tar", &stripped)),
        &mut signed,
        Some(&mut Words),
    )
    .expect("it is written");
    let mut again = Vec::new();
    let signed_path = portage.write("signed.gpkg.tar", &signed);
    assert!(read(&signed_path).signed);
    rewrite(Cursor::new(&signed), &read(&signed_path), &mut again, None).expect("it is written");
    assert_eq!(again, stripped, "signing and stripping leaves no trace");

    let stripped_path = portage.write("stripped.gpkg.tar", &stripped);
    let verified = portage.ask("verify", &path).expect("Portage takes its own package");
    assert_eq!(portage.ask("verify", &stripped_path).expect("Portage takes ours"), verified);
    assert_eq!(image_of(&stripped_path).digest(), image_of(&path).digest());
    assert_eq!(image_of(&signed_path).digest(), image_of(&path).digest());

    let place = stripped.windows(8).rposition(|bytes| bytes == b"Manifest").expect("it has one");
    stripped[place - 700] ^= 1;
    let broken = portage.write("broken.gpkg.tar", &stripped);
    assert!(Gpkg::read(File::open(&broken).expect("it is there")).is_err());
    assert!(portage.ask("verify", &broken).is_err(), "Portage's check is a check");
}

#[test]
fn the_index_is_the_one_that_emaint_writes() {
    let Some(portage) = Portage::new() else { return };
    let paths = [portage.build(1), portage.build(2)];
    for name in ["Packages", "Packages.gz"] {
        fs::remove_file(portage.dir.path().join("binpkgs").join(name)).expect("Portage wrote it");
    }
    portage.run("", &["emaint", "binhost", "--fix"]);
    let theirs = fs::read_to_string(portage.dir.path().join("binpkgs/Packages")).expect("emaint wrote it");
    let parsed = PackagesIndex::parse(theirs.as_bytes()).expect("it is small");
    assert_eq!(parsed.to_string(), theirs, "what is read is written the same");

    let made = paths.iter().map(|path| entry(path, &parsed)).collect();
    let ours = PackagesIndex::new(parsed.header(), parsed.timestamp().expect("it has one"), made);
    assert_eq!(ours.to_string(), theirs);
    let asked = portage.ask("index", &portage.write("Packages", ours.to_string().as_bytes())).expect("it reads");
    assert_eq!(asked.matches("CPV\tapp-misc/many-1.0\n").count(), 2, "{asked}");
}

/// The entry for a package; its MD5 and SHA1, which this crate does not make, are those of emaint.
fn entry(path: &Path, theirs: &PackagesIndex) -> PackageEntry {
    let gpkg = read(path);
    let id = gpkg.metadata.text("BUILD_ID").expect("it has one").to_owned();
    let same = theirs.entries().iter().find(|entry| entry.get("BUILD_ID") == Some(&id)).expect("emaint has it");
    let sum = |key| same.get(key).expect("emaint makes sums").to_owned();
    let about = fs::metadata(path).expect("it is there");
    let mtime = about.modified().expect("it has a time").duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let file = PackageFile {
        path: format!("app-misc/many/{}.gpkg.tar", gpkg.basename),
        size: about.len(),
        md5: sum("MD5"),
        sha1: sum("SHA1"),
        mtime,
    };
    PackageEntry::from_metadata(&gpkg.metadata, &file).expect("it has everything")
}

#[test]
fn strange_indexes_read_as_portage_reads_them() {
    let Some(portage) = Portage::new() else { return };
    for text in [
        "",
        "VERSION: 0\n",
        "VERSION: 0\n\nCPV: a/b-1\n\n\nCPV: a/c-1\n",
        "VERSION: 0\nREPO: r\nCHOST: x\n\nCPV: a/b-1\nSLOT: 2\nIUSE:x\nUSE:  two spaces \nnonsense\nX: y\nEAPI: 7\nEAPI: 8\n\nSIZE: 1\n\nCPV: a/c-1\nrepository: own",
        "VERSION: 0\r\n\r\nCPV: a/b-1\r\nMTIME: 5\r\n",
        "\nCPV: a/b-1\nPATH: x/y.gpkg.tar\n",
        "VERSION: 0\n\nUNKNOWN: x\n\nCPV: a/b-1\n",
    ] {
        let parsed = PackagesIndex::parse(text.as_bytes()).expect("it is small");
        let theirs = portage.ask("index", &portage.write("Packages", text.as_bytes())).expect("Portage reads it");
        let mut blocks = theirs.split("\n\n").map(|block| {
            block
                .lines()
                .filter_map(|line| line.split_once('\t'))
                .filter(|(_, value)| !value.is_empty())
                .collect::<BTreeMap<_, _>>()
        });
        let header: BTreeMap<&str, &str> = blocks.next().expect("there is a header");
        let header: BTreeMap<&str, &str> = header.into_iter().map(|(key, value)| (written(key), value)).collect();
        let ours: BTreeMap<&str, &str> =
            parsed.header().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(ours, header, "{text:?}");
        let entries: Vec<BTreeMap<&str, &str>> = blocks
            .filter(|block| !block.is_empty())
            .map(|block| block.into_iter().map(|(key, value)| (written(key), value)).collect())
            .collect();
        let ours: Vec<BTreeMap<&str, &str>> = parsed.entries().iter().map(|entry| entry.iter().collect()).collect();
        assert_eq!(ours, entries, "{text:?}");
    }
}

/// The name in the file of a key that Portage calls otherwise.
fn written(key: &str) -> &str {
    match key {
        "repository" => "REPO",
        "_mtime_" => "MTIME",
        "DESCRIPTION" => "DESC",
        key => key,
    }
}
