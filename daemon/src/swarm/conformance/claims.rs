//! Scenarios of claims: who has them, has none, has too many, stalls, is asked too much, or is too far away.

use super::{Config, Digest, Kind, Network, Offence, OpenError, PATIENCE, Shelf, config, read, until};
use crate::swarm::state::Protocol;
use crate::swarm::wire::{ClaimsAnswer, ClaimsRequest, read_frame, write_frame};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn recipe() -> Digest {
    Digest::of(b"recipe")
}

fn claimed(claims: &[Vec<u8>]) -> Shelf {
    let shelf = Shelf::default();
    shelf.claims.lock().unwrap().insert(recipe(), claims.to_vec());
    shelf
}

pub(super) async fn claims_come_as_they_are_and_to_have_none_is_an_answer(kind: Kind) {
    let full: Vec<Vec<u8>> = (0..16).map(|n| vec![n; 4096]).collect();
    let (client, server) = kind.pair(claimed(&full)).await;
    let peer = server.swarm.peer_id();
    for _ in 0..2 {
        assert_eq!(client.swarm.claims(peer, &recipe(), PATIENCE).await.unwrap(), full);
        let none = client.swarm.claims(peer, &Digest::of(b"another recipe"), PATIENCE).await.unwrap();
        assert_eq!(none, Vec::<Vec<u8>>::new());
    }
    let recipe = recipe();
    let questions = (0..8).map(|_| client.swarm.claims(peer, &recipe, PATIENCE));
    for answer in futures::future::join_all(questions).await {
        assert_eq!(answer.unwrap(), full);
    }
}

pub(super) async fn a_fingerprint_is_announced_and_found_like_a_blob_and_is_none(kind: Kind) {
    let (client, server) = kind.pair(claimed(&[b"claim".to_vec()])).await;
    let peer = server.swarm.peer_id();
    server.swarm.announce(&[recipe()]);
    until(&client.swarm, "the news have come", |swarm| swarm.holders(&recipe()) == [peer]).await;
    until(&client.swarm, "the record has come", |swarm| swarm.records() == 1).await;
    assert_eq!(client.swarm.claims(peer, &recipe(), PATIENCE).await.unwrap(), [b"claim"]);
    assert_eq!(client.swarm.holders(&recipe()), [peer], "who has claims is asked again");
    assert!(matches!(client.swarm.open(peer, &recipe(), 0).await, Err(OpenError::NotHeld { .. })));
    server.swarm.withdraw(&[recipe()]);
    server.swarm.announce(&[recipe()]);
    until(&client.swarm, "the news have come again", |swarm| swarm.holders(&recipe()) == [peer]).await;
    server.shelf.claims.lock().unwrap().clear();
    assert!(client.swarm.claims(peer, &recipe(), PATIENCE).await.unwrap().is_empty());
    assert!(client.swarm.holders(&recipe()).is_empty(), "who said no is not asked again");
}

pub(super) async fn more_and_longer_claims_than_may_go_out_stay_here(kind: Kind) {
    let mut many: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 5]).collect();
    many[1] = vec![1; 4097];
    let (client, server) = kind.pair(claimed(&many)).await;
    let came = client.swarm.claims(server.swarm.peer_id(), &recipe(), PATIENCE).await.unwrap();
    many.remove(1);
    assert_eq!(came, many[..16]);
}

pub(super) async fn a_peer_that_looks_up_claims_for_ever_costs_no_more_than_the_deadline(kind: Kind) {
    let shelf = claimed(&[b"claim".to_vec()]);
    shelf.opens_late.store(true, Ordering::Relaxed);
    let (client, server) = kind.pair(shelf).await;
    let (peer, short) = (server.swarm.peer_id(), Duration::from_millis(50));
    let late = client.swarm.claims(peer, &recipe(), short).await.unwrap_err();
    assert!(matches!(late, OpenError::NoAnswer { after, .. } if after == short), "{late}");
    assert_eq!(late.offence(), Some(Offence::Failing));
    server.shelf.latch.open();
    assert_eq!(client.swarm.claims(peer, &recipe(), PATIENCE).await.unwrap(), [b"claim"]);
}

