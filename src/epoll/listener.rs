use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use super::operation::Gate;
use crate::runtime::Life;
use crate::sys;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    accept: Gate,
}

impl Listener {
    /// `fd` is non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { accept: Gate::new(fd, &Life::here()?)? })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.accept.fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.accept.into_fd()
    }

    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        self.accept.operation(sys::accept).await
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.accept.poll_operation(cx, sys::accept)
    }
}
