//! Pure: a distfile, what its ebuild allows, and the health of the hosts become an ordered list of whom to ask.
//!
//! The order and the meaning of RESTRICT are Portage's (`fetch()` in `lib/portage/package/ebuild/fetch.py`; RESTRICT and
//! the `fetch+`/`mirror+` prefixes: PMS 7.3.6 and 8.2.10): `local` mirrors, GENTOO_MIRRORS, then `mirror://` expansions, the
//! user's before the repositories', then SRC_URI itself. `mirror://` expansion happens here and nowhere else.

use std::collections::HashSet;
use std::fmt;

use tokio::time::Instant;
use tree::digest::Digest;
use tree::distfile::Distfile;
use tree::thirdparty::ThirdPartyMirrors;
use url::Url;

use crate::error::{Blame, FetchError, quoted};
use crate::health::{Ledger, Standing};
use crate::reach::Reach;

/// A plan has at most this many candidates.
pub const CANDIDATES_MAX: usize = 24;
/// GENTOO_MIRRORS in one plan; the rest would only be reached when the file is nowhere.
const MIRRORS_IN_PLAN: usize = 8;
/// `local` mirrors of the user in one plan.
const LOCAL_IN_PLAN: usize = 4;
/// `mirror://` expansions of the user in one plan, and of the repositories, so that upstream itself is reached too.
const CUSTOM_IN_PLAN: usize = 4;
/// See [`CUSTOM_IN_PLAN`].
const EXPANDED_IN_PLAN: usize = 5;
/// URIs of one source that are looked at, and what each may expand to.
const URIS_MAX: usize = 64;
/// A longer URI is left out.
const URI_MAX: usize = 4096;

/// Which restriction a SRC_URI entry is exempt from by its prefix (EAPI 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exempt {
    /// No prefix.
    #[default]
    None,
    /// `fetch+`: may be fetched from upstream in spite of RESTRICT=fetch.
    Fetch,
    /// `mirror+`: may be mirrored (and fetched) in spite of either restriction.
    Mirror,
}

/// One entry of SRC_URI for a distfile, without its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// `https://…`, `mirror://NAME/…`; what is neither http(s) nor a known mirror is left out of plans.
    pub uri: String,
    /// What its prefix exempts it from.
    pub exempt: Exempt,
}

/// A distfile that is wanted, and where its ebuild allows to look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What is wanted.
    pub distfile: Distfile,
    /// Its entries in SRC_URI, in order; none at all is fine (only the mirrors are asked then).
    pub uris: Vec<Uri>,
    /// Whether the ebuild lacks RESTRICT=mirror.
    pub may_mirror: bool,
    /// Whether the ebuild lacks RESTRICT=fetch. (Fetch restriction implies mirror restriction.)
    pub may_fetch: bool,
}

/// Where a candidate comes from, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A Gentoo mirror, by its base URL.
    Mirror(Url),
    /// A URI of SRC_URI or of a `mirror://` expansion.
    Upstream(String),
}

/// Someone to ask for a distfile. `Display` is for logs and has no credentials and no query.
#[derive(Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The mirror's base, or the whole URI; may hold credentials.
    url: Url,
    is_mirror: bool,
    host: String,
    /// What stands for "this place and this file" in the health; none for what is no distfile.
    pair: Option<Digest>,
}

impl Candidate {
    /// A Gentoo mirror by its base URL (what stands in GENTOO_MIRRORS; `distfiles/` is below it).
    pub(crate) fn mirror(base: &Url) -> Result<Self, FetchError> {
        let mut url = base.clone();
        url.set_query(None);
        Self::new(url, true)
    }

    /// A URI of SRC_URI.
    pub(crate) fn upstream(uri: &str) -> Result<Self, FetchError> {
        let refused = || FetchError::NotHttp { uri: quoted(uri.as_bytes()) };
        if uri.len() > URI_MAX {
            return Err(refused());
        }
        Self::new(Url::parse(uri).map_err(|_| refused())?, false)
    }

    fn new(mut url: Url, is_mirror: bool) -> Result<Self, FetchError> {
        url.set_fragment(None);
        let ("http" | "https", Some(host)) = (url.scheme(), host_of(&url)) else {
            return Err(FetchError::NotHttp { uri: quoted(shown(&url).as_bytes()) });
        };
        Ok(Self { url, is_mirror, host, pair: None })
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let bare = without_credentials(&self.url);
        if self.is_mirror { Origin::Mirror(bare) } else { Origin::Upstream(bare.into()) }
    }

