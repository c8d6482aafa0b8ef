//! Spans and events for operators of a service, with the feature `tracing`. Without it there are none. Events report what the
//! library does by itself and returns no error for. Spans are the lives of sockets and listeners, and the accepting of
//! connections. No message passes through here.
#![cfg_attr(not(feature = "tracing"), allow(unused_imports, unused_variables))]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::types::backend::Backend;

/// Filters name the crate, not a module of it.
#[cfg(feature = "tracing")]
const TARGET: &str = "tokio_seqpacket";

/// The span of a socket or a listener. It is open until that is dropped or its descriptor given away. No message enters it.
///
/// Like tokio's spans of its resources it has no parent: it would keep the parent open for as long as it lives. It follows
/// from the span in which it was made.
#[derive(Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(not(feature = "tracing"))]
const _: () = assert!(size_of::<Span>() == 0);

impl Span {
    pub(crate) fn socket(backend: Backend, fd: BorrowedFd<'_>) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: followed(
                tracing::debug_span!(target: TARGET, parent: None, "socket", %backend, fd = fd.as_raw_fd()),
            ),
        }
    }

    pub(crate) fn listener(backend: Backend, fd: BorrowedFd<'_>) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: followed(
                tracing::debug_span!(target: TARGET, parent: None, "listener", %backend, fd = fd.as_raw_fd()),
            ),
        }
    }

    /// Makes a socket of what this listener has accepted.
    pub(crate) fn accept<T>(&self, fd: OwnedFd, make: impl FnOnce(OwnedFd) -> T) -> T {
        #[cfg(feature = "tracing")]
        let _accept =
            tracing::debug_span!(target: TARGET, parent: &self.span, "accept", fd = fd.as_raw_fd())
                .entered();
        make(fd)
    }

    /// Reports that incoming connections wait for descriptors or memory.
    pub(crate) fn accept_waits(&self, error: &io::Error) {
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            tracing::warn!(target: TARGET, %error, "connections are not accepted until there is room for them");
        });
    }

    /// Reports that a connection of this user was closed and not yielded.
    pub(crate) fn connection_refused(&self, user: libc::uid_t, why: &str) {
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            tracing::debug!(target: TARGET, user, why, "a connection was refused");
        });
    }

    pub(crate) fn connection_aborted(&self, error: &io::Error) {
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            tracing::debug!(target: TARGET, %error, "a connection was gone before it was accepted");
        });
    }
}

#[cfg(feature = "tracing")]
fn followed(span: tracing::Span) -> tracing::Span {
    span.follows_from(tracing::Span::current());
    span
}

/// Reports that `auto` would have taken io_uring, and that no ring could be made.
pub(crate) fn fell_back(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, %error, "no ring can be had, epoll is used instead of io_uring");
}

/// Reports that a worker begins to batch the operations of its tasks, or stops.
pub(crate) fn changed_mode(batched: bool, operations: f32) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, batched, operations, "a worker changes how it submits");
}

/// Reports that a ring is gone: its sockets call directly from now on.
pub(crate) fn lost_ring(why: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, why, "a ring is gone, system calls are used instead");
}

pub(crate) fn removes_stale(path: &Path) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, path = %path.display(), "removes a socket file that no process listens at");
}
