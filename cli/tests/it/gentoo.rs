//! Ebuild repositories made for one test: ebuilds, md5-cache and Manifests whose sums come from coreutils, not from the
//! code under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the checkout.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout").to_owned()
}

/// What a Manifest says about a file.
#[derive(Clone)]
pub(crate) struct Sums {
    pub(crate) size: u64,
    pub(crate) blake2b: String,
    pub(crate) sha512: String,
}

impl Sums {
    pub(crate) fn of_file(path: &Path) -> Self {
        let sum = |program| first_word(&[program, "--"], path);
        Self {
            size: fs::metadata(path).expect("the file is there").len(),
            blake2b: sum("b2sum"),
            sha512: sum("sha512sum"),
        }
    }

    /// Where the content-hash layout has the file.
    pub(crate) fn path(&self) -> String {
        format!("/distfiles/{}/{}", &self.blake2b[..2], self.blake2b)
    }
}

/// Where the filename-hash layout has a file of this name.
pub(crate) fn name_path(name: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a test can write");
    fs::write(file.path(), name).expect("a test can write");
    format!("/distfiles/{}/{name}", &first_word(&["b2sum", "--"], file.path())[..2])
}

fn first_word(command: &[&str], path: &Path) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .arg(path)
        .stderr(Stdio::inherit())
        .output()
        .expect("coreutils are on every machine");
    let text = String::from_utf8(output.stdout).expect("sums are ASCII");
    text.split_whitespace().next().expect("a sum is printed").to_owned()
}

/// A file that an ebuild wants, as it lies on disk somewhere.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) sums: Sums,
}

impl Source {
    /// Writes `content` to `directory/name`.
    pub(crate) fn new(directory: &Path, name: &str, content: &[u8]) -> Self {
        fs::create_dir_all(directory).expect("a test can write");
        let path = directory.join(name);
        fs::write(&path, content).expect("a test can write");
        Self::at(&path, name)
    }

    /// An existing file, wanted under `name`.
    pub(crate) fn at(path: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), sums: Sums::of_file(path) }
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the source lies where it was made")
    }

    /// By name, in the filename-hash layout.
    pub(crate) fn name_path(&self) -> String {
        name_path(&self.name)
    }

    pub(crate) fn manifest_line(&self) -> String {
        let Sums { size, blake2b, sha512 } = &self.sums;
        format!("DIST {} {size} BLAKE2B {blake2b} SHA512 {sha512}\n", self.name)
    }
}

/// An ebuild repository on disk.
pub(crate) struct Repo {
    pub(crate) dir: PathBuf,
}

/// An ebuild: all in `app-misc`, slot 0, for amd64.
pub(crate) struct Ebuild<'a> {
    pub(crate) name: &'a str,
    pub(crate) src_uri: &'a str,
    pub(crate) restrict: &'a str,
    pub(crate) sources: &'a [&'a Source],
}

impl Repo {
    /// A repository with the profile of `examples/repo`.
    pub(crate) fn new(parent: &Path, name: &str) -> Self {
        let dir = parent.join(name);
        copy_tree(&checkout().join("examples/repo/profiles"), &dir.join("profiles"));
        copy_tree(&checkout().join("examples/repo/licenses"), &dir.join("licenses"));
        let repo = Self { dir };
        repo.write("profiles/repo_name", &format!("{name}\n"));
        repo.write(
            "metadata/layout.conf",
            "masters =\nthin-manifests = true\nsign-manifests = false\nmanifest-hashes = BLAKE2B SHA512\n\
             manifest-required-hashes = BLAKE2B\nprofile-formats = portage-2\ncache-formats = md5-dict\n",
        );
        repo
    }

    /// A repository that builds on another one.
    pub(crate) fn overlay(parent: &Path, name: &str, master: &str) -> Self {
        let repo = Self::new(parent, name);
        let path = repo.dir.join("metadata/layout.conf");
        let text = fs::read_to_string(&path).expect("just written");
        fs::write(path, text.replace("masters =", &format!("masters = {master}"))).expect("a test can write");
        repo
    }

    /// Writes any file of the repository.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a test can write");
        fs::write(path, content).expect("a test can write");
    }

    /// Adds version 1.0 of an ebuild with its md5-cache entry and its Manifest.
    pub(crate) fn add(&self, ebuild: &Ebuild<'_>) {
        let text = ebuild.text();
        let Ebuild { name, .. } = ebuild;
        let path = format!("app-misc/{name}/{name}-1.0.ebuild");
        self.write(&path, &text);
        let md5 = first_word(&["md5sum", "--"], &self.dir.join(&path));
        let restrict =
            if ebuild.restrict.is_empty() { String::new() } else { format!("RESTRICT={}\n", ebuild.restrict) };
        self.write(
            &format!("metadata/md5-cache/app-misc/{name}-1.0"),
            &format!(
                "DEFINED_PHASES=-\nDESCRIPTION=A test\nEAPI=8\nHOMEPAGE=https://example.invalid/\nKEYWORDS=amd64\n\
                 LICENSE=Example\n{restrict}SLOT=0\nSRC_URI={}\n_md5_={md5}\n",
                ebuild.src_uri
            ),
        );
        let lines: String = ebuild.sources.iter().map(|source| source.manifest_line()).collect();
        self.write(&format!("app-misc/{name}/Manifest"), &lines);
    }

    /// Adds an ebuild `NAME` for each source, whose only address is `upstream/SOURCE`.
    pub(crate) fn add_plain(&self, name: &str, upstream: &str, source: &Source) {
        let src_uri = format!("{upstream}/{}", source.name);
        self.add(&Ebuild { name, src_uri: &src_uri, restrict: "", sources: &[source] });
    }

    pub(crate) fn flags(&self) -> [String; 2] {
        ["--repo".to_owned(), self.dir.to_str().expect("temporary paths are text").to_owned()]
    }
}

impl Ebuild<'_> {
    fn text(&self) -> String {
        format!(
            "EAPI=8\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.invalid/\"\nSRC_URI=\"{}\"\nLICENSE=\"Example\"\n\
             SLOT=\"0\"\nKEYWORDS=\"amd64\"\nRESTRICT=\"{}\"\nS=\"${{WORKDIR}}\"\n",
            self.src_uri, self.restrict
        )
    }
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a test can write");
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("the directory can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the directory can be read").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a test can write");
        }
    }
}
