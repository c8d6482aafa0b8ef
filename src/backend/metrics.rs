//! [`Metrics`]: what the library did for the sockets of a runtime.

use std::io;
use std::ops::Add;

use super::core::Runtime;
use super::runtimes;
use crate::common::metrics::Counter;

/// Returns the counters of the current runtime's sockets, since its first socket.
///
/// On epoll only [`parked`](Counters::parked) counts: the others are about the ring.
/// [`UnixSeqpacket::counters`](crate::UnixSeqpacket::counters) counts messages on both backends.
///
/// They cost a load and a store for each operation. They are exact where one thread counts. An increment can be lost where
/// two threads meet.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Options, Submission, metrics};
///
/// let (a, b) = Options::new().submission(Submission::Ring).pair()?;
/// for _ in 0..10 {
///     a.send(b"through the ring, if there is one").await?;
///     b.recv(&mut [0; 64]).await?;
/// }
/// let counters = metrics()?.total();
/// println!("{:.1} operations for each io_uring_enter(2)", counters.operations_per_enter());
/// # Ok(()) }
/// ```
///
/// # Errors
/// Fails outside a runtime, or while it shuts down.
pub fn metrics() -> io::Result<Metrics> {
    Ok(runtimes::here()?.metrics())
}

/// Holds the counters of a runtime, by worker.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// a.send(b"message").await?;
/// b.recv(&mut [0; 64]).await?;
/// for worker in tokio_seqpacket::metrics()?.workers {
///     println!("{:?}: {:?}", worker.mode, worker.counters);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// The workers that sockets have used. A current_thread runtime has one.
    pub workers: Vec<WorkerMetrics>,
    /// From how many operations on batches are tried. For fewer, an `io_uring_enter(2)` costs more than it can save. `None`
    /// before the first ring is made.
    pub threshold: Option<f32>,
}

/// Holds the mode, the load and the counters of one worker of a runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Mode, metrics};
///
/// let (_a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// // Nothing to batch yet.
/// assert!(metrics()?.workers.iter().all(|worker| worker.mode == Mode::Direct));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// [`Mode::Batched`] where the load of this worker is one for batches, and the runtime finds batches faster or is trying
    /// them. Adaptive sockets of all workers batch while the driver of one such worker is at work.
    pub mode: Mode,
    /// The operations of a batch, on average. In [`Mode::Direct`], the operations that a batch would have had.
    pub operations: f32,
    /// What was done.
    pub counters: Counters,
}

/// Says how adaptive sockets of a worker submit their operations.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Mode, metrics};
///
/// let batched = metrics()?.workers.iter().filter(|worker| worker.mode == Mode::Batched).count();
/// assert_eq!(batched, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By system calls of their own.
    Direct,
    /// In batches, through the ring.
    Batched,
}

/// Holds what was counted.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// a.send(b"message").await?;
/// assert_eq!(b.recv(&mut [0; 64]).await?, 7);
/// let counters = tokio_seqpacket::metrics()?.total();
/// assert!(counters.submissions >= counters.empty_attempts);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Sends and receives that were system calls of their own and did not have to wait. Sockets on io_uring only.
    pub direct_calls: u64,
    /// Operations that went through a ring.
    pub submissions: u64,
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Receives that went through a ring and found nothing.
    pub empty_attempts: u64,
    /// How often an operation had to wait for readiness. On both backends.
    pub parked: u64,
    /// Operations that a ring refused, and that were made by a system call.
    pub refused: u64,
    /// How often the worker began to batch.
    pub begins: u64,
    /// How often it stopped.
    pub ends: u64,
}

impl Metrics {
    /// Returns the sum over all workers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (_a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(tokio_seqpacket::metrics()?.total().submissions, 0);
    /// # Ok(()) }
    /// ```
    pub fn total(&self) -> Counters {
        self.workers.iter().fold(Counters::default(), |sum, worker| sum + worker.counters)
    }
}

impl Counters {
    /// Returns how many operations went through a ring with each `io_uring_enter(2)`. 0 if none did.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (_a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(tokio_seqpacket::metrics()?.total().operations_per_enter(), 0.0);
    /// # Ok(()) }
    /// ```
    pub fn operations_per_enter(&self) -> f64 {
        if self.enters == 0 { 0.0 } else { self.submissions as f64 / self.enters as f64 }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            direct_calls: self.direct_calls + other.direct_calls,
            submissions: self.submissions + other.submissions,
            enters: self.enters + other.enters,
            empty_attempts: self.empty_attempts + other.empty_attempts,
            parked: self.parked + other.parked,
            refused: self.refused + other.refused,
            begins: self.begins + other.begins,
            ends: self.ends + other.ends,
        }
    }
}

impl Runtime {
    fn metrics(&self) -> Metrics {
        let workers = self.known_workers().map(|worker| {
            let get = |counter| worker.counters.get(counter);
            WorkerMetrics {
                mode: if worker.is_batched() { Mode::Batched } else { Mode::Direct },
                operations: worker.average(),
                counters: Counters {
                    direct_calls: get(Counter::DirectCalls),
                    submissions: get(Counter::Submissions),
                    enters: get(Counter::Enters),
                    empty_attempts: get(Counter::EmptyAttempts),
                    parked: get(Counter::Parked),
                    refused: get(Counter::Refused),
                    begins: get(Counter::Batched),
                    ends: get(Counter::Direct),
                },
            }
        });
        let threshold = crate::uring::costs::known_costs().map(|costs| costs.threshold());
        Metrics { workers: workers.collect(), threshold }
    }
}
