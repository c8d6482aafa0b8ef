//! [`Places`]: how many connections of a listener there may be, and how many there are.
//!
//! A connection takes a [`Place`], which its socket owns and drops after its descriptor is closed. One task waits for a
//! place: that of the `Incoming`, which alone takes any. So a free place that it has found is still free when it is taken.
//! Whether one is free is looked up, and the waker stored, under one lock with the release: no wake-up is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use libc::uid_t;

use crate::util::catch_panic;

/// The places of one `Incoming`.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// How many connections there may be. `None`: any number.
    most: Option<usize>,
    /// How many connections of one user there may be. `None`: any number.
    most_per_user: Option<usize>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Users without a connection are not in it.
    users: HashMap<uid_t, usize>,
    waker: Option<Waker>,
}

/// The place of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    user: uid_t,
}

impl Places {
    pub(crate) fn limit(&mut self, most: usize) {
        self.most = Some(most.max(1));
    }

    pub(crate) fn limit_per_user(&mut self, most: usize) {
        self.most_per_user = Some(most.max(1));
    }

    pub(crate) fn are_limited(&self) -> bool {
        self.most.is_some() || self.most_per_user.is_some()
    }

    /// Waits until there may be one more connection.
    pub(crate) fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(most) = self.most else { return Poll::Ready(()) };
        let mut taken = lock(&self.taken);
        let full = taken.count >= most;
        let replaced = if full { taken.waker.replace(cx.waker().clone()) } else { None };
        drop(taken);
        drop(replaced);
        if full { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes a place for a connection of this user. `None` if the user has as many as there may be.
    pub(crate) fn take(&self, user: uid_t) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let of_user = taken.users.get(&user).copied().unwrap_or(0);
        if self.most_per_user.is_some_and(|most| of_user >= most) {
            return None;
        }
        taken.users.insert(user, of_user + 1);
        taken.count += 1;
        drop(taken);
        Some(Place { taken: self.taken.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.count -= 1;
        if let Some(of_user) = taken.users.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.users.remove(&self.user);
            }
        }
        let waker = taken.waker.take();
        drop(taken);
        if let Some(waker) = waker {
            catch_panic::wake(waker);
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Only the cloning of a waker can panic under this lock, and nothing is half done then.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests of `Incoming` run as one user.
    #[test]
    fn users_are_counted_apart_and_forgotten_with_their_last_connection() {
        let mut places = Places::default();
        places.limit_per_user(2);
        let one = [places.take(1), places.take(1)];
        assert!(one.iter().all(Option::is_some));
        assert!(places.take(1).is_none());
        let other = places.take(2);
        assert!(other.is_some());
        drop(one);
        assert_eq!(lock(&places.taken).users, HashMap::from([(2, 1)]));
        assert!(places.take(1).is_some());
        drop(other);
        assert!(lock(&places.taken).users.is_empty());
        assert_eq!(lock(&places.taken).count, 0);
    }
}
