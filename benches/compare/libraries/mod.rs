//! Libraries whose sockets live in a tokio runtime, behind one trait.

use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio_seqpacket::SealedMemory;

use crate::work::Way;

mod extras;
pub mod ours;
pub mod tokio_net;
pub mod uds;
pub mod upstream;

/// A library and the way of calling it.
pub trait Library: Clone + Send + Sync + 'static {
    /// One side of a pair before a runtime has it.
    type End: Send + 'static;
    type Socket: Socket;
    type Listener: Send + 'static;

    /// Why messages carry no descriptors, if so.
    const NO_DESCRIPTORS: Option<&'static str> = None;
    /// Why several tasks cannot send on one socket, if so.
    const NO_SHARING: Option<&'static str> = None;
    /// Why there are no listeners, if so.
    const NO_LISTENER: Option<&'static str> = None;
    /// Why it has no part in rows of streams, batches, busy polling and sealed memory, if so.
    const NO_EXTRAS: Option<&'static str> =
        Some("without streams, batches, busy polling and sealed memory");

    fn ends(&self) -> io::Result<(Self::End, Self::End)>;
    /// In the runtime that has been entered.
    fn adopt(&self, end: Self::End) -> io::Result<Self::Socket>;

    fn listen(&self, path: &Path) -> io::Result<Self::Listener>;
    fn connect(&self, path: &Path) -> impl Future<Output = io::Result<Self::Socket>> + Send;
    fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// A buffer is as long as its message, before and after a call.
pub trait Socket: Sized + Send + 'static {
    fn send(&mut self, message: &mut Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;

    /// The message's length, 0 at the end.
    fn recv(&mut self, buffer: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> + Send;

    fn send_descriptor(
        &mut self,
        _message: &mut Vec<u8>,
        _descriptor: BorrowedFd<'_>,
    ) -> impl Future<Output = io::Result<()>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn recv_descriptor(
        &mut self,
        _buffer: &mut Vec<u8>,
    ) -> impl Future<Output = io::Result<Option<OwnedFd>>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// So many messages of [`SMALL`](crate::work::SMALL) bytes, in batches.
    fn send_batches(&mut self, _count: usize) -> impl Future<Output = io::Result<()>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// So many messages, by a stream or in batches.
    fn recv_many(
        &mut self,
        _way: Way,
        _count: usize,
    ) -> impl Future<Output = io::Result<()>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Send back what a stream receives, until the peer goes. It has so many messages under way at a time.
    fn serve_stream(self, _at_once: usize) -> impl Future<Output = io::Result<()>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// The other side: `count` times as many messages as may be under way, and their answers.
    fn ask_stream(
        &mut self,
        _at_once: usize,
        _count: usize,
    ) -> impl Future<Output = io::Result<()>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn send_sealed(
        &mut self,
        _payload: &SealedMemory,
    ) -> impl Future<Output = io::Result<()>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn recv_sealed(&mut self) -> impl Future<Output = io::Result<SealedMemory>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// The same socket, for another task.
    fn share(&self) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A non-blocking pair.
pub fn socketpair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

pub fn truncated() -> io::Error {
    io::Error::other("a message was truncated")
}

/// A message is sent whole.
pub fn whole(sent: usize, message: &[u8]) -> io::Result<()> {
    if sent == message.len() { Ok(()) } else { Err(truncated()) }
}
