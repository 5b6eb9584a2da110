//! The bare libp2p stream that `bench/run` holds transfers between peers against: TCP, our TLS, yamux, and nothing above them.
//!
//! `bare_stream serve BYTES` prints a multiaddr and then sends so many zeros on every stream that is opened.
//! `bare_stream copy MULTIADDR` opens one stream, reads it to its end, and prints bytes and seconds as JSON.
#![expect(clippy::print_stdout, reason = "it is a program of its own, and its output is its answer")]

#[path = "../src/swarm/cipher.rs"]
mod cipher;

use cipher::Tls;
use futures::future::poll_fn;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, Transport as _, TransportEvent};
use libp2p::core::{Endpoint, upgrade};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, tcp, yamux};
use std::error::Error;
use std::io;
use std::task::Poll;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// As the daemon reads and writes bodies.
const STEP_BYTES: usize = 256 * 1024;
/// As `swarm/transport.rs` has it.
const STREAMS_MAX: usize = 64;

fn transport() -> Result<Boxed<(PeerId, StreamMuxerBox)>, Box<dyn Error>> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(STREAMS_MAX);
    let tls = Tls::new(&Keypair::generate_ed25519())?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    Ok(tcp.upgrade(upgrade::Version::V1Lazy).authenticate(tls).multiplex(muxer).boxed())
}

/// The connection's own work, which a swarm does in a task of its own too; ends with the connection.
async fn drive(mut muxer: StreamMuxerBox, opened: mpsc::Sender<SubstreamBox>) {
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(stream) = muxer.poll_inbound_unpin(cx) {
                return Poll::Ready(stream.map(Some));
            }
            muxer.poll_unpin(cx).map_ok(|_| None)
        });
        match next.await {
            // Who does not serve drops what is opened.
            Ok(Some(stream)) => drop(opened.send(stream).await),
            Ok(None) => {}
            // A connection's end is how every copy ends.
            Err(_) => return,
        }
    }
}

/// Sends `bytes` zeros to whoever asks with one byte.
async fn answer(mut stream: SubstreamBox, bytes: u64) -> io::Result<()> {
    let mut asked = [0];
    stream.read_exact(&mut asked).await?;
    let zeros = vec![0; STEP_BYTES];
    let mut left = bytes;
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP_BYTES);
        stream.write_all(zeros.get(..step).unwrap_or_default()).await?;
        left -= step as u64;
    }
    stream.close().await
}

async fn serve(bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut transport = transport()?;
    transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse()?)?;
    let mut tasks = JoinSet::new();
    while let Some(event) = transport.next().await {
        match event {
            TransportEvent::NewAddress { listen_addr, .. } => println!("{listen_addr}"),
            TransportEvent::Incoming { upgrade, .. } => {
                tasks.spawn(async move {
                    let Ok((_, muxer)) = upgrade.await else { return };
                    let (opened, mut streams) = mpsc::channel(1);
                    let mut connection = JoinSet::new();
                    connection.spawn(drive(muxer, opened));
                    while let Some(stream) = streams.recv().await {
                        connection.spawn(async move { answer(stream, bytes).await.unwrap_or_default() });
                    }
                });
            }
            _ => {}
        }
    }
    Ok(())
}

async fn copy(address: Multiaddr) -> Result<(), Box<dyn Error>> {
    let mut transport = transport()?;
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut muxer) = transport.dial(address, options)?.await?;
    let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await?;
    let (opened, _no_one_opens) = mpsc::channel(1);
    let mut connection = JoinSet::new();
    connection.spawn(drive(muxer, opened));
    let started = Instant::now();
    stream.write_all(&[1]).await?;
    stream.flush().await?;
    let (mut bytes, mut step) = (0, vec![0; STEP_BYTES]);
    loop {
        match stream.read(&mut step).await? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    println!("{{\"bytes\": {bytes}, \"seconds\": {}}}", started.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", bytes] => serve(bytes.parse()?).await,
        ["copy", address] => copy(address.parse()?).await,
        _ => Err("usage: bare_stream serve BYTES | bare_stream copy MULTIADDR".into()),
    }
}
