//! The runtimes of this process that have sockets.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};

use super::core::{Runtime, Worker};
use super::driver::DriverTask;
use super::runtime::{self, Hooks};

/// An id can be used again when its runtime is gone. The entry is removed before that.
static RUNTIMES: Mutex<Option<HashMap<Id, Weak<Runtime>>>> = Mutex::new(None);

/// Returns the current runtime.
///
/// # Errors
/// Fails without a runtime, or while it shuts down.
pub(crate) fn here() -> io::Result<Arc<Runtime>> {
    let handle = Handle::try_current().map_err(|_| runtime::missing())?;
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

/// Makes receives of the current runtime's sockets spin before their task is parked.
///
/// A receive that finds no message asks the kernel again for at most `duration`. Zero, as it is from the start, parks at
/// once. This applies to receives that begin after this call, on both backends.
///
/// It is for two sides on different threads that answer each other quickly: waking a parked thread takes longer than most
/// answers. The price is a core that is busy while it waits. It makes one `recv(2)` after the other, for 4 µs at a time.
/// Then ready tasks, I/O events and timers run. So it pays best on a runtime whose threads have nothing else to do.
///
/// # Errors
/// Fails without a runtime, or while it shuts down.
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
