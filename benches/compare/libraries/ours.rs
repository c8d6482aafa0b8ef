//! This library: two backends, borrowed and owned buffers, and the ways of submitting on io_uring.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::net::SocketType;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageWriter, OwnedAncillaryMessage};
use tokio_seqpacket::{
    Backend, Options, SealedMemory, Submission, UnixSeqpacket, UnixSeqpacketListener,
};

use super::{Library, Socket, extras, socketpair, truncated, whole};
use crate::work::{PAYLOAD, Way};

#[derive(Clone)]
pub struct Borrowed(Backend, Submission);
#[derive(Clone)]
pub struct Owned(Backend, Submission);

pub const URING: Borrowed = Borrowed(Backend::Uring, Submission::Adaptive);
pub const RING: Borrowed = Borrowed(Backend::Uring, Submission::Ring);
pub const DIRECT: Borrowed = Borrowed(Backend::Uring, Submission::Direct);
pub const EPOLL: Borrowed = Borrowed(Backend::Epoll, Submission::Adaptive);
pub const URING_OWNED: Owned = Owned(Backend::Uring, Submission::Adaptive);
pub const EPOLL_OWNED: Owned = Owned(Backend::Epoll, Submission::Adaptive);

macro_rules! library {
    ($library:ident, $socket:ident, $no_extras:expr) => {
        impl $library {
            fn options(&self) -> Options {
                Options::new().backend(self.0).submission(self.1)
            }
        }

        impl Library for $library {
            type End = OwnedFd;
            type Socket = $socket;
            type Listener = UnixSeqpacketListener;

            const NO_EXTRAS: Option<&'static str> = $no_extras;

            fn ends(&self) -> io::Result<(OwnedFd, OwnedFd)> {
                socketpair(SocketType::SEQPACKET)
            }

            fn adopt(&self, end: OwnedFd) -> io::Result<$socket> {
                Ok($socket(Arc::new(self.options().socket_from_fd(end)?)))
            }

            fn listen(&self, path: &Path) -> io::Result<UnixSeqpacketListener> {
                self.options().bind(path, 128)
            }

            async fn connect(&self, path: &Path) -> io::Result<$socket> {
                Ok($socket(Arc::new(self.options().connect(path).await?)))
            }

            async fn accept(&self, listener: &mut UnixSeqpacketListener) -> io::Result<$socket> {
                Ok($socket(Arc::new(listener.accept().await?)))
            }
        }
    };
}

library!(Borrowed, BorrowedCalls, None);
library!(Owned, OwnedCalls, Some("as where buffers are borrowed"));

pub struct BorrowedCalls(Arc<UnixSeqpacket>);
pub struct OwnedCalls(Arc<UnixSeqpacket>);

impl Socket for BorrowedCalls {
    async fn send(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        whole(self.0.send(message).await?, message)
    }

    async fn recv(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.0.recv(buffer).await
    }

    async fn send_descriptor(
        &mut self,
        message: &mut Vec<u8>,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut space = [0; 64];
        let mut ancillary = AncillaryMessageWriter::new(&mut space);
        ancillary.add_fds(&[descriptor]).map_err(io::Error::other)?;
        whole(self.0.send_with_ancillary(message, &mut ancillary).await?, message)
    }

    async fn recv_descriptor(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<OwnedFd>> {
        let mut space = [0; 64];
        let (_, reader) = self.0.recv_with_ancillary(buffer, &mut space).await?;
        Ok(reader.into_messages().find_map(|message| match message {
            OwnedAncillaryMessage::FileDescriptors(mut fds) => fds.next(),
            _ => None,
        }))
    }

    async fn send_batches(&mut self, count: usize) -> io::Result<()> {
        extras::send_batches(&self.0, count).await
    }

    async fn recv_many(&mut self, way: Way, count: usize) -> io::Result<()> {
        match way {
            Way::Streams => extras::recv_stream(&self.0, count).await,
            Way::Plain | Way::Batches => extras::recv_batches(&self.0, count).await,
        }
    }

    async fn serve_stream(self, at_once: usize) -> io::Result<()> {
        extras::serve(&self.0, at_once).await
    }

    async fn ask_stream(&mut self, at_once: usize, count: usize) -> io::Result<()> {
        extras::ask(&self.0, at_once, count).await
    }

    async fn send_sealed(&mut self, payload: &SealedMemory) -> io::Result<()> {
        whole(self.0.send_large(b"payload", payload).await?, b"payload")
    }

    async fn recv_sealed(&mut self) -> io::Result<SealedMemory> {
        let (_, payload) = self.0.recv_large(&mut [0; 16], PAYLOAD).await?;
        payload.ok_or_else(truncated)
    }

    fn share(&self) -> io::Result<Self> {
        Ok(Self(self.0.clone()))
    }
}

impl Socket for OwnedCalls {
    async fn send(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        let (sent, returned) = self.0.send_owned(std::mem::take(message)).await;
        *message = returned;
        whole(sent?, message)
    }

    async fn recv(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (received, filled) = self.0.recv_owned(std::mem::take(buffer)).await;
        *buffer = filled;
        Ok(received?.bytes_read())
    }

    async fn send_descriptor(
        &mut self,
        message: &mut Vec<u8>,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut ancillary = AncillaryBuffer::new();
        ancillary.push_fd(descriptor.try_clone_to_owned()?)?;
        let taken = std::mem::take(message);
        let (sent, returned, _) = self.0.send_owned_with_ancillary(taken, ancillary).await;
        *message = returned;
        whole(sent?, message)
    }

    async fn recv_descriptor(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<OwnedFd>> {
        let taken = std::mem::take(buffer);
        let (received, filled, mut ancillary) =
            self.0.recv_owned_with_ancillary(taken, AncillaryBuffer::new()).await;
        *buffer = filled;
        received.map(drop)?;
        Ok(ancillary.take_fds().pop())
    }

    fn share(&self) -> io::Result<Self> {
        Ok(Self(self.0.clone()))
    }
}
