//! What a system call and a batch cost on this machine. Measured when the first ring is made, and kept for the process.

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Instant;

use crate::common::metrics::CounterCells;
use crate::common::policy::Costs;
use crate::sys;
use crate::uring::ring::{Operation, Ring};
use crate::uring::support::Unavailable;

static COSTS: OnceLock<Costs> = OnceLock::new();

/// Returns what system calls and batches cost in this process, if a ring has been made.
pub(crate) fn known_costs() -> Option<&'static Costs> {
    COSTS.get()
}

/// Returns what system calls and batches cost in this process. The first ring measures it, in some 100 us.
///
/// # Errors
/// Fails if the kernel refuses to run entries. The caller drops the ring then: entries of a batch may be left in its queue.
pub(crate) fn costs(ring: &mut Ring) -> Result<Costs, Unavailable> {
    if let Some(costs) = COSTS.get() {
        return Ok(*costs);
    }
    let measured = measure(ring)?;
    Ok(*COSTS.get_or_init(|| measured))
}

/// Measures receives that find nothing, one by one and in batches. Filters and audit differ by system call, so the measured
/// call is one that a batch saves.
fn measure(ring: &mut Ring) -> Result<Costs, Unavailable> {
    const ROUNDS: usize = 5;
    const SINGLES: usize = 8;
    let Ok((socket, _peer)) = sys::socketpair() else {
        return Ok(Costs { call: 200.0, enter: 450.0 });
    };
    let (fd, counters) = (socket.as_fd(), CounterCells::default());
    let size = ring.receives_at_once();
    let mut best = [f32::MAX; 3];
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..size {
            let _ = sys::recv(fd, &mut [0; 64]);
        }
        let called = Instant::now();
        let batch = std::iter::repeat_n(Operation::Recv(fd), size);
        ring.run(batch, &counters, |_, _| {})?;
        let batched = Instant::now();
        for _ in 0..SINGLES {
            ring.run(std::iter::once(Operation::Recv(fd)), &counters, |_, _| {})?;
        }
        let times =
            [(called - begin, size), (batched - called, size), (batched.elapsed(), SINGLES)];
        for (best, (time, count)) in best.iter_mut().zip(times) {
            *best = best.min(time.as_nanos() as f32 / count as f32);
        }
    }
    let [call, batched, single] = best;
    // A batch costs an enter and its operations.
    let enter = ((single - batched) / (1.0 - 1.0 / size as f32)).max(0.0);
    Ok(Costs { call, enter })
}
