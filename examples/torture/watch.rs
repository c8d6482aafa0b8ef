//! Readiness and peeks: calls that go by them, and others beside all calls.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::Interest;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageWriter};
use tokio_seqpacket::{MessageInfo, UnixSeqpacket};

use crate::arrive::Came;
use crate::message::{HEADER, Header};
use crate::report::Count;
use crate::side::Side;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What a call goes by before it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `readable` or `writable`.
    Direction,
    /// `ready` with both interests.
    Both,
    /// `poll_recv_ready` or `poll_send_ready`.
    Poll,
    /// Receives only.
    Peek,
    PollPeek,
}

impl By {
    pub fn draw(rng: &mut Rng) -> Self {
        [By::Direction, By::Both, By::Poll, By::Peek, By::PollPeek][rng.usize(..5)]
    }

    pub fn draw_for_send(rng: &mut Rng) -> Self {
        [By::Direction, By::Both, By::Poll][rng.usize(..3)]
    }
}

/// Receives when readiness, or a peek, says that there is something.
pub async fn receive(side: &Side, by: By, capacity: usize) -> io::Result<Came> {
    let socket = &side.socket;
    loop {
        match by {
            By::Direction => socket.readable().await?,
            // Mostly it says that the other direction is ready.
            By::Both if !socket.ready(BOTH).await?.is_readable() => socket.readable().await?,
            By::Both => {}
            By::Poll => std::future::poll_fn(|cx| socket.poll_recv_ready(cx)).await?,
            By::Peek => peek(side).await?,
            By::PollPeek => {
                let last = last(side);
                let mut bytes = [0; HEADER];
                let polled = std::future::poll_fn(|cx| socket.poll_peek(cx, &mut bytes));
                seen(side, last, polled.await?, &bytes);
            }
        }
        match try_receive(socket, capacity) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => {
                side.count(Count::ByReadiness, 1);
                return result;
            }
        }
    }
}

pub fn try_receive(socket: &UnixSeqpacket, capacity: usize) -> io::Result<Came> {
    let buffers = (Vec::with_capacity(capacity), AncillaryBuffer::new());
    let (info, bytes, mut ancillary) = socket.try_recv_owned_with_ancillary(buffers.0, buffers.1);
    Ok(Came::owned(bytes, info?, capacity).with_fds(ancillary.take_fds(), 253))
}

/// Sends when readiness says that there is capacity. The message has no place among others before it goes out.
pub async fn send(side: &Side, by: By, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let socket = &side.socket;
    loop {
        match by {
            By::Both if !socket.ready(BOTH).await?.is_writable() => socket.writable().await?,
            By::Both => {}
            By::Poll => std::future::poll_fn(|cx| socket.poll_send_ready(cx)).await?,
            _ => socket.writable().await?,
        }
        match try_send(socket, bytes, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => {
                side.count(Count::ByReadiness, 1);
                return result;
            }
        }
    }
}

pub fn try_send(socket: &UnixSeqpacket, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.is_empty() {
        return socket.try_send(bytes);
    }
    let mut control = vec![0; 64 + 4 * fds.len()];
    let mut ancillary = AncillaryMessageWriter::new(&mut control);
    ancillary.add_fds(fds)?;
    socket.try_send_vectored_with_ancillary(&[IoSlice::new(bytes)], &mut ancillary)
}

async fn peek(side: &Side) -> io::Result<()> {
    let last = last(side);
    let mut bytes = [0; HEADER];
    let info = side.socket.peek(&mut bytes).await?;
    seen(side, last, info, &bytes);
    Ok(())
}

fn last(side: &Side) -> u64 {
    side.received.lock().unwrap().last
}

/// What a peek has seen: nothing that had been received before it began.
fn seen(side: &Side, last: u64, info: MessageInfo, bytes: &[u8; HEADER]) {
    side.count(Count::Peeks, 1);
    if info.bytes_read() == 0 {
        return;
    }
    match Header::decode(&bytes[..info.bytes_read()]) {
        Err(error) => side.fail(&format!("a peek: {error}")),
        Ok(header) if header.len as usize != info.message_len() => {
            let reported = info.message_len();
            side.fail(&format!("a peek says that a message has {reported} bytes: {header:?}"));
        }
        Ok(header) => {
            if header.sequence <= last || !header.is_for(side) {
                side.fail(&format!("a peek after #{last} sees what is not there: {header:?}"));
            }
        }
    }
}

/// Waits for readiness and peeks beside all other calls. Some of these futures are dropped, some left alone.
pub async fn beside(side: Arc<Side>, mut rng: Rng) {
    loop {
        let socket = &side.socket;
        let until = Duration::from_micros(rng.u64(..8000));
        let form = rng.u8(..4);
        let watched = async {
            match form {
                0 => socket.ready(BOTH).await.map(drop),
                1 => socket.readable().await,
                2 => socket.writable().await,
                _ => peek(&side).await,
            }
        };
        side.count(Count::Watched, 1);
        let mut watched = std::pin::pin!(watched);
        let mut first = Err(());
        if rng.u8(..4) == 0 {
            // Polled once, then left alone.
            first = tokio::time::timeout(Duration::ZERO, &mut watched).await.map_err(drop);
            tokio::time::sleep(until).await;
        }
        if first.is_err() && rng.bool() {
            first = tokio::time::timeout(until, watched).await.map_err(drop);
        }
        match first {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => side.reset(),
            Ok(Err(_)) if side.is_closing() => return,
            Ok(Err(error)) => side.fail(&format!("readiness or a peek: {error}")),
            Ok(Ok(())) | Err(()) => {}
        }
        tokio::time::sleep(until).await;
    }
}
