//! The io_uring backend.

mod buffers;
mod driver;
mod graveyard;
mod lane;
#[cfg(test)]
mod model;
mod payload;
pub(crate) mod probe;
mod ring;
mod shard;
mod socket;

pub(crate) use socket::Socket;
