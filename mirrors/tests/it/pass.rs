//! Handing through `/snapshots/` and `/releases/` over real loopback connections.

use crate::scripted::{Scripted, file, not_found, reply};
use mirrors::{Conditional, FetchError, Mirrors, OpenPathError, Options, PassBody};
use url::Url;

const PATH: &str = "/snapshots/gentoo-latest.tar.xz";

fn mirrors(list: &[Url]) -> Mirrors {
    Mirrors::new(Options { mirrors: list.to_vec(), ..Options::default() }).expect("a client can be set up")
}

async fn rest(body: &mut PassBody) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn the_next_mirror_is_asked_when_one_fails_and_the_first_cools() {
    let broken = Scripted::new(|_| reply("500 Oops", &[], b"")).await;
    let good = Scripted::new(|_| reply("200 OK", &["ETag: \"1\"", "Set-Cookie: a=b", "Server: x"], b"snapshot")).await;
    let mirrors = mirrors(&[broken.url(), good.url().join("gentoo/").expect("a URL")]);
    let none = Conditional::default();
    broken
        .beside(good.beside(async {
            for _ in 0..2 {
                let mut body = mirrors.open_path(PATH, &none).await.expect("the second has it");
                assert_eq!((body.status(), body.length()), (200, Some(8)));
                let passed = [("content-length", "8".to_owned()), ("etag", "\"1\"".to_owned())];
                assert_eq!(body.headers(), passed);
                assert_eq!(rest(&mut body).await.expect("whole"), b"snapshot");
            }
        }))
        .await;
    assert_eq!(broken.paths(), [PATH]);
    assert_eq!(good.last().path, format!("/gentoo{PATH}"));
}

#[tokio::test]
async fn conditions_and_ranges_are_handed_on_and_so_is_their_answer() {
    let server = Scripted::new(|request| match request.header("if-none-match") {
        Some(_) => reply("304 Not Modified", &["ETag: \"1\""], b""),
        None => file(request, b"0123456789"),
    })
    .await;
    let mirrors = mirrors(&[server.url()]);
    let known = Conditional { if_none_match: Some("\"1\"".into()), ..Conditional::default() };
    let mut body = server.beside(mirrors.open_path(PATH, &known)).await.expect("304 is an answer");
    assert_eq!((body.status(), body.headers()), (304, [("etag", "\"1\"".to_owned())].as_slice()));
    assert_eq!(rest(&mut body).await.expect("empty"), b"");
    let part = Conditional { range: Some("bytes=7-".into()), ..Conditional::default() };
    server
        .beside(async {
            let mut body = mirrors.open_path(PATH, &part).await.expect("206 is an answer");
            assert_eq!(body.status(), 206);
            assert!(body.headers().contains(&("content-range", "bytes 7-9/10".to_owned())));
            assert_eq!(rest(&mut body).await.expect("whole"), b"789");
        })
        .await;
}

#[tokio::test]
async fn not_found_is_said_even_when_another_mirror_is_down() {
    let empty = Scripted::new(|_| not_found()).await;
    let broken = Scripted::new(|_| reply("500 Oops", &[], b"")).await;
    let mirrors = mirrors(&[empty.url(), broken.url()]);
    let error = empty.beside(broken.beside(mirrors.open_path(PATH, &Conditional::default()))).await.expect_err("none");
    let OpenPathError::Fetch { path, source } = error else { panic!("{error:?}") };
    assert_eq!(path, PATH);
    assert!(matches!(source, FetchError::Status { code: 404, .. }));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_never_a_clean_end() {
    let torn = Scripted::new(|request| file(request, &[7; 50_000]).cut(10)).await;
    let mirrors = mirrors(&[torn.url()]);
    torn.beside(async {
        let mut body = mirrors.open_path(PATH, &Conditional::default()).await.expect("the head is good");
        assert!(matches!(rest(&mut body).await, Err(FetchError::Truncated { expected: 50_000, .. })));
        assert!(body.chunk().await.is_err());
    })
    .await;
}

#[tokio::test]
async fn an_encoded_body_is_not_handed_on() {
    let server = Scripted::new(|_| reply("200 OK", &["Content-Encoding: gzip"], b"x")).await;
    let mirrors = mirrors(&[server.url()]);
    let error = server.beside(mirrors.open_path(PATH, &Conditional::default())).await.expect_err("encoded");
    assert!(matches!(error, OpenPathError::Fetch { source: FetchError::Encoding { .. }, .. }));
}

#[tokio::test]
async fn other_paths_are_refused_without_asking_anyone() {
    let server = Scripted::new(|_| reply("200 OK", &[], b"x")).await;
    let mirrors = mirrors(&[server.url()]);
    for path in ["/distfiles/x", "/snapshots/../x", "/etc/passwd", "http://127.0.0.1/snapshots/x"] {
        let error = server.beside(mirrors.open_path(path, &Conditional::default())).await.expect_err(path);
        assert!(matches!(error, OpenPathError::Path(_)));
    }
    assert!(server.paths().is_empty());
    mirrors.set_mirrors(Vec::new());
    let error = mirrors.open_path(PATH, &Conditional::default()).await.expect_err("no mirror");
    assert!(matches!(error, OpenPathError::NoMirror));
}
