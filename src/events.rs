//! Events for whoever runs a service, with the feature `tracing`; nothing without it. They tell what the
//! library does by itself and returns no error for. Nothing here is on the way of a message.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::io;
use std::path::Path;

/// `auto` would have taken io_uring, and a ring could not be had.
pub(crate) fn fell_back(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "no ring can be had, epoll is used instead of io_uring");
}

/// Incoming connections wait for descriptors or memory.
pub(crate) fn accept_waits(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "connections are not accepted until there is room for them");
}

pub(crate) fn connection_aborted(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::debug!(%error, "a connection was gone before it was accepted");
}

pub(crate) fn removes_stale(path: &Path) {
    #[cfg(feature = "tracing")]
    tracing::info!(path = %path.display(), "removes a socket file at which nobody listens");
}
