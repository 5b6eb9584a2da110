//! Opening and accepting streams of our protocols over libp2p connections.
//!
//! libp2p-stream drops inbound streams when its channel of one place is full (measured) and negotiates outbound ones one
//! at a time. Here an inbound stream is an event of the swarm, so that a busy event loop slows the connection instead of
//! losing streams, and outbound ones are negotiated side by side, up to a bound.

use super::state::Protocol;
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// Streams waiting for a connection to one peer; more are answered with an error.
const WAITING_PER_PEER_MAX: usize = 64;
/// Streams of one connection being negotiated at the same time.
const NEGOTIATING_MAX: usize = 16;
/// A stream must be negotiated in this time.
const NEGOTIATION_MAX: Duration = Duration::from_secs(10);

impl Protocol {
    const ALL: [Self; 6] = [Self::Blob, Self::Claims, Self::Group, Self::Build, Self::Have, Self::Advert];

    fn name(self) -> StreamProtocol {
        match self {
            Self::Blob => StreamProtocol::new("/peerage/blob/1"),
            Self::Claims => StreamProtocol::new("/peerage/claims/1"),
            Self::Group => StreamProtocol::new("/peerage/group/1"),
            Self::Build => StreamProtocol::new("/peerage/build/1"),
            Self::Have => StreamProtocol::new("/peerage/have/1"),
            Self::Advert => StreamProtocol::new("/peerage/advert/1"),
        }
    }
}

/// Both directions of a stream, whatever network carries it.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream to a peer, over libp2p or in memory.
pub(super) struct Pipe(Box<dyn Duplex>);

impl Pipe {
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipe")
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// A stream wanted, and where to put it.
#[derive(Debug)]
pub(super) struct Wanted {
    protocol: Protocol,
    answer: oneshot::Sender<io::Result<Pipe>>,
}

impl Wanted {
    pub(super) fn new(protocol: Protocol, answer: oneshot::Sender<io::Result<Pipe>>) -> Self {
        Self { protocol, answer }
    }

    fn answer(self, result: io::Result<Pipe>) {
        if self.answer.send(result).is_err() {
            tracing::trace!("nobody waits for this stream any more");
        }
    }
}

/// A peer opened a stream.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: PeerId,
    pub(super) protocol: Protocol,
    pub(super) pipe: Pipe,
}

/// The behaviour: knows which connections there are.
#[derive(Default)]
pub(super) struct Streams {
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    waiting: HashMap<PeerId, Vec<Wanted>>,
    queue: VecDeque<ToSwarm<Inbound, Wanted>>,
}

impl Streams {
    /// Opens a stream on the newest connection, dialling when there is none: of several, the older ones are the likelier to
    /// be dead without anybody having noticed.
    pub(super) fn open(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, wanted: Wanted) {
        if let Some(connection) = self.connections.get(&peer).and_then(|all| all.last()) {
            let handler = NotifyHandler::One(*connection);
            self.queue.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: wanted });
            return;
        }
        let waiting = self.waiting.entry(peer).or_default();
        // What nobody waits for any more takes no place from the others.
        waiting.retain(|wanted| !wanted.answer.is_closed());
        if waiting.len() >= WAITING_PER_PEER_MAX {
            return wanted.answer(Err(io::Error::other("too many streams wait for this peer")));
        }
        waiting.push(wanted);
        let opts = DialOpts::peer_id(peer).addresses(addresses).extend_addresses_through_behaviour();
        let opts = opts.condition(PeerCondition::DisconnectedAndNotDialing).build();
        self.queue.push_back(ToSwarm::Dial { opts });
    }

    fn dial_failed(&mut self, peer: &PeerId, error: &DialError) {
        // Another dial is under way, or a connection is there: its end decides.
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        for wanted in self.waiting.remove(peer).unwrap_or_default() {
            wanted.answer(Err(io::Error::new(io::ErrorKind::NotConnected, error.to_string())));
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = StreamsHandler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Another behaviour may still deny this connection: the waiting streams go to one that is established.
        Ok(StreamsHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(StreamsHandler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id: peer, connection_id, .. }) => {
                self.connections.entry(peer).or_default().push(connection_id);
                for event in self.waiting.remove(&peer).unwrap_or_default() {
                    let handler = NotifyHandler::One(connection_id);
                    self.queue.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event });
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, remaining_established, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|id| *id != connection_id);
                }
                if remaining_established == 0 {
                    self.connections.remove(&peer_id);
                }
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. }) => self.dial_failed(&peer, error),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        let (protocol, stream) = event;
        let inbound = Inbound { peer, protocol, pipe: Pipe::new(stream) };
        self.queue.push_back(ToSwarm::GenerateEvent(inbound));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection's part.
