//! `other-target uring` and `other-target epoll`: messages there and back, from every kind of buffer, several with one call, and
//! with the most ancillary data that the kernel takes.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::buf::BoundedBufMut;
use tokio_seqpacket::{
    Backend, MessagesOptions, Options, Submission, UCred, UnixSeqpacket, metrics,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// `SCM_MAX_FD`.
const MOST_FDS: usize = 253;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let backend = match std::env::args().nth(1).as_deref() {
        Some("uring") => Backend::Uring,
        Some("epoll") => Backend::Epoll,
        _ => panic!("usage: other-target uring|epoll"),
    };
    match run(backend).await {
        Ok(()) => {
            println!("{backend}: messages came back");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(backend: Backend) -> Result<()> {
    let mut options = Options::new().backend(backend).submission(Submission::Ring);
    options = options.unlink_on_drop(true);
    let listener = options.bind("/socket", 16)?;
    let client = options.connect("/socket").await?;
    let server = listener.accept().await?;
    assert_eq!((client.backend(), server.backend()), (backend, backend));
    tokio::spawn(async move { echo(&server).await.expect("the server works") });

    // `SO_TIMESTAMP` is on in a stream, and its time is hidden.
    let mut messages = client.messages(MessagesOptions::new())?;
    client.send(b"first").await?;
    assert_eq!(&messages.next().await.expect("no end")?[..], b"first");
    drop(messages);

    let mut lent = [0; 64];
    client.send(b"lent").await?;
    let len = client.recv(&mut lent).await?;
    assert_eq!(&lent[..len], b"lent");
    client.send_owned("text").await.0?;
    assert_eq!(received(&client, Vec::with_capacity(64)).await?, b"text");
    client.send_owned(Bytes::from_static(b"bytes")).await.0?;
    assert_eq!(
        received(&client, BytesMut::with_capacity(64)).await?,
        &b"bytes"[..]
    );

    let mut ancillary = AncillaryBuffer::new();
    ancillary.set_credentials(Some(UCred::from_current_process()));
    for _ in 0..MOST_FDS {
        ancillary.push_fd(OwnedFd::from(std::io::pipe()?.0))?;
    }
    let (sent, _, ancillary) = client.send_owned_with_ancillary("most", ancillary).await;
    sent?;
    has_most(&client).await?;
    let mut batch = client.batch();
    batch.push(b"plain");
    batch.push_with_ancillary(b"most", &ancillary)?;
    assert_eq!(batch.send().await?, 2);
    assert_eq!(received(&client, Vec::with_capacity(64)).await?, b"plain");
    has_most(&client).await?;

    let submissions = metrics()?.total().submissions;
    assert_eq!(
        submissions > 0,
        backend == Backend::Uring,
        "{submissions} went through a ring"
    );
    Ok(())
}

/// Sends every message back with what came with it, until the end.
async fn echo(server: &UnixSeqpacket) -> Result<()> {
    server.set_pass_credentials(true)?;
    loop {
        let (info, bytes, mut ancillary) = server
            .recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new())
            .await;
        let info = info?;
        assert!(!info.ancillary_truncated(), "ancillary data was truncated");
        if info.end_of_stream() == Some(true) {
            return Ok(());
        }
        if ancillary.fds().is_empty() {
            ancillary.clear();
        }
        server.send_owned_with_ancillary(bytes, ancillary).await.0?;
    }
}

async fn received<B>(client: &UnixSeqpacket, buffer: B) -> Result<B>
where
    B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
{
    let (info, buffer) = client.recv_owned(buffer).await;
    assert!(!info?.truncated());
    Ok(buffer)
}

async fn has_most(client: &UnixSeqpacket) -> Result<()> {
    let ancillary = AncillaryBuffer::new();
    let (info, bytes, ancillary) = client
        .recv_owned_with_ancillary(Vec::with_capacity(64), ancillary)
        .await;
    assert!(!info?.ancillary_truncated());
    assert_eq!(
        (&bytes[..], ancillary.fds().len()),
        (&b"most"[..], MOST_FDS)
    );
    Ok(())
}
