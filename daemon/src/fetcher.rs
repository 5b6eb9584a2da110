//! The only way bytes come in from outside: one flight, many sources, each held to what the digest says.
//!
//! Order of sources: connected peers that hold it, then mirrors and SRC_URI as RESTRICT allows (meanwhile the DHT is
//! asked, [`FIND_MAX`]), then peers the DHT named, then mirrors once more with patience. A source that breaks off is
//! left where it stopped and the next one goes on from there. A wrong digest is no accident: if one source brought all
//! the bytes it is blamed; if several did nobody can be, and everything is brought again from one source alone,
//! mirrors first. BLAKE2B cannot be checked by pieces, so a liar costs at most the file's size.

use crate::blocking;
use crate::flight::{Flight, ObtainError};
use crate::ingest::{Closed, Ingest};
use crate::sources::{Contributor, Opened, Sources};
use crate::stats::Source;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use store::{Blob, GcTarget, Store};
use tokio::time::Instant;

/// How long the DHT may take to name providers.
pub(crate) const FIND_MAX: Duration = Duration::from_millis(300);
/// Times one flight may throw everything away and begin again: for what strangers brought, and for all the others.
const RESTARTS_MAX: u32 = 8;
/// A file whose size only a peer has said is not taken when it would be longer. No distfile comes near that.
const UNPROVEN_BYTES_MAX: u64 = 8 << 30;

/// Pieces are gathered until they are so many bytes.
const GATHER_BYTES: usize = 128 * 1024;
/// Or so old.
const GATHER_MAX: Duration = Duration::from_millis(15);

