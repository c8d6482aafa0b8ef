use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::lane::Lane;
use crate::{async_fd, sys};

/// A listening socket, registered with the runtime's I/O driver.
#[derive(Debug)]
pub(crate) struct Listener {
    io: AsyncFd<FileDesc>,
    accept: Lane,
}

impl Listener {
    /// `fd` is non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { io: async_fd::register(fd)?, accept: Lane::new() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.io.into_inner().into_fd()
    }

    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        let _turn = self.accept.turn().await;
        self.io.async_io(Interest::READABLE, |fd| sys::accept(fd.as_fd())).await
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let _turn = ready!(self.accept.poll_turn(cx));
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            if let Ok(result) = guard.try_io(|io| sys::accept(io.get_ref().as_fd())) {
                return Poll::Ready(result);
            }
        }
    }
}
