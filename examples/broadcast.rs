//! A broadcast server for thousands of clients: what one client sends, all others receive.
//!
//!     cargo run --release --example broadcast -- /tmp/broadcast
//!     cargo run --release --example broadcast -- --demo 1000
//!
//! Each client has a task that reads its messages as a stream, several with one system call, and one
//! that writes what others have sent, as batches. A client that does not read is left behind: it learns how many
//! messages it missed, and no other client waits for it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_seqpacket::{MessagesOptions, OwnedSendBatch, UnixSeqpacket, UnixSeqpacketListener};

/// The sending client, and the message.
#[derive(Clone)]
struct Shared {
    from: usize,
    bytes: Arc<[u8]>,
}

/// Messages that a client may be behind.
const BACKLOG: usize = 1024;

/// Messages that go out with one call.
const BATCH: usize = 32;

async fn serve(listener: UnixSeqpacketListener) -> io::Result<()> {
    let (sender, _) = broadcast::channel(BACKLOG);
    for id in 0.. {
        let socket = Arc::new(listener.accept().await?);
        tokio::spawn(read(id, socket.clone(), sender.clone()));
        tokio::spawn(write(id, socket, sender.subscribe()));
    }
    Ok(())
}

async fn read(id: usize, socket: Arc<UnixSeqpacket>, sender: Sender<Shared>) -> io::Result<()> {
    let mut messages = socket.messages(MessagesOptions::new().buffers(16).size(4096))?;
    while let Some(message) = messages.next().await {
        let message = message?;
        if message.info().truncated() {
            eprintln!(
                "client {id}: a message of {} bytes is too long",
                message.info().message_len()
            );
            continue;
        }
        // An error says that no client listens.
        let _ = sender.send(Shared { from: id, bytes: message[..].into() });
    }
    // End of stream: a client that closed its end wants nothing more either.
    socket.shutdown(std::net::Shutdown::Both)
}

async fn write(
    id: usize,
    socket: Arc<UnixSeqpacket>,
    mut shared: Receiver<Shared>,
) -> io::Result<()> {
    let notice = |missed| Arc::from(format!("{missed} messages missed").into_bytes());
    let mut batch = OwnedSendBatch::new();
    loop {
        match shared.recv().await {
            Ok(message) if message.from == id => {}
            Ok(message) => batch.push(message.bytes),
            Err(RecvError::Lagged(missed)) => batch.push(notice(missed)),
            Err(RecvError::Closed) => return Ok(()),
        }
        while batch.len() < BATCH {
            match shared.try_recv() {
                Ok(message) if message.from == id => {}
                Ok(message) => batch.push(message.bytes),
                Err(TryRecvError::Lagged(missed)) => batch.push(notice(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        batch.send(&socket).await?;
        batch.clear();
    }
}

/// Many clients, one of which speaks.
async fn demo(clients: usize) -> io::Result<()> {
    const MESSAGES: usize = 100;
    let directory = std::env::temp_dir().join(format!("broadcast-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let path = directory.join("socket");
    let server = tokio::spawn(serve(UnixSeqpacketListener::bind(&path)?));

    let speaker = UnixSeqpacket::connect(&path).await?;
    let mut listening = Vec::new();
    for _ in 0..clients {
        let socket = UnixSeqpacket::connect(&path).await?;
        listening.push(tokio::spawn(async move {
            let mut messages = socket.messages(MessagesOptions::new().buffers(32).size(256))?;
            let mut received = 0;
            while received < MESSAGES {
                let message = messages.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
                received += usize::from(message.starts_with(b"news"));
            }
            io::Result::Ok(())
        }));
    }
    // All of them have been accepted when a message of the last one's connection would be read; the
    // server takes them in order, so it is enough that a message of its has come back to the speaker.
    let last = UnixSeqpacket::connect(&path).await?;
    last.send(b"hello").await?;
    speaker.recv(&mut [0; 16]).await?;

    let begin = Instant::now();
    for n in 0..MESSAGES {
        speaker.send(format!("news {n}").as_bytes()).await?;
    }
    for client in listening {
        tokio::time::timeout(Duration::from_secs(60), client).await???;
    }
    let took = begin.elapsed();
    println!(
        "{MESSAGES} messages to {clients} clients on {} in {took:.0?}: {:.0} ns each",
        speaker.backend(),
        took.as_nanos() as f64 / (MESSAGES * clients) as f64
    );
    server.abort();
    std::fs::remove_dir_all(directory)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [demo_flag, clients] if demo_flag == "--demo" => {
            let clients = clients.parse().map_err(|_| io::Error::other("a number of clients"))?;
            demo(clients).await
        }
        [path] => {
            let listener = UnixSeqpacketListener::bind(path)?;
            println!("listening at {path}; Ctrl-C ends it");
            tokio::select! {
                served = serve(listener) => served?,
                signal = tokio::signal::ctrl_c() => signal?,
            }
            std::fs::remove_file(path)
        }
        _ => {
            eprintln!("usage: broadcast PATH | broadcast --demo CLIENTS");
            std::process::exit(2);
        }
    }
}
