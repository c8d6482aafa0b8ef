//! Code of the user's that runs on behalf of others: wakers, and destructors of owned buffers.
//!
//! A driver works for all sockets of its runtime, and so does a task that sends for those in line.
//! A panic that came out of there would end them all, half-way. It is reported by the panic hook, and
//! ends here, as the panic of a task ends with the task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wake somebody else.
pub(crate) fn wake(waker: Waker) {
    contain(|| waker.wake());
}

/// Drop what may have buffers of the user's in it.
pub(crate) fn release<T>(value: T) {
    if std::mem::needs_drop::<T>() {
        contain(|| drop(value));
    }
}

fn contain(foreign: impl FnOnce()) {
    // Nothing of ours is touched in there, hence nothing can be left inconsistent.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(foreign)) {
        // Dropping it might panic again.
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