#[derive(Default)]
pub(super) struct StreamsHandler {
    wanted: VecDeque<Wanted>,
    inbound: VecDeque<(Protocol, Stream)>,
    negotiating: usize,
}

impl ConnectionHandler for StreamsHandler {
    type FromBehaviour = Wanted;
    type ToBehaviour = (Protocol, Stream);
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Wanted;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(Protocol::ALL.to_vec()), ()).with_timeout(NEGOTIATION_MAX)
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(inbound) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(inbound));
        }
        while self.negotiating < NEGOTIATING_MAX
            && let Some(wanted) = self.wanted.pop_front()
        {
            if wanted.answer.is_closed() {
                continue;
            }
            self.negotiating += 1;
            let offer = Offer(vec![wanted.protocol]);
            let protocol = SubstreamProtocol::new(offer, wanted).with_timeout(NEGOTIATION_MAX);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Wanted>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info: () }) => {
                self.inbound.push_back(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                self.negotiating = self.negotiating.saturating_sub(1);
                info.answer(Ok(Pipe::new(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                self.negotiating = self.negotiating.saturating_sub(1);
                info.answer(Err(match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::NegotiationFailed => io::ErrorKind::Unsupported.into(),
                    StreamUpgradeError::Io(error) => error,
                }));
            }
            _ => {}
        }
    }
}

/// The protocols one side offers for a stream.
#[derive(Debug)]
pub(super) struct Offer(Vec<Protocol>);

/// A protocol by its name on the wire.
#[derive(Clone, Debug)]
pub(super) struct Named(Protocol, StreamProtocol);

impl AsRef<str> for Named {
    fn as_ref(&self) -> &str {
        self.1.as_ref()
    }
}

impl UpgradeInfo for Offer {
    type Info = Named;
    type InfoIter = std::vec::IntoIter<Named>;

    fn protocol_info(&self) -> Self::InfoIter {
        let named: Vec<Named> = self.0.iter().map(|protocol| Named(*protocol, protocol.name())).collect();
        named.into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, named: Named) -> Self::Future {
        ready(Ok((named.0, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, named: Named) -> Self::Future {
        ready(Ok((named.0, stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::ConnectedPoint;

    fn endpoint() -> ConnectedPoint {
        ConnectedPoint::Listener { local_addr: Multiaddr::empty(), send_back_addr: Multiaddr::empty() }
    }

    fn connect(streams: &mut Streams, peer_id: PeerId, connection_id: ConnectionId) {
        streams.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint: &endpoint(),
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    /// The connection on which a stream asked for now is opened.
    fn opened_on(streams: &mut Streams, peer: PeerId) -> ConnectionId {
        streams.open(peer, Vec::new(), Wanted::new(Protocol::Blob, oneshot::channel().0));
        match streams.queue.pop_back() {
            Some(ToSwarm::NotifyHandler { handler: NotifyHandler::One(connection), .. }) => connection,
            other => panic!("not opened: {other:?}"),
        }
    }

    #[test]
    fn streams_go_to_the_newest_connection_and_back_to_the_older_one_when_it_closes() {
        let (mut streams, peer) = (Streams::default(), PeerId::random());
        let [old, new] = [1, 2].map(ConnectionId::new_unchecked);
        connect(&mut streams, peer, old);
        connect(&mut streams, peer, new);
        assert_eq!(opened_on(&mut streams, peer), new);
        streams.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: new,
            endpoint: &endpoint(),
            cause: None,
            remaining_established: 1,
        }));
        assert_eq!(opened_on(&mut streams, peer), old);
    }

    #[test]
    fn questions_nobody_waits_for_any_more_do_not_keep_new_ones_out() {
        let (mut streams, peer) = (Streams::default(), PeerId::random());
        let ask = |streams: &mut Streams| {
            let (answer, mut answered) = oneshot::channel();
            streams.open(peer, Vec::new(), Wanted::new(Protocol::Blob, answer));
            let refused = answered.try_recv().is_ok();
            (answered, refused)
        };
        let patient: Vec<_> = (0..WAITING_PER_PEER_MAX).map(|_| ask(&mut streams)).collect();
        assert!(patient.iter().all(|(_, refused)| !refused));
        assert!(ask(&mut streams).1, "one too many");
        drop(patient);
        assert!(!ask(&mut streams).1);
        assert_eq!(streams.waiting[&peer].len(), 1);
    }
}