/// Obtains what `flight` wants.
///
/// Cancel safe: yes; what has come in stays on disk and is resumed the next time.
///
/// # Errors
/// When nobody who may be asked brings the right bytes, or the store cannot take them.
pub async fn obtain(store: &Store, flight: &Arc<Flight>, sources: Sources) -> Result<(Blob, Source), ObtainError> {
    let mut sources = sources;
    let mut freed = false;
    let mut restarts = Restarts::default();
    // What a peer says of a size is no reason to let go of anything.
    let size = flight.wanted.size;
    loop {
        match attempt(store, flight, &mut sources).await {
            Ok(Attempt::Whole(blob, source)) => return Ok((blob, source)),
            Ok(Attempt::Wrong { strange }) if restarts.again(strange) => {}
            Ok(Attempt::Wrong { .. } | Attempt::Exhausted) => return Err(sources.nobody()),
            // Room may be had by letting go what was not used for long; once, or a flood of requests would empty the store.
            Err(ObtainError::DiskFull { .. }) if !freed && make_room(store, size).await => {
                freed = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets go what was not used for longest until `size` more bytes fit; of an unproven size nothing. True when something went.
async fn make_room(store: &Store, size: Option<u64>) -> bool {
    let Some(size) = size else { return false };
    let store = store.clone();
    blocking::run(move || {
        let (stats, options) = (store.stats(), store.options());
        let reachable = stats.disk_free_bytes.saturating_add(stats.bytes).saturating_sub(options.free_min_bytes);
        if options.size_max_bytes.is_some_and(|max| size > max) || size > reachable {
            // It would not fit into an empty store: nothing is let go for it.
            return false;
        }
        let target = stats.bytes.saturating_sub(size);
        match store.gc(GcTarget::Bytes(target), false) {
            Ok(report) => report.freed_bytes > 0,
            Err(error) => {
                tracing::error!(%error, "cannot make room in the store");
                false
            }
        }
    })
    .await
}

enum Attempt {
    Whole(Blob, Source),
    /// `strange` says that one stranger brought it all.
    Wrong {
        strange: bool,
    },
    Exhausted,
}

/// How often a flight has begun again.
#[derive(Default)]
struct Restarts {
    for_strangers: u32,
    for_others: u32,
}

impl Restarts {
    /// Whether to begin once more.
    fn again(&mut self, strange: bool) -> bool {
        let count = if strange { &mut self.for_strangers } else { &mut self.for_others };
        *count += 1;
        *count <= RESTARTS_MAX
    }
}

/// Brings bytes until the partial is full or no source is left.
async fn attempt(store: &Store, flight: &Arc<Flight>, sources: &mut Sources) -> Result<Attempt, ObtainError> {
    let mut ingest = Ingest::open(store, flight).await?;
    let mut contributors = Vec::new();
    if ingest.received() > 0 {
        contributors.push(Contributor::Earlier);
    }
    let mut size = flight.wanted.size;
    let mut brought_by = None;
    while size.is_none_or(|size| ingest.received() < size) {
        if sources.one_alone() && ingest.received() > 0 {
            contributors.clear();
            if !ingest.restart().await {
                break;
            }
        }
        let Some(mut opened) = sources.next(ingest.received()).await else {
            if flight.wanted.size.is_none() && sources.take_shorter() {
                // What came so far is longer than what others have: they are believed as much.
                (size, contributors) = (None, Vec::new());
                if ingest.restart().await {
                    continue;
                }
            }
            break;
        };
        let says_other = |size: u64| opened.size().is_some_and(|says| says != size);
        let unproven = flight.wanted.size.is_none();
        if flight.wanted.size.is_some_and(says_other) || (unproven && opened.size() > Some(UNPROVEN_BYTES_MAX)) {
            continue;
        }
        // Without a Manifest line the first peer said the size. It did not keep its word: another one that says another size is
        // believed as much, and none of the bytes before.
        let contradicts = size.is_some_and(says_other);
        if contradicts {
            size = None;
        }
        if opened.offset() < ingest.received() || contradicts {
            // It cannot resume, so it starts over; what others brought is not needed any more.
            contributors.clear();
            if !ingest.restart().await {
                break;
            }
            if opened.offset() > 0 {
                // It was asked for the rest of another file; from its first byte it is asked anew.
                sources.once_more(&opened);
                continue;
            }
        }
        if size.is_none() {
            size = opened.size();
            if let Some(size) = size
                && !ingest.set_size(size).await
            {
                break;
            }
        }
        contributors.push(opened.contributor());
        brought_by = Some(opened.source());
        if !pump(&mut opened, &mut ingest, sources).await {
            break;
        }
    }
    let complete = size.is_some_and(|size| ingest.received() >= size);
    match ingest.close().await? {
        // A partial that was whole when it was found had no source in this run: an earlier one brought it.
        Closed::Whole(blob) => {
            sources.right(&contributors);
            Ok(Attempt::Whole(blob, brought_by.unwrap_or(Source::Store)))
        }
        Closed::Wrong => Ok(Attempt::Wrong { strange: sources.wrong(&contributors) }),
        // Nobody who brings what the BLAKE2B names can bring anything else.
        Closed::Contradiction => Err(sources.contradiction()),
        Closed::Short if complete => Err(ObtainError::Store { why: "a whole file was reported short".to_owned() }),
        Closed::Short => Ok(Attempt::Exhausted),
    }
}

/// Moves bytes from one source to the disk until it ends or breaks off. False when the disk does not take them.
async fn pump(opened: &mut Opened, ingest: &mut Ingest, sources: &mut Sources) -> bool {
    let source = opened.source();
    let mut gathered = Gathered::default();
    loop {
        let chunk = {
            let next = opened.chunk();
            tokio::pin!(next);
            loop {
                tokio::select! {
                    biased;
                    chunk = &mut next => break chunk,
                    () = gathered.is_due() => {
                        if !ingest.append(gathered.take(), source).await {
                            return false;
                        }
                    }
                }
            }
        };
        let full = match &chunk {
            Ok(Some(bytes)) => gathered.add(bytes),
            Ok(None) | Err(_) => Some(gathered.take()),
        };
        if let Some(full) = full.filter(|full| !full.is_empty())
            && !ingest.append(full, source).await
        {
            return false;
        }
        match chunk {
            Ok(Some(_)) => {}
            Ok(None) => {
                sources.served(opened);
                return true;
            }
            Err(broke) => {
                sources.broke_off(opened, &broke);
                return true;
            }
        }
    }
}

/// Bytes that came in small pieces, on their way to the disk together: each trip to the writing thread wakes it, and a slow line
/// brings a few kilobytes at a time.
#[derive(Default)]
struct Gathered {
    bytes: BytesMut,
    since: Option<Instant>,
    /// Something went before: only then is more waited for, so that who reads along has the first byte at once.
    began: bool,
}

impl Gathered {
    /// What is to be written now.
    fn add(&mut self, bytes: &Bytes) -> Option<Bytes> {
        let at_once = !std::mem::replace(&mut self.began, true) || bytes.len() >= GATHER_BYTES;
        if at_once && self.bytes.is_empty() {
            return Some(bytes.clone());
        }
        self.bytes.extend_from_slice(bytes);
        self.since.get_or_insert_with(Instant::now);
        (self.bytes.len() >= GATHER_BYTES).then(|| self.take())
    }

    fn take(&mut self) -> Bytes {
        self.since = None;
        self.bytes.split().freeze()
    }

    /// Never, while there is nothing.
    async fn is_due(&self) {
        match self.since {
            Some(since) => tokio::time::sleep_until(since + GATHER_MAX).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Flights;
    use crate::swarm::{Config, Held, Holdings, Identity, Network, PeerId, ReadAt, Swarm};
    use crate::tasks::Tasks;
    use mirrors::Mirrors;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use store::Wanted;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tree::digest::{Digest, Sha512};
    use tree::distfile::Distfile;

    const CONTENT: &[u8] = b"what the Manifest names, and nothing else";

    /// What a peer of a test does when it is asked for the file.
    #[derive(Clone, Copy)]
    enum Manner {
        Honest,
        /// Too many streams are open, always.
        Busy,
        /// Other bytes of the right size.
        Lies,
        /// Says that the file has so many bytes, and ends early.
        Claims(u64),
    }

    struct Shelf(Manner);

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
            let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    impl Holdings for Shelf {
        fn open(&self, digest: &Digest, _: &PeerId) -> Option<Held> {
            let bytes: Vec<u8> = match self.0 {
                Manner::Lies => CONTENT.iter().map(|byte| byte ^ 1).collect(),
                Manner::Claims(size) => vec![7; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 20)],
                Manner::Honest | Manner::Busy => CONTENT.to_vec(),
            };
            let size = if let Manner::Claims(size) = self.0 { size } else { bytes.len() as u64 };
            (*digest == Digest::of(CONTENT)).then(|| Held { size, reader: Box::new(Bytes(bytes)) })
        }

        fn announced(&self) -> Vec<Digest> {
            vec![Digest::of(CONTENT)]
        }
    }

    /// Nobody's shelf.
    struct Empty;

    impl Holdings for Empty {
        fn open(&self, _: &Digest, _: &PeerId) -> Option<Held> {
            None
        }

        fn announced(&self) -> Vec<Digest> {
            Vec::new()
        }
    }

    /// A node among peers, and a mirror.
    struct House {
        network: Network,
        tasks: Tasks,
        here: Swarm,
        store: Store,
        _dir: tempfile::TempDir,
    }

    impl House {
        async fn new() -> Self {
            let (network, tasks, dir) = (Network::new(), Tasks::new(), tempfile::tempdir().unwrap());
            let here = network.join(&Identity::generate(), Config::default(), Arc::new(Empty), &tasks).await;
            let options = store::Options { free_min_bytes: 0, check_sha512: true, ..store::Options::default() };
            let store = Store::open(dir.path(), options).unwrap();
            Self { network, tasks, here, store, _dir: dir }
        }

        /// Strangers that dial the node and announce the file.
        async fn strangers(&self, count: usize, manner: Manner) -> Vec<Swarm> {
            let mut all = Vec::new();
            let before = self.here.holders(&Digest::of(CONTENT)).len();
            for _ in 0..count {
                let uploads_max = if matches!(manner, Manner::Busy) { 0 } else { 64 };
                let config = Config { peers: self.here.listen_addrs(), uploads_max, ..Config::default() };
                let shelf = Arc::new(Shelf(manner));
                all.push(self.network.join(&Identity::generate(), config, shelf, &self.tasks).await);
            }
            let mut changes = self.here.changes();
            while self.here.holders(&Digest::of(CONTENT)).len() < before + count {
                changes.changed().await.unwrap();
            }
            all
        }

        /// Obtains the file; the Manifest says this size of it, or no Manifest names it.
        async fn obtain(
            &self,
            mirror: Option<&str>,
            size: Option<u64>,
            sha512: Option<Sha512>,
        ) -> Result<Source, ObtainError> {
            let options = mirrors::Options {
                mirrors: mirror.iter().map(|url| url.parse().unwrap()).collect(),
                ..mirrors::Options::default()
            };
            let digest = Digest::of(CONTENT);
            let over_http = size.map(|size| mirrors::Source {
                distfile: Distfile { name: "wanted-1.0.bin".parse().unwrap(), size, blake2b: digest, sha512 },
                uris: Vec::new(),
                may_mirror: true,
                may_fetch: true,
            });
            let mirrors = Mirrors::new(options).unwrap();
            let sources = Sources::new(digest, &self.here, &mirrors, over_http, &self.tasks);
            let mut begun = None;
            let wanted = Wanted { digest, size, sha512 };
            let flights = Flights::default();
            let _follower = flights.join("wanted", &wanted, |flight| begun = Some(flight)).unwrap();
            let (blob, source) = obtain(&self.store, &begun.unwrap(), sources).await?;
            assert_eq!(blob.size(), CONTENT.len() as u64);
            Ok(source)
        }
    }

    /// A mirror that has the file, and counts how often it is asked for it.
    async fn mirror(tasks: &Tasks) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tasks.spawn("mirror", async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut head, mut part) = (Vec::new(), [0; 1024]);
                while !head.ends_with(b"\r\n\r\n") {
                    let count = client.read(&mut part).await.unwrap_or(0);
                    if count == 0 {
                        break;
                    }
                    head.extend_from_slice(&part[..count]);
                }
                let is_file = String::from_utf8_lossy(&head).contains("wanted-1.0.bin");
                counted.fetch_add(usize::from(is_file), Ordering::Relaxed);
                let (status, body) = if is_file { ("200 OK", CONTENT) } else { ("404 Not Found", &b""[..]) };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _gone = client.write_all(&[head.as_bytes(), body].concat()).await;
            }
        });
        (url, asked)
    }

    const SIZE: Option<u64> = Some(CONTENT.len() as u64);

    #[tokio::test(start_paused = true)]
    async fn small_pieces_go_to_the_disk_together_and_the_first_at_once() {
        let mut gathered = Gathered::default();
        let piece = bytes::Bytes::from(vec![7; 8 * 1024]);
        assert_eq!(gathered.add(&piece).as_ref(), Some(&piece), "who reads along waits for it");
        let fills = GATHER_BYTES / piece.len();
        for _ in 1..fills {
            assert_eq!(gathered.add(&piece), None);
        }
        assert_eq!(gathered.add(&piece).map(|bytes| bytes.len()), Some(GATHER_BYTES));
        let large = bytes::Bytes::from(vec![7; GATHER_BYTES]);
        assert_eq!(gathered.add(&large), Some(large.clone()), "without a copy");
        let idle = tokio::time::timeout(GATHER_MAX * 10, gathered.is_due()).await;
        assert!(idle.is_err(), "nothing is due where nothing is");
        assert_eq!(gathered.add(&piece), None);
        let before = Instant::now();
        gathered.is_due().await;
        assert_eq!(before.elapsed(), GATHER_MAX, "what is there is not kept back for long");
        // What comes first stays first.
        assert_eq!(gathered.add(&large).map(|bytes| bytes.len()), Some(piece.len() + large.len()));
        assert!(gathered.take().is_empty());
    }

    /// 64 connections of one machine announced everything and answered "busy": every distfile was a 404, no mirror was asked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_mirror_is_asked_however_many_peers_are_busy() {
        let house = House::new().await;
        house.strangers(64, Manner::Busy).await;
        let (url, asked) = mirror(&house.tasks).await;
        let nobody = house.obtain(None, SIZE, None).await.unwrap_err();
        assert!(matches!(nobody, ObtainError::Nobody { .. }), "{nobody}");
        assert_eq!(house.obtain(Some(&url), SIZE, None).await.unwrap(), Source::Mirror);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    /// Nine liars used up all new beginnings of a flight, so that the mirror was asked by none of them.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_liars_bring_does_not_use_up_the_patience_with_the_mirror() {
        let house = House::new().await;
        let liars = house.strangers(20, Manner::Lies).await;
        let (url, asked) = mirror(&house.tasks).await;
        assert_eq!(house.obtain(Some(&url), SIZE, None).await.unwrap(), Source::Mirror);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let banned = liars.iter().filter(|liar| house.here.is_banned(&liar.peer_id())).count();
        assert!((1..=3).contains(&banned), "{banned}: two lies are enough to ask others first");
    }

    /// A Manifest with a wrong size had every honest holder banned at once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn holders_are_not_blamed_for_what_a_manifest_says() {
        let house = House::new().await;
        let honest = house.strangers(5, Manner::Honest).await;
        let wrong_size = house.obtain(None, SIZE.map(|size| size + 1), None).await.unwrap_err();
        assert!(wrong_size.to_string().contains("another size"), "{wrong_size}");
        let wrong_sha = house.obtain(None, SIZE, Some(Sha512::from_bytes([7; 64]))).await.unwrap_err();
        assert!(wrong_sha.to_string().contains("SHA512"), "{wrong_sha}");
        assert!(honest.iter().all(|peer| !house.here.is_banned(&peer.peer_id())));
        assert!(honest.iter().all(|peer| !house.here.is_doubted(&peer.peer_id())));
        assert_eq!(house.obtain(None, SIZE, None).await.unwrap(), Source::Peer);
    }

    /// Who came first with a size of its own kept all others out, and left a partial that is longer than the file.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_peer_says_of_a_size_keeps_nobody_else_out() {
        let house = House::new().await;
        for claimed in [0, 3, 2 << 20, 5 << 30, 20 << 30, u64::MAX] {
            house.strangers(2, Manner::Claims(claimed)).await;
        }
        let nobody = house.obtain(None, None, None).await.unwrap_err();
        assert!(matches!(nobody, ObtainError::Nobody { .. }), "{nobody}");
        house.strangers(1, Manner::Honest).await;
        // What was left of the first attempt is longer than the file.
        assert_eq!(house.obtain(None, None, None).await.unwrap(), Source::Peer);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_let_go_for_a_size_that_is_not_proven() {
        let house = House::new().await;
        assert!(!make_room(&house.store, None).await);
        assert!(!make_room(&house.store, Some(u64::MAX)).await, "what never fits lets nothing go");
    }
}
