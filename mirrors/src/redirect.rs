//! Whether and where a redirect is followed. Pure.

use url::Url;

use crate::plan::{host_of, is_loopback};

/// A longer Location is not followed.
const LOCATION_MAX: usize = 8 * 1024;

/// Where `location` leads from `from`, or `None` if it is not to be followed: no text, not a URL, not http(s), or from
/// elsewhere into this machine (where a remote has no business to send us).
///
/// Credentials stay only within the same scheme, host and port.
pub(crate) fn next(from: &Url, location: &[u8]) -> Option<Url> {
    if location.len() > LOCATION_MAX {
        return None;
    }
    let mut to = from.join(std::str::from_utf8(location).ok()?).ok()?;
    if !matches!(to.scheme(), "http" | "https") || host_of(&to).is_none() {
        return None;
    }
    if is_loopback(&to) && !is_loopback(from) {
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
        next(&Url::parse(from).unwrap(), location.as_bytes()).map(String::from)
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
        assert_eq!(next(&Url::parse(from).unwrap(), b"/\xff"), None);
        assert_eq!(go(from, &"a".repeat(LOCATION_MAX + 1)), None);
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
    fn credentials_stay_with_their_host_and_none_are_taken_from_a_remote() {
        let from = "https://me:secret@a.example/x";
        assert_eq!(go(from, "/y").as_deref(), Some("https://me:secret@a.example/y"));
        assert_eq!(go(from, "https://a.example:443/y").as_deref(), Some("https://me:secret@a.example/y"));
        assert_eq!(go(from, "http://a.example/y").as_deref(), Some("http://a.example/y"));
        assert_eq!(go(from, "https://b.example/y").as_deref(), Some("https://b.example/y"));
        assert_eq!(go(from, "https://you:pw@b.example/y").as_deref(), Some("https://b.example/y"));
    }
}
