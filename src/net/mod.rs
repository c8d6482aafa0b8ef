//! The public API: sockets, listeners, their options, and what is built on them.

// rustdoc lists the methods of a type in the order of these modules.
pub(crate) mod options;

mod connect;

pub(crate) mod socket;

pub(crate) mod listener;

pub(crate) mod messages;
pub(crate) mod owned_send_batch;
pub(crate) mod send_batch;

#[cfg(feature = "codec")]
pub mod codec;
#[cfg(feature = "codec")]
pub(crate) mod framed;
pub(crate) mod sealed_memory;

mod from_fd;
mod from_raw_fd;

mod address_error;
mod backoff;
mod places;
pub(crate) mod send_error;
