//! The io_uring backend: messages in batches.
//!
//! Under load the operations of all ready tasks go through one `io_uring_enter(2)`: all sends, then all receives. So a
//! receive finds the message that is sent in the same batch. The driver in [`crate::backend`] makes the batches and decides
//! when. The ring itself is here.
//!
//! - Receives are *attempts*: with `MSG_DONTWAIT` the kernel answers one that finds nothing with `-EAGAIN` at once. It goes
//!   through some more batches. Then its socket waits for readiness as on epoll.
//! - An attempt takes the whole message, whatever the buffer of the receive that claims it ([`recv_slots`]). With `RECVMSG`
//!   it takes all ancillary data, once a receive of the socket has shown interest in any. `RECV` discards it.
//! - Nothing is in flight between two batches ([`ring`]). So there is no cancel, and no buffer is lent for longer than one
//!   system call. A ring that breaks loses nothing: its sockets call directly from then on.

pub(crate) mod costs;
mod operation;
pub(crate) mod probe;
mod recv_slots;
pub(crate) mod ring;
pub(crate) mod support;
