//! Whether and where a redirect is followed. Pure.

use url::Url;

use crate::plan::host_of;
use crate::reach::Reach;

/// A longer Location is not followed.
const LOCATION_MAX: usize = 8 * 1024;

/// Bytes that are no ASCII are taken as they are, percent-encoded, as wget does.
fn readable(location: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(location) {
        return text.to_owned();
    }
    let spelled = |byte: &u8| if byte.is_ascii() { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    location.iter().map(spelled).collect()
}

/// Whether what stands before the first colon is a scheme, to wget: without dots, so that a host and its port are none.
fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(usual)
    })
}

/// A path in which a colon means nothing (RFC 3986, 4.2).
fn as_relative(location: String) -> String {
    let first = location.split(['/', '?', '#']).next().unwrap_or_default();
    if first.contains(':') { format!("./{location}") } else { location }
}

/// Where `location` leads from `from`, or `None` if it is not to be followed: not a URL, not http(s), or an address nearer
/// than `reach`, that of the server which said it (a remote has no business to send us into this machine or its network).
/// Where it is a name, its lookup must keep to the same.
///
/// Credentials stay only within the same scheme, host and port.
pub(crate) fn next(from: &Url, location: &[u8], reach: Reach) -> Option<Url> {
    if location.len() > LOCATION_MAX {
        return None;
    }
    let location = readable(location);
    let relative = if has_scheme(&location) { location } else { as_relative(location) };
    let mut to = from.join(&relative).ok()?;
    if !matches!(to.scheme(), "http" | "https") || host_of(&to).is_none() {
        return None;
    }
    if Reach::spelled(&to).is_some_and(|there| there < reach) {
        return None;
    }
    to.set_fragment(None);
    let same = from.scheme() == to.scheme()
        && from.host() == to.host()
        && from.port_or_known_default() == to.port_or_known_default();
    let (user, password) = if same { (from.username(), from.password()) } else { ("", None) };
    to.set_username(user).ok()?;
    to.set_password(password).ok()?;
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(from: &str, location: &str) -> Option<String> {
        let from = Url::parse(from).unwrap();
        let reach = Reach::spelled(&from).unwrap_or(Reach::World);
        next(&from, location.as_bytes(), reach).map(String::from)
    }

    #[test]
    fn only_http_and_https_are_followed() {
        let from = "https://a.example/x/y";
        assert_eq!(go(from, "z").as_deref(), Some("https://a.example/x/z"));
        assert_eq!(go(from, "//b.example/z#part").as_deref(), Some("https://b.example/z"));
        for refused in ["file:///etc/passwd", "ftp://a.example/", "data:,x", "javascript:1", "http://", "https://[", ""]
        {
            assert_eq!(go(from, refused).filter(|_| !refused.is_empty()), None, "{refused}");
        }
        assert_eq!(next(&Url::parse(from).unwrap(), b"/\xff", Reach::World).unwrap().as_str(), "https://a.example/%FF");
        assert_eq!(go(from, &"a".repeat(LOCATION_MAX + 1)), None);
    }

    #[test]
    fn a_redirect_without_a_scheme_leads_where_it_leads_wget() {
        let from = "http://a.example:8080/x/y?q";
        for (location, to) in [
            ("/z", "http://a.example:8080/z"),
            ("z", "http://a.example:8080/x/z"),
            ("../z", "http://a.example:8080/z"),
            ("?z", "http://a.example:8080/x/y?z"),
            ("//b.example/z", "http://b.example/z"),
            ("//b.example:81/z", "http://b.example:81/z"),
            ("b.example/z", "http://a.example:8080/x/b.example/z"),
            ("b.example:81/z", "http://a.example:8080/x/b.example:81/z"),
            ("192.0.2.1:81/z", "http://a.example:8080/x/192.0.2.1:81/z"),
            ("/z w:1", "http://a.example:8080/z%20w:1"),
        ] {
            assert_eq!(go(from, location).as_deref(), Some(to), "{location}");
        }
        assert_eq!(go(from, "localhost:81/z"), None, "a scheme, to wget too");
    }

    #[test]
    fn nobody_outside_sends_us_into_this_machine() {
        for inside in
            ["http://127.0.0.1:8420/", "http://localhost/", "http://a.localhost./", "http://[::1]/", "http://0/"]
        {
            assert_eq!(go("https://a.example/", inside), None, "{inside}");
        }
        assert_eq!(go("http://[::ffff:127.0.0.1]/", "http://127.0.0.2/").as_deref(), Some("http://127.0.0.2/"));
        assert_eq!(go("https://a.example/", "http://[::ffff:127.0.0.1]/"), None);
    }

    #[test]
    fn nobody_is_sent_further_in_than_the_one_who_sends() {
        let reaches = [
            (Reach::Machine, ["http://127.0.0.1/", "http://[::1]/"]),
            (Reach::Network, ["http://192.168.0.1/", "http://169.254.169.254/"]),
            (Reach::World, ["http://192.0.2.1/", "http://b.example/"]),
        ];
        let from = Url::parse("http://a.example/").unwrap();
        for (sender, _) in reaches {
            for (there, targets) in reaches {
                for target in targets {
                    let followed = next(&from, target.as_bytes(), sender).is_some();
                    assert_eq!(followed, there >= sender, "{sender:?} -> {target}");
                }
            }
        }
    }

    #[test]
    fn credentials_stay_with_their_host_and_none_are_taken_from_a_remote() {
        let from = "https://me:secret@a.example/x";
        assert_eq!(go(from, "/y").as_deref(), Some("https://me:secret@a.example/y"));
        assert_eq!(go(from, "https://a.example:443/y").as_deref(), Some("https://me:secret@a.example/y"));
        assert_eq!(go(from, "http://a.example/y").as_deref(), Some("http://a.example/y"));
        assert_eq!(go(from, "https://b.example/y").as_deref(), Some("https://b.example/y"));
        assert_eq!(go(from, "https://you:pw@b.example/y").as_deref(), Some("https://b.example/y"));
    }
}
