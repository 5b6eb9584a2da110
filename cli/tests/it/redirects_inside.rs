//! A mirror on the Internet that sends the node into its own machine or network, by an address or by a name.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::network::Network;
use crate::noise::noise;
use crate::peer::Start;
use crate::wait;

/// The namespace is the test's own, so no port is in use.
const PORT: &str = "8000";
/// Addresses of documentation (RFC 5737): not of any private network.
const MIRROR: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.2";

/// Serves a directory on all addresses: what begins with a name of the table is redirected there, all else is a file. Writes
/// to its log at which address it was asked for what.
const SERVER: &str = r#"
import http.server, sys, os
root, mirror, log = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, here = os.path.basename(self.path), self.connection.getsockname()[0]
        with open(log, "a") as out:
            print(here, name, file=out)
        path, to = os.path.join(root, name), os.path.join(root, name + ".to")
        if here == mirror and self.path.startswith("/distfiles/") and os.path.exists(to):
            self.send_response(302); self.send_header("Location", open(to).read() + "/" + name)
            self.send_header("Content-Length", "0"); self.end_headers()
        elif os.path.exists(path):
            data = open(path, "rb").read()
            self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
            self.wfile.write(data)
        else:
            self.send_error(404)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"#;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn serve(lan: &Network, root: &Path, log: &Path) -> Server {
    let [program, before @ ..] = lan.inside(0);
    let mut command = Command::new(program);
    command.args(before).args(["python3", "-c", SERVER]).arg(root).arg(MIRROR).arg(log);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server(child);
    let up = || {
        let asked =
            lan.run(0, &["curl", "-s", "-o", "/dev/null", "--noproxy", "*", &format!("http://{MIRROR}:{PORT}/up")]);
        asked.status.success().then_some(())
    };
    wait::until("the server answers", up);
    server
}

#[test]
fn no_redirect_leads_further_in_than_the_mirror_that_gave_it() {
    let Some(lan) = Network::of(1) else { return };
    let dir = tempdir().unwrap();
    for address in [MIRROR, OUTSIDE] {
        assert!(lan.run(0, &["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"]).status.success());
    }
    let hosts = dir.path().join("hosts");
    let names = format!(
        "127.0.0.1 localhost inside.test\n{} near.test\n{OUTSIDE} outside.test\n127.0.0.1 both.test\n{OUTSIDE} both.test\n",
        Network::address(0)
    );
    fs::write(&hosts, names).unwrap();
    let near = Network::address(0);
    let cases = [
        ("by-address", format!("http://127.0.0.1:{PORT}"), false),
        ("by-name", format!("http://inside.test:{PORT}"), false),
        ("near-address", format!("http://{near}:{PORT}"), false),
        ("near-name", format!("http://near.test:{PORT}"), false),
        ("mapped", format!("http://[::ffff:127.0.0.1]:{PORT}"), false),
        ("zero", format!("http://0:{PORT}"), false),
        ("outside-address", format!("http://{OUTSIDE}:{PORT}"), true),
        ("outside-name", format!("http://outside.test:{PORT}"), true),
        // One of its addresses is outside, and only that one is asked.
        ("both", format!("http://both.test:{PORT}"), true),
    ];
    let (root, repo) = (dir.path().join("root"), Repo::new(dir.path(), "main"));
    fs::create_dir_all(&root).unwrap();
    let mut sources = Vec::new();
    for (number, (name, to, followed)) in cases.iter().enumerate() {
        let file = format!("{name}-1.0.bin");
        let source = Source::new(&root, &file, &noise(number as u64, 2_000));
        repo.add_plain(name, "http://127.0.0.1:1", &source);
        fs::write(root.join(format!("{file}.to")), to).unwrap();
        sources.push((file, source, *followed));
    }
    let log = dir.path().join("asked");
    let _server = serve(&lan, &root, &log);
    let [ip, netns, exec, machine] = lan.inside(0);
    let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let wrapper = [ip, netns, exec, machine, "unshare", "--mount", "sh", "-c", &mount, "sh"];
    let node = Start::new(&dir.path().join("node")).repo(&repo).mirror(&format!("http://{MIRROR}:{PORT}"));
    let node = node.through(&wrapper).start();
    for (file, source, followed) in &sources {
        let reply = lan.run(0, &["curl", "-sS", "--noproxy", "*", &format!("{}/distfiles/{file}", node.url())]);
        assert_eq!(reply.stdout == source.content(), *followed, "{file}: {}", String::from_utf8_lossy(&reply.stdout));
    }
    let asked = fs::read_to_string(&log).unwrap();
    let strange: Vec<&str> = asked.lines().filter(|line| !line.starts_with("198.51.100.")).collect();
    assert!(strange.is_empty(), "asked inside: {strange:?}");
}
