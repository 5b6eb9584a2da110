//! Signed packages: whether there is a key, whether Portage trusts it, and whether Portage knows the binhost.

use super::{Check, State};
use crate::keyring::KeyTrust;
use crate::setup;
use std::path::{Path, PathBuf};

/// What the one who asks has found out about the signing key.
#[derive(Debug)]
pub struct Signing {
    /// The fingerprint of the daemon's key; none when it has none yet.
    pub fingerprint: Option<String>,
    /// Portage's keyring.
    pub keyring: PathBuf,
    /// How the key stands in it, or why that cannot be told. Of no meaning without a key.
    pub trust: Result<KeyTrust, String>,
}

pub(super) fn checks(signing: &Signing) -> Vec<Check> {
    let Some(fingerprint) = &signing.fingerprint else {
        let finding = "there is none yet: it is made when the first package is signed";
        return vec![Check::new("signing key", State::Info, finding).mend("peer key init, as root")];
    };
    let dir = signing.keyring.display();
    let keyring = match &signing.trust {
        Ok(KeyTrust::Trusted) => Check::new("keyring", State::Ok, format!("{dir} trusts it")),
        Ok(trust) => {
            let finding = format!("{dir}: {}, so Portage takes no package of this node", trust.words());
            Check::new("keyring", State::Warn, finding).mend("peer key init, as root")
        }
        Err(why) => Check::new("keyring", State::Info, format!("{dir}: {why}")).mend("peer doctor, as root"),
    };
    vec![Check::new("signing key", State::Ok, format!("{fingerprint} signs the packages of this node")), keyring]
}

/// Whether Portage's binrepos.conf names the binhost and asks for signatures.
pub(super) fn binrepos(dir: &Path, binhost: &str) -> Check {
    const NAME: &str = "binrepos.conf";
    let files = match setup::files(&dir.join(NAME)) {
        Err(error) => return Check::new(NAME, State::Fail, error.to_string()).mend("mend it by hand"),
        Ok(files) => files,
    };
    let sections: Vec<Section> = files.iter().flat_map(|(_, text)| sections(text)).collect();
    let ours = |section: &&Section| section.sync_uri.as_deref().is_some_and(|uri| uri.trim_end_matches('/') == binhost);
    let Some(section) = sections.iter().find(ours) else {
        let finding = format!("it does not name this node's binhost, {binhost}");
        return Check::new(NAME, State::Info, finding).mend("peer setup");
    };
    if section.verify_signature == Some(false) {
        let finding =
            format!("verify-signature is off in [{}]: whoever answers at its address is believed", section.name);
        return Check::new(NAME, State::Warn, finding).mend("say verify-signature = true, then peer key init as root");
    }
    Check::new(NAME, State::Ok, "it names this node's binhost, whose signatures are verified")
}

/// What is looked at of a section.
struct Section {
    name: String,
    sync_uri: Option<String>,
    verify_signature: Option<bool>,
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push(Section { name: name.to_owned(), sync_uri: None, verify_signature: None });
        }
        if let (Some(section), Some((key, value))) = (sections.last_mut(), line.split_once(['=', ':'])) {
            match key.trim() {
                "sync-uri" => section.sync_uri = Some(value.trim().to_owned()),
                "verify-signature" => {
                    section.verify_signature = Some(matches!(value.trim(), "true" | "yes" | "on" | "1"));
                }
                _ => {}
            }
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINHOST: &str = "http://127.0.0.1:8420/binpkgs/12D3KooWtest";

    fn states(checks: &[Check]) -> Vec<(&'static str, State)> {
        checks.iter().map(|check| (check.name, check.state)).collect()
    }

    #[test]
    fn a_key_that_portage_does_not_trust_is_told_with_the_mend() {
        let signing = |fingerprint: Option<&str>, trust| Signing {
            fingerprint: fingerprint.map(str::to_owned),
            keyring: "/etc/portage/gnupg".into(),
            trust,
        };
        assert_eq!(states(&checks(&signing(None, Ok(KeyTrust::NoKeyring)))), [("signing key", State::Info)]);
        for (trust, state) in [
            (Ok(KeyTrust::Trusted), State::Ok),
            (Ok(KeyTrust::NoKeyring), State::Warn),
            (Ok(KeyTrust::Absent), State::Warn),
            (Ok(KeyTrust::Untrusted), State::Warn),
            (Ok(KeyTrust::Closed), State::Warn),
            (Err("not yours".to_owned()), State::Info),
        ] {
            let checks = checks(&signing(Some("ABCD"), trust));
            assert_eq!(states(&checks), [("signing key", State::Ok), ("keyring", state)]);
            assert_eq!(checks[1].mend.is_some(), state != State::Ok);
        }
    }

    #[test]
    fn the_section_of_this_node_is_found_and_its_signatures_must_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let state = |text: &str| {
            store::write_atomically(&dir.path().join("binrepos.conf"), text.as_bytes(), 0o644).unwrap();
            binrepos(dir.path(), BINHOST).state
        };
        assert_eq!(state(""), State::Info);
        assert_eq!(state("[gentoo]\nsync-uri = https://b.example/\n"), State::Info);
        assert_eq!(state(&format!("[x]\nsync-uri={BINHOST}/\n")), State::Ok);
        assert_eq!(state(&format!("[x]\nsync-uri = {BINHOST}\nverify-signature = true\n")), State::Ok);
        assert_eq!(state(&format!("[x]\nverify-signature = false\nsync-uri = {BINHOST}\n")), State::Warn);
        assert_eq!(state(&format!("#[x]\n[y]\n# sync-uri = {BINHOST}\n")), State::Info);
        assert_eq!(state(&format!("[x]\nsync-uri = {BINHOST}x\n[y]\nverify-signature = false\n")), State::Info);
    }

    #[test]
    fn what_setup_wrote_is_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
        let portage = setup::Portage { config_root: dir.path().to_owned() };
        setup::apply(&setup::plan_binhost(&portage, BINHOST).unwrap()).unwrap();
        assert_eq!(binrepos(&dir.path().join("etc/portage"), BINHOST).state, State::Ok);
    }
}
