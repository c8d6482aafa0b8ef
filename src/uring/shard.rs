//! A ring, what waits to be submitted to it, and what is in flight on it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use slab::Slab;

use super::ring::{Completion, ContextWatch, Refused, Ring, Submission};
use super::state::{Core, Direction};
use crate::foreign;

/// A lane with an operation in flight, which keeps its socket.
pub(super) struct Lane {
    pub(super) core: Arc<Core>,
    pub(super) direction: Direction,
}

/// A lane that a driver is to attend to, unless its socket is gone by then: being listed does not
/// keep a socket open.
pub(super) struct Listed {
    pub(super) core: Weak<Core>,
    pub(super) direction: Direction,
}

impl Listed {
    pub(super) fn upgrade(self) -> Option<Lane> {
        Some(Lane { core: self.core.upgrade()?, direction: self.direction })
    }
}

/// The part of a runtime's driver that belongs to one worker.
pub(super) struct Shard {
    index: u16,
    /// `None` once the shard is dead. The driver task has the ring as well.
    ring: Mutex<Option<Arc<Ring>>>,
    inbox: Mutex<Inbox>,
    table: Mutex<Table>,
    cycle: AtomicU64,
}

struct Inbox {
    list: Vec<Listed>,
    /// The driver task is going to look at the list without being woken.
    awake: bool,
    waker: Option<Waker>,
    dead: bool,
}

/// Operations in flight, by key.
struct Table {
    entries: Slab<Entry>,
    generation: u16,
}

struct Entry {
    lane: Lane,
    generation: u16,
}

/// The shard is dead: its runtime is gone, or its ring refuses service.
#[derive(Debug)]
pub(super) struct Dead;

impl Shard {
    pub(super) fn new(
        index: u16,
        cooperative: bool,
    ) -> io::Result<(Arc<Self>, Arc<Ring>, ContextWatch)> {
        let (ring, watch) = Ring::new(cooperative)?;
        let ring = Arc::new(ring);
        let shard = Arc::new(Self {
            index,
            ring: Mutex::new(Some(ring.clone())),
            inbox: Mutex::new(Inbox { list: Vec::new(), awake: false, waker: None, dead: false }),
            table: Mutex::new(Table { entries: Slab::new(), generation: 0 }),
            cycle: AtomicU64::new(0),
        });
        Ok((shard, ring, watch))
    }

    /// The shard that a key belongs to.
    pub(super) fn index_of(key: u64) -> u16 {
        (key >> 48) as u16
    }

    /// Have the driver attend to a lane.
    pub(super) fn push(&self, listed: Listed) -> Result<(), Dead> {
        let waker = {
            let mut inbox = lock(&self.inbox);
            if inbox.dead {
                return Err(Dead);
            }
            inbox.list.push(listed);
            if inbox.awake {
                return Ok(());
            }
            inbox.awake = true;
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Move what was pushed to `into`. From now on until [`park`](Self::park) the driver is awake.
    pub(super) fn take_pushed(&self, into: &mut Vec<Listed>) {
        let mut inbox = lock(&self.inbox);
        inbox.awake = true;
        if into.is_empty() {
            std::mem::swap(&mut inbox.list, into);
        } else {
            into.append(&mut inbox.list);
        }
    }

    /// Have the driver look, whatever there is.
    pub(super) fn rouse(&self) {
        let waker = {
            let mut inbox = lock(&self.inbox);
            inbox.awake = true;
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The number of the driver's current cycle.
    pub(super) fn cycle(&self) -> u64 {
        self.cycle.load(Ordering::Relaxed)
    }

    pub(super) fn next_cycle(&self) {
        self.cycle.fetch_add(1, Ordering::Relaxed);
    }

    /// The driver goes to sleep until it is woken; not if something has been pushed meanwhile.
    pub(super) fn park(&self, waker: &Waker) -> bool {
        let mut inbox = lock(&self.inbox);
        if !inbox.list.is_empty() {
            return false;
        }
        inbox.awake = false;
        match &mut inbox.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
        true
    }

    /// A key for an operation of this lane, which is in flight from now on.
    pub(super) fn reserve(&self, lane: Lane) -> u64 {
        let mut table = lock(&self.table);
        table.generation = table.generation.wrapping_add(1);
        let generation = table.generation;
        let slot = table.entries.insert(Entry { lane, generation });
        (u64::from(self.index) << 48) | (u64::from(generation) << 32) | slot as u64
    }

    /// The lane whose operation has completed.
    pub(super) fn settle(&self, completion: &Completion) -> Option<Lane> {
        let mut table = lock(&self.table);
        let slot = (completion.key() & 0xffff_ffff) as usize;
        let generation = (completion.key() >> 32) as u16;
        if table.entries.get(slot)?.generation != generation {
            return None;
        }
        Some(table.entries.remove(slot).lane)
    }

    /// Cancel an operation from any thread, and reap what that settles at once.
    pub(super) fn cancel_now(&self, key: u64) {
        let Some(ring) = lock(&self.ring).clone() else { return };
        if self.try_cancel(&ring, key).is_err() {
            // The cancel is still in the queue. The driver tries again, and learns what is broken.
            self.rouse();
        }
    }

    fn try_cancel(&self, ring: &Ring, key: u64) -> Result<(), Refused> {
        ring.submit(&[Submission::cancel(key)], || self.reap_all(ring))?;
        self.reap_all(ring);
        if ring.has_deferred_work() {
            ring.get_events()?;
            self.reap_all(ring);
        }
        Ok(())
    }

    /// Take all completions and settle them; wake whom that concerns.
    pub(super) fn reap_all(&self, ring: &Ring) {
        let (mut completions, mut wakes) = (Vec::new(), Vec::new());
        self.reap(ring, &mut completions, &mut wakes);
        wakes.into_iter().for_each(foreign::wake);
    }

    /// Take all completions and settle them. `completions` is scratch space; whom to wake goes to
    /// `wakes`. How many there were.
    pub(super) fn reap(
        &self,
        ring: &Ring,
        completions: &mut Vec<Completion>,
        wakes: &mut Vec<Waker>,
    ) -> usize {
        let mut total = 0;
        loop {
            completions.clear();
            let taken = ring.reap(completions, 256);
            total += taken;
            let alone = completions.len() == 1 && total == 1;
            for completion in completions.drain(..) {
                if let Some(Lane { core, direction }) = self.settle(&completion) {
                    core.complete(direction, completion, self, alone, wakes);
                }
            }
            if taken == 0 {
                return total;
            }
        }
    }

    /// From now on nothing can be pushed. What had been is returned, and the ring, if nobody has
    /// taken it yet.
    pub(super) fn kill(&self) -> (Vec<Listed>, Option<Arc<Ring>>) {
        let list = {
            let mut inbox = lock(&self.inbox);
            inbox.dead = true;
            inbox.waker = None;
            std::mem::take(&mut inbox.list)
        };
        (list, lock(&self.ring).take())
    }

    /// How many operations are in flight.
    pub(super) fn in_flight(&self) -> usize {
        lock(&self.table).entries.len()
    }

    /// The lanes of all operations that are in flight, which will not be settled any more.
    pub(super) fn take_in_flight(&self) -> Vec<Lane> {
        lock(&self.table).entries.drain().map(|entry| entry.lane).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks runs foreign code or panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
