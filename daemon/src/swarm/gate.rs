//! Who may be connected: each connection has a place of the budget by class and origin, and idle strangers make room.
//!
//! libp2p's own limits know neither who a peer is nor where it comes from, and never close what is open for what is wanted more.

use super::state::State;
use crate::budget::{Origin, Place};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, DialFailure, ListenFailure};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Inbound connections of one origin that have not shaken hands yet: those who drag it out keep nobody else out.
const PENDING_PER_ORIGIN_MAX: usize = 64;

/// See the head of this room.
pub(super) struct Gate {
    state: Arc<State>,
    pending: HashMap<ConnectionId, Origin>,
    held: HashMap<ConnectionId, (PeerId, Place)>,
    /// Dials to whom the user named, whoever may answer there.
    expected: HashSet<ConnectionId>,
    closing: VecDeque<(PeerId, ConnectionId)>,
}

/// There is no place for one more.
#[derive(Debug, thiserror::Error)]
#[error("no place for another connection of {peer}")]
struct NoPlace {
    peer: PeerId,
}

/// Too many of one origin shake hands at once.
#[derive(Debug, thiserror::Error)]
#[error("more than {PENDING_PER_ORIGIN_MAX} connections of one origin shake hands")]
struct TooManyPending;

impl Gate {
    pub(super) fn new(state: &Arc<State>) -> Self {
        Self {
            state: Arc::clone(state),
            pending: HashMap::new(),
            held: HashMap::new(),
            expected: HashSet::new(),
            closing: VecDeque::new(),
        }
    }

    /// This dial is to somebody whom the user named.
    pub(super) fn expect(&mut self, connection: ConnectionId) {
        self.expected.insert(connection);
    }

    fn enter(&mut self, connection: ConnectionId, peer: PeerId, at: &Multiaddr) -> Result<(), ConnectionDenied> {
        self.pending.remove(&connection);
        let moved = self.state.take_moved();
        for (_, place) in self.held.values().filter(|(peer, _)| moved.contains(peer)) {
            place.moved();
        }
        let expected = self.expected.remove(&connection);
        let who = self.state.who_at(&peer, at, expected);
        let place = self.state.connections().enter_or_push(who);
        let place = place.ok_or_else(|| ConnectionDenied::new(NoPlace { peer }))?;
        self.held.insert(connection, (peer, place));
        let ended: Vec<ConnectionId> =
            self.held.iter().filter(|(_, (_, place))| place.has_ended()).map(|(connection, _)| *connection).collect();
        for connection in ended {
            if let Some((peer, _place)) = self.held.remove(&connection) {
                tracing::debug!(%peer, "disconnected: its place was wanted more by another");
                self.closing.push_back((peer, connection));
            }
        }
        Ok(())
    }

    fn gone(&mut self, connection: ConnectionId) {
        self.pending.remove(&connection);
        self.expected.remove(&connection);
        drop(self.held.remove(&connection));
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let origin = super::reach::ip(remote).map_or_else(Origin::default, Origin::of);
        if self.pending.values().filter(|pending| **pending == origin).count() >= PENDING_PER_ORIGIN_MAX {
            return Err(ConnectionDenied::new(TooManyPending));
        }
        self.pending.insert(connection, origin);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(connection, peer, remote).map(|()| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(connection, peer, address).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::DialFailure(DialFailure { connection_id, .. }) => self.gone(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.closing.pop_front() {
            Some((peer_id, connection)) => {
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) })
            }
            None => Poll::Pending,
        }
    }
}
