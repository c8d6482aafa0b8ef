//! A listening socket: readiness and `accept4(2)` on both backends. Only the accepted sockets differ.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use super::recv::Receive;
use super::runtimes;
use super::select::Choice;
use super::sink::AcceptSink;
use super::socket::Socket;
use crate::types::backend::Backend;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// A socket as on epoll: it has no messages.
    inner: Socket,
    choice: Choice,
}

impl Listener {
    /// Creates a listener of a descriptor that is non-blocking and listens.
    pub(crate) fn new(mut choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        if choice.backend == Backend::Uring
            && let Err(error) =
                runtimes::here().and_then(|runtime| runtime.some_worker().ensure_ring())
        {
            if !choice.may_fall_back {
                return Err(error);
            }
            crate::common::trace::fell_back(&error);
            choice.backend = Backend::Epoll;
        }
        let inner = Socket::new(fd, None).map_err(|(error, _)| error)?;
        Ok(Self { inner, choice: choice.as_listener() })
    }

    /// Returns the choice for the sockets that it accepts.
    pub(crate) fn choice(&self) -> Choice {
        self.choice
    }

    pub(crate) fn backend(&self) -> Backend {
        self.choice.backend
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    /// Makes accepted sockets take control data along.
    pub(crate) fn want_control(&self) {
        self.inner.want_control();
    }

    pub(crate) fn wants_control(&self) -> bool {
        self.inner.core().wants_control()
    }

    /// Limits how many descriptors a message to an accepted socket brings.
    pub(crate) fn set_max_fds(&self, most: usize) {
        self.inner.set_max_fds(most);
    }

    pub(crate) fn max_fds(&self) -> usize {
        self.inner.max_fds()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.inner.into_fd()
    }

    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        Receive::new(self.inner.core(), AcceptSink).await
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.inner.core().poll_receive(cx, &mut AcceptSink)
    }
}