    /// Its host, and port if not the usual one: what health is kept by.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Who is answerable for what it does.
    #[must_use]
    pub fn blame(&self) -> Blame {
        if self.is_mirror { Blame::Mirror(self.host.clone()) } else { Blame::Upstream(self.host.clone()) }
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// The mirror's base or the whole URI, with credentials.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The same, to be asked for this distfile.
    fn with(mut self, distfile: &Distfile) -> Self {
        let place = format!("{} {} {}", u8::from(self.is_mirror), self.url, distfile.blake2b);
        self.pair = Some(Digest::of(place.as_bytes()));
        self
    }

    pub(crate) fn pair(&self) -> Option<Digest> {
        self.pair
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({} {self})", if self.is_mirror { "mirror" } else { "upstream" })
    }
}

/// Host, and port if not the usual one.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Whether the host is this machine by its spelling: loopback addresses and `localhost`. No name is looked up.
pub(crate) fn is_loopback(url: &Url) -> bool {
    Reach::spelled(url) == Some(Reach::Machine)
}

/// The URL without user and password.
pub(crate) fn without_credentials(url: &Url) -> Url {
    let mut bare = url.clone();
    // Fails only for URLs without a host, and those have no credentials.
    if bare.set_username("").is_ok() {
        bare.set_password(None).unwrap_or_default();
    }
    bare
}

/// The URL as it may stand in a log: no credentials, no query (which may be a token).
pub(crate) fn shown(url: &Url) -> String {
    let mut bare = without_credentials(url);
    bare.set_query(None);
    bare.into()
}

/// Where files may be had, whatever an ebuild says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// `local` of `/etc/portage/mirrors`: asked for every file, restricted or not.
    pub(crate) local: &'a [Url],
    /// GENTOO_MIRRORS.
    pub(crate) mirrors: &'a [Url],
    /// What the user says of `mirror://` in `/etc/portage/mirrors`: asked first, in the user's order.
    pub(crate) custom: &'a ThirdPartyMirrors,
    /// What the repositories say of it.
    pub(crate) thirdparty: &'a ThirdPartyMirrors,
}

/// Whom to ask for `source`, in order. Hosts that failed of late come last; hosts that asked to be left alone, and
/// places known not to have the right file, are left out.
pub(crate) fn plan(source: &Source, places: Places<'_>, ledger: &Ledger, now: Instant) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let mut usable = |candidate: Result<Candidate, FetchError>| {
        let candidate = candidate.ok()?.with(&source.distfile);
        let wanted = seen.insert((candidate.is_mirror, candidate.url.clone()))
            && ledger.standing(&candidate.host, now) != Standing::LeftAlone
            && !candidate.pair.is_some_and(|pair| ledger.is_avoided(&pair, now));
        wanted.then_some(candidate)
    };
    let local: Vec<_> = places.local.iter().filter_map(|mirror| usable(Candidate::mirror(mirror))).collect();
    let mut gentoo = Vec::new();
    if may_ask_mirrors(source) {
        gentoo.extend(places.mirrors.iter().filter_map(|mirror| usable(Candidate::mirror(mirror))));
    }
    let (mut custom, mut expanded, mut upstream) = (Vec::new(), Vec::new(), Vec::new());
    for entry in source.uris.iter().take(URIS_MAX).filter(|entry| entry.uri.len() <= URI_MAX) {
        if entry.uri.starts_with("mirror://") {
            // Named mirrors are asked in spite of RESTRICT=fetch, as Portage does.
            for (table, found) in [(places.custom, &mut custom), (places.thirdparty, &mut expanded)] {
                let uris = table.expand(&entry.uri);
                found.extend(uris.iter().take(URIS_MAX).filter_map(|uri| usable(Candidate::upstream(uri))));
            }
        } else if source.may_fetch || entry.exempt != Exempt::None {
            upstream.extend(usable(Candidate::upstream(&entry.uri)));
        }
    }
    // Portage shuffles these; turning the list by the file spreads the load as well and stays repeatable.
    let turn = source.distfile.blake2b.as_bytes().first().copied().map_or(0, usize::from);
    let turn = turn.checked_rem(expanded.len()).unwrap_or(0);
    expanded.rotate_left(turn);
    let mut all = Vec::new();
    for (mut group, most) in [
        (local, LOCAL_IN_PLAN),
        (gentoo, MIRRORS_IN_PLAN),
        (custom, CUSTOM_IN_PLAN),
        (expanded, EXPANDED_IN_PLAN),
        (upstream, CANDIDATES_MAX),
    ] {
        // Both sorts are stable: among equals the user's order, or SRC_URI's, stays.
        group.sort_by_cached_key(|candidate| {
            (ledger.standing(&candidate.host, now), ledger.cost(&candidate.host, source.distfile.size, now))
        });
        all.extend(group.into_iter().take(most));
    }
    all.truncate(CANDIDATES_MAX);
    all.sort_by_key(|candidate| ledger.standing(&candidate.host, now));
    all
}

