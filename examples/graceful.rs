//! A service that ends well: at Ctrl-C or SIGTERM it takes no new connections, lets those that it has
//! finish for a while, and leaves no socket file.
//!
//! `cargo run --example graceful -- /tmp/graceful.sock` serves: it answers every message with its
//! length. Or started by systemd: a socket that is passed under the name `graceful` is taken instead.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_seqpacket::{Activation, Options, UnixSeqpacket, UnixSeqpacketListener};

/// How long connections may take to finish.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> io::Result<()> {
    // First, so that no signal ends the process before it can remove the file.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = listen()?;
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();

    let mut incoming = listener.incoming()?;
    loop {
        tokio::select! {
            socket = incoming.accept() => {
                connections.spawn(serve(socket?, stopping.clone()));
            }
            Some(ended) = connections.join_next() => report(ended),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }

    // Removes the file, and closes connections that were not accepted.
    drop(listener);
    stop.send_replace(true);
    eprintln!("{} connections to finish", connections.len());
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(PATIENCE, finish).await.is_err() {
        eprintln!("some did not");
    }
    Ok(())
}

fn listen() -> io::Result<UnixSeqpacketListener> {
    if let Some(mut passed) = Activation::from_env()? {
        return passed.listener("graceful");
    }
    let path = std::env::args_os().nth(1).ok_or(io::Error::other("usage: graceful PATH"))?;
    // Only this user may connect. A file that a crash has left is replaced, and none is left behind.
    Options::new().mode(0o600).replace_stale(true).unlink_on_drop(true).bind(path, 128)
}

/// Until the client goes, or between two messages when the service ends: no message is lost or left
/// without an answer, since dropping a receive loses nothing.
async fn serve(socket: UnixSeqpacket, mut stopping: watch::Receiver<bool>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = tokio::select! {
            biased;
            len = socket.recv(&mut buffer) => len?,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        if len == 0 {
            return Ok(());
        }
        socket.send(len.to_string().as_bytes()).await?;
    }
}

fn report(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("a connection failed: {error}"),
        Err(error) => eprintln!("a connection's task failed: {error}"),
    }
}
