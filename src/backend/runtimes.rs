//! The runtimes of this process that have sockets.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};

use super::core::{Runtime, Worker};
use super::driver::DriverTask;
use super::runtime::Hooks;
use crate::common::async_fd;

/// An id can be used again when its runtime is gone; the entry is removed before.
static RUNTIMES: Mutex<Option<HashMap<Id, Weak<Runtime>>>> = Mutex::new(None);

/// The current runtime.
///
/// # Errors
/// Without a runtime, or while it shuts down.
pub(crate) fn here() -> io::Result<Arc<Runtime>> {
    let handle = Handle::try_current().map_err(|_| async_fd::no_runtime())?;
    let runtime = {
        let mut runtimes = runtimes();
        let runtimes = runtimes.get_or_insert_default();
        if let Some(runtime) = runtimes.get(&handle.id()).and_then(Weak::upgrade) {
            return runtime.check().map(|()| runtime);
        }
        let id = handle.id();
        let runtime = Arc::new(Runtime::new(handle, Hooks { drive, ended }));
        runtimes.insert(id, Arc::downgrade(&runtime));
        runtime
    };
    runtime.worker(0);
    runtime.check().map(|()| runtime)
}

fn drive(runtime: &Arc<Runtime>, worker: &Arc<Worker>) {
    runtime.handle().spawn(DriverTask::new(runtime.clone(), worker.clone()));
}

fn ended(ended: &Arc<Runtime>) {
    if let Some(runtimes) = runtimes().as_mut()
        && runtimes
            .get(&ended.handle().id())
            .is_some_and(|runtime| runtime.as_ptr() == Arc::as_ptr(ended))
    {
        runtimes.remove(&ended.handle().id());
    }
}

fn runtimes() -> MutexGuard<'static, Option<HashMap<Id, Weak<Runtime>>>> {
    RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes receives of the current runtime's sockets spin: one that finds no message asks the kernel again for at most
/// `duration` before its task is parked. Zero, as it is from the start, parks at once.
///
/// For two sides on different threads that answer each other quickly: waking a parked thread takes
/// longer than most answers. The price is a core that looks busy while it waits: one
/// `recv(2)` after the other, 4 µs at a time, then ready tasks, I/O events and timers have their turn.
/// It pays while other tasks are not kept waiting, so best on a runtime whose threads have nothing else
/// to do. Applies to receives that begin after this call, on both backends.
///
/// # Errors
/// Without a runtime, or while it shuts down.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// tokio_seqpacket::busy_poll(std::time::Duration::from_micros(50))?;
/// # Ok(()) }
/// ```
pub fn busy_poll(duration: Duration) -> io::Result<()> {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    here()?.set_busy(nanos);
    Ok(())
}
