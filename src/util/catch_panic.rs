//! User code that the library runs on behalf of other tasks: wakers, and destructors of owned buffers.
//!
//! A driver works for all sockets of its runtime, and a panic that unwound through it would end them all. The panic
//! hook reports the panic, and it ends here, as the panic of a task ends with the task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes another task.
pub(crate) fn wake(waker: Waker) {
    contain(|| waker.wake());
}

/// Drops a value that may contain buffers of the caller's.
pub(crate) fn release<T>(value: T) {
    if std::mem::needs_drop::<T>() {
        contain(|| drop(value));
    }
}

/// Wakes all waiting tasks. A panic in one waker can keep others from being woken.
pub(crate) fn announce(notify: &tokio::sync::Notify) {
    contain(|| notify.notify_waiters());
}

fn contain(foreign: impl FnOnce()) {
    // The library's own state is not touched in there, so it cannot be left inconsistent.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(foreign)) {
        // Dropping the panic might panic again.
        std::mem::forget(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Wake;

    struct Explosive;

    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("as planned: a destructor");
        }
    }

    impl Wake for Explosive {
        fn wake(self: Arc<Self>) {
            // Its own destructor must not panic while this does.
            std::mem::forget(self);
            panic!("as planned: a waker");
        }
    }

    #[test]
    fn panics_end_here() {
        release(Explosive);
        release(Some(Box::new(Explosive)));
        wake(Waker::from(Arc::new(Explosive)));
    }
}
