//! The epoll backend: readiness from tokio's I/O driver, then a direct system call.
//!
//! A receive or accept happens inside one poll, so dropping its future cannot lose anything.
//! What tokio's readiness alone does not give is order: everybody who waits for the same direction
//! is woken at once. Here each direction has a line ([`lane`], [`crate::lane`]): those who have to wait
//! stand there, first polled, first served; only the first waits for readiness and calls the kernel,
//! and in the sending direction he does so for all.
//!
//! A socket is registered with epoll while its calls have to wait ([`registration`]): a busy one is not.
//!
//! Safe code only: the descriptor is registered in `crate::async_fd`, called in `crate::sys`.

mod lane;
mod listener;
mod operation;
mod registration;
mod send;
mod socket;

pub(crate) use listener::Listener;
pub(crate) use send::Waiting;
pub(crate) use socket::{Recv, Socket};
