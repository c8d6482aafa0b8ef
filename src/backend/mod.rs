//! The choice of a backend, the calls, the futures and the drivers. One body for both backends.
//!
//! # What a backend supplies
//!
//! - **Availability.** Whether it can be used in this process, with a reason if not: [`probe`](crate::uring::probe). epoll always
//!   can. [`select`](mod@select) asks, and an explicit choice that cannot be met is an error.
//! - **Running.** It takes operations ([`Operation`]) and reports each once ([`Completion`]) before it returns. Sends run before receives,
//!   and nothing waits. For io_uring this is [`Ring::run`]. For epoll it is one call in [`crate::sys`] for each operation.
//! - **Nothing left behind.** Once it has reported an operation, the kernel holds no pointer of that operation. If the kernel keeps an
//!   operation and does not answer, the outcome is [`Completion::Unknown`]. Then its memory is leaked, never freed.
//! - **Refusal.** It reports that it no longer works, and which operations were not taken ([`Completion::NotTaken`]). From then on
//!   operations are system calls.
//! - **Cost.** What an operation costs, for the choice between calls and batches: [`known_costs`](crate::uring::costs::known_costs).
//! - **Waiting.** A registration for readiness that calls the socket's own waker: [`Readiness`]. Both backends use this one.
//!
//! It does not supply order, wake-ups, cancellation, fairness or ownership of messages. Those are decided here and in
//! [`crate::common`], the same for both.
//!
//! A third backend is a folder beside `epoll` and `uring`, with an entry in the arrays `layers` and `apart` of `.ci/layers`.
//!
//! - It is a variant of [`Backend`] and of [`Selection`]. [`select`](mod@select) chooses it, and has the values of
//!   `TOKIO_SEQPACKET_BACKEND`.
//! - `Socket::on` and `Listener::new` make sockets for it, and `DriverTask::run_batch` runs its operations.
//! - [`Operation`] and [`Completion`] are in `uring/ring.rs`, since only io_uring has batches. With a second backend that has
//!   them, they would move to `common/`.
//! - These are specific to io_uring and would need a counterpart: `RingState` and `Worker::ensure_ring` (`worker.rs`),
//!   `known_costs` (`uring/costs.rs`), and `Core::submission`, whose `None` means epoll.
//!
//! # Modules
//!
//! [`socket`] and [`listener`] have the calls, [`recv`] and [`send`] the futures, [`sink`] what each kind of receive does with its message. [`core`] is the state of a socket. [`driver`] is
//! the task that works for all sockets of a worker, and [`worker`] has its inbox and its ring. [`runtime`] is a tokio runtime with
//! its workers, and [`runtimes`] has those of this process. [mod@metrics] counts.
//!
//! # The state of an operation
//!
//! A send is *new* until its first poll, then *sent* by a direct call, or *pending* until it is *done*. A task without
//! cooperative budget gets the result of a direct call at its next poll. If a ring breaks and gives no answer, a pending send
//! is done with an error that says so. A receive is *new*, then *served* by a direct
//! call, or it *retries*, *waits* for an attempt, or is *parked* until it claims a message. A future that is dropped takes its
//! operation out of the queue. The tables of [`send_queue`] and [`recv_queue`] say what happens to the message.
//!
//! Four parties touch this state:
//!
//! - *futures* and other calls, on any thread
//! - the *driver* of a worker, in a pass
//! - the socket's own *waker*, which tokio's I/O driver calls
//! - *close*, once, when the socket is dropped or its descriptor handed out
//!
//! | field | who changes it, and when | guarded by |
//! |---|---|---|
//! | `Core::fd` | never changes. Closed with the last `Arc<Core>`: a driver holds one during a pass | |
//! | `Core::closed` | close, to true. [`Worker::list`](worker::Worker::list) reads it, and lists no closed socket | the inbox |
//! | `Core::wants_control` | calls with capacity for ancillary data, to true | atomic |
//! | `RecvDirection::queue`: waiters | futures, when polled or dropped. The driver and the waker take stored wakers out | receive queue |
//! | `RecvDirection::queue`: attempt | `None` to `Queued`: a future, the waker, or the driver again. `Queued` to `None`: the last waiter leaves, close, or the end of the runtime. To and from `Submitted`: only the driver that took the socket from its inbox | receive queue |
//! | `RecvDirection::queue`: completed | the driver puts a message in, while the attempt is `Submitted`. A call that receives claims it, close drops it | receive queue |
//! | `RecvDirection::queue`: left | a stream that ends puts messages in. A call that receives claims them, close drops them | receive queue |
//! | `RecvDirection::policy`, `attempts_left`, `spare` | calls that receive, the driver with a batch's answer, the waker | receive queue |
//! | `RecvDirection::marks` | calls that receive, the driver, and calls that change socket options | receive queue |
//! | `SharedSendQueue`: order, wakers | futures, when polled or dropped. Drivers take the first send out | send queue |
//! | `SharedSendQueue`: `taken` | set and cleared by the one driver that took a send. No other takes one meanwhile | send queue |
//! | a [`PendingSend`] | belongs to the queue (`Waiting`), to the driver (`Taken`), or to the queue again (`Done`). The kernel reads it only during the driver's call | its owner |
//! | `SharedSendQueue`: `idle` | the party that releases the lock of the send queue. Direct sends read it without the lock | atomic |
//! | `Core::readiness` | futures and the driver park. The waker notes that it was called. Operations that did not wait, and close, drop the registration | its own lock |
//! | `Core::notify` | futures wait on it. All parties announce to it after their locks are released | `tokio::sync::Notify` |
//! | `Worker::inbox` | any thread lists sockets. The driver takes all at the start of a pass, close takes its socket out | inbox |
//! | `Worker::ring` | the driver, for one batch, and when it ends. A call that makes a socket makes the ring. The kernel writes to slots only during [`Ring::run`] | ring |
//! | `Worker::loaded`, `batched`, `average` | the driver, after a pass | atomic |
//! | `Worker::calls` | direct calls on any thread. A lost count does no harm | atomic |
//! | `Runtime::over` | the drop of a driver, to true. Every call and future checks it | atomic |
//!
//! The locks, in their order, are in ARCHITECTURE.md.
//!
//! [`Backend`]: crate::types::backend::Backend
//! [`Completion`]: crate::uring::ring::Completion
//! [`Completion::NotTaken`]: crate::uring::ring::Completion::NotTaken
//! [`Completion::Unknown`]: crate::uring::ring::Completion::Unknown
//! [`Operation`]: crate::uring::ring::Operation
//! [`Selection`]: crate::types::backend::Selection
//! [`PendingSend`]: crate::common::pending_send::PendingSend
//! [`Readiness`]: crate::epoll::readiness::Readiness
//! [`Ring::run`]: crate::uring::ring::Ring::run
//! [`recv_queue`]: crate::common::recv_queue
//! [`send_queue`]: crate::common::send_queue

mod core;
mod driver;
mod listener;
mod metrics;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod recv;
mod runtime;
pub(crate) mod runtimes;
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
