//! `profiles/thirdpartymirrors`: which hosts stand behind `mirror://NAME/PATH` (PMS 4.4.5).

use std::collections::BTreeMap;

/// Names of one table; ::gentoo has about 60.
const NAMES_MAX: usize = 4096;
/// Hosts of one name.
const HOSTS_MAX: usize = 256;
/// Bytes of one host's URL.
const HOST_BYTES_MAX: usize = 2048;

/// Mirror names and their hosts, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThirdPartyMirrors {
    hosts: BTreeMap<String, Vec<String>>,
}

impl ThirdPartyMirrors {
    /// Reads a table: a line is a name and its hosts, `#` begins a comment. What passes a limit is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let mut words = line.split_ascii_whitespace().take_while(|word| !word.starts_with('#'));
            if let Some(name) = words.next() {
                words.for_each(|host| table.add(name, host));
            }
        }
        table
    }

    fn add(&mut self, name: &str, host: &str) {
        let host = host.trim_end_matches('/');
        if host.len() > HOST_BYTES_MAX || (self.hosts.len() >= NAMES_MAX && !self.hosts.contains_key(name)) {
            return;
        }
        let hosts = self.hosts.entry(name.to_owned()).or_default();
        if hosts.len() < HOSTS_MAX && !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }

    /// Adds the table of another repository; its hosts come after the ones already known. `-HOST` takes one of those away,
    /// `-*` all of them.
    pub fn merge(&mut self, other: &Self) {
        for (name, hosts) in &other.hosts {
            for host in hosts {
                match (host.strip_prefix('-'), self.hosts.get_mut(name)) {
                    (None, _) => self.add(name, host),
                    (Some("*"), Some(known)) => known.clear(),
                    (Some(gone), Some(known)) => known.retain(|known| known != gone),
                    (Some(_), None) => {}
                }
            }
        }
    }

    /// The same table without some hosts.
    #[must_use]
    pub fn without(&self, left_out: impl Fn(&str) -> bool) -> Self {
        let mut table = self.clone();
        table.hosts.values_mut().for_each(|hosts| hosts.retain(|host| !left_out(host)));
        table
    }

    /// The URLs of `mirror://NAME/PATH`, in the order of the table; none for unknown names and for other URIs.
    #[must_use]
    pub fn expand(&self, uri: &str) -> Vec<String> {
        uri.strip_prefix("mirror://")
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(name, path)| Some((self.hosts.get(name)?, path)))
            .map(|(hosts, path)| hosts.iter().map(|host| format!("{host}/{path}")).collect())
            .unwrap_or_default()
    }

    /// The hosts of a name, in the order of the table.
    #[must_use]
    pub fn hosts(&self, name: &str) -> &[String] {
        self.hosts.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_their_order_and_lose_their_slash() {
        let table = ThirdPartyMirrors::parse(
            "# x\nnpm\thttps://b.example/ https://a.example/x//\n\nnpm https://c.example https://b.example # end\nempty\n",
        );
        assert_eq!(
            table.expand("mirror://npm/@scope/a-1.tgz?x=1"),
            [
                "https://b.example/@scope/a-1.tgz?x=1",
                "https://a.example/x/@scope/a-1.tgz?x=1",
                "https://c.example/@scope/a-1.tgz?x=1"
            ]
        );
    }

    #[test]
    fn what_is_unknown_expands_to_nothing() {
        let table = ThirdPartyMirrors::parse("npm https://b.example");
        for uri in ["mirror://pypi/a", "mirror://npm", "https://npm/a", "", "mirror://", "mirror:///a"] {
            assert_eq!(table.expand(uri), Vec::<String>::new(), "{uri:?}");
        }
    }

    #[test]
    fn own_hosts_come_before_those_of_a_master() {
        let mut table = ThirdPartyMirrors::parse("npm https://own.example");
        table.merge(&ThirdPartyMirrors::parse(
            "npm https://master.example https://own.example\ngnu https://gnu.example",
        ));
        assert_eq!(table.hosts("npm"), ["https://own.example", "https://master.example"]);
        assert_eq!(table.expand("mirror://gnu/a/b"), ["https://gnu.example/a/b"]);
    }

    #[test]
    fn a_later_table_takes_hosts_of_the_earlier_away() {
        let mut table = ThirdPartyMirrors::parse("a https://1.example https://2.example\nb https://3.example");
        table.merge(&ThirdPartyMirrors::parse("a -https://1.example https://4.example\nb -* https://5.example\nc -*"));
        assert_eq!(table.hosts("a"), ["https://2.example", "https://4.example"]);
        assert_eq!((table.hosts("b"), table.hosts("c").len()), (&["https://5.example".to_owned()][..], 0));
    }

    #[test]
    fn a_hostile_table_is_cut() {
        let text = format!("big {}\n", (0..1000).map(|n| format!("https://{n}.example ")).collect::<String>());
        assert_eq!(ThirdPartyMirrors::parse(&text).hosts("big").len(), HOSTS_MAX);
    }
}
