//! What a closed ring may still write to, kept until it cannot.
//!
//! Closing a ring does not end its operations at once: the kernel cancels them later, in its own
//! time. Their payloads wait here. Pure: what tells that a ring's context is gone is a parameter.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::payload::{InFlight, ReceivePayload};
use super::ring::{ContextGone, ContextWatch};
use super::state::Core;
use crate::foreign;
use crate::outgoing::Outgoing;

/// Tells when what was buried with it may be freed.
pub(super) trait Watch {
    type Proof;

    fn gone(&self) -> Option<Self::Proof>;
}

pub(super) struct Graveyard<W, R> {
    graves: Vec<(W, R)>,
}

impl<W: Watch, R> Graveyard<W, R> {
    pub(super) const fn new() -> Self {
        Self { graves: Vec::new() }
    }

    pub(super) fn bury(&mut self, watch: W, remains: R) {
        self.graves.push((watch, remains));
    }

    /// What may be freed now.
    pub(super) fn sweep(&mut self) -> Vec<(W::Proof, R)> {
        let mut free = Vec::new();
        let mut at = 0;
        while let Some((watch, _)) = self.graves.get(at) {
            match watch.gone() {
                Some(proof) => free.push((proof, self.graves.swap_remove(at).1)),
                None => at += 1,
            }
        }
        free
    }
}

/// Payloads of operations whose completions nobody will see, and whose they were: a caller who gave
/// a buffer away waits for it.
#[derive(Default)]
pub(super) struct Remains {
    pub(super) receives: Vec<(Weak<Core>, InFlight<ReceivePayload>)>,
    pub(super) sends: Vec<(Weak<Core>, usize, InFlight<Outgoing>)>,
}

impl Remains {
    pub(super) fn is_empty(&self) -> bool {
        self.receives.is_empty() && self.sends.is_empty()
    }

    fn free(self, gone: &ContextGone) {
        for (core, receive) in self.receives {
            let room = receive.exhumed(gone).bury();
            match core.upgrade() {
                Some(core) => core.room_is_back(room),
                None => foreign::release(room),
            }
        }
        for (core, slot, send) in self.sends {
            let payload = send.exhumed(gone);
            match core.upgrade() {
                Some(core) => core.payload_is_back(slot, payload),
                None => foreign::release(payload),
            }
        }
    }
}

impl Watch for ContextWatch {
    type Proof = ContextGone;

    fn gone(&self) -> Option<ContextGone> {
        Self::gone(self)
    }
}

struct Kept {
    graveyard: Graveyard<ContextWatch, Remains>,
    /// A thread sweeps until there is nothing left.
    has_sweeper: bool,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { graveyard: Graveyard::new(), has_sweeper: false });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keep what the kernel may still write to.
pub(super) fn bury(watch: ContextWatch, remains: Remains) {
    let mut kept = kept();
    kept.graveyard.bury(watch, remains);
    if !kept.has_sweeper {
        let thread = thread::Builder::new().name("seqpacket-sweep".into());
        // Without a thread, the next driver sweeps, whenever that comes.
        kept.has_sweeper = thread.spawn(sweep_until_empty).is_ok();
    }
}

/// The last ring of a process must not leave descriptors open for want of another: their peers would
/// wait for an end that does not come. A thread, since a runtime that shuts down must not wait. The kernel
/// takes some 35 to 70 ms; after ten seconds it is left to the next driver.
fn sweep_until_empty() {
    for pause in [5, 10, 20, 20, 20, 20, 50, 100, 200, 500, 1000, 2000, 5000] {
        thread::sleep(Duration::from_millis(pause));
        sweep();
        let mut kept = kept();
        if kept.graveyard.graves.is_empty() {
            kept.has_sweeper = false;
            return;
        }
    }
    kept().has_sweeper = false;
}

/// Free what can be freed. Called when a driver comes or goes, by callers who wait for a buffer, and by
/// a thread as long as there is something.
pub(super) fn sweep() {
    let free = kept().graveyard.sweep();
    for (gone, remains) in free {
        remains.free(&gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    impl Watch for Rc<Cell<bool>> {
        type Proof = ();

        fn gone(&self) -> Option<()> {
            self.get().then_some(())
        }
    }

    #[test]
    fn remains_stay_until_their_own_ring_is_gone() {
        let rings: Vec<_> = (0..3).map(|_| Rc::new(Cell::new(false))).collect();
        let mut graveyard = Graveyard::new();
        for (number, ring) in rings.iter().enumerate() {
            graveyard.bury(ring.clone(), number);
        }
        assert!(graveyard.sweep().is_empty());
        rings[1].set(true);
        assert_eq!(graveyard.sweep(), [((), 1)]);
        assert!(graveyard.sweep().is_empty());
        rings[0].set(true);
        rings[2].set(true);
        let mut rest: Vec<_> = graveyard.sweep().into_iter().map(|(_, number)| number).collect();
        rest.sort_unstable();
        assert_eq!(rest, [0, 2]);
    }
}
