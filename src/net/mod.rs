//! The public API: sockets, listeners, their options, and what is built on them.

pub(crate) mod backoff;
pub(crate) mod connect;
#[cfg(feature = "codec")]
pub(crate) mod framed;
mod from_raw_fd;
pub(crate) mod listener;
pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod sealed_memory;
pub(crate) mod send_batch;
pub(crate) mod send_error;
pub(crate) mod socket;
