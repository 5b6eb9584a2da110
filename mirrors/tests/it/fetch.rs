//! Distfiles over real loopback connections, from servers that lie, stall and break.

use std::time::Duration;

use crate::scripted::{Reply, Request, Scripted, file, not_found, raw, reply};
use mirrors::{Body, Candidate, Exempt, FetchError, Mirrors, Options, Patience, Report, Rounds, Source, Uri};
use tokio::net::TcpSocket;
use tree::digest::Digest;
use tree::distfile::Distfile;
use url::Url;

const NAME: &str = "hello-c-1.0.tar.gz";
/// Long enough that no test on a busy machine waits in vain; where a wait is meant, the test says so.
const AMPLE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(400);

fn content() -> Vec<u8> {
    (0u32..60_000).flat_map(|n| n.to_le_bytes()).collect()
}

fn source(content: &[u8], uris: &[String]) -> Source {
    let distfile = Distfile {
        name: NAME.parse().expect("a good name"),
        size: content.len().try_into().expect("a small file"),
        blake2b: Digest::of(content),
        sha512: None,
    };
    let uris = uris.iter().map(|uri| Uri { uri: uri.clone(), exempt: Exempt::None }).collect();
    Source { distfile, uris, may_mirror: true, may_fetch: true }
}

fn options(mirrors: &[Url]) -> Options {
    Options {
        mirrors: mirrors.to_vec(),
        connect: AMPLE,
        first_byte: AMPLE,
        stall: AMPLE,
        long: AMPLE,
        ..Options::default()
    }
}

fn mirrors(list: &[Url]) -> Mirrors {
    Mirrors::new(options(list)).expect("a client can be set up")
}

async fn rest(body: &mut Body) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Opens the first candidate of the plan.
async fn open(mirrors: &Mirrors, source: &Source, from: u64) -> Result<Body, FetchError> {
    let candidate = mirrors.plan(source).into_iter().next().expect("somebody can be asked");
    mirrors.open(&candidate, source, from, Patience::Normal).await
}

/// What a caller does: everyone in turn, resuming, reporting. Says from whom the last byte came.
async fn obtain(mirrors: &Mirrors, source: &Source) -> Option<(Vec<u8>, Candidate)> {
    let mut have = Vec::new();
    let mut rounds = Rounds::new(mirrors.plan(source));
    while let Some((candidate, patience)) = rounds.next() {
        match append(mirrors, source, &candidate, patience, &mut have).await {
            Ok(()) => return Some((have, candidate)),
            Err(error) => {
                mirrors.report(&candidate, Report::Failed(&error));
                rounds.failed(&error);
            }
        }
    }
    None
}

async fn append(
    mirrors: &Mirrors,
    source: &Source,
    candidate: &Candidate,
    patience: Patience,
    have: &mut Vec<u8>,
) -> Result<(), FetchError> {
    let mut body = mirrors.open(candidate, source, have.len().try_into().expect("small"), patience).await?;
    have.truncate(body.offset().try_into().expect("small"));
    while let Some(chunk) = body.chunk().await? {
        have.extend_from_slice(&chunk);
    }
    Ok(())
}

/// A flat mirror that answers for the file as told and has no layout.conf.
async fn flat(answer: impl Fn(&Request) -> Reply + 'static) -> Scripted {
    Scripted::new(move |request| if request.path.ends_with("/layout.conf") { not_found() } else { answer(request) })
        .await
}

#[tokio::test]
async fn what_breaks_off_is_resumed_at_the_next_mirror_where_it_broke() {
    let content = content();
    let (whole, part) = (content.clone(), content.clone());
    let torn = flat(move |request| file(request, &part).cut(100_000)).await;
    let good = flat(move |request| file(request, &whole)).await;
    let mirrors = mirrors(&[torn.url(), good.url()]);
    let wanted = source(&content, &[]);
    let (bytes, from) = torn.beside(good.beside(obtain(&mirrors, &wanted))).await.expect("the second has it");
    assert!(bytes == content);
    assert_eq!(from.origin(), mirrors::Origin::Mirror(good.url()));
    assert_eq!(good.last().from(), content.len() - 100_000);
    assert_eq!(good.last().header("accept-encoding"), Some("identity"));
    let names: Vec<String> = mirrors.plan(&wanted).iter().map(ToString::to_string).collect();
    assert_eq!(names, [good.url().to_string(), torn.url().to_string()], "the one that broke off cools");
}