fn may_ask_mirrors(source: &Source) -> bool {
    (source.may_mirror && source.may_fetch) || source.uris.iter().any(|entry| entry.exempt == Exempt::Mirror)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Report;
    use std::time::Duration;

    const MIRRORS: [&str; 2] = ["http://one.example/gentoo", "https://me:secret@two.example"];
    const UP: &str = "https://up.example/f.tar";
    const NAMED: &str = "mirror://gnu/f.tar";

    fn thirdparty() -> ThirdPartyMirrors {
        ThirdPartyMirrors::parse("gnu https://g1.example/gnu https://g2.example/gnu\n")
    }

    fn source(may_mirror: bool, may_fetch: bool, uris: &[(&str, Exempt)]) -> Source {
        let uris = uris.iter().map(|(uri, exempt)| Uri { uri: (*uri).to_owned(), exempt: *exempt }).collect();
        let distfile = Distfile {
            name: "f.tar".parse().unwrap(),
            size: 1 << 20,
            blake2b: Digest::from_bytes([0; 64]),
            sha512: None,
        };
        Source { distfile, uris, may_mirror, may_fetch }
    }

    fn plan_of(
        source: &Source,
        mirrors: &[Url],
        thirdparty: &ThirdPartyMirrors,
        ledger: &Ledger,
        now: Instant,
    ) -> Vec<Candidate> {
        let places = Places { local: &[], mirrors, custom: &ThirdPartyMirrors::default(), thirdparty };
        plan(source, places, ledger, now)
    }

    #[test]
    fn what_the_user_says_of_mirrors_comes_first_and_a_local_one_is_asked_for_every_file() {
        let url = |text: &str| Url::parse(text).unwrap();
        let custom =
            ThirdPartyMirrors::parse("gnu https://mine.example/a https://mine2.example\nown https://own.example\n");
        let (local, mirrors) = ([url("http://lan.example/gentoo")], [url("http://one.example")]);
        let hosts = |may_mirror: bool, may_fetch: bool, uri: &str| -> Vec<String> {
            let source = source(may_mirror, may_fetch, &[(uri, Exempt::None)]);
            let places = Places { local: &local, mirrors: &mirrors, custom: &custom, thirdparty: &thirdparty() };
            let plan = plan(&source, places, &Ledger::default(), Instant::now());
            plan.iter().map(|one| one.host().trim_end_matches(".example").to_owned()).collect()
        };
        assert_eq!(hosts(true, true, NAMED), ["lan", "one", "mine", "mine2", "g1", "g2"]);
        assert_eq!(hosts(false, true, "mirror://own/f.tar"), ["lan", "own"]);
        assert_eq!(hosts(true, false, UP), ["lan"]);
        assert_eq!(hosts(false, true, UP), ["lan", "up"]);
    }

    fn hosts_with(source: &Source, ledger: &Ledger, now: Instant) -> Vec<String> {
        let mirrors = MIRRORS.map(|mirror| Url::parse(mirror).unwrap());
        plan_of(source, &mirrors, &thirdparty(), ledger, now).iter().map(|one| one.host().to_owned()).collect()
    }

    fn hosts(source: &Source) -> String {
        hosts_with(source, &Ledger::default(), Instant::now())
            .iter()
            .map(|host| host.replace(".example", " "))
            .collect()
    }

    #[test]
    fn restrictions_mean_what_they_mean_to_portage() {
        use Exempt::{Fetch, Mirror, None};
        // RESTRICT lacks mirror, lacks fetch, entries, who is asked.
        type Row<'a> = (bool, bool, &'a [(&'a str, Exempt)], &'a str);
        let table: [Row<'_>; 15] = [
            (true, true, &[(UP, None)], "one two up "),
            (true, true, &[], "one two "),
            (true, true, &[(UP, None), (NAMED, None)], "one two g1 g2 up "),
            (false, true, &[(UP, None)], "up "),
            (false, true, &[(UP, Fetch)], "up "),
            (false, true, &[(UP, Mirror)], "one two up "),
            (false, true, &[(NAMED, None)], "g1 g2 "),
            (true, false, &[(UP, None)], ""),
            (true, false, &[(UP, Fetch)], "up "),
            (true, false, &[(UP, Mirror)], "one two up "),
            (false, false, &[(UP, Mirror)], "one two up "),
            (false, false, &[], ""),
            (true, false, &[(NAMED, None)], "g1 g2 "),
            (
                true,
                true,
                &[("ftp://x.example/f", None), ("file:///f", None), ("f.tar", None), ("mirror://?", None)],
                "one two ",
            ),
            (true, true, &[("mirror://nobody/f", None), (UP, None), (UP, None)], "one two up "),
        ];
        for (may_mirror, may_fetch, uris, wanted) in table {
            assert_eq!(hosts(&source(may_mirror, may_fetch, uris)), wanted, "{may_mirror} {may_fetch} {uris:?}");
        }
    }

    #[test]
    fn a_host_that_failed_comes_last_of_all_and_one_that_asked_for_peace_not_at_all() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let wanted = source(true, true, &[(UP, Exempt::None)]);
        let stalled =
            FetchError::Stalled { at: Blame::Mirror("one.example".into()), waited: Duration::from_secs(5), bytes: 0 };
        ledger.report("one.example", None, Report::Failed(&stalled), now);
        assert_eq!(hosts_with(&wanted, &ledger, now), ["two.example", "up.example", "one.example"]);
        let busy = FetchError::Status { at: Blame::Mirror("two.example".into()), code: 429, retry_after: None };
        ledger.report("two.example", None, Report::Failed(&busy), now);
        assert_eq!(hosts_with(&wanted, &ledger, now), ["up.example", "one.example"]);
        let later = now + Duration::from_secs(40);
        assert_eq!(hosts_with(&wanted, &ledger, later), ["one.example", "two.example", "up.example"]);
    }

    #[test]
    fn a_place_with_wrong_bytes_is_left_out_for_that_file_only() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let wanted = source(true, true, &[(UP, Exempt::None)]);
        let first = plan_of(&wanted, &[Url::parse(MIRRORS[0]).unwrap()], &thirdparty(), &ledger, now).remove(0);
        ledger.report(first.host(), first.pair(), Report::WrongBytes, now);
        let later = now + Duration::from_secs(5 * 60);
        assert_eq!(hosts_with(&wanted, &ledger, later), ["two.example", "up.example"]);
        let mut other = wanted;
        other.distfile.blake2b = Digest::from_bytes([1; 64]);
        assert!(hosts_with(&other, &ledger, later).contains(&"one.example".to_owned()));
    }

    #[test]
    fn a_much_faster_mirror_goes_first() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let second = Duration::from_secs(1);
        ledger.report("one.example", None, Report::Served { bytes: 100 << 10, elapsed: second }, now);
        ledger.report("two.example", None, Report::Served { bytes: 100 << 20, elapsed: second }, now);
        assert_eq!(hosts_with(&source(true, true, &[]), &ledger, now), ["two.example", "one.example"]);
    }

    #[test]
    fn a_plan_is_bounded_and_upstream_still_has_a_place_in_it() {
        let mirrors: Vec<Url> = (0..60).map(|n| Url::parse(&format!("http://m{n}.example")).unwrap()).collect();
        let named: String = (0..60).map(|n| format!(" https://g{n}.example/")).collect();
        let thirdparty = ThirdPartyMirrors::parse(&format!("gnu{named}\n"));
        let long = format!("https://up.example/{}", "a".repeat(URI_MAX));
        let mut uris = vec![(NAMED, Exempt::None), (long.as_str(), Exempt::None)];
        uris.extend([(UP, Exempt::None); 200]);
        let all = plan_of(&source(true, true, &uris), &mirrors, &thirdparty, &Ledger::default(), Instant::now());
        assert!(all.len() <= CANDIDATES_MAX);
        assert_eq!(all.last().unwrap().origin(), Origin::Upstream(UP.to_owned()));
    }

    #[test]
    fn the_load_on_named_mirrors_is_spread_by_file() {
        let mut wanted = source(false, true, &[(NAMED, Exempt::None)]);
        assert_eq!(hosts(&wanted), "g1 g2 ");
        wanted.distfile.blake2b = Digest::from_bytes([1; 64]);
        assert_eq!(hosts(&wanted), "g2 g1 ");
    }

    #[test]
    fn no_credentials_and_no_query_are_shown() {
        let mirror = Candidate::mirror(&Url::parse(MIRRORS[1]).unwrap()).unwrap();
        let upstream = Candidate::upstream("https://me:secret@up.example:8443/f?token=secret#secret").unwrap();
        let shown = format!("{mirror} {mirror:?} {:?} {upstream} {upstream:?}", mirror.origin());
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(upstream.host(), "up.example:8443");
        assert_eq!(upstream.blame(), Blame::Upstream("up.example:8443".into()));
    }
}
