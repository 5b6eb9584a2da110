//! Signed packages: whether there is a key, whether Portage trusts it, and whether Portage knows the binhost.

use super::{Check, State};
use crate::builds::with_causes;
use crate::keyring::KeyTrust;
use std::path::{Path, PathBuf};
use tree::binrepos::BinRepos;
use tree::conf::MakeConf;

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
pub(super) fn binrepos(config_root: &Path, binhost: &str) -> Check {
    const NAME: &str = "binrepos.conf";
    let dir = config_root.join("etc/portage");
    let object = dir.join(NAME).display().to_string();
    let make_conf = MakeConf::load(config_root).ok();
    let listed = make_conf.as_ref().and_then(|conf| conf.get("PORTAGE_BINHOST")).unwrap_or_default();
    let repos = match BinRepos::load(config_root, listed) {
        Err(error) => {
            let finding = format!("{}; Portage uses none of its sections", with_causes(&error));
            return Check::new(NAME, State::Fail, finding).object(object).mend("mend that line");
        }
        Ok(repos) => repos,
    };
    let Some(repo) = repos.at(binhost) else {
        let finding = format!("it does not name this node's binhost, {binhost}");
        return Check::new(NAME, State::Info, finding).object(object).mend("peer setup");
    };
    let section = repo.name.as_deref().map_or("PORTAGE_BINHOST".to_owned(), |name| format!("[{name}]"));
    if repo.frozen {
        let finding = format!("{section} is frozen: Portage goes on with its old copy of the index");
        return Check::new(NAME, State::Warn, finding).object(object).mend("take `frozen` out of it");
    }
    if repo.verify_signature == Some(false) {
        let finding = format!("verify-signature is off in {section}: whoever answers at its address is believed");
        let mend = "say verify-signature = true, then peer key init as root";
        return Check::new(NAME, State::Warn, finding).object(object).mend(mend);
    }
    Check::new(NAME, State::Ok, "it names this node's binhost, whose signatures are verified")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup;

    const BINHOST: &str = "http://127.0.0.1:8420/binpkgs/12D3KooWtest";

    fn states(checks: &[Check]) -> Vec<(&str, State)> {
        checks.iter().map(|check| (check.name.as_str(), check.state)).collect()
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
            std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
            store::write_atomically(&dir.path().join("etc/portage/binrepos.conf"), text.as_bytes(), 0o644).unwrap();
            binrepos(dir.path(), BINHOST).state
        };
        assert_eq!(state(""), State::Info);
        assert_eq!(state("[gentoo]\nsync-uri = https://b.example/\n"), State::Info);
        assert_eq!(state(&format!("[x]\nsync-uri={BINHOST}/\n")), State::Ok);
        assert_eq!(state(&format!("[x]\nsync-uri = {BINHOST}\nverify-signature = true\n")), State::Ok);
        assert_eq!(state(&format!("[x]\nverify-signature = false\nsync-uri = {BINHOST}\n")), State::Warn);
        let of_default = format!("[DEFAULT]\nverify-signature = {{}}\n[x]\nSYNC-URI: {BINHOST}\n");
        assert_eq!(state(&of_default.replace("{}", "no")), State::Warn);
        assert_eq!(state(&of_default.replace("{}", "YES")), State::Ok);
        assert_eq!(state(&format!("[x]\nverify-signature = on\nsync-uri = {BINHOST}\n")), State::Warn);
        assert_eq!(state(&format!("[x]\nfrozen = true\nsync-uri = {BINHOST}\n")), State::Warn);
        assert_eq!(state(&format!("[x]\nsync-uri = {BINHOST}\n[x]\n")), State::Fail);
        assert_eq!(state(&format!("#[x]\n[y]\n# sync-uri = {BINHOST}\n")), State::Info);
        assert_eq!(state(&format!("[x]\nsync-uri = {BINHOST}x\n[y]\nverify-signature = false\n")), State::Info);
    }

    #[test]
    fn what_setup_wrote_is_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
        let portage = setup::Portage { config_root: dir.path().to_owned() };
        setup::apply(&setup::plan_binhost(&portage, BINHOST).unwrap()).unwrap();
        assert_eq!(binrepos(dir.path(), BINHOST).state, State::Ok);
    }
}
