use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::operation::Gate;
use crate::runtime::Life;
use crate::{async_fd, sys};

/// A listening socket, registered with the runtime's I/O driver.
#[derive(Debug)]
pub(crate) struct Listener {
    io: AsyncFd<FileDesc>,
    accept: Gate,
}

impl Listener {
    /// `fd` is non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let life = Life::here()?;
        Ok(Self { io: async_fd::register(fd, Interest::READABLE)?, accept: Gate::new(&life) })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.io.into_inner().into_fd()
    }

    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        self.accept.operation(&self.io, sys::accept).await
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.accept.poll_operation(&self.io, cx, sys::accept)
    }
}
