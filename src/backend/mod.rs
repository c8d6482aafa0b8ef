//! Which backend a socket runs on, and what both are made of.
//!
//! | module | what |
//! |---|---|
//! | [`select`](mod@select) | the choice of a backend, and of how io_uring is used |
//! | [`socket`], [`listener`] | the calls |
//! | [`recv`], [`send`] | the futures: from the first poll to a result or a drop |
//! | [`sink`] | what each kind of receive does with its message |
//! | [`core`] | a socket as its calls, its drivers and its waker know it |
//! | [`driver`] | the task of each worker that works for all sockets |
//! | [`worker`] | a worker: the inbox of its driver, its ring, its load |
//! | [`runtime`], [`runtimes`] | a tokio runtime with its workers; those of this process |
//! | [mod@metrics] | what they counted |
//!
//! A backend supplies how operations are *run*; waiting, order and cancellation are the same on both. epoll runs each by a
//! system call ([`crate::sys`]) and waits by [`crate::epoll::readiness`]. io_uring adds [`crate::uring::ring::Ring::run`]: a
//! batch of operations in, an answer for each out, and nothing left in the kernel. A third backend would supply the same.

mod core;
mod driver;
mod listener;
mod metrics;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod recv;
mod runtime;
mod runtimes;
mod select;
mod send;
mod sink;
mod socket;
mod worker;

pub(crate) use listener::Listener;
pub use metrics::{Counters, Metrics, Mode, WorkerMetrics, metrics};
pub(crate) use recv::Receive;
pub use runtimes::busy_poll;
pub(crate) use select::{Choice, select};
pub(crate) use send::WaitingSend;
pub(crate) use sink::{BytesSink, PlainSink, Sink};
pub(crate) use socket::Socket;
