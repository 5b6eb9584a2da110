//! Who asks: any page open in a browser can reach this port, so a request is answered only when it is no page's, or this
//! node's own page's.
//!
//! A page can make a browser send a request from elsewhere (an image, a form, a script), and can have its own name lead to
//! this machine (DNS rebinding). Neither may learn what is held here, by bytes, status or time, nor begin a transfer. So
//! the host that is asked must be this machine by address, as `localhost`, or by a name of `http.names`; and what a
//! browser says of where a request comes from (`Sec-Fetch-Site`, `Origin`, `Referer`) must be here. Portage's fetchers say
//! nothing of the kind. What a browser says nothing of, because it takes this address for none worth protecting (plain HTTP
//! by an address of the network), is told apart by `Referer` alone.

use super::distfiles::plain;
use crate::domain::Domain;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;
use url::Url;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// It asks for a host that this node is not known as.
    Name,
    /// A page of another site made it.
    Site,
}

impl Refused {
    fn answer(self) -> Response {
        match self {
            Self::Name => plain(
                StatusCode::MISDIRECTED_REQUEST,
                "ask by address or as localhost, or let this name in: http.names in peer.toml",
            ),
            Self::Site => plain(StatusCode::FORBIDDEN, "pages of other sites are not answered"),
        }
    }
}

/// Lets through what is no page's, or this node's own page's.
pub(super) async fn only_ours(State(domain): State<Arc<Domain>>, request: Request, next: Next) -> Response {
    match judge(request.method(), request.uri(), request.headers(), &domain.config.http_names) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.answer(),
    }
}

fn judge(method: &Method, uri: &Uri, headers: &HeaderMap, names: &[String]) -> Result<(), Refused> {
    let host = asked_host(uri, headers)?;
    if host.as_deref().is_some_and(|host| !is_ours(host, names)) {
        return Err(Refused::Name);
    }
    // A link to the page, followed by hand: the page it comes from sees nothing of what is answered.
    let is_visit = *method == Method::GET
        && uri.path() == "/"
        && said(headers, "sec-fetch-mode") == Some("navigate")
        && said(headers, "sec-fetch-dest") == Some("document");
    if is_visit || comes_from_here(headers, host.as_deref()) { Ok(()) } else { Err(Refused::Site) }
}

/// The host that is asked, with its port; none from clients of HTTP/1.0, and no browser is one.
fn asked_host(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Refused::Name);
    }
    // A request line with a whole address overrules the header (RFC 9112, 3.2.2).
    match (uri.authority(), first) {
        (Some(authority), _) => Ok(Some(authority.as_str().to_owned())),
        (None, Some(host)) => host.to_str().map(|host| Some(host.to_owned())).map_err(|_| Refused::Name),
        (None, None) => Ok(None),
    }
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _port)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let known = |known: &String| known.eq_ignore_ascii_case(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() || names.iter().any(known)
}

fn comes_from_here(headers: &HeaderMap, host: Option<&str>) -> bool {
    // "none" is what the user typed. "same-site" is another port of this machine, which may be anybody's.
    if headers.contains_key("sec-fetch-site") {
        return matches!(said(headers, "sec-fetch-site"), Some("same-origin" | "none"))
            && names_host(headers, header::ORIGIN, host) != Some(false);
    }
    // The page itself forbids that its address is passed on, so that a Referer is always another's; yet it costs nothing to look.
    names_host(headers, header::ORIGIN, host).or_else(|| names_host(headers, header::REFERER, host)).unwrap_or(true)
}

/// The value of a header that is there once.
fn said<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next()?, values.next());
    first.to_str().ok().filter(|_| second.is_none())
}

