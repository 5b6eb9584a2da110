//! The binhost over HTTP: the index and the packages, for the Portage of this machine.
//!
//! Portage asks for `Packages.gz` with `If-Modified-Since` on each run, and takes no redirect, no content coding and no
//! error but 404 for anything but "no packages". A package's path is its digest.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::date;
use super::distfiles::{begin, of_blob, plain};
use super::range;
use crate::binhost::{Generation, ask, parse_path};
use crate::blocking;
use crate::domain::{Domain, held};
use crate::stats::Source;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use std::sync::Arc;
use tree::moment::Moment;

/// A file of this node's binhost; the binhost of another node is none.
pub(super) async fn file(
    State(domain): State<Arc<Domain>>,
    Path((id, path)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // Portage's copy of an index is kept by host and path without the port: the path names the node.
    if domain.addresses.binhost.rsplit('/').next() != Some(id.as_str()) {
        return plain(StatusCode::NOT_FOUND, "this is not the binhost of this node; see peer status");
    }
    if !matches!(path.as_str(), "Packages" | "Packages.gz") {
        return package(&domain, &path, &method, &headers).await;
    }
    ask::in_time(&domain).await;
    let binhost = Arc::clone(&domain.binhost);
    let generation = blocking::run(move || binhost.serve()).await;
    index(&generation, path == "Packages.gz", &method, &headers)
}

fn index(generation: &Generation, compressed: bool, method: &Method, headers: &HeaderMap) -> Response {
    let (body, kind, suffix) = if compressed {
        (&generation.gzip, "application/gzip", ".gz")
    } else {
        (&generation.text, "text/plain; charset=utf-8", "")
    };
    let etag = format!("\"{}{suffix}\"", generation.timestamp);
    let unchanged = range::is_not_modified(headers, &etag, Some(generation.modified()));
    let answer = Response::builder()
        .status(if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK })
        .header(header::ETAG, etag)
        .header(header::LAST_MODIFIED, date::say(generation.modified()))
        .header(header::CACHE_CONTROL, "no-cache")
        .header("x-peer-source", Source::Store.as_str());
    let answer = if unchanged {
        answer.body(Body::empty())
    } else {
        let answer = answer.header(header::CONTENT_TYPE, kind).header(header::CONTENT_LENGTH, body.len());
        answer.body(if method == Method::HEAD { Body::empty() } else { Body::from(body.clone()) })
    };
    answer.unwrap_or_default()
}

