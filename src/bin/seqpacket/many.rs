//! `listen --clients`: several connections at once. Each message of stdin goes to all of them.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_seqpacket::UnixSeqpacketListener;

use crate::stdio::{Input, Outgoing};
use crate::talk::{End, Session, Source};
use crate::{endpoint, show};

/// A sender to one client's task.
type Feed = mpsc::Sender<io::Result<Arc<Outgoing>>>;

/// How many messages of stdin a client may be behind the fastest one.
const BEHIND: usize = 16;

pub async fn serve(
    session: &Arc<Session>,
    listener: &UnixSeqpacketListener,
    input: Input,
    limit: u16,
) -> io::Result<()> {
    let mut incoming = listener.incoming()?;
    let (join, joining) = mpsc::unbounded_channel();
    let mut stdin = std::pin::pin!(distribute(input, joining));
    let mut clients = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = endpoint::accept(&mut incoming), if clients.len() < usize::from(limit) => {
                let socket = accepted?;
                number += 1;
                let (feed, input) = mpsc::channel(BEHIND);
                // `stdin` lives as long as this loop.
                let _ = join.send(feed);
                let session = session.clone();
                clients.spawn(async move {
                    session.trace(Some(number), || match socket.peer_cred() {
                        Ok(peer) => format!("connected: {}", show::sender(peer)),
                        Err(error) => format!("connected: {error}"),
                    });
                    let mut source = Source { input, pending: None };
                    let end = session.talk(&socket, Some(number), &mut source).await;
                    if let Err(error) = &end {
                        session.note(Some(number), error);
                    }
                    matches!(end, Ok(End::Enough))
                });
            }
            Some(done) = clients.join_next() => {
                if done.expect("a client's task does not panic") {
                    return Ok(());
                }
            }
            error = &mut stdin => return Err(error),
        }
    }
}

/// Hands each message of the input to all clients, and waits for the slowest. While there is none, the message waits.
/// Completes with what is wrong with the input.
async fn distribute(mut input: Input, mut joining: mpsc::UnboundedReceiver<Feed>) -> io::Error {
    let mut feeds: Vec<Feed> = Vec::new();
    let mut pending: Option<Arc<Outgoing>> = None;
    let mut ended = false;
    loop {
        feeds.retain(|feed| !feed.is_closed());
        if !feeds.is_empty()
            && let Some(message) = pending.take()
        {
            for feed in &feeds {
                // It may have gone by now.
                let _ = feed.send(Ok(message.clone())).await;
            }
            continue;
        }
        tokio::select! {
            // A client that came before a message gets it.
            biased;
            Some(feed) = joining.recv() => if !ended {
                feeds.push(feed);
            },
            message = input.recv(), if !ended && !feeds.is_empty() => match message {
                Some(Ok(message)) => pending = Some(message),
                Some(Err(error)) => return error,
                None => {
                    ended = true;
                    feeds.clear();
                }
            },
        }
    }
}
