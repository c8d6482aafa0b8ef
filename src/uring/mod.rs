//! The io_uring backend: messages in batches.
//!
//! Under load the operations of all ready tasks go through one `io_uring_enter(2)`: all sends, then all receives, so that
//! a receive finds the message that is sent in the same batch. [`crate::backend`] has the driver that makes the batches, and
//! decides when; here is the ring itself.
//!
//! - Receives are *attempts*: `MSG_DONTWAIT` has one that finds nothing answered `-EAGAIN` at once. It goes through
//!   some more batches, then its socket waits for readiness as on epoll.
//! - An attempt takes the whole message, whatever the buffer of the receive that claims it ([`recv_slots`]), and with
//!   `RECVMSG` all ancillary data, once a receive of the socket has shown interest in any. `RECV` discards it.
//! - Nothing is in flight between two batches ([`ring`]): no cancel, no buffer lent for longer than one system call, and a
//!   ring that breaks takes nothing with it: its sockets call directly from then on.

pub(crate) mod costs;
pub(crate) mod probe;
mod recv_slots;
pub(crate) mod ring;
pub(crate) mod support;