#[tokio::test]
async fn what_stalls_is_resumed_at_the_next() {
    let content = content();
    let (whole, part) = (content.clone(), content.clone());
    let silent = flat(move |request| file(request, &part).cut(100_000).then_hang()).await;
    let good = flat(move |request| file(request, &whole)).await;
    let upstream = good.url().join("f.tar").expect("a URL").to_string();
    let mirrors = Mirrors::new(Options { stall: SHORT, ..options(&[silent.url()]) }).expect("a client");
    let wanted = source(&content, std::slice::from_ref(&upstream));
    let (bytes, from) = silent.beside(good.beside(obtain(&mirrors, &wanted))).await.expect("upstream has it");
    assert!(bytes == content);
    assert_eq!(from.origin(), mirrors::Origin::Upstream(upstream));
    let health = mirrors.health();
    assert!(health.iter().any(|host| host.last_error.as_ref().is_some_and(|error| error.contains("stalled"))));
}

#[tokio::test]
async fn the_second_round_waits_long_where_the_first_does_not() {
    let content = content();
    let part = content.clone();
    let silent = flat(move |request| file(request, &part).cut(100_000).then_hang()).await;
    let mirrors = Mirrors::new(Options { mirrors: vec![silent.url()], ..Options::default() }).expect("a client");
    let wanted = source(&content, &[]);
    let candidate = mirrors.plan(&wanted).remove(0);
    silent
        .beside(async {
            for (patience, silence) in [(Patience::Normal, 5), (Patience::Long, 45)] {
                let mut body = mirrors.open(&candidate, &wanted, 0, patience).await.expect("the head is good");
                body.chunk().await.expect("the beginning comes");
                // From here on the clock runs by itself whenever nothing else happens.
                tokio::time::pause();
                let error = rest(&mut body).await.expect_err("nothing more comes");
                tokio::time::resume();
                assert!(matches!(error, FetchError::Stalled { waited, .. } if waited == Duration::from_secs(silence)));
                assert!(body.chunk().await.is_err(), "an error is no end of file");
            }
        })
        .await;
}

#[tokio::test]
async fn a_page_of_excuses_with_status_200_is_refused_before_any_byte() {
    let content = content();
    let page = flat(|_| reply("200 OK", &["Content-Type: text/html"], b"<html>login</html>")).await;
    let mirrors = mirrors(&[page.url()]);
    let wanted = source(&content, &[]);
    let candidate = mirrors.plan(&wanted).remove(0);
    let error = page.beside(mirrors.open(&candidate, &wanted, 0, Patience::Normal)).await.expect_err("a page");
    assert!(matches!(error, FetchError::WrongLength { expected: 240_000, actual: 18, .. }), "{error:?}");
    mirrors.report(&candidate, Report::Failed(&error));
    assert!(mirrors.plan(&wanted).is_empty(), "this file is not asked there again soon");
}

#[tokio::test]
async fn a_redirect_is_followed_with_the_range_and_without_the_credentials() {
    let content = content();
    let whole = content.clone();
    let target = Scripted::new(move |request| file(request, &whole)).await;
    let to = target.url().join("elsewhere").expect("a URL");
    let location = format!("Location: {to}");
    let first = Scripted::new(move |_| reply("302 Found", &[&location], b"")).await;
    let mut upstream = first.url().join("f").expect("a URL");
    upstream.set_username("me").expect("http has users");
    upstream.set_password(Some("secret")).expect("http has passwords");
    let (mirrors, wanted) = (mirrors(&[]), source(&content, &[upstream.into()]));
    let bytes = first
        .beside(target.beside(async {
            let mut body = open(&mirrors, &wanted, 200_000).await.expect("the target has it");
            assert_eq!(body.offset(), 200_000);
            rest(&mut body).await.expect("whole")
        }))
        .await;
    assert!(bytes == content[200_000..]);
    assert!(first.last().header("authorization").is_some());
    assert_eq!(target.last().header("authorization"), None);
    assert_eq!((target.last().path.as_str(), target.last().from()), ("/elsewhere", 200_000));
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let server = Scripted::new(|_| reply("301 Moved", &["Location: /again"], b"")).await;
    let (mirrors, wanted) = (mirrors(&[]), source(b"x", &[server.url().to_string()]));
    let error = server.beside(open(&mirrors, &wanted, 0)).await.expect_err("a loop");
    assert!(matches!(error, FetchError::Redirects { limit: 5, .. }));
    assert_eq!(server.paths().len(), 6);
}

