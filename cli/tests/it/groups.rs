//! Enrolling machines: what a ticket is worth, to whom, and for how long; and what both sides know afterwards.

use std::path::Path;

use tempfile::tempdir;

use crate::gentoo::Repo;
use crate::members::{enrol, groups, invite, listed, member, named, refused, sees};
use crate::peer::{Start, TestPeer};
use crate::wait;

/// Daemons of these names; nobody knows anybody.
fn nodes<const N: usize>(dir: &Path, names: [&str; N]) -> [TestPeer; N] {
    let repo = Repo::new(dir, "main");
    names.map(|name| named(Start::new(&dir.join(name)).repo(&repo), name).start())
}

/// Nobody but these ever became a member of the founder's group.
fn has_only(founder: &TestPeer, members: &[&TestPeer]) {
    let trust = founder.json(&["trust", "list"]);
    let all = trust["members"].as_array().unwrap();
    let own = founder.peer_id();
    let strange = |member: &&serde_json::Value| {
        member["peer"] != own.as_str() && members.iter().all(|known| member["peer"] != known.peer_id().as_str())
    };
    assert_eq!(all.iter().find(strange), None, "{trust}");
}

#[test]
fn a_ticket_makes_one_machine_a_member_and_both_know_it_after_they_were_killed() {
    let dir = tempdir().unwrap();
    let [founder, joiner] = nodes(dir.path(), ["strong", "weak"]);
    let made = founder.json(&["invite", "--role", "build", "--expires", "5m"]);
    assert_eq!((&made["role"], &made["group"]), (&"build".into(), &founder.peer_id().into()), "{made}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let left = made["expires_at"].as_u64().unwrap().checked_sub(now).unwrap();
    assert!((240..=300).contains(&left), "{made}");
    let (ticket, id) = (made["ticket"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(listed(&founder, id).contains("open"));

    let said = joiner.does(&["join", ticket]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("joined ") && said.ends_with(" as build\n"), "{said}");
    sees(&founder, &joiner, "build");
    sees(&joiner, &founder, "sign");
    let line = listed(&founder, id);
    assert!(line.contains("used"), "{line}");
    let (here, there) = (member(&founder, &joiner.peer_id()).unwrap(), member(&joiner, &founder.peer_id()).unwrap());
    assert_eq!((&here["name"], &here["founder"], &here["blocked"]), (&"weak".into(), &false.into(), &false.into()));
    assert_eq!((&there["name"], &there["founder"]), (&"strong".into(), &true.into()), "{there}");
    assert_eq!(groups(&founder)[0]["mine"], true);
    assert_eq!((&groups(&joiner)[0]["mine"], &groups(&joiner)[0]["group"]), (&false.into(), &founder.peer_id().into()));

    let joiner = joiner.kill_to_return().start();
    sees(&founder, &joiner, "build");
    sees(&joiner, &founder, "sign");
    let founder = founder.kill_to_return().start();
    assert_eq!(member(&founder, &joiner.peer_id()).unwrap()["role"], "build");
    sees(&joiner, &founder, "sign");
    sees(&founder, &joiner, "build");
    let peers = founder.does(&["peers"]);
    assert!(peers.contains("weak") && peers.contains("build"), "{peers}");
    // A ticket is as good as a password until it is used.
    for node in [&founder, &joiner] {
        assert!(!node.log().contains(&ticket[10..40]), "{}", node.log());
    }
    assert!(!founder.does(&["invite", "--list"]).contains(&ticket[10..40]));
}

#[test]
fn a_ticket_is_one_word_on_stdout_and_its_picture_does_not_come_between() {
    let dir = tempdir().unwrap();
    let [founder, joiner] = nodes(dir.path(), ["founder", "joiner"]);
    let output = founder.verb(&["invite", "--qr"]);
    let (fact, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && fact.lines().count() == 1, "{fact}{said}");
    assert!(said.lines().filter(|line| line.contains(['█', '▀', '▄'])).count() >= 10, "{said}");
    assert!(!founder.verb(&["invite"]).stderr.iter().any(|byte| *byte >= 0x80), "only who asks gets the picture");
    // As people copy it.
    joiner.does(&["join", &format!(" {}\n", fact.trim_end())]);
    sees(&founder, &joiner, "build");
}

#[test]
fn machines_of_one_name_are_told_apart() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let node = |at: &str| named(Start::new(&dir.path().join(at)).repo(&repo), "localhost").start();
    let (founder, one, two) = (node("founder"), node("one"), node("two"));
    for joiner in [&one, &two] {
        enrol(&founder, joiner, "sign");
    }
    sees(&one, &two, "sign");
    let names =
        [&one, &two].map(|node| member(&founder, &node.peer_id()).unwrap()["name"].as_str().unwrap().to_owned());
    assert_ne!(names[0], names[1]);
    for (name, node) in names.iter().zip([&one, &two]) {
        assert!(founder.does(&["trust", "explain", name]).contains(&node.peer_id()));
    }
    let said = two.does(&["join", &invite(&founder, "build"), "--name", "third"]);
    assert!(said.ends_with(" as build\n"), "{said}");
    assert_eq!(member(&founder, &two.peer_id()).unwrap()["name"], "third");
    for wrong in ["a b", "", "../x", "ä", &"x".repeat(64)] {
        let ticket = invite(&founder, "build");
        let output = one.verb(&["join", &ticket, "--name", wrong]);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{wrong:?}: {}", crate::peer::both(&output));
    }
}

#[test]
fn a_ticket_used_twice_answers_the_same_machine_again_and_refuses_every_other_one() {
    let dir = tempdir().unwrap();
    let [founder, first, second] = nodes(dir.path(), ["founder", "first", "second"]);
    let ticket = invite(&founder, "fetch");
    let answer = first.json(&["join", &ticket]);
    assert_eq!((&answer["group"], &answer["role"]), (&founder.peer_id().into(), &"fetch".into()), "{answer}");
    let said = refused(&second, &["join", &ticket]);
    assert!(said.contains("used"), "{said}");
    assert!(groups(&second).is_empty() && member(&second, &founder.peer_id()).is_none());

    // A lost answer does no harm: whoever used it may ask again, and after the founder's death too.
    let again = first.json(&["join", &ticket]);
    assert_eq!((&again["group"], &again["role"]), (&answer["group"], &answer["role"]), "{again}");
    has_only(&founder, &[&first]);
    let founder = founder.kill_to_return().start();
    sees(&first, &founder, "sign");
    has_only(&founder, &[&first]);
    assert_eq!(member(&founder, &first.peer_id()).unwrap()["role"], "fetch");
}

#[test]
fn of_two_machines_with_one_ticket_at_the_same_time_one_becomes_a_member() {
    let dir = tempdir().unwrap();
    let [founder, one, two] = nodes(dir.path(), ["founder", "one", "two"]);
    for _round in 0..3 {
        let ticket = invite(&founder, "sign");
        let codes = std::thread::scope(|scope| {
            let joins = [&one, &two].map(|node| scope.spawn(|| node.verb(&["join", &ticket]).status.code()));
            joins.map(|join| join.join().unwrap())
        });
        let mut sorted = codes;
        sorted.sort_unstable();
        assert_eq!(sorted, [Some(0), Some(1)]);
        let (winner, loser) = if codes[0] == Some(0) { (&one, &two) } else { (&two, &one) };
        sees(&founder, winner, "sign");
        has_only(&founder, &[winner]);
        assert!(groups(loser).is_empty());
        founder.does(&["trust", "remove", &winner.peer_id()]);
        wait::until("the winner to leave again", || groups(winner).is_empty().then_some(()));
    }
}

#[test]
fn an_expired_and_a_revoked_ticket_are_refused_with_the_reason() {
    let dir = tempdir().unwrap();
    let [founder, joiner] = nodes(dir.path(), ["founder", "joiner"]);
    let short = founder.json(&["invite", "--expires", "1s"]);
    let id = short["id"].as_str().unwrap();
    wait::until("the ticket to expire", || listed(&founder, id).contains("expired").then_some(()));
    let said = refused(&joiner, &["join", short["ticket"].as_str().unwrap()]);
    assert!(said.contains("expired"), "{said}");

    let by_id = founder.json(&["invite"]);
    founder.does(&["invite", "--revoke", by_id["id"].as_str().unwrap()]);
    let by_ticket = founder.json(&["invite"]);
    assert_eq!(by_ticket["role"], "build", "the role that is meant when none is named");
    founder.does(&["invite", "--revoke", by_ticket["ticket"].as_str().unwrap()]);
    for made in [&by_id, &by_ticket] {
        let said = refused(&joiner, &["join", made["ticket"].as_str().unwrap()]);
        assert!(said.contains("revoked"), "{said}");
        assert!(listed(&founder, made["id"].as_str().unwrap()).contains("revoked"));
    }
    // The same after a restart, which forgets nothing. The address in the ticket is the old one, so it is told another way.
    assert!(groups(&joiner).is_empty());
    has_only(&founder, &[]);
    let founder = founder.kill().start();
    assert!(listed(&founder, by_id["id"].as_str().unwrap()).contains("revoked"));
    assert!(listed(&founder, id).contains("expired"));
    for (words, why) in [
        (&["invite", "--revoke", "no-such-ticket"][..], "a ticket that is not there"),
        (&["invite", "--expires", "8d"], "longer than a ticket may live"),
        (&["invite", "--expires", "0s"], "no time at all"),
        (&["invite", "--role", "king"], "no role"),
    ] {
        let output = founder.verb(words);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{why}: {}", crate::peer::both(&output));
    }
}

#[test]
fn what_is_no_ticket_is_refused_before_anybody_is_asked() {
    let dir = tempdir().unwrap();
    let [founder, mut joiner] = nodes(dir.path(), ["founder", "joiner"]);
    let ticket = invite(&founder, "sign");
    let mut wrong = vec![String::new(), " ".into(), "peer1".into(), "hello".into(), "peer1".repeat(20_000)];
    wrong.extend([1, 6, ticket.len() / 2, ticket.len() - 1].map(|length| ticket[..length].to_owned()));
    for at in [4, 5, 20, ticket.len() / 2, ticket.len() - 2] {
        let mut letters = ticket.clone().into_bytes();
        letters[at] = if letters[at] == b'a' { b'b' } else { b'a' };
        wrong.push(String::from_utf8(letters).unwrap());
    }
    wrong.extend([
        format!("{ticket}a"),
        format!("{ticket}{ticket}"),
        ticket.replace("peer1", "peer2"),
        "peer1é".into(),
    ]);
    for text in &wrong {
        let output = joiner.verb(&["join", "--", text]);
        let said = crate::peer::both(&output);
        let shown: String = text.chars().take(80).collect();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{shown:?}: {said}");
        assert!(said.to_lowercase().contains("ticket") && said.len() < 5_000, "{shown:?}: {said}");
    }
    assert!(joiner.is_healthy() && groups(&joiner).is_empty());
    has_only(&founder, &[]);
    // The right one is as good as ever.
    joiner.does(&["join", &ticket]);
    sees(&founder, &joiner, "sign");
}

#[test]
fn a_founder_that_is_gone_or_another_node_at_its_address_is_said_with_the_addresses_tried() {
    let dir = tempdir().unwrap();
    let [founder, joiner] = nodes(dir.path(), ["founder", "joiner"]);
    let ticket = invite(&founder, "build");
    let address = founder.p2p();
    let port = founder.p2p_port().rsplit(':').next().unwrap().to_owned();
    assert_eq!(joiner.verb(&["join", &invite(&joiner, "build")]).status.code(), Some(1), "nobody joins himself");
    drop(founder);
    let said = refused(&joiner, &["join", &ticket]);
    assert!(said.contains(&port), "{said}");

    // Another node has come to that address, and is not the founder.
    let repo = Repo::new(&dir.path().join("other"), "main");
    let other = Start::new(&dir.path().join("impostor")).repo(&repo).at(&address).start();
    let said = refused(&joiner, &["join", &ticket]);
    assert!(said.contains(&port), "{said}");
    assert!(groups(&other).is_empty());
    assert!(groups(&joiner).iter().all(|group| group["mine"] == true));
    let alone = dir.path().join("nobody/control.sock");
    let output = crate::peer::peer(dir.path(), &["join", &ticket, "--control", alone.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_machine_in_two_groups_has_the_members_of_both_and_the_groups_do_not_mix() {
    let dir = tempdir().unwrap();
    let [home, work, laptop] = nodes(dir.path(), ["home", "work", "laptop"]);
    enrol(&home, &laptop, "sign");
    enrol(&work, &laptop, "fetch");
    assert_eq!(groups(&laptop).len(), 2);
    assert!(member(&home, &work.peer_id()).is_none() && member(&work, &home.peer_id()).is_none());
    // A founder in another's group: its own group stays its own.
    home.does(&["join", &invite(&laptop, "build")]);
    assert_eq!((groups(&laptop).len(), groups(&home).len()), (3, 2));
    let may_sign = |node: &TestPeer, other: &TestPeer| {
        let trust = node.json(&["trust", "list"]);
        let all = trust["members"].as_array().unwrap();
        all.iter().any(|member| member["peer"] == other.peer_id().as_str() && member["role"] == "sign")
    };
    assert!(may_sign(&home, &laptop) && may_sign(&laptop, &home), "the highest of its roles");
    laptop.does(&["trust", "remove", "--leave", &work.peer_id()]);
    wait::until("the group to be left", || (groups(&laptop).len() == 2).then_some(()));
    assert!(member(&laptop, &work.peer_id()).is_none());
    assert!(member(&laptop, &home.peer_id()).is_some());
}
