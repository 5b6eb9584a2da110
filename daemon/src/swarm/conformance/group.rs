//! Scenarios of questions: answered, refused, too long, late, too many, from afar; and members are served wherever they are.

use super::{Config, Kind, Network, OpenError, PATIENCE, Shelf, bytes, config, read};
use crate::swarm::Topic;
use crate::swarm::wire::{ANSWER_BYTES_MAX, QUESTION_BYTES_MAX};
use std::time::Duration;

pub(super) async fn questions_are_answered_one_after_another_and_side_by_side(kind: Kind) {
    let (client, server) = kind.pair(Shelf::default()).await;
    let peer = server.swarm.peer_id();
    let ask = |question: Vec<u8>| client.swarm.ask(peer, Topic::Group, question, PATIENCE);
    for length in [0, 1, 1000, QUESTION_BYTES_MAX] {
        let question = bytes(length);
        let answer = ask(question.clone()).await.unwrap();
        assert_eq!(answer, question.into_iter().rev().collect::<Vec<u8>>(), "{length}");
    }
    let many = (0..8).map(|_| ask(b"abc".to_vec()));
    for answer in futures::future::join_all(many).await {
        assert_eq!(answer.unwrap(), b"cba");
    }
    assert!(matches!(ask(bytes(QUESTION_BYTES_MAX + 1)).await, Err(OpenError::Unreachable { .. })));
}

pub(super) async fn what_is_not_answered_is_refused(kind: Kind) {
    let (client, server) = kind.pair(Shelf::default()).await;
    let peer = server.swarm.peer_id();
    let error = client.swarm.ask(peer, Topic::Query, b"abc".to_vec(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    let long = format!("long {}", ANSWER_BYTES_MAX + 1).into_bytes();
    let error = client.swarm.ask(peer, Topic::Group, long, PATIENCE).await.unwrap_err();
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    let full = format!("long {ANSWER_BYTES_MAX}").into_bytes();
    assert_eq!(client.swarm.ask(peer, Topic::Group, full, PATIENCE).await.unwrap().len(), ANSWER_BYTES_MAX);
}

pub(super) async fn who_answers_late_costs_no_more_than_the_deadline(kind: Kind) {
    let (client, server) = kind.pair(Shelf::default()).await;
    let peer = server.swarm.peer_id();
    let late = client.swarm.ask(peer, Topic::Group, b"never".to_vec(), Duration::from_millis(100)).await;
    assert!(matches!(late, Err(OpenError::NoAnswer { .. })), "{late:?}");
    assert_eq!(client.swarm.ask(peer, Topic::Group, b"ab".to_vec(), PATIENCE).await.unwrap(), b"ba");
}

/// A stranger from afar may ask (it may have a ticket), and gets blobs once it is a member.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_from_afar_may_ask_and_a_member_from_afar_is_served() {
    let kind = Kind::Memory(Network::far_apart());
    let shelf = Shelf::default();
    let digest = shelf.put(bytes(1000));
    let (client, server) = kind.pair(shelf).await;
    let peer = server.swarm.peer_id();
    assert_eq!(client.swarm.ask(peer, Topic::Group, b"ab".to_vec(), PATIENCE).await.unwrap(), b"ba");
    assert!(matches!(client.swarm.open(peer, &digest, 0).await, Err(OpenError::Refused { .. })));
    server.shelf.members.lock().unwrap().insert(client.swarm.peer_id());
    let mut body = client.swarm.open(peer, &digest, 0).await.unwrap();
    assert_eq!(read(&mut body).await.unwrap(), bytes(1000));
    server.shelf.members.lock().unwrap().clear();
    assert!(matches!(client.swarm.open(peer, &digest, 0).await, Err(OpenError::Refused { .. })));
}

/// Kept peers are dialled without anybody else's doing, and parted ones are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_peer_is_connected_to_until_it_is_parted_from() {
    let kind = Kind::Libp2p;
    let (one, other) = (kind.node().await, kind.start(Config { ..config() }, Shelf::default()).await);
    let peer = other.swarm.peer_id();
    one.swarm.keep(peer, other.swarm.listen_addrs()).await;
    super::connected(&one, &other).await;
    one.swarm.part(peer).await;
    super::until(&one.swarm, "they part", |swarm| swarm.connected() == 0).await;
}