/// Whether a header with an address (`Origin`, `Referer`) names the host that is asked; none where there is no such header.
fn names_host(headers: &HeaderMap, name: header::HeaderName, host: Option<&str>) -> Option<bool> {
    if !headers.contains_key(&name) {
        return None;
    }
    let from = said(headers, name.as_str()).and_then(|text| Url::parse(text).ok());
    let asked = host.and_then(|host| Url::parse(&format!("http://{host}/")).ok());
    let place = |url: Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
    // A proxy in front of this node may speak https: the scheme is its own.
    Some(match (from.map(place), asked.map(place)) {
        (Some((Some(from), from_port)), Some((Some(asked), port))) => {
            from == asked && (from_port == port || from_port == Some(443) && port == Some(80))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::{any, proptest};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    fn asked(path: &str, pairs: &[(&'static str, &str)]) -> Result<(), Refused> {
        judge(&Method::GET, &path.parse().unwrap(), &headers(pairs), &["strong.lan".to_owned()])
    }

    #[test]
    fn a_rebound_name_is_not_this_machine() {
        for (host, ours) in [
            ("127.0.0.1:8420", true),
            ("127.0.0.1", true),
            ("[::1]:8420", true),
            ("[::1]", true),
            ("localhost:8420", true),
            ("LOCALHOST", true),
            ("strong.lan:8420", true),
            ("Strong.LAN", true),
            ("evil.example:8420", false),
            ("strong.lan.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            for path in ["/", "/distfiles/a", "/releases/a", "/api/v1/status", "/metrics", "/events", "/nothing"] {
                let expected = if ours { Ok(()) } else { Err(Refused::Name) };
                assert_eq!(asked(path, &[("host", host)]), expected, "{host} {path}");
            }
        }
        assert_eq!(asked("/", &[]), Ok(()), "HTTP/1.0");
        assert_eq!(asked("/", &[("host", "127.0.0.1"), ("host", "evil.example")]), Err(Refused::Name));
        assert_eq!(asked("http://evil.example/distfiles/a", &[("host", "127.0.0.1")]), Err(Refused::Name));
        assert_eq!(asked("http://127.0.0.1/distfiles/a", &[("host", "evil.example")]), Ok(()), "no page can send this");
    }

    #[test]
    fn a_page_of_another_site_gets_nothing() {
        for (site, others, answered) in [
            ("none", vec![], true),
            ("same-origin", vec![], true),
            ("same-origin", vec![("origin", "http://127.0.0.1:8420")], true),
            ("same-origin", vec![("origin", "http://evil.example")], false),
            ("same-site", vec![], false),
            ("same-site", vec![("origin", "http://127.0.0.1:3000")], false),
            ("cross-site", vec![], false),
            ("cross-site", vec![("origin", "null")], false),
            ("cross-site", vec![("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], false),
            ("cross-site", vec![("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false),
            ("Cross-Site", vec![], false),
            ("", vec![], false),
        ] {
            let mut pairs = vec![("host", "127.0.0.1:8420"), ("sec-fetch-site", site)];
            pairs.extend(others);
            for path in ["/", "/distfiles/a", "/binpkgs/id/Packages", "/releases/a", "/api/v1/jobs", "/events"] {
                let expected = if answered { Ok(()) } else { Err(Refused::Site) };
                assert_eq!(asked(path, &pairs), expected, "{pairs:?} {path}");
            }
        }
    }

    #[test]
    fn a_browser_that_names_no_site_is_known_by_origin_and_referer() {
        for (name, from, answered) in [
            ("origin", "http://192.168.0.5:8420", true),
            ("origin", "http://192.168.0.5", false),
            ("origin", "http://evil.example", false),
            ("origin", "null", false),
            ("origin", "", false),
            ("referer", "http://192.168.0.5:8420/", true),
            ("referer", "http://evil.example/page", false),
            ("referer", "garbage", false),
        ] {
            let pairs = [("host", "192.168.0.5:8420"), (name, from)];
            let expected = if answered { Ok(()) } else { Err(Refused::Site) };
            assert_eq!(asked("/distfiles/a", &pairs), expected, "{name}: {from}");
        }
    }

    #[test]
    fn a_link_to_the_page_may_be_followed_and_to_nothing_else() {
        let visit = [
            ("host", "localhost:8420"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(asked("/", &visit), Ok(()));
        assert_eq!(asked("/releases/a.html", &visit), Err(Refused::Site));
        let post = judge(&Method::POST, &"/".parse().unwrap(), &headers(&visit), &[]);
        assert_eq!(post, Err(Refused::Site));
    }

    proptest! {
        #[test]
        fn only_this_nodes_own_page_is_answered_whatever_else_is_said(
            site in "[a-z-]{0,12}", origin in "\\PC{0,24}", referer in "\\PC{0,24}", twice in any::<bool>(),
        ) {
            let fit = |text: &str| HeaderValue::from_str(text).is_ok();
            if fit(&origin) && fit(&referer) && !matches!(&*site, "none" | "same-origin") {
                let mut pairs = vec![("host", "127.0.0.1"), ("sec-fetch-site", &*site), ("origin", &*origin), ("referer", &*referer)];
                if twice {
                    pairs.push(("sec-fetch-site", "same-origin"));
                }
                assert_eq!(asked("/distfiles/a", &pairs), Err(Refused::Site));
            }
        }
    }
}
