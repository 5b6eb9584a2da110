//! `Nginx`: Debian's nginx as the mirror above a node; its access log says how often it was asked.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::wait::{self, DEADLINE};

/// A running nginx with a docroot.
pub(crate) struct Nginx {
    child: Child,
    dir: PathBuf,
    address: String,
}

/// One line of the access log.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
}

impl Nginx {
    /// Serves `dir/www`, which holds what the test has put there.
    ///
    /// The port is bound here and handed over as standard input: nginx takes over a listening socket that its
    /// environment names (as when it replaces itself), so no port is guessed, and clients may connect at once.
    pub(crate) fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("www/distfiles")).expect("a test can write");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let at = dir.display();
        let user = if is_root() { "user root;" } else { "" };
        let conf = format!(
            "daemon off; worker_processes 1; {user} pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
               access_log {at}/access.log; sendfile on; default_type application/octet-stream;\n\
               client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
               uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
               server {{ listen {address}; root {at}/www; }}\n\
             }}\n"
        );
        fs::write(dir.join("nginx.conf"), conf).expect("a test can write");
        let child = Command::new(program())
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .env("NGINX", "0;")
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed by ./test");
        Self { child, dir: dir.to_owned(), address }
    }

    /// `ADDR:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where files are put to be served as `/distfiles/NAME`.
    pub(crate) fn distfiles(&self) -> PathBuf {
        self.dir.join("www/distfiles")
    }

    /// Where files are put to be served as `/NAME`.
    pub(crate) fn www(&self) -> PathBuf {
        self.dir.join("www")
    }

    /// Ends it and reads what it was asked. It finishes what it is sending first, so nothing is missing in the log.
    pub(crate) fn finish(mut self) -> Vec<Asked> {
        wait::signal("QUIT", i64::from(self.child.id()));
        assert!(wait::exit_within(&mut self.child, DEADLINE).is_some(), "nginx ends when nobody asks any more");
        let log = fs::read_to_string(self.dir.join("access.log")).expect("nginx has opened its log");
        log.lines()
            .map(|line| {
                let mut words = line.split('"').nth(1).unwrap_or_default().split(' ').map(str::to_owned);
                Asked { method: words.next().unwrap_or_default(), path: words.next().unwrap_or_default() }
            })
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            // Its own way of ending at once takes the worker along, which SIGKILL to the master would not.
            wait::signal("TERM", i64::from(self.child.id()));
            if wait::exit_within(&mut self.child, DEADLINE).is_none() {
                wait::signal("KILL", i64::from(self.child.id()));
            }
        }
    }
}

/// How many of these are a `GET` whose path ends so.
pub(crate) fn gets(asked: &[Asked], end: &str) -> usize {
    asked.iter().filter(|one| one.method == "GET" && one.path.ends_with(end)).count()
}

/// Where Debian and Gentoo keep it, which is not in every user's PATH.
fn program() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

/// Whether this test runs as root.
pub(crate) fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("coreutils are on every machine");
    output.stdout.starts_with(b"0")
}
