//! tokio-seqpacket: 0.8.2, the same within tokio's cooperative budget, and 0.9.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::net::SocketType;
use tokio::task::coop::cooperative;

use super::{Library, Socket, socketpair, whole};

#[derive(Clone)]
pub struct Current;
/// Its calls never yield by themselves, so that a busy task keeps its worker from all others. Those of tokio's
/// own sockets and of this library do.
#[derive(Clone)]
pub struct Budgeted;
#[derive(Clone)]
pub struct Next;

/// What the calls are wrapped in, and how a receive returns the length.
macro_rules! library {
    ($library:ident, $socket:ident, $package:ident, $wrap:expr, $len:expr) => {
        pub struct $socket(Arc<$package::UnixSeqpacket>);

        impl Library for $library {
            type End = OwnedFd;
            type Socket = $socket;
            type Listener = $package::UnixSeqpacketListener;

            fn ends(&self) -> io::Result<(OwnedFd, OwnedFd)> {
                socketpair(SocketType::SEQPACKET)
            }

            fn adopt(&self, end: OwnedFd) -> io::Result<$socket> {
                Ok($socket(Arc::new(end.try_into()?)))
            }

            fn listen(&self, path: &Path) -> io::Result<Self::Listener> {
                $package::UnixSeqpacketListener::bind(path)
            }

            async fn connect(&self, path: &Path) -> io::Result<$socket> {
                Ok($socket(Arc::new($package::UnixSeqpacket::connect(path).await?)))
            }

            async fn accept(&self, listener: &mut Self::Listener) -> io::Result<$socket> {
                Ok($socket(Arc::new(listener.accept().await?)))
            }
        }

        impl Socket for $socket {
            async fn send(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
                whole($wrap(self.0.send(message)).await?, message)
            }

            async fn recv(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
                Ok($len($wrap(self.0.recv(buffer)).await?))
            }

            async fn send_descriptor(
                &mut self,
                message: &mut Vec<u8>,
                descriptor: BorrowedFd<'_>,
            ) -> io::Result<()> {
                let mut space = [0; 64];
                let mut ancillary = $package::ancillary::AncillaryMessageWriter::new(&mut space);
                let descriptors = [descriptor];
                ancillary.add_fds(&descriptors).map_err(io::Error::other)?;
                let parts = [IoSlice::new(message)];
                let sent = self.0.send_vectored_with_ancillary(&parts, &mut ancillary);
                whole($wrap(sent).await?, message)
            }

            async fn recv_descriptor(
                &mut self,
                buffer: &mut Vec<u8>,
            ) -> io::Result<Option<OwnedFd>> {
                use $package::ancillary::OwnedAncillaryMessage;
                let mut space = [0; 64];
                let mut parts = [IoSliceMut::new(buffer)];
                let received = self.0.recv_vectored_with_ancillary(&mut parts, &mut space);
                let (_, reader) = $wrap(received).await?;
                Ok(reader.into_messages().find_map(|message| match message {
                    OwnedAncillaryMessage::FileDescriptors(mut fds) => fds.next(),
                    _ => None,
                }))
            }

            fn share(&self) -> io::Result<Self> {
                Ok(Self(self.0.clone()))
            }
        }
    };
}

fn same<T>(value: T) -> T {
    value
}

library!(Current, CurrentSocket, tokio_seqpacket_upstream, same, same);
library!(Budgeted, BudgetedSocket, tokio_seqpacket_upstream, cooperative, same);
library!(
    Next,
    NextSocket,
    tokio_seqpacket_next,
    same,
    |info: tokio_seqpacket_next::MessageInfo| { info.bytes_read() }
);