#[tokio::test]
async fn a_redirect_off_http_is_not_followed() {
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/f", "", "http://"] {
        let line = format!("Location: {location}");
        let server = Scripted::new(move |_| reply("302 Found", &[&line], b"x")).await;
        let (mirrors, wanted) = (mirrors(&[]), source(b"x", &[server.url().to_string()]));
        let error = server.beside(open(&mirrors, &wanted, 0)).await.expect_err(location);
        // An empty Location is the page itself, so a loop.
        let fits = matches!(error, FetchError::RedirectRefused { .. })
            || location.is_empty() && matches!(error, FetchError::Redirects { .. });
        assert!(fits, "{location}: {error:?}");
    }
}

#[tokio::test]
async fn a_busy_mirror_is_left_alone_until_the_time_it_gave() {
    for path in ["/layout.conf", NAME] {
        let busy = Scripted::new(move |request| {
            if request.path.ends_with(path) { reply("429 Slow", &["Retry-After: 120"], b"") } else { not_found() }
        })
        .await;
        let mirrors = mirrors(&[busy.url()]);
        let wanted = source(b"x", &[]);
        let candidate = mirrors.plan(&wanted).remove(0);
        let error = busy.beside(mirrors.open(&candidate, &wanted, 0, Patience::Normal)).await.expect_err("busy");
        let asked = Duration::from_secs(120);
        assert!(matches!(error, FetchError::Status { code: 429, retry_after: Some(after), .. } if after == asked));
        mirrors.report(&candidate, Report::Failed(&error));
        let before = busy.paths().len();
        let error = busy.beside(mirrors.open(&candidate, &wanted, 0, Patience::Long)).await.expect_err("still");
        assert!(matches!(error, FetchError::LeftAlone { .. }), "a plan made earlier does not break the peace");
        assert_eq!(busy.paths().len(), before);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(110)).await;
        assert!(mirrors.plan(&wanted).is_empty());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(mirrors.plan(&wanted).len(), 1);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_body_without_length_is_taken_only_if_it_has_the_size() {
    let content = content();
    for (sent, wanted_error) in [(240_000, None), (239_999, Some("ended at byte 239999")), (240_001, Some("has 24000"))]
    {
        let bytes: Vec<u8> = content.iter().copied().chain([0]).take(sent).collect();
        let server = flat(move |_| raw("200 OK", &[], &bytes)).await;
        let (mirrors, wanted) = (mirrors(&[server.url()]), source(&content, &[]));
        let (got, error) = server
            .beside(async {
                let mut body = open(&mirrors, &wanted, 0).await.expect("the head is good");
                let mut got = Vec::new();
                let error = loop {
                    match body.chunk().await {
                        Ok(Some(chunk)) => got.extend_from_slice(&chunk),
                        Ok(None) => break None,
                        Err(error) => break Some(error.to_string()),
                    }
                };
                (got, error)
            })
            .await;
        assert!(content.starts_with(&got), "never a byte past the size");
        match wanted_error {
            None => assert!(error.is_none() && got == content),
            Some(part) => assert!(error.expect("an error").contains(part)),
        }
    }
}

#[tokio::test]
async fn a_whole_answer_to_a_range_begins_at_zero() {
    let content = content();
    let whole = content.clone();
    let server = flat(move |_| reply("200 OK", &[], &whole)).await;
    let (mirrors, wanted) = (mirrors(&[server.url()]), source(&content, &[]));
    server
        .beside(async {
            let mut body = open(&mirrors, &wanted, 1000).await.expect("200 is fine");
            assert_eq!((body.offset(), body.position()), (0, 0));
            assert!(rest(&mut body).await.expect("whole") == content);
            assert_eq!(body.position(), 240_000);
        })
        .await;
}

#[tokio::test]
async fn answers_that_are_not_the_file_are_refused_by_their_head() {
    type Fits = fn(&FetchError) -> bool;
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let huge = format!("X-Huge: {}", "y".repeat(2 << 20));
    let answers: [(Reply, Fits); 9] = [
        (reply("200 OK", &["Content-Encoding: gzip"], b"123"), |e| matches!(e, FetchError::WrongLength { .. })),
        (reply("416 No", &["Content-Range: bytes */1"], b""), |e| matches!(e, FetchError::Status { code: 416, .. })),
        (reply("206 Part", &["Content-Range: bytes 0-1/2"], b"12"), |e| matches!(e, FetchError::WrongRange { .. })),
        (reply("206 Part", &[], b"12"), |e| matches!(e, FetchError::WrongRange { .. })),
        (reply("206 Part", &["Content-Range: bytes 1-8/9"], b"12345678"), |e| {
            matches!(e, FetchError::WrongLength { actual: 9, .. })
        }),
        (reply("200 OK", &[many.trim_end()], b"12"), |e| matches!(e, FetchError::Garbled { .. })),
        (reply("200 OK", &[&huge], b"12"), |e| matches!(e, FetchError::Garbled { .. })),
        (Reply { bytes: b"SSH-2.0-x\r\n\r\n".to_vec(), hang: false }, |e| matches!(e, FetchError::Garbled { .. })),
        (Reply { bytes: Vec::new(), hang: false }, |e| matches!(e, FetchError::Garbled { .. })),
    ];
    for (number, (answer, fits)) in answers.into_iter().enumerate() {
        let server = flat(move |_| answer.clone()).await;
        let (mirrors, wanted) = (mirrors(&[server.url()]), source(b"12", &[]));
        let error = server.beside(open(&mirrors, &wanted, 1)).await.expect_err("not the file");
        assert!(fits(&error), "{number}: {error:?}");
        assert_eq!(
            error.blame().host(),
            server.url().as_str().strip_prefix("http://").map(|s| s.trim_end_matches('/'))
        );
    }
}

#[tokio::test]
async fn each_layout_is_asked_for_where_it_keeps_the_file() {
    let digest = Digest::of(b"x");
    let by_content = format!("/distfiles/{}/{digest}", &digest.to_string()[..2]);
    let table = [
        ("[structure]\n0=filename-hash BLAKE2B 8\n1=flat\n", format!("/distfiles/1c/{NAME}")),
        ("[structure]\n0=content-hash BLAKE2B 8\n1=flat\n", by_content),
        ("[structure]\n0=flat\n", format!("/distfiles/{NAME}")),
        ("<html>not found, but 200</html>", format!("/distfiles/{NAME}")),
    ];
    for (conf, path) in table {
        let server = Scripted::new(move |request| {
            let body = if request.path.ends_with("/layout.conf") { conf.as_bytes() } else { b"x" };
            reply("200 OK", &[], body)
        })
        .await;
        let (mirrors, wanted) = (mirrors(&[server.url()]), source(b"x", &[]));
        server
            .beside(async {
                for _ in 0..2 {
                    let mut body = open(&mirrors, &wanted, 0).await.expect("there it is");
                    assert_eq!(rest(&mut body).await.expect("whole"), b"x");
                }
            })
            .await;
        assert_eq!(server.paths(), ["/distfiles/layout.conf".to_owned(), path.clone(), path]);
    }
}

#[tokio::test]
async fn many_at_once_ask_for_the_layout_once() {
    let server = flat(|_| reply("200 OK", &[], b"x")).await;
    let (mirrors, wanted) = (mirrors(&[server.url()]), source(b"x", &[]));
    let all = futures::future::join_all((0..8).map(|_| open(&mirrors, &wanted, 0)));
    assert!(server.beside(all).await.iter().all(Result::is_ok));
    assert_eq!(server.paths().iter().filter(|path| path.ends_with("layout.conf")).count(), 1);
}

#[tokio::test]
async fn an_endless_layout_conf_means_flat() {
    let server = Scripted::new(|request| {
        if request.path.ends_with("/layout.conf") {
            raw("200 OK", &[], &vec![b'#'; 1 << 20]).then_hang()
        } else {
            reply("200 OK", &[], b"x")
        }
    })
    .await;
    let (mirrors, wanted) = (mirrors(&[server.url()]), source(b"x", &[]));
    server.beside(open(&mirrors, &wanted, 0)).await.expect("flat");
    assert_eq!(server.last().path, format!("/distfiles/{NAME}"));
}

#[tokio::test]
async fn a_mirror_that_is_down_fails_by_its_connection_and_one_that_is_mute_by_its_time() {
    // Bound but not listening: the port is nobody else's, and connections are refused.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let gone = Url::parse(&format!("http://{}/", socket.local_addr().expect("bound"))).expect("a URL");
    let wanted = source(b"x", &[]);
    let error = open(&mirrors(&[gone]), &wanted, 0).await.expect_err("nobody is there");
    assert!(matches!(error, FetchError::Connect { .. }), "{error:?}");

    let mute = Scripted::new(|_| Reply { bytes: Vec::new(), hang: true }).await;
    let options = Options { connect: SHORT, first_byte: SHORT, ..options(&[mute.url()]) };
    let mirrors = Mirrors::new(options).expect("a client");
    let error = mute.beside(open(&mirrors, &wanted, 0)).await.expect_err("nothing comes");
    assert!(matches!(error, FetchError::Timeout { .. }), "{error:?}");
    assert_eq!(mute.paths(), ["/distfiles/layout.conf"], "it is not asked for the file as well");
}

#[tokio::test]
async fn nothing_is_asked_for_a_file_that_is_whole_already() {
    let server = flat(|_| not_found()).await;
    let mirrors = mirrors(&[server.url()]);
    for content in [b"".as_slice(), b"xyz"] {
        let wanted = source(content, &[]);
        let size = wanted.distfile.size;
        let mut body = server.beside(open(&mirrors, &wanted, size)).await.expect("nothing to do");
        assert_eq!(body.chunk().await.expect("no error"), None);
        let past = server.beside(open(&mirrors, &wanted, size + 1)).await.expect_err("past the end");
        assert!(matches!(past, FetchError::PastEnd { .. }));
    }
    assert!(server.paths().is_empty());
}

#[tokio::test]
async fn not_there_is_remembered_for_the_file_and_costs_the_mirror_nothing() {
    let server = flat(|_| not_found()).await;
    let mirrors = mirrors(&[server.url()]);
    let (wanted, other) = (source(b"x", &[]), source(b"y", &[]));
    assert!(server.beside(obtain(&mirrors, &wanted)).await.is_none());
    assert!(mirrors.plan(&wanted).is_empty());
    assert_eq!(mirrors.plan(&other).len(), 1);
    assert_eq!(mirrors.health()[0].failed, 0);
    assert_eq!(server.paths().len(), 2, "one layout.conf, one file: a 404 is not asked for a second time");
}

#[tokio::test]
async fn another_list_takes_the_place_of_the_first() {
    let mirrors = mirrors(&[Url::parse("ftp://old.example/").expect("a URL")]);
    let wanted = source(b"x", &["mirror://gnu/f".to_owned()]);
    assert!(mirrors.plan(&wanted).is_empty(), "ftp is no mirror and gnu is not known");
    mirrors.set_mirrors(vec![Url::parse("https://new.example/").expect("a URL")]);
    mirrors.set_thirdparty(tree::thirdparty::ThirdPartyMirrors::parse("gnu https://gnu.example/\n"));
    let hosts: Vec<String> = mirrors.plan(&wanted).iter().map(|one| one.host().to_owned()).collect();
    assert_eq!(hosts, ["new.example", "gnu.example"]);
}