pub(super) async fn a_ninth_stream_for_claims_is_told_to_wait_while_blobs_still_come(kind: Kind) {
    let shelf = claimed(&[b"claim".to_vec()]);
    let blob = shelf.put(b"blob".to_vec());
    let (client, server) = kind.pair(shelf).await;
    let peer = server.swarm.peer_id();
    let mut pipes = Vec::new();
    for _ in 0..8 {
        let mut pipe = client.swarm.state.open_pipe(peer, Vec::new(), Protocol::Claims).await.unwrap();
        write_frame(&mut pipe, &ClaimsRequest { fingerprint: recipe() }).await.unwrap();
        let answer = read_frame::<ClaimsAnswer>(&mut pipe).await.unwrap();
        assert_eq!(answer, ClaimsAnswer::Claims(vec![b"claim".to_vec()]));
        pipes.push(pipe);
    }
    let ninth = client.swarm.claims(peer, &recipe(), PATIENCE).await.unwrap_err();
    assert!(matches!(ninth, OpenError::Busy { .. }), "{ninth}");
    assert_eq!(ninth.offence().map(Offence::is_proven), Some(false), "it is asked later, and not banned for it");
    let mut body = client.swarm.open(peer, &blob, 0).await.unwrap();
    assert_eq!(read(&mut body).await.unwrap(), b"blob");
    drop(pipes);
    let again = async {
        // The other end notices in its own time that places are free.
        loop {
            match client.swarm.claims(peer, &recipe(), PATIENCE).await {
                Err(OpenError::Busy { .. }) => tokio::task::yield_now().await,
                answer => break answer.unwrap(),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, again).await.unwrap(), [b"claim"]);
}

pub(super) async fn garbage_on_a_stream_for_claims_ends_only_that_stream(kind: Kind) {
    let (client, server) = kind.pair(claimed(&[b"claim".to_vec()])).await;
    let peer = server.swarm.peer_id();
    for garbage in [&[0xff; 64][..], b"\x00\x00\x00\x07garbage", b"\x00\x00\x00\x00", b""] {
        let mut pipe = client.swarm.state.open_pipe(peer, Vec::new(), Protocol::Claims).await.unwrap();
        pipe.write_all(garbage).await.unwrap();
        pipe.close().await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, pipe.read_to_end(&mut answer)).await;
        assert!(ended.is_ok() && answer.is_empty(), "{garbage:?} was answered with {answer:?}");
    }
    assert_eq!(client.swarm.claims(peer, &recipe(), PATIENCE).await.unwrap(), [b"claim"]);
}

pub(super) async fn a_banned_peer_is_not_asked_for_claims(kind: Kind) {
    let client = kind.node().await;
    // It came by itself: whom the user lists is not banned.
    let server = kind.beside(&client, claimed(&[b"claim".to_vec()]), config()).await;
    let peer = server.swarm.peer_id();
    client.swarm.blame(peer, Offence::WrongBytes);
    let refused = client.swarm.claims(peer, &recipe(), PATIENCE).await;
    assert!(matches!(refused, Err(OpenError::Banned { .. })), "{refused:?}");
}

/// Loopback is always near, so that only the in-memory twin has peers that are far away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_from_afar_get_neither_claims_nor_blobs_unless_they_are_asked_for() {
    for serve_wan in [false, true] {
        let kind = Kind::Memory(Network::far_apart());
        let shelf = claimed(&[b"claim".to_vec()]);
        let blob = shelf.put(b"blob".to_vec());
        let server = kind.start(Config { serve_wan, ..config() }, shelf).await;
        let client = kind.beside(&server, Shelf::default(), config()).await;
        let peer = server.swarm.peer_id();
        let claims = client.swarm.claims(peer, &recipe(), PATIENCE).await;
        let body = client.swarm.open(peer, &blob, 0).await;
        if serve_wan {
            assert_eq!(claims.unwrap(), [b"claim"]);
            assert!(body.is_ok());
        } else {
            let refused = claims.unwrap_err();
            assert!(matches!(refused, OpenError::Refused { .. }), "{refused}");
            assert_eq!(refused.offence(), Some(Offence::Refused));
            assert!(matches!(body, Err(OpenError::Refused { .. })));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_beyond_what_is_answered_at_once_are_told_to_wait() {
    let kind = Kind::Memory(Network::new());
    let shelf = claimed(&[b"claim".to_vec()]);
    shelf.opens_late.store(true, Ordering::Relaxed);
    let server = kind.start(Config { claim_answers_max: 1, ..config() }, shelf).await;
    let client = kind.beside(&server, Shelf::default(), config()).await;
    let other = kind.beside(&server, Shelf::default(), config()).await;
    let peer = server.swarm.peer_id();
    let recipe = recipe();
    // Both ask; one is looked up and waits for the latch, so the other is the one told to wait.
    let (one, two) = (client.swarm.claims(peer, &recipe, PATIENCE), other.swarm.claims(peer, &recipe, PATIENCE));
    futures::pin_mut!(one, two);
    let (busy, looked_up) = match futures::future::select(one, two).await {
        futures::future::Either::Left((first, rest)) => (first, futures::future::Either::Left(rest)),
        futures::future::Either::Right((first, rest)) => (first, futures::future::Either::Right(rest)),
    };
    assert!(matches!(busy, Err(OpenError::Busy { .. })), "{busy:?}");
    server.shelf.latch.open();
    assert_eq!(looked_up.await.unwrap(), [b"claim"]);
}
