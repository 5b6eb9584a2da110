//! `Client`: a machine with the real Portage, its own DISTDIR, configuration and root, that is told one mirror.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::gentoo::{Repo, checkout};
use crate::wait;

/// Portage before 3.0.15 knew no content-hash layout and passed over that line of layout.conf.
const WITHOUT_CONTENT_HASH: &str = "import portage.package.ebuild.fetch as fetch\n\
     fetch.ContentHashLayout.verify_args = staticmethod(lambda *arguments, **options: False)\n";

/// One machine's Portage.
pub(crate) struct Client {
    dir: PathBuf,
    repos: String,
    mirrors: String,
    features: String,
}

impl Client {
    /// A client in `dir` with these repositories, the main one first, and `GENTOO_MIRRORS`.
    pub(crate) fn new(dir: &Path, repos: &[&Repo], mirrors: &str) -> Self {
        let repos: Vec<&str> = repos.iter().map(|repo| repo.dir.to_str().expect("temporary paths are text")).collect();
        fs::create_dir_all(dir.join("etc/portage")).expect("a test can write");
        // Mirrors only: a file that the daemon does not give must not come from its SRC_URI by another way.
        Self {
            dir: dir.to_owned(),
            repos: repos.join(" "),
            mirrors: mirrors.to_owned(),
            features: "force-mirror".to_owned(),
        }
    }

    /// A client that may also ask SRC_URI itself.
    pub(crate) fn with_upstream(mut self) -> Self {
        self.features = String::new();
        self
    }

    /// A client that takes the second line of layout.conf.
    pub(crate) fn without_content_hash(self) -> Self {
        let site = self.dir.join("site");
        fs::create_dir_all(&site).expect("a test can write");
        fs::write(site.join("sitecustomize.py"), WITHOUT_CONTENT_HASH).expect("a test can write");
        self
    }

    /// Writes `/etc/portage/mirrors`.
    pub(crate) fn local_mirror(self, url: &str) -> Self {
        fs::write(self.dir.join("etc/portage/mirrors"), format!("local {url}\n")).expect("a test can write");
        self
    }

    fn command(&self, atoms: &[&str]) -> Command {
        let portage = std::env::var_os("PEERAGE_PORTAGE")
            .expect("PEERAGE_PORTAGE is set by ./test; by hand: set -a; eval \"$(./test --prepare)\"");
        let mut command = Command::new(checkout().join("examples/portage"));
        command.arg(&self.dir).args(["emerge", "--fetchonly", "--nodeps", "--color=n"]).args(atoms);
        command.env("PEERAGE_PORTAGE", portage).env("REPOS", &self.repos);
        command.env("GENTOO_MIRRORS", &self.mirrors).env("FEATURES", &self.features);
        command.env_remove("PYTHONPATH");
        if self.dir.join("site").is_dir() {
            command.env("PYTHONPATH", self.dir.join("site"));
        }
        command
    }

    /// `emerge --fetchonly ATOM…` to its end.
    pub(crate) fn fetchonly(&self, atoms: &[&str]) -> Output {
        wait::run(&mut self.command(atoms))
    }

    /// The same, and it must succeed; returns what Portage and its wget said.
    pub(crate) fn fetches(&self, atoms: &[&str]) -> String {
        let output = self.fetchonly(atoms);
        let said = crate::peer::both(&output);
        assert!(output.status.success(), "emerge --fetchonly {atoms:?} failed:\n{said}");
        said
    }

    /// Starts `emerge --fetchonly` in a process group of its own, to be killed in the middle.
    pub(crate) fn begin_fetch(&self, atoms: &[&str]) -> Child {
        self.command(atoms)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the script is in the checkout")
    }

    /// A file of its DISTDIR.
    pub(crate) fn distfile(&self, name: &str) -> PathBuf {
        self.dir.join("dist").join(name)
    }

    /// What it has fetched under this name.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.distfile(name)).unwrap_or_else(|error| panic!("DISTDIR has {name}: {error}"))
    }

    /// Forgets all files, as on a new machine, but not the mirrors' layouts.
    pub(crate) fn forget_files(&self) {
        for entry in fs::read_dir(self.dir.join("dist")).expect("Portage made its DISTDIR") {
            let path = entry.expect("DISTDIR can be read").path();
            if path.is_file() && !path.ends_with(".mirror-cache.json") {
                fs::remove_file(path).expect("a test can delete");
            }
        }
    }
}
