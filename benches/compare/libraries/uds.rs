//! The crate uds with its tokio feature.

#![allow(unsafe_code, reason = "uds hands out received descriptors as numbers")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use uds::nonblocking;
use uds::tokio::{UnixSeqpacketConn, UnixSeqpacketListener};

use super::{Library, Socket, whole};

#[derive(Clone)]
pub struct Uds;

impl Library for Uds {
    type End = nonblocking::UnixSeqpacketConn;
    type Socket = UnixSeqpacketConn;
    type Listener = UnixSeqpacketListener;

    const NO_SHARING: Option<&'static str> = Some("uds sends through &mut self");

    fn ends(&self) -> io::Result<(Self::End, Self::End)> {
        nonblocking::UnixSeqpacketConn::pair()
    }

    fn adopt(&self, end: Self::End) -> io::Result<UnixSeqpacketConn> {
        UnixSeqpacketConn::from_nonblocking(end)
    }

    fn listen(&self, path: &Path) -> io::Result<UnixSeqpacketListener> {
        UnixSeqpacketListener::bind(path)
    }

    async fn connect(&self, path: &Path) -> io::Result<UnixSeqpacketConn> {
        UnixSeqpacketConn::connect(path)
    }

    async fn accept(&self, listener: &mut UnixSeqpacketListener) -> io::Result<UnixSeqpacketConn> {
        Ok(listener.accept().await?.0)
    }
}

impl Socket for UnixSeqpacketConn {
    async fn send(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        whole(UnixSeqpacketConn::send(self, message).await?, message)
    }

    async fn recv(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        UnixSeqpacketConn::recv(self, buffer).await
    }

    async fn send_descriptor(
        &mut self,
        message: &mut Vec<u8>,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        whole(self.send_fds(message, &[descriptor.as_raw_fd()]).await?, message)
    }

    async fn recv_descriptor(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<OwnedFd>> {
        let mut numbers = [-1];
        let (_, _, count) = self.recv_fds(buffer, &mut numbers).await?;
        // SAFETY: the kernel has just installed this descriptor, and uds keeps no copy of the number.
        Ok((count == 1).then(|| unsafe { OwnedFd::from_raw_fd(numbers[0]) }))
    }
}