/// A package whose blob is held. That it is still listed is not asked: Portage may hold an older index, and these bytes are
/// what it names.
async fn package(domain: &Arc<Domain>, path: &str, method: &Method, headers: &HeaderMap) -> Response {
    let Some(digest) = parse_path(path) else {
        return plain(StatusCode::NOT_FOUND, "this is no path of a binary package; see Packages");
    };
    let (looking, asked) = (Arc::clone(domain), headers.clone());
    let found = blocking::run(move || {
        let here = held(&looking.store, &digest).and_then(|blob| begin(blob, &asked));
        match here {
            Some(mut here) => {
                // The time that the index gives the file.
                if let Some(row) = looking.binhost.row(&digest) {
                    here.modified = Moment::of_seconds(row.mtime);
                }
                Some(here)
            }
            None => {
                looking.binhost.note(&digest);
                None
            }
        }
    })
    .await;
    match found {
        Some(here) => of_blob(domain, method, headers, here, Source::Store),
        None => plain(StatusCode::NOT_FOUND, "this binary package is not held any more; ask for Packages again"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::public;
    use super::*;
    use crate::announce::{Announcer, Shared};
    use crate::binhost::{Binhost, BinpkgRow, Origin, Owner};
    use crate::builds::Builds;
    use crate::builds::trust::Trust;
    use crate::config::{Config, Overrides, Surroundings};
    use crate::config_build::BuildShare;
    use crate::domain::{Addresses, Parts};
    use crate::gives::Sharing;
    use crate::group::Groups;
    use crate::repositories::Repositories;
    use crate::swarm::{self, Identity, Network};
    use crate::tasks::Tasks;
    use axum::http::{HeaderValue, Request};
    use http_body_util::BodyExt as _;
    use mirrors::{Mirrors, Options as MirrorOptions};
    use store::{Options, Store, Wanted};
    use tempfile::TempDir;
    use tower::ServiceExt as _;
    use tree::digest::Digest;
    use tree::packages::PackageEntry;

    const NOTHING: Sharing = Sharing { distfiles: false, builds: BuildShare::None };
    const BLOB: &[u8] = b"a signed package";

    struct Node {
        _dir: TempDir,
        domain: Arc<Domain>,
    }

    impl Node {
        async fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let overrides = Overrides {
                data_dir: Some(dir.path().join("data")),
                config_root: Some(dir.path().to_owned()),
                ..Overrides::default()
            };
            let (config, _) = Config::load(&overrides, &Surroundings::default()).unwrap();
            let store =
                Store::open(&dir.path().join("store"), Options { free_min_bytes: 0, ..Options::default() }).unwrap();
            let identity = Identity::generate();
            let groups = Arc::new(Groups::open(&store, identity.clone()).unwrap());
            let trust = Arc::new(Trust::open(&store, Arc::clone(&groups)).unwrap());
            let shared = Arc::new(Shared::new(&store, NOTHING, Arc::clone(&groups), Arc::clone(&trust)));
            let tasks = Tasks::new();
            let holdings: Arc<dyn swarm::Holdings> = Arc::<Shared>::clone(&shared);
            let swarm = Network::new().join(&identity, swarm::Config::default(), holdings, &tasks).await;
            let parts = Parts {
                mirrors: Mirrors::new(MirrorOptions::default()).unwrap(),
                swarm,
                repositories: Repositories::new(config.clone(), None, tasks.stopping().clone()),
                announcer: Arc::new(Announcer::new(shared)),
                binhost: Arc::new(Binhost::open(&store, Arc::new(crate::machine::Machine::here())).unwrap()),
                builds: Builds::open(&config, &store, identity, trust, "/usr/bin".into()).unwrap(),
                groups,
                addresses: Addresses { binhost: "http://127.0.0.1:1/binpkgs/node".to_owned(), ..Addresses::default() },
                config,
                store,
                tasks,
            };
            Self { _dir: dir, domain: Arc::new(Domain::new(parts)) }
        }

        /// Offers [`BLOB`]; returns its path.
        fn offer(&self) -> String {
            let wanted = Wanted { digest: Digest::of(BLOB), size: None, sha512: None };
            let mut incoming = self.domain.store.incoming(&wanted).unwrap();
            incoming.append(BLOB).unwrap();
            incoming.finish().unwrap();
            let row = BinpkgRow {
                digest: Digest::of(BLOB),
                size: BLOB.len() as u64,
                md5: [0; 16],
                sha1: [0; 20],
                mtime: 1_000_000_000,
                entry: PackageEntry::from_keys([("CPV".to_owned(), "a/b-1".to_owned())].into()).unwrap(),
                fingerprint: Digest::of(b""),
                image: Digest::of(b""),
                origin: Origin::Built,
                added_at: 0,
                owner: Owner::This,
                demands: None,
            };
            self.domain.binhost.add(row).unwrap();
            format!("/binpkgs/node/{}", crate::binhost::path_of(&Digest::of(BLOB)))
        }

        async fn ask(&self, method: Method, path: &str, headers: &[(header::HeaderName, &str)]) -> (Answer, Vec<u8>) {
            let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
            }
            let (head, body) = public(Arc::clone(&self.domain)).oneshot(request).await.unwrap().into_parts();
            (Answer { status: head.status, headers: head.headers }, body.collect().await.unwrap().to_bytes().to_vec())
        }

        async fn get(&self, path: &str) -> (Answer, Vec<u8>) {
            self.ask(Method::GET, path, &[]).await
        }
    }

    struct Answer {
        status: StatusCode,
        headers: HeaderMap,
    }

    impl Answer {
        fn header(&self, name: header::HeaderName) -> &str {
            self.headers.get(name).map_or("", |value| value.to_str().unwrap())
        }
    }

    /// A file keeps its time when it is imported by a second name, and some times ended the node when they were told.
    #[tokio::test]
    async fn a_blob_of_any_time_is_served() {
        let node = Node::start().await;
        node.offer();
        let held = || node.domain.store.get(&Digest::of(BLOB)).unwrap().unwrap();
        let path = format!("/distfiles/{}/{}", &Digest::of(BLOB).to_string()[..2], Digest::of(BLOB));
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        let year = std::time::Duration::from_secs(31_557_600);
        for time in [
            epoch - year * 20,
            epoch - std::time::Duration::from_nanos(1),
            epoch,
            epoch + year * 50,
            epoch + year * 7000,
            epoch + year * 8031,
        ] {
            held().file().set_modified(time).unwrap();
            // A file system that cannot keep it has another one.
            let kept = held().file().metadata().unwrap().modified().unwrap();
            let told = Moment::of(kept).map(date::say).unwrap_or_default();
            let (answer, body) = node.get(&path).await;
            assert_eq!((answer.status, body.as_slice()), (StatusCode::OK, BLOB), "{time:?}");
            assert_eq!(answer.header(header::LAST_MODIFIED), told, "{time:?}");
            let since = [(header::IF_MODIFIED_SINCE, "Fri, 31 Dec 9999 23:59:59 GMT")];
            let (answer, _) = node.ask(Method::GET, &path, &since).await;
            let expected = if told.is_empty() { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
            assert_eq!(answer.status, expected, "{time:?}");
            assert_eq!(told.is_empty(), kept < epoch || kept >= epoch + year * 8030, "{time:?}: {told}");
        }
    }

    #[tokio::test]
    async fn an_empty_binhost_answers_an_index() {
        let node = Node::start().await;
        let (answer, text) = node.get("/binpkgs/node/Packages").await;
        assert_eq!((answer.status, answer.header(header::CONTENT_TYPE)), (StatusCode::OK, "text/plain; charset=utf-8"));
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("PACKAGES: 0\nTIMESTAMP: ") && text.ends_with("\nVERSION: 0\n\n"), "{text}");
        let (answer, gzip) = node.get("/binpkgs/node/Packages.gz").await;
        assert_eq!(answer.headers.get(header::CONTENT_ENCODING), None, "Portage takes raw gzip only");
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/gzip");
        assert_eq!(answer.headers["x-peer-source"], "store");
        let mut unpacked = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, text);
    }

    #[tokio::test]
    async fn an_index_has_the_time_it_says_and_is_given_once() {
        let node = Node::start().await;
        let path = "/binpkgs/node/Packages.gz";
        let (first, _) = node.get(path).await;
        let modified = date::read(first.header(header::LAST_MODIFIED)).unwrap();
        let timestamp = node.domain.binhost.generation().timestamp;
        assert_eq!(modified.seconds(), timestamp);
        // Portage asks for what is younger than its own by more than five seconds.
        let since = date::say(Moment::of_seconds(modified.seconds() + 5).unwrap());
        let (unchanged, body) = node.ask(Method::GET, path, &[(header::IF_MODIFIED_SINCE, &since)]).await;
        assert_eq!((unchanged.status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(unchanged.header(header::LAST_MODIFIED), first.header(header::LAST_MODIFIED));
        node.offer();
        let (changed, body) = node.ask(Method::GET, path, &[(header::IF_MODIFIED_SINCE, &since)]).await;
        assert_eq!(changed.status, StatusCode::OK, "a change right after is seen");
        assert_eq!(changed.header(header::CONTENT_LENGTH), body.len().to_string());
        let later = date::read(changed.header(header::LAST_MODIFIED)).unwrap();
        assert!(later.seconds() > modified.seconds() + 5);
        let (head, body) = node.ask(Method::HEAD, path, &[]).await;
        assert_eq!((head.header(header::CONTENT_LENGTH), body.len()), (changed.header(header::CONTENT_LENGTH), 0));
    }

    #[tokio::test]
    async fn a_package_is_given_whole_and_in_parts() {
        let node = Node::start().await;
        let path = node.offer();
        let (answer, body) = node.get(&path).await;
        assert_eq!((answer.status, &body[..]), (StatusCode::OK, BLOB));
        assert_eq!(answer.header(header::ETAG), format!("\"{}\"", Digest::of(BLOB)));
        assert_eq!(
            answer.header(header::LAST_MODIFIED),
            "Sun, 09 Sep 2001 01:46:40 GMT",
            "the index says MTIME: 1000000000"
        );
        assert_eq!(answer.headers["x-peer-source"], "store");
        let (part, body) = node.ask(Method::GET, &path, &[(header::RANGE, "bytes=2-7")]).await;
        assert_eq!((part.status, &body[..]), (StatusCode::PARTIAL_CONTENT, &BLOB[2..8]));
        let (beyond, _) = node.ask(Method::GET, &path, &[(header::RANGE, "bytes=999-")]).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let (head, body) = node.ask(Method::HEAD, &path, &[]).await;
        assert_eq!((head.header(header::CONTENT_LENGTH), body.len()), ("16", 0));
        let (known, _) = node.ask(Method::GET, &path, &[(header::IF_NONE_MATCH, answer.header(header::ETAG))]).await;
        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    }

    #[tokio::test]
    async fn what_is_no_package_of_this_node_is_not_found() {
        let node = Node::start().await;
        let path = node.offer();
        for wrong in [
            "/binpkgs/other/Packages".to_owned(),
            "/binpkgs/node/packages".to_owned(),
            "/binpkgs/node/Packages.bz2".to_owned(),
            "/binpkgs/node/..%2fPackages".to_owned(),
            path.replace("/node/", "/other/"),
            path.replace(".gpkg.tar", ".gpkg.tar.partial"),
            format!("/binpkgs/node/{}", crate::binhost::path_of(&Digest::of(b"unknown"))),
            "/binpkgs/node/".to_owned(),
            "/binpkgs/node".to_owned(),
        ] {
            let (answer, _) = node.get(&wrong).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{wrong}");
        }
        let (changing, _) = node.ask(Method::DELETE, &path, &[]).await;
        assert_eq!(changing.status, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn a_package_that_vanished_leaves_the_index_when_it_is_asked_for() {
        let node = Node::start().await;
        let path = node.offer();
        assert_eq!(node.domain.binhost.serve().packages, 1);
        let file = node.domain.store.get(&Digest::of(BLOB)).unwrap().unwrap().path().to_owned();
        std::fs::remove_file(file).unwrap();
        let (answer, _) = node.get(&path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        let (_, text) = node.get("/binpkgs/node/Packages").await;
        assert!(String::from_utf8(text).unwrap().starts_with("PACKAGES: 0\n"));
    }
}
